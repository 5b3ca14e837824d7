"""Finished units of work, kept in a file as they come: an interrupted `verify` goes on from what is there.

The file is one line that says what it is, then pickles: the circumstances, and each unit with what it added up to.  A
run that is killed leaves half a record at most, which is cut off; any other damage is refused.
"""

from __future__ import annotations

import pickle
import zlib
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import equivalences
from equivalences.report.environment import environment
from equivalences.sweep import Unit
from equivalences.tally import Tally

TITLE = b"units judged by equivalences, 1\n"
CUT = "truncated"  # what `pickle` says of a record that ends too early, if it is no EOFError


class Unfit(ValueError):
    """The file is no record of finished units, or one that was made in other circumstances."""


class Finished(UserDict[Unit, Tally]):
    """The units that a file holds; what is set here is written there."""

    def __init__(self, file: IO[bytes], held: dict[Unit, Tally]) -> None:
        self._file: IO[bytes] | None = None
        super().__init__(held)
        self._file = file

    def __setitem__(self, unit: Unit, tally: Tally) -> None:
        super().__setitem__(unit, tally)
        if self._file:
            pickle.dump((unit, tally), self._file)
            self._file.flush()


def circumstances(device: str) -> dict[str, Any]:
    """All that a verdict depends on beside its unit: the environment, and this package's own code."""
    sources = sorted(Path(equivalences.__file__).parent.rglob("*.py"))
    return {**environment(device), "sources": zlib.crc32(b"".join(source.read_bytes() for source in sources))}


@contextmanager
def finished(path: str | Path, device: str) -> Iterator[Finished]:
    """The finished units in a file, which is made if there is none.

    Raises OSError for a file that cannot be read and written, and Unfit, in one line, for one that holds something
    else, which stays as it is.
    """
    here = circumstances(device)
    with open(path, "a+b") as file:
        file.seek(0)
        title = file.read(len(TITLE))
        if title not in (TITLE, b""):
            raise Unfit(f"{path} is no record of finished units")
        records = _records(file)
        there = next(records, None) if title else None
        if there is None:
            file.truncate(0)
            file.write(TITLE)
            pickle.dump(here, file)
            file.flush()
        elif different := [name for name in here if there.get(name) != here[name]]:
            raise Unfit(f"{path} was made in other circumstances ({', '.join(different)}): name another file")
        yield Finished(file, dict(records))


def _records(file: IO[bytes]) -> Iterator[Any]:
    """The circumstances, then units with their tallies; half a record at the end of the file is cut off."""
    end = start = file.tell()
    while True:
        try:
            record = pickle.load(file)
            if end == start and not isinstance(record, dict):
                raise TypeError("no circumstances")
            if end != start:
                unit, tally = record
                if not (isinstance(unit, Unit) and isinstance(tally, Tally)):
                    raise TypeError("no unit with its tally")
        except Exception as error:  # damage may raise anything
            if isinstance(error, EOFError) or (isinstance(error, pickle.UnpicklingError) and CUT in str(error)):
                file.truncate(end)
                return
            raise Unfit(f"{file.name} is damaged: what it holds from byte {end} on is no record") from None
        end = file.tell()
        yield record
