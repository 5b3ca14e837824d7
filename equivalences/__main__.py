"""`equivalences COMMAND`, or `python -m equivalences COMMAND`: the whole catalogue on this machine, without pytest.

Exit status 0: everything holds; 1: something does not, and the reports say what; 2: wrong usage, or a file that cannot
be read or written, in one line; 130: interrupted.  A reader that leaves early, as `| head` does, changes none of them.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

import equivalences
from equivalences.commands import (
    INTERRUPTED,
    USAGE,
    Usage,
    catalogue,
    compare,
    faults,
    kernels,
    output,
    pages,
    rules,
    sensitivity,
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
    for command in (verify, compare, sharpness, faults, sensitivity, kernels, catalogue, rules, pages):
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
    except KeyboardInterrupt:
        print("equivalences: interrupted", file=sys.stderr)
        return INTERRUPTED


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PLAIN
    return console


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def start() -> int:
    """Runs the command of a process of its own: its signals and its output are taken care of."""
    signal.signal(signal.SIGTERM, _interrupted)  # a time limit: what was judged is shown, drafts are removed
    hangup = getattr(signal, "SIGHUP", None)  # the terminal is gone: the same, unless `nohup` says otherwise
    if hangup is not None and signal.getsignal(hangup) is signal.SIG_DFL:
        signal.signal(hangup, _interrupted)
    stdout = output.prepare()
    status = main()
    if said := output.lost(stdout):
        print(f"equivalences: could not write all of the output: {said}", file=sys.stderr)
        return status or USAGE
    return status


if __name__ == "__main__":
    sys.exit(start())
