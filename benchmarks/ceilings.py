"""What this device can do at most, measured in the same session: a large matrix product and a large copy."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch.utils.benchmark import timer

from equivalences import devices

SIDE = {"cpu": 2048}  # of the matrices; elsewhere 8192
NUMBERS = {"cpu": 2**25}  # that are copied; elsewhere 2**28
ROUNDS = 5


@dataclass(frozen=True)
class Ceilings:
    """Operations a second of a matrix product, and bytes a second (read and written) of a copy, in float32."""

    flops: float
    bytes: float


@lru_cache(maxsize=8)
def ceilings(device: str, threads: int, clock: Callable[[], float] = timer) -> Ceilings:
    """Measured once a session for a device, a number of threads and a clock: the medians of a few rounds."""
    kind = devices.kind(device)
    side, numbers = SIDE.get(kind, 8192), NUMBERS.get(kind, 2**28)
    a, b = torch.rand(side, side, device=device), torch.rand(side, side, device=device)
    product = torch.empty_like(a)
    x = torch.rand(numbers, device=device)
    y = torch.empty_like(x)
    return Ceilings(
        flops=2 * side**3 / _median(lambda: torch.mm(a, b, out=product), clock),
        bytes=2 * 4 * numbers / _median(lambda: y.copy_(x), clock),
    )


def _median(work: Callable[[], object], clock: Callable[[], float]) -> float:
    work()
    times = []
    for _ in range(ROUNDS):
        start = clock()
        work()
        times.append(clock() - start)
    return statistics.median(times)
