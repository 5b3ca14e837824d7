"""`sensitivity`: how small an error the gate notices, form by form and region by region, as Markdown."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from equivalences.commands import Usage


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    parser = commands.add_parser("sensitivity", help="how small an error the gate notices, as Markdown")
    parser.add_argument("names", metavar="NAME", nargs="+", help="an identity, a family or a glob")
    parser.add_argument("--format", action="append", default=[], metavar="FORMAT", help="float64, float32, ...")
    parser.set_defaults(run=run)


def run(asked: Any, console: Console) -> int:
    from equivalences import choices

    try:
        identities, formats = choices.identities(asked.names), choices.formats(asked.format)
    except choices.Unknown as error:
        raise Usage(str(error)) from None
    from equivalences.report import sensitivity

    print("\n".join(sensitivity.tables(identities, formats)))
    return 0
