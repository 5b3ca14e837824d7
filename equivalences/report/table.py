"""Tables for people: what was judged, how close to its limit it came, and where each form is valid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from rich.table import Table

from equivalences.judging.judge import Crash
from equivalences.judging.tally import Cell, Tally, Worst
from equivalences.report.columns import Column, fitted


def _count(n: int) -> str:
    return f"{n:,}"


def _ratio(worst: Worst) -> str:
    return f"{worst.ratio:.2f}" if worst.form else ""


def _by(worst: Worst) -> str:
    return f"{worst.region}: {worst.form}" if worst.form else ""


def _verdict(t: Tally) -> str:
    forms = {failure.form.label for failure in t.failures}
    crashed = {failure.form.label for failure in t.failures if isinstance(failure, Crash)}
    kinds = ((forms - crashed, "outside"), (crashed, "raised"))
    return ", ".join(f"{len(names)} {what}" for names, what in kinds if names) or "holds"


def summary(tallies: Sequence[Tally], width: int) -> Table:
    """Identity x format: how close value and gradient came to their limit, and what came closest; a verdict each."""
    names = [t.identity.name for t in tallies]
    first = [not index or names[index - 1] != name for index, name in enumerate(names)]
    exact = [t.identity.bitwise and not t.failures for t in tallies]
    values = ["exact" if same else _ratio(t.worst["value"]) for t, same in zip(tallies, exact, strict=True)]
    columns = [
        Column("identity", [name if new else "" for name, new in zip(names, first, strict=True)], least=24),
        Column("format", [t.format for t in tallies]),
        Column("problems", [_count(t.problems) for t in tallies], rank=4, right=True),
        Column("numbers", [_count(t.numbers) for t in tallies], rank=1, right=True),
        Column("value", values, right=True),
        Column("reached by", ["" if same else _by(t.worst["value"]) for t, same in zip(tallies, exact, strict=True)],
               rank=2, least=20),
        Column("gradient", [_ratio(t.worst["gradient"]) if t.identity.wrt else "–" for t in tallies], right=True),
        Column("reached by", [_by(t.worst["gradient"]) for t in tallies], rank=3, least=20),
        Column("verdict", [_verdict(t) for t in tallies]),
        Column("known bugs", [_count(len(t.defects)) if t.defects else "" for t in tallies], rank=5, right=True),
    ]  # fmt: skip
    if any(t.failures for t in tallies):
        columns = [replace(each, style="bold red") if each.name == "verdict" else each for each in columns]
    ends = [index - 1 for index, new in enumerate(first) if new and index] if not all(first) else []
    return fitted("Closest to its limit (1.00 = at the limit; above 1.00 = failure)", columns, width, ends)


def percent(part: int, whole: int) -> str:
    """A share that is neither all nor none."""
    share = 100 * part / whole
    return "<0.1 %" if share < 0.1 else f"{min(share, 99.9):.1f} %"


def _share(cells: Iterable[Cell]) -> str:
    cells = list(cells)
    judged, stable = sum(cell.judged for cell in cells), sum(cell.stable for cell in cells)
    if not judged:
        return ""
    return "all" if stable == judged else percent(stable, judged) if stable else "none"


def validity(t: Tally, width: int) -> Table:
    """Form x region: the share of numbers, values and gradients, within the contract (the reference's allowance)."""
    regions = [name for name in t.identity.domain.regions if any(key[2] == name for key in t.cells)]
    labels = list(dict.fromkeys(form for form, _, _ in t.cells))

    def shares(wanted: str) -> list[str]:
        return [
            _share(cell for (form, _, region), cell in t.cells.items() if (form, region) == (label, wanted))
            for label in labels
        ]

    columns = [Column("form", labels, least=16)]
    columns += [Column(region, shares(region), right=True) for region in regions]
    title = f"{t.identity.name}, {t.format}: numbers as accurate as {t.identity.reference.label} must be"
    return fitted(title, columns, width)
