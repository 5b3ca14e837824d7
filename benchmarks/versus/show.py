"""What people see: progress with the time left, the table of verdicts, how to read it."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks.names import short
from benchmarks.versus.record import Record
from benchmarks.versus.verdict import Estimate, Judgement, Verdict

EVERY = 10.0  # seconds between two plain lines
STYLE = {
    Verdict.REGRESSED: "bold red",
    Verdict.IMPROVED: "bold green",
    Verdict.EQUIVALENT: "green",
    Verdict.INCONCLUSIVE: "yellow",
    Verdict.INVALID: "magenta",
}


@contextmanager
def progress(total: int) -> Iterator[Callable[[str], None]]:
    """Counts cases on stderr while inside, with the time left: a bar on a terminal, plain lines elsewhere.

    Drawn only between cases, never while a block is being timed.
    """
    console = Console(stderr=True, highlight=False, markup=False)
    if console.is_terminal:
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        with Progress(
            *columns, TextColumn("{task.description}", markup=False), console=console, transient=True,
            auto_refresh=False, speed_estimate_period=3600,
        ) as bar:  # fmt: skip
            task = bar.add_task("starting", total=total)

            def advance(what: str) -> None:
                bar.update(task, advance=1, description=what, refresh=True)

            yield advance
    else:
        yield _plain(total)


def _plain(total: int) -> Callable[[str], None]:
    begun = last = time.monotonic()
    done = 0

    def advance(what: str) -> None:
        nonlocal last, done
        done += 1
        now = time.monotonic()
        if now - last >= EVERY or done == total:
            last = now
            left = (now - begun) / done * (total - done)
            print(f"[{done}/{total}, {now - begun:.0f} s, {left:.0f} s left] {what}", file=sys.stderr, flush=True)

    return advance


def header(record: Record) -> str:
    """The two sides, a line each."""
    lines = []
    for arm in record.settings["arms"]:
        if arm["name"] == "A'":
            continue
        found = record.environments[arm["name"]]
        software = [f"torch {found['torch']['version']}"] if "torch" in found else []
        software.append(f"Python {found['python']}")
        if "threads" in found:
            software.append(f"{found['threads']['within operations']} thread(s)")
        software += [f"{key}={value}" for key, value in arm["env"]]
        if arm["compile"] != "as-is":
            software.append(f"compile {arm['compile']}")
        lines.append(f"{arm['name']}: {', '.join(software)}  ({arm['python']})")
    return "\n".join(lines)


def table(record: Record) -> Table:
    """A line a case: time of A, ratio with its interval, what the run could see, the A/A ratio, the verdict."""
    judged = record.judged()
    names = short([each.case for each in (*judged.cases, *judged.controls)])
    shown = Table(
        title=f"time of B / time of A, margin {record.margin:.1%}, 95 % intervals across launches",
        title_justify="left", header_style="bold",
    )  # fmt: skip
    shown.add_column("case", overflow="fold")
    for name in ("A, ms", "B / A", "95 % interval", "sees from", "A / A", "95 % interval", "launches"):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("verdict", no_wrap=True)
    shown.add_column("because", overflow="fold")
    for judgement in judged.cases:
        row = _row(record, judgement, names[judgement.case])
        shown.add_row(*row, judgement.verdict.name, judgement.why, style=STYLE[judgement.verdict])
    shown.add_section()
    for judgement in judged.controls:
        word = {Verdict.INVALID: "moved", Verdict.EQUIVALENT: "held"}.get(judgement.verdict, "unknown")
        style = STYLE[Verdict.INVALID] if word == "moved" else None
        why = judgement.why if word == "moved" else ""
        shown.add_row(*_row(record, judgement, names[judgement.case]), f"control {word}", why, style=style)
    return shown


def _row(record: Record, judgement: Judgement, name: str) -> tuple[str, ...]:
    effect, null = judgement.effect, judgement.null
    blocks = [each for launch in record.launches for each in launch.seconds.get(judgement.case, {}).get("A", ())]
    return (
        name,
        f"{statistics.median(blocks) * 1e3:.4g}" if blocks else "",
        f"{effect.ratio:.3f}" if effect else "",
        _interval(effect),
        f"{judgement.sees:.3f}" if judgement.sees else "",
        f"{null.ratio:.3f}" if null else "",
        _interval(null),
        str(effect.launches) if effect else "0",
    )


def _interval(estimate: Estimate | None) -> str:
    return f"{estimate.low:.3f} to {estimate.high:.3f}" if estimate and estimate.launches > 1 else ""


def summary(record: Record) -> str:
    """The last line: how many cases ended in which verdict."""
    judged = record.judged()
    counts = {verdict: sum(each.verdict is verdict for each in judged.cases) for verdict in Verdict}
    said = ", ".join(f"{count} {verdict.name} ({verdict.value})" for verdict, count in counts.items() if count)
    note = "\nThe arms run different Pythons: the pure-Python loop is no control here." if record.two_pythons else ""
    return f"{len(record.launches)} of {record.wanted} launches: {said}{note}"
