"""Progress of a sweep: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from equivalences import sweep
from equivalences.tally import Tally

Cells = MutableMapping[tuple[str, str], Tally]
Callback = Callable[[sweep.Progress], None]

EVERY = 10.0  # seconds between two plain lines


@contextmanager
def shown() -> Iterator[Callable[[Cells], Callback]]:
    """Shows progress on stderr while inside; also collects the tallies, complete or not, into the mapping given."""
    console = Console(stderr=True, highlight=False, markup=False)
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.description}", markup=False), console=console, transient=True) as bar:
            task = bar.add_task("starting", total=None)
            yield lambda cells: _collecting(
                cells, lambda p: bar.update(task, completed=p.done, total=p.total, description=_line(p.tally))
            )
    else:
        yield lambda cells: _collecting(cells, _plain())


def _collecting(cells: Cells, show: Callback) -> Callback:
    def callback(progress: sweep.Progress) -> None:
        cells[progress.tally.identity.name, progress.tally.format] = progress.tally
        show(progress)

    return callback


def _plain() -> Callback:
    begun = last = time.monotonic()

    def callback(progress: sweep.Progress) -> None:
        nonlocal last
        now = time.monotonic()
        if now - last >= EVERY or progress.done == progress.total:
            last = now
            share, spent = f"{progress.done}/{progress.total}", f"{now - begun:.0f} s"
            print(f"[{share}, {spent}] {_line(progress.tally)}", file=sys.stderr, flush=True)

    return callback


def _line(tally: Tally) -> str:
    failed = f", {len(tally.failures)} failures" if tally.failures else ""
    return f"{tally.identity.name} in {tally.format}: {tally.numbers:,} numbers{failed}"
