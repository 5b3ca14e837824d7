"""Conventions: what a wrong number really is, where it is the right one of another convention.

A convention is recognised if it explains every number that is beyond the contract, on several problems, and if no
number that is right speaks against it.  What is explained is within the contract of the exact value by a factor, or of
another problem (labels that are shifted, another smoothing).  Adding a convention is one entry of `CONVENTIONS`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.judging.contract import contract
from equivalences.judging.facts import OUTSIDE, UNDECIDED
from equivalences.model import Identity, Problem
from equivalences.oracle import specification
from equivalences.own.judged import Judged
from equivalences.own.normalisers import divisor, has_mean
from equivalences.running.execute import Place

SEVERAL = 2  # problems that a convention must explain
KEPT = 16  # problems that were right, kept to speak against a convention
SMALL = 4096  # numbers of such a problem, at most


@dataclass(frozen=True, eq=False)
class Reading:
    """A number of a problem, read by a convention: the exact one of `problem`, times `factor`.

    It is within the contract of that problem, or of `like`, times `room`, where PyTorch itself refuses it.
    """

    problem: Problem
    factor: float = 1.0
    like: Problem | None = None
    room: float = 1.0


@dataclass(frozen=True, eq=False)
class Convention:
    """A convention by name, and how it reads a problem (None: it has nothing to say there)."""

    name: str
    read: Callable[[Problem], Reading | None]


def _mean_over(normaliser: str, problem: Problem) -> Reading | None:
    """The sum, divided by something else."""
    if not has_mean(problem):
        return None
    count = divisor(problem, normaliser)
    return Reading(_with(problem, reduction="sum"), 1 / count if count else math.nan)


def _reduced_by(mean: bool, problem: Problem) -> Reading | None:
    """A mean for a sum, or a sum for a mean."""
    right, taken = ("sum", "mean") if mean else ("mean", "sum")
    return Reading(_with(problem, reduction=taken)) if problem.items.get("reduction") == right else None


def _times(factor: float, problem: Problem) -> Reading | None:
    return Reading(problem, factor)


def _shifted(by: int, problem: Problem) -> Reading | None:
    """Another class for each label, of those that are not ignored."""
    y, classes = problem.items.get("y"), np.shape(next(iter(problem.items.values())))[-1]
    if y is None or classes < 2:
        return None
    kept = y != problem.items.get("ignore_index", -100)
    moved = np.where(kept, (y + by) % classes, y)
    if (kept & (moved == problem.items.get("ignore_index", -100))).any():
        return None
    return Reading(_with(problem, y=moved))


def _next_row(problem: Problem) -> Reading | None:
    """The label of the next row (the last row's is the first's)."""
    y = problem.items.get("y")
    if y is None:
        return None
    return Reading(_with(problem, y=np.roll(y, -1)))


def _others_share(problem: Problem) -> Reading | None:
    """Smoothing shared among the K - 1 other classes: that of a K / (K - 1), among all."""
    alpha, shape = problem.items.get("label_smoothing"), np.shape(next(iter(problem.items.values())))
    if alpha is None or len(shape) < 2 or shape[1] < 2:
        return None
    more = shape[1] / (shape[1] - 1)  # each share is larger by this at most, and so is its error
    return Reading(_with(problem, label_smoothing=alpha * more), like=problem, room=more)


def _with(problem: Problem, **items: object) -> Problem:
    return replace(problem, items={**problem.items, **items})


CONVENTIONS = (
    Convention("divides by the kept rows, not by their weights", partial(_mean_over, "kept rows")),
    Convention("divides by all rows, ignored ones too", partial(_mean_over, "rows")),
    Convention("divides by N C, rows times classes", partial(_mean_over, "numbers")),
    Convention("divides by the weights, not by the rows", partial(_mean_over, "weights")),
    Convention("the sum, not the mean", partial(_reduced_by, False)),
    Convention("the mean, not the sum", partial(_reduced_by, True)),
    Convention("in bits, by the logarithm to base 2", partial(_times, 1 / math.log(2))),
    Convention("times log 2, as if it were given in bits", partial(_times, math.log(2))),
    Convention("by the logarithm to base 10", partial(_times, 1 / math.log(10))),
    Convention("with the opposite sign", partial(_times, -1.0)),
    Convention("two-sided: twice as much", partial(_times, 2.0)),
    Convention("one-sided: half as much", partial(_times, 0.5)),
    Convention("smoothing shared among the K - 1 other classes", _others_share),
    Convention("labels shifted by one class", partial(_shifted, 1)),
    Convention("labels shifted back by one class", partial(_shifted, -1)),
    Convention("labels shifted by one row", _next_row),
)


@dataclass(eq=False)
class Reader:
    """Reads the numbers of one quantity of one case by every convention that may still explain them."""

    identity: Identity
    alive: dict[str, set[Problem]] = field(default_factory=lambda: {each.name: set() for each in CONVENTIONS})
    right: list[tuple[Judged, Place]] = field(default_factory=list)
    failed: bool = False

    def see(self, found: Judged, place: Place) -> None:
        """Takes in one quantity of one run."""
        if self.identity.bitwise or not self.alive:
            return
        if not found.fails:
            if not self.failed and len(self.right) < KEPT and found.m.got.size <= SMALL:
                self.right.append((found, place))
            elif self.failed and found.m.got.size <= SMALL:
                self._against(found, place)
            return
        if not self.failed:
            self.failed = True
        for convention in CONVENTIONS:
            if convention.name in self.alive:
                if (reading := convention.read(found.problem)) and self._explains(reading, found, place):
                    self.alive[convention.name].add(found.problem)
                else:
                    del self.alive[convention.name]

    def _against(self, found: Judged, place: Place) -> None:
        """Drops the conventions that a right number speaks against."""
        for convention in CONVENTIONS:
            if convention.name in self.alive:
                reading = convention.read(found.problem)
                if reading and not self._explains(reading, found, place):
                    del self.alive[convention.name]

    def _explains(self, reading: Reading, found: Judged, place: Place) -> bool:
        """Whether all numbers are within the contract of the exact ones, so read."""
        try:
            bound = contract(self.identity, reading.like or reading.problem, place)[found.quantity] * reading.room
            got = found.m.got / reading.factor
            if reading.factor != 1:  # one product, or quotient, more; and this quotient here
                fmt = FORMATS[found.problem.format]
                bound = bound + (fmt.u + FORMATS["float64"].u) * np.abs(got) + fmt.eta / abs(reading.factor)
            if reading.like:
                said = specification.evaluate(self.identity, reading.problem)
                by = found.quantity.removeprefix("gradient ")
                ball = said.value if found.quantity == "value" else said.gradients[by]
                fact = judge.facts(ball, got, bound)[0]
            else:
                fact = judge.decide(self.identity, reading.problem, found.quantity, got, bound)[0]
        except Exception:  # a problem that the oracle refuses
            return False
        return not np.isin(fact, (OUTSIDE, UNDECIDED)).any()

    def recognised(self) -> str:
        """The convention that explains every failure ("": none does)."""
        if not self.failed:
            return ""
        for found, place in self.right:
            self._against(found, place)
        self.right.clear()
        return next((name for name, explained in self.alive.items() if len(explained) >= SEVERAL), "")


def read(name: str, problem: Problem) -> Reading:
    """How the convention of that name reads a problem (as it is, where it has nothing to say)."""
    convention = next(each for each in CONVENTIONS if each.name == name)
    return convention.read(problem) or Reading(problem)


def surviving(readers: dict[str, Reader]) -> Iterator[tuple[str, str]]:
    """Quantity -> the convention recognised in it, of all that fail; none if one of them is not explained."""
    failing = {quantity: reader for quantity, reader in readers.items() if reader.failed}
    found = {quantity: reader.recognised() for quantity, reader in failing.items()}
    if all(found.values()):
        yield from found.items()
