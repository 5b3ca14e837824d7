"""What this device can do at most, measured in the same session: a large matrix product and a large copy."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.benchmark import timer

SIDE = {"cpu": 2048}  # of the matrices; elsewhere 8192
NUMBERS = {"cpu": 2**25}  # that are copied; elsewhere 2**28
ROUNDS = 5


@dataclass(frozen=True)
class Ceilings:
    """Operations a second of a matrix product, and bytes a second (read and written) of a copy, in float32."""

    flops: float
    bytes: float


@lru_cache(maxsize=8)
def ceilings(device: str, threads: int) -> Ceilings:
    """Measured once a session for a device and a number of threads: the medians of a few rounds."""
    kind = device.partition(":")[0]
    side, numbers = SIDE.get(kind, 8192), NUMBERS.get(kind, 2**28)
    a, b = torch.rand(side, side, device=device), torch.rand(side, side, device=device)
    product = torch.empty_like(a)
    x = torch.rand(numbers, device=device)
    y = torch.empty_like(x)
    return Ceilings(
        flops=2 * side**3 / _median(lambda: torch.mm(a, b, out=product)),
        bytes=2 * 4 * numbers / _median(lambda: y.copy_(x)),
    )


def _median(work: Callable[[], object]) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        start = timer()
        work()
        times.append(timer() - start)
    return statistics.median(times)
