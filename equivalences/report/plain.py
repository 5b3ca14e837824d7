"""Tables as plain text, for what is printed with `print`, and progress for what takes a while."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table

from equivalences.report.progress import EVERY

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
    """The work, piece by piece; with a bar on stderr if `shown`, or plain lines where that is no terminal."""
    console = Console(stderr=True, highlight=False, markup=False)
    if shown and console.is_terminal:
        yield from track(work, description=what, console=console, transient=True)
        return
    begun = last = time.monotonic()
    for done, piece in enumerate(work):
        now = time.monotonic()
        if shown and now - last >= EVERY:
            last = now
            print(f"[{done}/{len(work)}, {now - begun:.0f} s] {what}", file=sys.stderr, flush=True)
        yield piece
