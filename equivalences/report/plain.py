"""Tables as plain text, for what is printed with `print`, and progress for what takes a while."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

T = TypeVar("T")

WIDTH = 1000  # characters at most: a table takes what it needs


def table(header: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", left: int = 1) -> str:
    """A table as text, without trailing blanks; all columns but the first `left` are aligned to the right."""
    made = Table(title=title or None, title_justify="left", title_style="", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(header):
        made.add_column(name, justify="left" if index < left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    file = io.StringIO()
    Console(file=file, width=WIDTH, highlight=False, markup=False, color_system=None, emoji=False).print(made)
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines()).strip("\n")


def followed(work: Sequence[T], what: str, shown: bool) -> Iterator[T]:
    """The work, piece by piece; with a bar on stderr if `shown`."""
    if not shown:
        yield from work
        return
    console = Console(stderr=True, highlight=False, markup=False)
    yield from track(work, description=what, console=console, transient=True)
