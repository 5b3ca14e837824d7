"""`list` and `show`: the catalogue, and one entry of it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from equivalences.commands import Usage


def add(commands: Any) -> None:
    """Adds both commands to the parser."""
    commands.add_parser("list", help="the catalogue").set_defaults(run=every)
    show = commands.add_parser("show", help="one identity, pitfall or known defect")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=one)


def every(asked: Any, console: Console) -> int:
    from equivalences.report import describe

    for line in describe.catalogue():
        console.print(line, soft_wrap=True)
    return 0


def one(asked: Any, console: Console) -> int:
    from equivalences import choices
    from equivalences.report import describe

    try:
        entry = choices.entry(asked.name)
    except choices.Unknown as error:
        raise Usage(str(error)) from None
    console.print(describe.entry(entry), soft_wrap=True)
    return 0
