"""What changed between two results of `verify`: two releases of torch, two builds, two machines.

A record to read, not a gate: a form whose bits changed may still be right, and its error/allowance says how right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from rich.table import Table

Results = Mapping[str, Any]
Key = tuple[str, str, str]  # identity, format, form


@dataclass(frozen=True)
class Change:
    """One form in one format, before and after: a line of the table (ratios: worst error/allowance; None: absent)."""

    identity: str
    format: str
    form: str
    what: str
    before: float | None
    after: float | None


def comparable(before: Results, after: Results) -> str:
    """Why the two say nothing about each other, in one line; "" if they do."""
    for name in ("device", "mode", "examples", "seed"):
        if before["plan"][name] != after["plan"][name]:
            return f"judged with different {name}: {before['plan'][name]} and {after['plan'][name]}"
    mine, theirs = _cells(before), _cells(after)
    common = mine.keys() & theirs.keys()
    if not common:
        return "no identity was judged in the same format by both"
    different = sorted(key for key in common if mine[key]["problems crc32"] != theirs[key]["problems crc32"])
    if different:
        identity, fmt = different[0]
        return (
            f"{len(different)} of {len(common)} cells were judged on different problems ({identity} in {fmt}, say): "
            "use one version of equivalences, of Hypothesis and of NumPy for both"
        )
    return ""


def changes(before: Results, after: Results) -> Iterator[Change]:
    """Every form whose computed numbers, or whose verdict, differ; the ones that fail now come first."""
    old, new = _forms(before), _forms(after)
    found = [_change(key, old.get(key), new.get(key)) for key in dict.fromkeys((*new, *old))]
    order = ("fails now", "no longer fails", "only after", "only before", "other bits")
    yield from sorted((c for c in found if c is not None), key=lambda c: order.index(c.what))


def _change(key: Key, old: Mapping[str, Any] | None, new: Mapping[str, Any] | None) -> Change | None:
    ratios = old["ratio"] if old else None, new["ratio"] if new else None
    if old is None or new is None:
        what = "only after" if old is None else "only before"
        return Change(*key, "fails now" if new and new["fails"] else what, *ratios)
    if old["fails"] != new["fails"]:
        return Change(*key, "fails now" if new["fails"] else "no longer fails", *ratios)
    return Change(*key, "other bits", *ratios) if old["bits"] != new["bits"] else None


def _cells(results: Results) -> dict[tuple[str, str], Mapping[str, Any]]:
    return {(t["identity"], t["format"]): t for t in results["tallies"]}


def _forms(results: Results) -> dict[Key, dict[str, Any]]:
    """For each form in each format: its fingerprints, its worst error/allowance, and whether it fails."""
    found: dict[Key, dict[str, Any]] = {}
    for t in results["tallies"]:
        failing = {f["form"] for f in t["failures"]}
        for form in dict.fromkeys(each["form"] for each in (*t["fingerprints"], *t["cells"], *t["failures"])):
            found[t["identity"], t["format"], form] = {
                "bits": {each["quantity"]: each["crc32"] for each in t["fingerprints"] if each["form"] == form},
                "ratio": max((float(c["error/allowance"]) for c in t["cells"] if c["form"] == form), default=0.0),
                "fails": form in failing,
            }
    return found


def table(before: Results, after: Results, found: list[Change]) -> Table:
    """The changes, a line for each form and format."""
    shown = Table(
        title=f"{_name(before)} against {_name(after)}: forms that compute something else",
        title_justify="left",
        header_style="bold",
    )
    for name in ("identity", "format", "form", "what"):
        shown.add_column(name, overflow="fold", no_wrap=name == "format")
    shown.add_column("worst error/allowance before", justify="right")
    shown.add_column("after", justify="right")
    for c in found:
        ratios = ("–" if ratio is None else f"{ratio:.2f}" for ratio in (c.before, c.after))
        shown.add_row(c.identity, c.format, c.form, c.what, *ratios, style="bold red" if c.what == "fails now" else "")
    return shown


def summary(before: Results, after: Results, found: list[Change]) -> str:
    """What was compared, and how much of it changed, in one line."""
    count = Counter(change.what for change in found)
    alone = count["only before"] + count["only after"]
    both = len(_forms(before).keys() & _forms(after).keys())
    return (
        f"{_name(before)} against {_name(after)}: {both:,} forms judged by both, "
        f"{count['other bits']} compute other bits, {count['fails now']} fail now and did not before; "
        f"{alone} judged by one of them only"
    )


def defects(before: Results, after: Results) -> Iterator[str]:
    """A line for each known defect that only one of the two has met, of what both have judged."""
    cells = _cells(before), _cells(after)
    both = cells[0].keys() & cells[1].keys()
    met = [{name for key in both for name in some[key]["known defects"]} for some in cells]
    yield from (f"known defect no longer met: {name}" for name in sorted(met[0] - met[1]))
    yield from (f"known defect met now: {name}" for name in sorted(met[1] - met[0]))


def _name(results: Results) -> str:
    built = results["environment"]["torch"]
    return f"torch {built['version']} ({built['cpu capability']})"
