"""`list` and `show`: the catalogue, and one entry of it."""

from __future__ import annotations

from typing import Any

from rich.console import Console

from equivalences.commands import Usage


def add(commands: Any) -> None:
    """Adds both commands to the parser."""
    every_ = commands.add_parser("list", help="the catalogue, a line an entry")
    every_.add_argument("word", metavar="WORD", nargs="?", help="only entries that have it, or call it")
    every_.set_defaults(run=every)
    show = commands.add_parser("show", help="one entry: an identity, a pitfall, a known defect, ...")
    show.add_argument("name", metavar="NAME", help="as in `list`, or as in PyTorch: F.cross_entropy, BCELoss, nll")
    show.set_defaults(run=one)


def every(asked: Any, console: Console) -> int:
    from equivalences import entries
    from equivalences.report import listing

    found = entries.ENTRIES if asked.word is None else entries.containing(asked.word)
    if not found:
        raise Usage(f"nothing in the catalogue has {asked.word!r}: `equivalences list` shows all of it")
    for line in listing.lines(found):
        console.print(line, overflow="ellipsis", no_wrap=True)
    return 0


def one(asked: Any, console: Console) -> int:
    from equivalences import entries

    try:
        found = entries.find(asked.name)
    except entries.Unknown as error:
        raise Usage(str(error)) from None
    from equivalences.report import describe

    width = console.width if console.is_terminal else None
    console.print(describe.entry(found[0], width), soft_wrap=True)
    if others := found[1:]:
        console.print(f"\n{asked.name!r} also means, or is called by:")
        for other in others:
            kind = "" if other.kind == entries.IDENTITY else f" ({other.kind})"
            console.print(f"  {other.name}{kind}", overflow="ellipsis", no_wrap=True)
    return 0
