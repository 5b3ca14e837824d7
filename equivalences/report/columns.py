"""A table that fits the width it is given: columns are left out, then shortened with "…".  No cell takes two lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.cells import cell_len
from rich.table import Table

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
