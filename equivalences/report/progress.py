"""Progress of a sweep: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Column

from equivalences.gate import sweep
from equivalences.judging.tally import Tally

Cells = MutableMapping[tuple[str, str], Tally]
Callback = Callable[[sweep.Progress], None]

EVERY = 4.0  # seconds between two plain lines
FEW = 3  # units of work, before which nobody can say how long the rest takes


@contextmanager
def shown() -> Iterator[Callable[[Cells], Callback]]:
    """Shows progress on stderr while inside; also collects the tallies, complete or not, into the mapping given."""
    console = Console(stderr=True, highlight=False, markup=False)
    begun = time.monotonic()
    if console.is_terminal:
        line = TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, ratio=1))
        columns = (BarColumn(20), MofNCompleteColumn(), TimeElapsedColumn(), line)
        with Progress(*columns, console=console, transient=True, expand=True) as bar:
            task = bar.add_task("starting", total=None)

            def moved(p: sweep.Progress) -> None:
                spent = time.monotonic() - begun
                said = f"{remaining(p.done, p.total, spent)}; {_line(p.tally)}"
                bar.update(task, completed=p.done, total=p.total, description=said)

            yield lambda cells: _collecting(cells, moved)
    else:
        with _plain(begun) as update:
            yield lambda cells: _collecting(cells, update)


def _collecting(cells: Cells, show: Callback) -> Callback:
    def callback(progress: sweep.Progress) -> None:
        cells[progress.tally.identity.name, progress.tally.format] = progress.tally
        show(progress)

    return callback


def remaining(done: int, total: int, spent: float) -> str:
    """How long the rest takes if its units are like those that are done; nothing is said of a few."""
    if done == total:
        return "all done"
    if done < FEW:
        return "time left unknown"
    left = spent / done * (total - done)
    return f"about {left:.0f} s left" if left < 90 else f"about {left / 60:.0f} min left"


@contextmanager
def _plain(begun: float) -> Iterator[Callback]:
    """Prints a line every few seconds, whether anything was finished or not, and one when all is."""
    state = ["no unit of work done yet"]
    ended = threading.Event()

    def say() -> None:
        print(f"[{time.monotonic() - begun:.0f} s] {state[0]}", file=sys.stderr, flush=True)

    def now_and_then() -> None:
        while not ended.wait(EVERY):
            say()

    def callback(p: sweep.Progress) -> None:
        left = remaining(p.done, p.total, time.monotonic() - begun)
        state[0] = f"{p.done} of {p.total} units of work done, {left}; last {_line(p.tally)}"
        if p.done == p.total:
            say()

    clock = threading.Thread(target=now_and_then, name="progress", daemon=True)
    clock.start()
    try:
        yield callback
    finally:
        ended.set()
        clock.join()


def _line(tally: Tally) -> str:
    failed = f", {len(tally.failures)} failures" if tally.failures else ""
    return f"{tally.identity.name} in {tally.format}: {tally.numbers:,} numbers{failed}"
