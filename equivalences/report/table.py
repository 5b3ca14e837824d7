"""Tables for people: what was judged, how close to its allowance it came, and where each form is valid."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.table import Table

from equivalences.judge import Crash
from equivalences.tally import Cell, Tally, Worst

_LABEL = 44  # characters of a form's label


def _short(label: str) -> str:
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"


def _reached(worst: Worst) -> tuple[str, str]:
    return (f"{worst.ratio:.2f}", f"{_short(worst.form)} · {worst.region}") if worst.form else ("", "")


def _count(n: int) -> str:
    return f"{n:,}"


def _failed(t: Tally) -> str:
    forms = {failure.form.label for failure in t.failures}
    crashed = {failure.form.label for failure in t.failures if isinstance(failure, Crash)}
    kinds = ((forms - crashed, "outside"), (crashed, "raised"))
    return ", ".join(f"{len(names)} {what}" for names, what in kinds if names)


def summary(tallies: Sequence[Tally]) -> Table:
    """Identity x format: problems and numbers judged, the worst error/allowance and what reached it, known defects."""
    table = Table(
        title="worst error/allowance of value and gradient (1 = all that the form's own arithmetic allows)",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("identity", no_wrap=True)
    table.add_column("format", no_wrap=True)
    for name in ("problems", "numbers", "value"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("reached by", overflow="fold")
    table.add_column("gradient", justify="right", no_wrap=True)
    table.add_column("reached by", overflow="fold")
    table.add_column("known defects met", overflow="fold")
    table.add_column("failing forms", style="bold red", overflow="fold")
    before = ""
    for t in tallies:
        name = t.identity.name
        if before and name != before:
            table.add_section()
        exact = t.identity.bitwise and not t.failures
        value = ("exact", "bit for bit") if exact else _reached(t.worst["value"])
        gradient = _reached(t.worst["gradient"]) if t.identity.wrt else ("–", "")
        table.add_row(
            name if name != before else "",
            t.format,
            _count(t.problems),
            _count(t.numbers),
            *value,
            *gradient,
            ", ".join(f"{defect} ({_count(n)})" for defect, n in t.defects.items()),
            _failed(t),
        )
        before = name
    return table


def _share(cells: Iterable[Cell]) -> str:
    cells = list(cells)
    judged = sum(cell.judged for cell in cells)
    if not judged:
        return ""
    stable = sum(cell.stable for cell in cells)
    if stable == judged:
        return "all"
    share = 100 * stable / judged
    return "none" if not stable else "<0.1 %" if share < 0.1 else f"{min(share, 99.9):.1f} %"


def validity(t: Tally) -> Table:
    """Form x region: the share of numbers, values and gradients, within the contract (the reference's allowance)."""
    regions = [name for name in t.identity.domain.regions if any(key[2] == name for key in t.cells)]
    table = Table(
        title=f"{t.identity.name}, {t.format}: numbers within the allowance of {_short(t.identity.reference.label)}",
        title_justify="left",
        header_style="bold",
    )
    table.add_column("form", overflow="fold")
    for region in regions:
        table.add_column(region, justify="right", no_wrap=True)
    labels = list(dict.fromkeys(form for form, _, _ in t.cells))
    for label in labels:
        shares = (
            _share(cell for (form, _, region), cell in t.cells.items() if form == label and region == wanted)
            for wanted in regions
        )
        table.add_row(label, *shares)
    return table
