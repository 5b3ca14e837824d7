"""One quantity of one problem by the words of `check`; which of several is the better example."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from equivalences.formats import FORMATS
from equivalences.judging.facts import UNKNOWN, WORDS, Verdict, check_words
from equivalences.judging.judge import Measurement
from equivalences.judging.plan import is_large
from equivalences.judging.tally import MIXED, one_region
from equivalences.model import Array, Problem
from equivalences.own import severity
from equivalences.own.severity import Beyond, Severity


@dataclass(frozen=True, eq=False)
class Judged:
    """A measurement, the `Verdict` on each of its numbers, and with how many threads it ran.

    other   where what the code computes, without any rounding, is surely another function (None: nowhere).
    needed  formula -> the numbers that are within its contract, and beyond all those before it.
    strict  the contract without formulas, where there are some.
    """

    m: Measurement
    threads: int
    other: Array | None = None
    needed: Mapping[str, Array] = field(default_factory=dict)
    strict: Array | None = None

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
        """error / contract; inf where no number came out, or nothing is allowed."""
        ratio = self.m.contract_ratio
        return np.where(ratio < np.finfo(ratio.dtype).max, ratio, np.inf)

    @cached_property
    def strict_ratio(self) -> Array:
        """error / contract without formulas."""
        return severity.excess(self.m.error, self.m.contract.bound if self.strict is None else self.strict)

    @cached_property
    def severity(self) -> Array:
        """How grave each number is: values of `Severity`."""
        other = np.zeros(self.verdict.shape, dtype=bool) if self.other is None else self.other
        return severity.of_numbers(self.m, self.verdict, other)

    @property
    def fails(self) -> bool:
        """Whether any number is beyond the contract, unless a known defect explains it."""
        return bool((self.verdict >= Verdict.UNSTABLE).any())

    def beyond(self, case: str) -> Iterator[Beyond]:
        """What is beyond the contract, by region, verdict and severity."""
        if not self.fails:
            return
        m, off = self.m, severity.how_far(self.m)
        with np.errstate(divide="ignore"):
            digits = np.maximum(0.0, -np.log10(severity.relative(m)))
        for region, here in one_region(m):
            kinds = np.stack((self.verdict, self.severity), -1)[here.reshape(m.got.shape)]
            for verdict, grave in np.unique(kinds[kinds[:, 0] >= Verdict.UNSTABLE], axis=0).tolist():
                which = here.reshape(m.got.shape) & (self.verdict == verdict) & (self.severity == grave)
                yield Beyond(
                    case, self.problem.format, m.layout, self.quantity, region, WORDS[Verdict(verdict)],
                    Severity(grave), int(which.sum()), float(self.ratio[which].max()), float(digits[which].min()),
                    float(off[which].max()),
                )  # fmt: skip

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
