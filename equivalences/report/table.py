"""Tables for people: what was judged, how close to its limit it came, and where each form is valid.

A table fits the width it is given: columns are left out, then shortened with "…".  No cell takes two lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from rich import box
from rich.cells import cell_len
from rich.table import Table

from equivalences.judge import Crash
from equivalences.tally import Cell, Tally, Worst

GAP = 2  # blanks between two columns


@dataclass(frozen=True)
class Column:
    """A column: its name, its cells, and how few characters of it are still worth showing (0: whole or not at all).

    rank   columns of a higher rank are left out first; those of rank 0 never are.
    """

    name: str
    cells: Sequence[str]
    rank: int = 0
    least: int = 0
    right: bool = False
    style: str = ""

    @property
    def wanted(self) -> int:
        return max(map(cell_len, (self.name, *self.cells)))


def fitted(title: str, columns: Sequence[Column], width: int, ends: Sequence[int] = ()) -> Table:
    """The table of as many columns as `width` has room for; a gap follows each row whose number is in `ends`."""
    shown, sizes = _fit([column for column in columns if column.rank == 0 or any(column.cells)], width)
    table = Table(
        title=title, title_justify="left", title_style="italic", header_style="bold", box=box.SIMPLE_HEAD,
        pad_edge=False, padding=(0, GAP - 1, 0, 0), show_edge=False,  # the box adds a blank
    )  # fmt: skip
    for column, size in zip(shown, sizes, strict=True):
        table.add_column(
            column.name, justify="right" if column.right else "left", style=column.style, width=size,
            no_wrap=True, overflow="ellipsis",
        )  # fmt: skip
    for number, cells in enumerate(zip(*(column.cells for column in shown), strict=True)):
        table.add_row(*cells, end_section=number in ends)
    return table


def _fit(columns: list[Column], width: int) -> tuple[list[Column], list[int]]:
    """The columns that fit, each with its width: what can be shortened shares what the others leave."""

    def least(column: Column) -> int:
        return min(column.least, column.wanted) or column.wanted

    def needed(column: Column) -> int:  # a column that is there for more must not shorten one that always is
        return least(column) if column.rank else column.wanted

    while sum(map(needed, columns)) + GAP * (len(columns) - 1) > width and any(column.rank for column in columns):
        columns.remove(max(columns, key=lambda column: column.rank))
    sizes = [least(column) for column in columns]
    free = width - sum(sizes) - GAP * (len(sizes) - 1)
    order = sorted(range(len(columns)), key=lambda index: columns[index].rank)
    first = [index for index in order if not columns[index].rank]  # these are served first, the others share the rest
    for indices, sharing in ((first, 1), *((order, sharing) for sharing in range(len(order), 0, -1))):
        for index in indices:
            more = max(0, min(free // sharing, columns[index].wanted - sizes[index]))
            sizes[index] += more
            free -= more
    if free < 0:  # even the most important ones do not fit: the first gives way
        sizes[0] = max(8, sizes[0] + free)
    return columns, sizes


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
