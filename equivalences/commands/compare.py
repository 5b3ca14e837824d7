"""`compare`: what changed between two results of `verify --json`.  Needs no torch."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from equivalences.commands import FAILED, Usage

NEVER = "never"


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    compare = commands.add_parser("compare", help="what changed between two results of `verify --json`")
    compare.add_argument("before", metavar="BEFORE")
    compare.add_argument("after", metavar="AFTER")
    compare.add_argument(
        "--fail-on", action="append", metavar="EVENT,...",
        help="exit with status 1 on failure, serious-defect (these two are the default), known-defect, less-accurate, "
        "bits; or never",
    )  # fmt: skip
    compare.set_defaults(run=run)


def run(asked: Any, console: Console) -> int:
    from equivalences import schema
    from equivalences.report import drift

    wanted = _events(asked.fail_on, drift.EVENTS, drift.DEFAULT)
    try:
        before, after = schema.read(asked.before), schema.read(asked.after)
    except ValueError as error:
        raise Usage(str(error)) from None
    if reason := drift.comparable(before, after):
        raise Usage(f"{asked.before} and {asked.after} cannot be compared: {reason}")
    found = drift.drift(before, after)
    for results, name in ((before, asked.before), (after, asked.after)):
        if said := drift.incomplete(results, name):
            console.print(said, soft_wrap=True)
    for line in drift.defect_lines(before, after, found):
        console.print(line, soft_wrap=True)
    if found.changes:
        console.print(drift.table(before, after, found, console.width))
    console.print(drift.summary(before, after, found), soft_wrap=True)
    failing = list(drift.fails(drift.events(before, after, found), wanted))
    for line in failing:
        console.print(line, soft_wrap=True)
    return FAILED if failing else 0


def _events(asked: list[str] | None, known: Any, default: tuple[str, ...]) -> tuple[str, ...]:
    """The events to fail on, of a repeated option with commas.  Raises Usage."""
    if asked is None:
        return default
    names = [name.strip() for each in asked for name in each.split(",")]
    for name in names:
        if name not in (*known, NEVER):
            raise Usage(f"--fail-on: unknown event {name!r}: choose from {', '.join((*known, NEVER))}")
    if NEVER in names and len(set(names)) > 1:
        raise Usage("--fail-on never leaves nothing else to fail on")
    return tuple(name for name in names if name != NEVER)
