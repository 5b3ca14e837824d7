"""Does a row's result depend on where it stands, on the number of threads, on the run?  Bit by bit, not by accuracy.

Both answers may be "yes" with every result within its allowance: what depends is a property of the kernels, to be
known by whoever compares runs.  `python -m equivalences invariance` prints the page docs/invariance.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.formats import FORMATS

COUNTS = (2, 9, 67)  # of equal rows; the last: every position of vectors of 64 numbers, and a tail
DRAWN, COLUMNS, SCALE = 8, 5, 3  # rows, and their normal logits
BATCH = 2**17  # rows, enough for a second thread
Run = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Case:
    """A loss as a function of logits with the rows first: per-row results, each with the rows first."""

    name: str
    run: Run
    reduced: bool = False  # the first result is a number for the whole batch


def _with_gradient(loss: Callable[[Tensor], Tensor]) -> Run:
    def run(z: Tensor) -> tuple[Tensor, ...]:
        z = z.detach().requires_grad_()
        value = loss(z)
        (gradient,) = torch.autograd.grad(value.sum(), z)
        return value.detach(), gradient

    return run


def _labels(z: Tensor) -> Tensor:
    return torch.ones(len(z), dtype=torch.long, device=z.device)


def _targets(z: Tensor) -> Tensor:
    return torch.full_like(z, 0.25)


CASES = (
    Case("softmax, classes last", _with_gradient(lambda z: F.softmax(z, 1).square())),
    Case("softmax, classes first", _with_gradient(lambda z: F.softmax(z.t().contiguous(), 0).t().square())),
    Case("log_softmax, classes last", _with_gradient(lambda z: F.log_softmax(z, 1))),
    Case("log_softmax, classes first", _with_gradient(lambda z: F.log_softmax(z.t().contiguous(), 0).t())),
    Case("logsumexp", _with_gradient(lambda z: torch.logsumexp(z, 1))),
    Case("cross_entropy", _with_gradient(lambda z: F.cross_entropy(z, _labels(z), reduction="none"))),
    Case("cross_entropy, soft targets", _with_gradient(lambda z: F.cross_entropy(z, _targets(z), reduction="none"))),
    Case("sigmoid", _with_gradient(torch.sigmoid)),
    Case("logsigmoid", _with_gradient(F.logsigmoid)),
    Case("softplus", _with_gradient(F.softplus)),
    Case(
        "binary_cross_entropy_with_logits",
        _with_gradient(lambda z: F.binary_cross_entropy_with_logits(z, _targets(z), reduction="none")),
    ),
    Case("cross_entropy, mean", _with_gradient(lambda z: F.cross_entropy(z, _labels(z))), reduced=True),
    Case("cross_entropy, soft targets, mean", _with_gradient(lambda z: F.cross_entropy(z, _targets(z))), reduced=True),
    Case(
        "cross_entropy of (N, C, d), mean",
        _with_gradient(lambda z: F.cross_entropy(z[:, :, None].expand(-1, -1, 2), _labels(z)[:, None].expand(-1, 2))),
        reduced=True,
    ),
    Case(
        "binary_cross_entropy_with_logits, mean",
        _with_gradient(lambda z: F.binary_cross_entropy_with_logits(z, _targets(z))),
        reduced=True,
    ),
)
QUANTITIES = ("value", "gradient")

# What may differ.  On the CPU, for vectors of 512 bits: a vector body and a scalar tail that compute exp or log1p in
# different ways ("position"), or a total in as many parts as there are threads ("threads").  On CUDA: a sum along a
# dimension that is not the last, shared by as many threads as the batch leaves for it ("position"), or a total that
# blocks of threads add to as they come ("run").  Anything else that differs is news.
VARIES: dict[str, dict[tuple[str, str], tuple[str, ...]]] = {
    "cpu": {
        ("softmax, classes first", "position"): tuple(FORMATS),
        ("log_softmax, classes first", "position"): ("float64",),
        ("sigmoid", "position"): ("float64",),
        ("softplus", "position"): ("float64", "float32"),
        ("binary_cross_entropy_with_logits", "position"): ("float64",),
        **{
            (name, "threads"): ("float64", "float32")
            for name in ("cross_entropy, soft targets, mean", "binary_cross_entropy_with_logits, mean")
        },
    },
    "cuda": {
        ("softmax, classes first", "position"): ("float64", "float32"),
        ("log_softmax, classes first", "position"): ("float64", "float32"),
        ("cross_entropy of (N, C, d), mean", "run"): ("float64", "float32"),
    },
}
RUNS = 5


def _equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and torch.equal(*(x.reshape(-1).contiguous().view(torch.uint8) for x in (a, b)))


def positions(case: Case, fmt: str, seed: int = 0, device: str = "cpu") -> dict[str, bool]:
    """For value and gradient: whether one row gives the same bits at every place of a batch of 1 to 67 of them."""
    generator = torch.Generator().manual_seed(seed)
    rows = (torch.randn(DRAWN, COLUMNS, generator=generator) * SCALE).to(device, FORMATS[fmt].dtype)
    same = dict.fromkeys(QUANTITIES, True)
    for row in rows:
        alone = case.run(row[None].clone())
        for count in COUNTS:
            for name, want, got in zip(QUANTITIES, alone, case.run(row.expand(count, -1).contiguous()), strict=True):
                same[name] &= _equal(got, want.expand_as(got))
    return same


def threads(case: Case, fmt: str, seed: int = 0) -> dict[str, bool]:
    """For value and gradient: whether one thread and two give the same bits for a large batch."""
    generator = torch.Generator().manual_seed(seed)
    z = (torch.randn(BATCH, COLUMNS, generator=generator) * SCALE).to(FORMATS[fmt].dtype)
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(case.run(z))
    finally:
        torch.set_num_threads(before)
    return {name: _equal(one, two) for name, one, two in zip(QUANTITIES, *found, strict=True)}


def runs(case: Case, fmt: str, device: str, seed: int = 0) -> dict[str, bool]:
    """For value and gradient: whether a large batch gives the same bits whenever it is run."""
    generator = torch.Generator().manual_seed(seed)
    z = (torch.randn(BATCH, COLUMNS, generator=generator) * SCALE).to(device, FORMATS[fmt].dtype)
    found = [case.run(z) for _ in range(RUNS)]
    return {name: all(_equal(found[0][k], other[k]) for other in found) for k, name in enumerate(QUANTITIES)}


def invariants(case: Case, fmt: str, device: str = "cpu") -> dict[str, dict[str, bool]]:
    """Whether value and gradient are the same at every "position", and for both "threads" (elsewhere every "run")."""
    found = {} if case.reduced else {"position": positions(case, fmt, device=device)}
    return found | ({"threads": threads(case, fmt)} if device == "cpu" else {"run": runs(case, fmt, device)})


def measured(device: str = "cpu") -> list[tuple[str, str, str, str]]:
    """What is not invariant: (case, format, quantity, and what it depends on: "position", "threads" or "run")."""
    return [
        (case.name, fmt, name, what)
        for case in CASES
        for fmt in FORMATS
        for what, found in invariants(case, fmt, device).items()
        for name, same in found.items()
        if not same
    ]
