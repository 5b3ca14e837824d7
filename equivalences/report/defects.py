"""Known defects that were met, for people: how severe, how many numbers, how far off, and what to do instead."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from equivalences.schema import SEVERITIES, Defect, Met

if TYPE_CHECKING:  # what reads a file needs no torch
    from equivalences.judging.tally import Tally

Found = tuple[str, Met]  # the format, and what was seen of a defect in one form


def met(tallies: Sequence[Tally]) -> list[str]:
    """Lines on every known defect that was met, the most severe first."""
    from equivalences.report import results

    found = [(t.format, each) for t in tallies for each in msgspec.convert(results.met(t), list[Met])]
    return list(lines(msgspec.convert(results.defects(tallies), list[Defect]), found))


def lines(defects: Iterable[Defect], found: Iterable[Found], what: str = "known defect") -> Iterator[str]:
    """Lines on these defects, the most severe first; `what` they are, in a word or two."""
    seen: dict[str, list[Found]] = defaultdict(list)
    for fmt, each in found:
        seen[each.name].append((fmt, each))
    for defect in by_severity(defects):
        yield f"{what}, {defect.severity}: {defect.name}: {_counted(seen[defect.name])}"
        yield f"  {defect.off}; hurts {defect.hurts}; do instead: {defect.instead}"


def by_severity(defects: Iterable[Defect]) -> list[Defect]:
    """The defects, the most severe first."""
    return sorted(defects, key=lambda defect: -SEVERITIES.index(defect.severity))


def _counted(found: Sequence[Found]) -> str:
    """How many numbers are concerned, in which formats, and how far off they are."""
    largest = max((each for _, each in found), key=lambda each: each.share)
    formats = ", ".join(dict.fromkeys(fmt for fmt, _ in found))
    numbers = sum(each.numbers for _, each in found)
    ratio, ulps = max(float(each.ratio) for _, each in found), max(float(each.ulps) for _, each in found)
    far = f"off by up to {ratio:.3g} times the error bound and {ulps:.3g} ULP"
    return f"{numbers:,} numbers in {formats}, up to {_percent(largest.share)} of those of {largest.form}, {far}"


def _percent(share: float) -> str:
    return "less than 0.1 %" if share < 1e-3 else f"{100 * share:.3g} %"
