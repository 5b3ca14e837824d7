"""How grave what `check` found is, from the numbers beyond the contract and from what else was met, and in words.

(`model.Severity` is another scale: how much a known defect of PyTorch matters.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from equivalences.formats import FORMATS
from equivalences.judging.facts import Verdict
from equivalences.judging.judge import Measurement
from equivalences.judging.tally import MIXED
from equivalences.model import Array


class Severity(IntEnum):
    """How grave a finding is; the larger, the worse."""

    RIGHT = 0
    NOT_JUDGED = 1  # nothing came out that could be judged, somewhere or everywhere
    SPECIAL_VALUES = 2  # at inf, nan, a mask, no row ... it gives something else
    CONVENTION = 3  # another function, which is recognised: another normaliser, another base of the logarithm ...
    LESS_ACCURATE = 4  # the same function, with fewer digits than the contract asks for
    WRONG = 5  # another function; or it does something to its caller

    @property
    def word(self) -> str:
        """The severity in words."""
        return self.name.lower().replace("_", " ")


SEVERITIES: Mapping[str, Severity] = {each.word: each for each in Severity}


def excess(error: Array, bound: Array) -> Array:
    """error / bound: 0 without an error; inf where nothing is allowed, or no number came out."""
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.where(error == 0, 0.0, error / bound), nan=np.inf, posinf=np.inf)


def of_numbers(m: Measurement, verdict: Array, other: Array) -> Array:
    """The severity of each number (values of `Severity`), by its `Verdict`.

    other   where what the code computes, without any rounding, is surely beyond the contract: another function.

    What is within its own arithmetic, and the same function, is less accurate.  Where nothing is known of either, or
    its own arithmetic does not explain it, the size of the error decides: a number is wrong that has lost more than
    half of the digits of its format, beyond what the contract allows.
    """
    half = FORMATS[m.problem.format].u ** -0.5
    ratio = excess(m.error, np.where(np.isfinite(m.contract.bound), m.contract.bound, m.own.bound))
    explained = (verdict == Verdict.UNSTABLE) & ~other
    wrong = ~explained & (other | (ratio > half))
    return np.where(verdict < Verdict.UNSTABLE, Severity.RIGHT, np.where(wrong, Severity.WRONG, Severity.LESS_ACCURATE))


def doubtful(m: Measurement, verdict: Array) -> bool:
    """Whether it has to be known of some number if what the code computes is another function."""
    none = np.zeros(verdict.shape, dtype=bool)
    open_ = (verdict == Verdict.UNSTABLE) | (
        (verdict == Verdict.WRONG) & (of_numbers(m, verdict, none) < Severity.WRONG)
    )
    return bool(open_.any())


# --- what the numbers beyond the contract add up to ------------------------------------------------------------------


@dataclass(frozen=True)
class Beyond:
    """The numbers of one kind that are beyond the contract: how many, and the worst of each figure.

    ratio   error / contract.
    digits  decimal digits that are left (0: none): of the number itself, or of the largest beside it where it is 0.
    off     error / number; of a gradient, error / its largest number.
    """

    case: str
    format: str
    layout: str
    quantity: str
    region: str
    verdict: str
    severity: Severity
    numbers: int
    ratio: float
    digits: float
    off: float


def together(a: Beyond, b: Beyond) -> Beyond:
    """Two records of one kind as one, with the worst of each figure."""
    worst = max(a.ratio, b.ratio), min(a.digits, b.digits), max(a.off, b.off)
    return replace(a, numbers=a.numbers + b.numbers, ratio=worst[0], digits=worst[1], off=worst[2])


def relative(m: Measurement) -> Array:
    """The error of each number relative to it; where it is 0, to the largest beside it (or to 1)."""
    size, largest = np.abs(m.exact), largest_beside(m)
    with np.errstate(all="ignore"):
        return np.nan_to_num(m.error / np.where(size > 0, size, largest), nan=np.inf, posinf=np.inf)


def largest_beside(m: Measurement) -> float:
    """The largest exact number of the quantity (1 where all are 0)."""
    size = np.abs(m.exact)
    return float(size.max(initial=0.0, where=np.isfinite(size))) or 1.0


def how_far(m: Measurement) -> Array:
    """The error of each value relative to it, and of each number of a gradient to the largest beside it."""
    if m.quantity == "value":
        return relative(m)
    with np.errstate(all="ignore"):
        return np.nan_to_num(m.error / largest_beside(m), nan=np.inf, posinf=np.inf)


# --- in words --------------------------------------------------------------------------------------------------------

PLACES = {
    "offset": "at a common offset", "extreme": "where exp overflows", "tail": "in confidently wrong rows",
    "saturated": "in confidently right rows", "tie": "at ties", "wide": "in rows of wide spread",
    "single": "in rows of one class", "core": "in ordinary rows", MIXED: "in totals over several kinds of rows",
}  # fmt: skip


def place(region: str) -> str:
    """Where a region is, in words."""
    return PLACES.get(region, f"in the region {region}")


def times(x: float) -> str:
    """A factor: 1.04, 63, 5.1e+06 ("inf" where nothing is allowed, or no number came out)."""
    return f"{x:.3g}" if x < 100 or x >= 1e6 else f"{x:,.0f}"


def kind_of(quantity: str) -> str:
    """Values or gradients, in the plural."""
    return "values" if quantity == "value" else "gradients"


def said(found: Sequence[Beyond], total: int) -> str:
    """How grave these numbers are, in words: of one severity, of `total` numbers in all."""
    count = sum(each.numbers for each in found)
    if found[0].severity == Severity.LESS_ACCURATE:
        worst = max(found, key=lambda each: (each.ratio, -each.digits))
        where = f"at {worst.format} {kind_of(worst.quantity)}, {place(worst.region)}"
        if worst.ratio == np.inf:
            return f"every digit is lost {where}; {count:,} of {total:,} numbers"
        return f"at most {times(worst.ratio)} times the contract, {worst.digits:.1f} digits left, {where}"
    worst = max(found, key=lambda each: (each.quantity == "value", each.off, each.ratio))
    far = "without end (inf or nan)" if worst.off == np.inf else _share(worst.off)
    where = f"{worst.format} {kind_of(worst.quantity)}, {place(worst.region)}"
    far += f" ({times(worst.ratio)} times the contract)" if worst.ratio < np.inf else ""
    return f"another function, off {far} at {where}; {count:,} of {total:,} numbers"


def _share(off: float) -> str:
    if off > 10:
        return "by more than ten times itself"
    return f"by up to {100 * off:.3g} %"
