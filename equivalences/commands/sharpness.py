"""`sharpness`: how much of their allowance forms used, as Markdown."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from equivalences.commands import Usage


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    sharpness = commands.add_parser("sharpness", help="how much of their allowance forms used, as Markdown")
    sharpness.add_argument("results", metavar="RESULT", nargs="+", help="written by `verify --json`, with any seeds")
    sharpness.set_defaults(run=run)


def run(asked: Any, console: Console) -> int:
    from equivalences import schema
    from equivalences.report import sharpness

    try:
        several = [schema.read(path) for path in asked.results]
    except ValueError as error:
        raise Usage(str(error)) from None
    if reason := sharpness.comparable(several):
        raise Usage(f"the results cannot be taken together: {reason}")
    print(sharpness.page(several), end="")
    return 0
