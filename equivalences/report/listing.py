"""The catalogue for readers, a line an entry, and what can be shown without torch: families, special values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from equivalences.entries import DEFECT, ENTRIES, FAMILY, IDENTITY, PITFALL, SPECIAL, UNSTABLE_FORM, Entry
from equivalences.findings.model import SpecialValue
from equivalences.report import formula, special

_HEADS = {
    PITFALL: "pitfalls: what looks equal, and is not",
    DEFECT: "known defects of PyTorch",
    UNSTABLE_FORM: "accurate only in absolute terms",
    FAMILY: "families",
    SPECIAL: "special values, by operation",
}


def lines(entries: Sequence[Entry]) -> Iterator[str]:
    """One line an entry: identities by family, then every other kind."""
    for _, group in groupby(entries, key=lambda entry: (entry.kind, entry.family)):
        some = list(group)
        width = max(len(entry.name) for entry in some)
        yield f"{_HEADS.get(some[0].kind, some[0].family)} ({len(some)})"
        yield from (f"  {entry.name:{width}}  {short(entry)}" for entry in some)


def short(entry: Entry) -> str:
    """What an entry says, in one line."""
    said = " ".join(formula.text(entry.what).split())
    return f"{entry.thing.severity.name.lower().replace('_', ' ')}: {said}" if entry.kind == DEFECT else said


def family(entry: Entry) -> Iterator[str]:
    """A family: what it is about, and its identities."""
    members = [each for each in ENTRIES if each.kind == IDENTITY and each.family == entry.name]
    yield f"{entry.name} (family)"
    yield f"  {entry.what}"
    yield ""
    yield from lines(members)


def values(entry: Entry) -> Iterator[str]:
    """What is right for an operation at special values, and what PyTorch does instead."""
    some: Sequence[SpecialValue] = entry.thing
    yield f"{entry.name} at special values ({len(some)}; the gradient is that of the first input)"
    for value in some:
        yield ""
        yield f"  {value.name}: {' ; '.join(value.call.splitlines())}"
        yield f"    inputs   {special.inputs(value)}"
        yield f"    right    {special.outcome(value.outcome)} ({value.why})"
        for deviation in value.deviations:
            yield f"    PyTorch  {special.deviation(deviation)}"
