"""Pages of the documentation that are made of tables, as Markdown: a command each."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from rich.console import Console

from equivalences.commands import Usage

PAGES = {  # each a command and a module of `report`
    "findings": "what PyTorch gets wrong, and what to do instead",
    "pitfalls": "what looks right and is not, with numbers",
    "special": "what is right at inf, nan, nothing and nonsense",
    "invariance": "what depends on a row's place or on the threads",
}


def add(commands: Any) -> None:
    """Adds a command for each page to the parser."""
    for name, what in PAGES.items():
        commands.add_parser(name, help=f"{what}, as Markdown").set_defaults(run=run)
    commands.choices["invariance"].add_argument("--device", default="cpu", help="cpu (default), cuda, ...")


def run(asked: Any, console: Console) -> int:
    from equivalences import choices

    try:
        where = {"device": choices.device(asked.device)} if "device" in asked else {}
    except choices.Unknown as error:
        raise Usage(str(error)) from None
    print(import_module(f"equivalences.report.{asked.command}").page(**where), end="")
    return 0
