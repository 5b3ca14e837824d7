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
        self._fresh, self._passes = fresh, passes
        self.reset()

    def reset(self) -> None:
        """New, re-seeded tensors."""
        torch.manual_seed(0)
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
    z, y = torch.randn(64, 10, requires_grad=True), torch.randint(10, (64,))
    return lambda: torch.autograd.grad(F.cross_entropy(z, y), z)


def _step() -> Pass:
    """One step of SGD of the 784-32-1 network on 16 rows."""
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
    a, b = torch.randn(256, 256), torch.randn(256, 256)
    return lambda: a @ b


def _adam() -> Pass:
    """One step of fused Adam on the 784-128-10 network: the time goes into memory that is read, changed and written."""
    model = torch.nn.Sequential(torch.nn.Linear(784, 128), torch.nn.ReLU(), torch.nn.Linear(128, 10))
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    return optimizer.step


def _softmax() -> Pass:
    """Softmax of many classes: the time goes into exponentials."""
    z = torch.randn(64, 1000)
    return lambda: F.softmax(z, 1)


def _strided() -> Pass:
    """Log softmax over the first dimension: the time goes into memory that is read in leaps."""
    z = torch.randn(200, 256)
    return lambda: F.log_softmax(z, 0)


def _gather() -> Pass:
    """Rows of a table by their numbers: the time goes into copying."""
    table, rows = torch.randn(12_665, 64), torch.randint(12_665, (256,))
    return lambda: table[rows]


def _small() -> Pass:
    """Arithmetic on single numbers: the time goes into Python and into calls."""
    a, b = torch.randn(()), torch.randn(())
    return lambda: (a * b + a).tanh()


CASES = tuple(
    Case(f"planted/{fresh.__name__.removeprefix('_')}", fresh)
    for fresh in (_loss, _step, _product, _adam, _softmax, _strided, _gather, _small)
)
