"""Work whose slowdown is known: what the comparison itself is tried on, by `benchmarks.versus.experiment`.

A unit is `UNITS` passes of the same work; PLANTED=1 in the environment makes it one pass longer, which is 5 %.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

UNITS = 20
PLANTED = "PLANTED"

Pass = Callable[[], object]


class Planted:
    """So many passes of one kind of work a unit."""

    def __init__(self, fresh: Callable[[], Pass], passes: int) -> None:
        self._fresh, self._passes, self._pass = fresh, passes, fresh()

    def reset(self) -> None:
        """New, re-seeded tensors."""
        self._pass = self._fresh()

    def run(self) -> None:
        """One unit."""
        for _ in range(self._passes):
            self._pass()

    def check(self) -> None:
        """A slowdown cannot be negative."""
        if self._passes < UNITS:
            raise ValueError(f"{self._passes} passes a unit: {PLANTED} must not be negative")


@dataclass(frozen=True)
class Case:
    """One kind of work, by its name."""

    id: str
    fresh: Callable[[], Pass]

    def runs_on(self, device: str) -> bool:
        """On the CPU alone."""
        return device == "cpu"

    def prepare(self, device: str) -> Planted:
        """As many passes longer as the environment says."""
        return Planted(self.fresh, UNITS + int(os.environ.get(PLANTED, "0")))


def _loss() -> Pass:
    """Forward and backward of a small loss: the time goes into dispatching."""
    torch.manual_seed(0)
    z, y = torch.randn(64, 10, requires_grad=True), torch.randint(10, (64,))
    return lambda: torch.autograd.grad(F.cross_entropy(z, y), z)


def _step() -> Pass:
    """One step of SGD of the 784-32-1 network on 16 rows."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(784, 32), torch.nn.ReLU(), torch.nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x, t = torch.rand(16, 784), torch.randint(2, (16, 1)).float()

    def step() -> None:
        optimizer.zero_grad()
        F.binary_cross_entropy_with_logits(model(x), t).backward()
        optimizer.step()

    return step


def _product() -> Pass:
    """A matrix product: the time goes into arithmetic."""
    torch.manual_seed(0)
    a, b = torch.randn(256, 256), torch.randn(256, 256)
    return lambda: a @ b


CASES = (Case("planted/loss", _loss), Case("planted/step", _step), Case("planted/product", _product))
