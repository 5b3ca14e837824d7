"""`equivalences COMMAND`, or `python -m equivalences COMMAND`: the whole catalogue on this machine, without pytest.

Exit status 0: everything holds; 1: something does not, and the reports say what; 2: wrong usage, in one line;
130: interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from io import TextIOWrapper
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

import equivalences
from equivalences.commands import (
    FAILED,
    INTERRUPTED,
    USAGE,
    Usage,
    catalogue,
    compare,
    faults,
    pages,
    sharpness,
    verify,
)

PLAIN = 120  # characters in a line of a file or a pipe, which have no width of their own


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message} (`{self.prog} --help` shows the options)")


class _Version(argparse.Action):
    """Prints the versions of this package, of torch (as it is installed: to import it takes seconds) and of Python."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        try:
            torch = f"torch {metadata.version('torch')}"
        except metadata.PackageNotFoundError:
            torch = "no torch"
        print(f"equivalences {equivalences.__version__}, {torch}, Python {sys.version.split()[0]}")
        parser.exit()


def _parser() -> _Parser:
    name = "python -m equivalences" if Path(sys.argv[0]).name == "__main__.py" else "equivalences"
    parser = _Parser(prog=name, description=equivalences.__doc__, allow_abbrev=False)
    parser.add_argument("--version", action=_Version, nargs=0, help="versions of this package, of torch and of Python")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in (verify, compare, sharpness, faults, catalogue, pages):
        command.add(commands)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    try:
        asked = _parser().parse_args(arguments)
        status: int = asked.run(asked, _console())
        return status
    except Usage as error:
        print(f"equivalences: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader has left, as `| head` does
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        print("equivalences: interrupted", file=sys.stderr)
        return INTERRUPTED


def script() -> int:
    """The program: `main`, with this process's signals and streams."""
    signal.signal(signal.SIGTERM, _interrupted)  # a time limit: what was judged is shown, drafts are removed
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # an encoding that lacks a letter shows its code instead
            stream.reconfigure(errors="backslashreplace")
    return main()


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN
    return console


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(script())
