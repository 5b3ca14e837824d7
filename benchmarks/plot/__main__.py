"""`python -m benchmarks.plot RESULT.json ... -o FOLDER`: every picture that the results have something for.

A RESULT is what `pytest --benchmark-only --benchmark-json FILE` or `python -m benchmarks.versus --json FILE` wrote.
Exit status 0: at least one picture; 2: wrong usage, or nothing to draw, in one line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from matplotlib.figure import Figure

from benchmarks.plot import pictures
from benchmarks.plot.results import Comparison, Timing, Unusable, read
from equivalences.files import destination

USAGE = 2
FORMATS = ("png", "svg", "pdf")


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Unusable(f"{message} (`{self.prog} --help` shows the options)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Draws; returns the exit status."""
    parser = _Parser(prog="python -m benchmarks.plot", description=__doc__, allow_abbrev=False)
    parser.add_argument("results", nargs="+", type=Path, metavar="RESULT.json")
    parser.add_argument("-o", "--output", type=Path, default=Path(), metavar="FOLDER", help="(default: here)")
    parser.add_argument("--format", choices=FORMATS, default="png", help="(default png)")
    try:
        asked = parser.parse_args(arguments)
        timings, comparisons = read(asked.results)
        if len(machines := {timing.machine for timing in timings}) > 1:
            raise Unusable(f"results of different machines or releases: one at a time ({'; '.join(sorted(machines))})")
        drawn = 0
        for name, figure in _drawn(timings, comparisons):
            path = asked.output / f"{name}.{asked.format}"
            save(figure, path)
            print(path)
            drawn += 1
        if not drawn:
            raise Unusable("these results hold nothing that a picture is made of")
    except Unusable as error:
        print(f"plot: {error}", file=sys.stderr)
        return USAGE
    except OSError as error:
        print(f"plot: cannot write {error.filename}: {error.strerror}", file=sys.stderr)
        return USAGE
    return 0


def _drawn(timings: Sequence[Timing], comparisons: Sequence[Comparison]) -> Iterator[tuple[str, Figure]]:
    for draw in (pictures.batch_size, pictures.loader_share, pictures.formulations, pictures.time_to_accuracy):
        if figure := draw(timings):
            yield draw.__name__.replace("_", "-"), figure
    for number, comparison in enumerate(comparisons, 1):
        if figure := pictures.forest(comparison):
            yield "forest" if len(comparisons) == 1 else f"forest-{number}", figure


def save(figure: Figure, path: Path) -> None:
    """Writes a picture whole or not at all.  Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with destination(path) as whole:
        whole.fill(lambda file: figure.savefig(file, format=path.suffix.removeprefix(".")))


if __name__ == "__main__":
    sys.exit(main())
