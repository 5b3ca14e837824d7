"""One quantity of one problem by the words of `check`; which of several is the better example."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from equivalences.formats import FORMATS
from equivalences.judging.facts import UNKNOWN, Verdict, check_words
from equivalences.judging.judge import Measurement
from equivalences.judging.plan import is_large
from equivalences.judging.tally import MIXED
from equivalences.model import Array, Problem


@dataclass(frozen=True, eq=False)
class Judged:
    """A measurement, the `Verdict` on each of its numbers, and with how many threads it ran."""

    m: Measurement
    threads: int

    @property
    def problem(self) -> Problem:
        """What it was judged on."""
        return self.m.problem

    @property
    def quantity(self) -> str:
        """What was judged ("value", "gradient z")."""
        return self.m.quantity

    @cached_property
    def verdict(self) -> Array:
        """The word on each number: values of `Verdict`."""
        return check_words(self.m.contract.fact, self.m.own.fact)

    @cached_property
    def ratio(self) -> Array:
        """error / contract."""
        return self.m.contract_ratio

    @cached_property
    def region(self) -> Array:
        """The region of each number, by its place in the domain; -1 where it mixes several."""
        bits = self.m.region
        return np.where(bits & (bits - 1), -1, np.log2(np.maximum(bits, 1)).astype(int))

    @property
    def opaque(self) -> bool:
        """Whether nothing is known of the code's own bound."""
        return bool((self.m.own.fact == UNKNOWN).all())

    def region_name(self, place: tuple[int, ...]) -> str:
        """The region of one number, by name."""
        return (*self.m.identity.domain.regions, MIXED)[int(self.region[place])]


def focus(found: Judged, verdict: Verdict) -> tuple[int, float]:
    """The most usual region (listed from strange to usual; -1: several) that has the verdict, the worst ratio there."""
    region = int(found.region[found.verdict == verdict].max())
    return region, float(found.ratio[(found.verdict == verdict) & (found.region == region)].max())


def plainness(found: Judged, verdict: Verdict) -> tuple[bool, int, bool, int, float]:
    """What makes a better example: not many rows or classes, a usual format, a usual region, a large error."""
    order = ("float32", *FORMATS)
    region, ratio = focus(found, verdict)
    return is_large(found.problem), order.index(found.problem.format), region < 0, -region, -ratio
