"""What changed between two results of `verify`: two releases of torch, two builds, two machines.

A form whose bits changed may still be right, and its worst error in units of the error bound says how right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from rich.table import Table

from equivalences.report import defects
from equivalences.report.columns import Column, fitted
from equivalences.schema import Defect, Results, Tally

Key = tuple[str, str, str]  # identity, format, form

# What a user can ask to fail on, and what that is.
EVENTS = {
    "failure": "a form fails now and did not before",
    "serious-defect": "a serious known defect is met now and was not before",
    "known-defect": "any known defect is met now and was not before",
    "less-accurate": "the largest error of a form, in units of its error bound, has grown",
    "bits": "a form computes other bits",
}
DEFAULT = ("failure", "serious-defect")


@dataclass(frozen=True)
class Change:
    """One form in one format, before and after: a line of the table (ratios: worst error/bound; None: absent)."""

    identity: str
    format: str
    form: str
    what: str
    before: float | None
    after: float | None


@dataclass(frozen=True)
class Form:
    """One form in one format: fingerprints, worst error in units of its error bound, and whether it fails."""

    bits: Mapping[str, str]
    ratio: float
    fails: bool


@dataclass(frozen=True)
class Drift:
    """All that changed; `met` and `gone` are the known defects of one side only, each with its formats."""

    changes: list[Change] = field(default_factory=list)
    met: dict[str, list[str]] = field(default_factory=dict)
    gone: dict[str, list[str]] = field(default_factory=dict)


def comparable(before: Results, after: Results) -> str:
    """Why the two say nothing about each other, in one line; "" if they do."""
    for name in ("device", "mode", "examples", "seed"):
        if (one := getattr(before.plan, name)) != (other := getattr(after.plan, name)):
            return f"judged with different {name}: {one} and {other}"
    mine, theirs = _cells(before), _cells(after)
    common = mine.keys() & theirs.keys()
    if not common:
        return "no identity was judged whole in the same format by both"
    different = sorted(key for key in common if mine[key].problems_crc32 != theirs[key].problems_crc32)
    if different:
        identity, fmt = different[0]
        return (
            f"{len(different)} of {len(common)} cells were judged on different problems ({identity} in {fmt}, say): "
            "use one version of equivalences, of Hypothesis and of NumPy for both"
        )
    return ""


def drift(before: Results, after: Results) -> Drift:
    """What changed; the forms that fail now come first."""
    old, new = _forms(before), _forms(after)
    found = [_change(key, old.get(key), new.get(key)) for key in dict.fromkeys((*new, *old))]
    order = ("fails now", "no longer fails", "only after", "only before", "other bits")
    changes = sorted((c for c in found if c is not None), key=lambda c: order.index(c.what))
    was, now = _defects(before, after), _defects(after, before)
    return Drift(changes, _grouped(now - was), _grouped(was - now))


def _change(key: Key, old: Form | None, new: Form | None) -> Change | None:
    ratios = old.ratio if old else None, new.ratio if new else None
    if old is None or new is None:
        what = "only after" if old is None else "only before"
        return Change(*key, "fails now" if new and new.fails else what, *ratios)
    if old.fails != new.fails:
        return Change(*key, "fails now" if new.fails else "no longer fails", *ratios)
    return Change(*key, "other bits", *ratios) if old.bits != new.bits else None


def _cells(results: Results) -> dict[tuple[str, str], Tally]:
    """What was judged whole: an interrupted run says nothing about the rest."""
    return {(t.identity, t.format): t for t in results.tallies if t.complete}


def _forms(results: Results) -> dict[Key, Form]:
    found: dict[Key, Form] = {}
    for (identity, fmt), t in _cells(results).items():
        failing = dict.fromkeys(f.form for f in t.failures)
        ratios = [(cell.form, float(cell.ratio)) for cell in t.cells]
        ratios += [(met.form, float(met.ratio)) for met in t.met]  # which the cells leave out: the worst of all
        for form in dict.fromkeys((*(each.form for each in t.fingerprints), *(of for of, _ in ratios), *failing)):
            found[identity, fmt, form] = Form(
                {each.quantity: each.crc32 for each in t.fingerprints if each.form == form},
                max((ratio for of, ratio in ratios if of == form), default=0.0),
                form in failing,
            )
    return found


def _defects(results: Results, other: Results) -> set[tuple[str, str]]:
    """Each known defect that one has met, of what both have judged, with the format in which it was met."""
    both = _cells(results).keys() & _cells(other).keys()
    return {
        (met.name, fmt) for (identity, fmt), t in _cells(results).items() if (identity, fmt) in both for met in t.met
    }


def _grouped(found: Collection[tuple[str, str]]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = {}
    for name, fmt in sorted(found):
        grouped.setdefault(name, []).append(fmt)
    return grouped


def events(before: Results, after: Results, found: Drift) -> dict[str, list[str]]:
    """What happened, of EVENTS: for each the forms or defects that it happened to."""
    known = {defect.name: defect for defect in after.defects}
    serious = [name for name in found.met if known[name].severity == "serious"]
    worse = [c for c in found.changes if c.before is not None and c.after is not None and c.after > c.before]

    def named(changes: list[Change]) -> list[str]:
        return [f"{c.form} of {c.identity} in {c.format}" for c in changes]

    return {
        "failure": named([c for c in found.changes if c.what == "fails now"]),
        "serious-defect": serious,
        "known-defect": list(found.met),
        "less-accurate": named(worse),
        "bits": named([c for c in found.changes if c.what == "other bits"]),
    }


def fails(happened: Mapping[str, list[str]], on: Collection[str]) -> Iterator[str]:
    """A line for each event that is asked for and has happened."""
    for event in EVENTS:
        if event in on and (cases := happened[event]):
            more = f" and {len(cases) - 1} more" if len(cases) > 1 else ""
            yield f"FAIL ({event}): {EVENTS[event]}: {cases[0]}{more}"


def defect_lines(before: Results, after: Results, found: Drift) -> Iterator[str]:
    """What to know about each known defect that only one of the two has met, the ones met now first."""
    for results, names, what in ((after, found.met, "met now"), (before, found.gone, "no longer met")):
        some: list[Defect] = [defect for defect in results.defects if defect.name in names]
        seen = [(t.format, met) for t in results.tallies for met in t.met if t.format in names.get(met.name, ())]
        yield from defects.lines(some, seen, f"known defect {what}")


def incomplete(results: Results, name: str) -> str:
    """What to know about an interrupted run, in one line; "" if it was none."""
    if results.complete:
        return ""
    return f"{name} is of a run that was interrupted: only its {len(_cells(results))} complete cells are compared"


def table(before: Results, after: Results, found: Drift, width: int) -> Table:
    """The changes, a line for each form and format."""
    changes = found.changes
    ratios = [["–" if ratio is None else _ratio(ratio) for ratio in (c.before, c.after)] for c in changes]
    columns = (
        Column("identity", [c.identity for c in changes], least=16),
        Column("format", [c.format for c in changes]),
        Column("form", [c.form for c in changes], rank=1, least=16),
        Column("what", [c.what for c in changes]),
        Column("error/bound before", [r[0] for r in ratios], rank=2, right=True),
        Column("after", [r[1] for r in ratios], rank=2, right=True),
    )
    return fitted(f"{_name(before)} against {_name(after)}: forms that compute something else", columns, width)


def _ratio(ratio: float) -> str:
    return f"{ratio:.2f}" if ratio < 100 else f"{ratio:.3g}"


def summary(before: Results, after: Results, found: Drift) -> str:
    """What was compared, and how much of it changed, in one line."""
    count = Counter(change.what for change in found.changes)
    alone = count["only before"] + count["only after"]
    both = len(_forms(before).keys() & _forms(after).keys())
    return (
        f"{_name(before)} against {_name(after)}: {both:,} forms judged by both, "
        f"{count['other bits']} compute other bits, {count['fails now']} fail now and did not before; "
        f"{alone} judged by one of them only"
    )


def _name(results: Results) -> str:
    built = results.environment.torch
    return f"torch {built.version} ({built.capability})"
