"""`rules`: which operations of the installed torch the error analysis follows."""

from __future__ import annotations

import fnmatch
from collections import Counter
from typing import Any

from rich.console import Console

from equivalences.commands import Usage


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    rules = commands.add_parser("rules", help="which operations of ATen the error analysis follows, a line each")
    rules.add_argument("names", metavar="GLOB", nargs="*", help="only these: add, 'log*', '*_backward'")
    rules.set_defaults(run=run)


def run(asked: Any, console: Console) -> int:
    from equivalences.rounding.coverage import Coverage, operations

    every = operations()
    found = [each for each in every if not asked.names or any(fnmatch.fnmatchcase(each.name, n) for n in asked.names)]
    if not found:
        raise Usage(f"no operation of ATen is called {' or '.join(asked.names)}")
    width = max(len(each.name) for each in found)
    for each in found:
        but = (
            f", {Coverage.WITHOUT.value}: {', '.join(each.without)}" if len(each.overloads) > 1 and each.without else ""
        )
        said = "" if each.coverage is Coverage.WITHOUT and but else each.coverage.value
        console.print(f"{each.name:{width}}  {(said + but).removeprefix(', ')}", overflow="ellipsis", no_wrap=True)
    counts = Counter(each.coverage for each in found)
    console.print(
        f"{len(found)} operations: " + ", ".join(f"{count} {kind.value}" for kind, count in counts.most_common()),
        soft_wrap=True,
    )
    return 0
