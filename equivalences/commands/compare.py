"""`compare`: what changed between two results of `verify --json`."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from equivalences.commands import FAILED, Usage


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    compare = commands.add_parser("compare", help="what changed between two results of `verify --json`")
    compare.add_argument("before", metavar="BEFORE")
    compare.add_argument("after", metavar="AFTER")
    compare.set_defaults(run=run)


def run(asked: Any, console: Console) -> int:
    from equivalences.report import drift, results

    try:
        before, after = results.read(asked.before), results.read(asked.after)
    except ValueError as error:
        raise Usage(str(error)) from None
    if reason := drift.comparable(before, after):
        raise Usage(f"{asked.before} and {asked.after} cannot be compared: {reason}")
    found = list(drift.changes(before, after))
    if found:
        console.print(drift.table(before, after, found))
    for line in drift.defects(before, after):
        console.print(line)
    console.print(drift.summary(before, after, found))
    return FAILED if any(change.what == "fails now" for change in found) else 0
