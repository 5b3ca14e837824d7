"""Finished units of work, kept in a file as they come: an interrupted `verify` goes on from what is there.

The file is one line that says what it is, then a record a line: its CRC-32, a blank, and JSON of the types below: the
circumstances, and each unit with what it added up to.  Nothing in it is executed.  A run that is killed leaves half a
line at most, which is cut off; any other damage is refused.
"""

from __future__ import annotations

import re
import zlib
from collections import UserDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import msgspec
import numpy as np
from msgspec import Meta

import equivalences
from equivalences import files
from equivalences.catalogue import IDENTITIES
from equivalences.gate.sweep import Unit
from equivalences.judging import tally
from equivalences.judging.facts import Fact
from equivalences.judging.tally import Tally
from equivalences.model import Problem
from equivalences.running.environment import environment

TITLE = b"units judged by equivalences, 3\n"
HALF = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} (\{.*)?")  # how a record begins

Whole = Annotated[int, Meta(ge=0)]


class Unfit(ValueError):
    """The file is no record of finished units, or one that was made in other circumstances, or in use."""


# --- what is written -------------------------------------------------------------------------------------------------


class Numbers(msgspec.Struct, tag="array", forbid_unknown_fields=True):
    """An array of a problem, as its bytes."""

    dtype: Literal["<f8", "<i8", "|b1", ">f8", ">i8"]
    shape: list[Whole]
    data: bytes


class Real(msgspec.Struct, tag="float", forbid_unknown_fields=True):
    """A Python float, as `float.hex` spells it: JSON has neither inf nor nan."""

    hex: str


class Input(msgspec.Struct, forbid_unknown_fields=True):
    """A problem."""

    format: str
    items: dict[str, Numbers | Real | bool | int | str | None]


class Worst(msgspec.Struct, forbid_unknown_fields=True):
    """The largest error/allowance, and what reached it."""

    ratio: float
    form: str
    region: str
    problem: Input | None


class Met(msgspec.Struct, forbid_unknown_fields=True):
    """What was seen of a known defect in a form."""

    form: str
    defect: str
    numbers: Whole
    ratio: Real
    ulps: Real


class Cell(msgspec.Struct, forbid_unknown_fields=True):
    """What was seen of a form in a region; `facts` are those of `tally.Cell`, one row after the other."""

    form: str
    quantity: str
    region: str
    facts: Annotated[list[Whole], Meta(min_length=len(Fact) ** 2, max_length=len(Fact) ** 2)]
    informative: Whole
    ratio: float
    contract_ratio: float


class Record(msgspec.Struct, forbid_unknown_fields=True):
    """A unit, and what it added up to: it has no failures, since what failed is not kept."""

    identity: str
    format: str
    device: str
    mode: str
    batch: Whole
    count: Whole
    seed: Whole
    problems: Whole
    numbers: Whole
    cells: list[Cell]
    worst: dict[str, Worst]
    met: list[Met]
    sizes: dict[str, Whole]
    seen: Whole
    fingerprints: list[tuple[str, str, Whole]]


def _input(problem: Problem) -> Input:
    items: dict[str, Numbers | Real | bool | int | str | None] = {}
    for name, item in problem.items.items():
        if isinstance(item, np.ndarray):
            items[name] = Numbers(item.dtype.str, list(item.shape), item.tobytes())
        else:
            items[name] = Real(item.hex()) if isinstance(item, float) else item
    return Input(problem.format, items)


def _problem(stored: Input) -> Problem:
    items: dict[str, Any] = {}
    for name, item in stored.items.items():
        if isinstance(item, Numbers):
            items[name] = np.frombuffer(item.data, dtype=item.dtype).reshape(item.shape)
        else:
            items[name] = float.fromhex(item.hex) if isinstance(item, Real) else item
    return Problem(stored.format, items)


def encoded(unit: Unit, t: Tally) -> bytes:
    """One unit and its tally as JSON."""
    return msgspec.json.encode(_record(unit, t))


def _record(unit: Unit, t: Tally) -> Record:
    return Record(
        unit.identity.name, unit.format, unit.device, unit.mode, unit.batch, unit.count, unit.seed,
        problems=t.problems,
        numbers=t.numbers,
        cells=[
            Cell(*key, cell.facts.ravel().tolist(), cell.informative, cell.ratio, cell.contract_ratio)
            for key, cell in t.cells.items()
        ],
        worst={
            kind: Worst(worst.ratio, worst.form, worst.region, None if worst.problem is None else _input(worst.problem))
            for kind, worst in t.worst.items()
        },
        met=[Met(*key, met.numbers, Real(met.ratio.hex()), Real(met.ulps.hex())) for key, met in t.met.items()],
        sizes=t.sizes,
        seen=t.seen,
        fingerprints=[(*of, crc) for of, crc in t.fingerprints.items()],
    )  # fmt: skip


def _unit(stored: Record) -> tuple[Unit, Tally]:
    """The unit and its tally.  Raises KeyError or ValueError for what the catalogue does not have."""
    identity = IDENTITIES[stored.identity]
    unit = Unit(identity, stored.format, stored.device, stored.mode, stored.batch, stored.count, stored.seed)
    return unit, Tally(
        identity,
        stored.format,
        problems=stored.problems,
        numbers=stored.numbers,
        cells={(cell.form, cell.quantity, cell.region): _cell(cell) for cell in stored.cells},
        worst={
            kind: tally.Worst(w.ratio, w.form, w.region, None if w.problem is None else _problem(w.problem))
            for kind, w in stored.worst.items()
        },
        met={
            (met.form, met.defect): tally.Met(met.numbers, float.fromhex(met.ratio.hex), float.fromhex(met.ulps.hex))
            for met in stored.met
        },
        sizes=stored.sizes,
        seen=stored.seen,
        fingerprints={(form, quantity): crc for form, quantity, crc in stored.fingerprints},
    )


def _cell(stored: Cell) -> tally.Cell:
    facts = np.array(stored.facts, dtype=np.int64).reshape(len(Fact), len(Fact))
    return tally.Cell(facts, stored.informative, stored.ratio, stored.contract_ratio)


def line(content: bytes) -> bytes:
    """One record as it stands in the file."""
    return b"%08x %b\n" % (zlib.crc32(content), content)


# --- the file --------------------------------------------------------------------------------------------------------


class Finished(UserDict[Unit, Tally]):
    """The units that a file holds; what is set here is written there.

    `lost` says why something could not be written ("": all was); the run goes on, and from then on nothing is kept.
    """

    def __init__(self, file: IO[bytes], held: dict[Unit, Tally]) -> None:
        self._file: IO[bytes] | None = None
        self.lost = ""
        super().__init__(held)
        self._file = file

    def __setitem__(self, unit: Unit, tally: Tally) -> None:
        super().__setitem__(unit, tally)
        if self._file and not self.lost:
            end = self._file.seek(0, 2)
            try:
                write(self._file, line(encoded(unit, tally)))
            except OSError as error:
                self.lost = error.strerror or str(error)
                self._file.truncate(end)


def write(file: IO[bytes], text: bytes) -> None:
    """Writes at the end.  The file has no buffer: what a full disk refuses is not tried again when it is closed."""
    rest = memoryview(text)
    while rest:
        rest = rest[file.write(rest) :]


def circumstances(device: str) -> dict[str, Any]:
    """All that a verdict depends on beside its unit: the environment, and this package's own code."""
    sources = sorted(Path(equivalences.__file__).parent.rglob("*.py"))
    return {**environment(device), "sources": zlib.crc32(b"".join(source.read_bytes() for source in sources))}


@contextmanager
def finished(path: str | Path, device: str) -> Iterator[Finished]:
    """The finished units in a file, which is made if there is none, and belongs to this process meanwhile.

    Raises OSError for a file that cannot be read and written, and Unfit, in one line, for one that holds something
    else, which stays as it is, or is in use.
    """
    here = circumstances(device)
    if Path(path).exists() and not Path(path).is_file() and not Path(path).is_dir():
        raise Unfit(f"{path} is no regular file")
    with open(path, "a+b", buffering=0) as file:
        if not files.locked(file):
            raise Unfit(f"{path} is in use by another run: wait for its end, or name another file")
        file.seek(0)
        content = file.read()
        if not content.startswith(TITLE) and not TITLE.startswith(content):
            raise Unfit(f"{path} is no record of finished units")
        records, end = _lines(str(path), content)
        if not records:
            file.truncate(0)
            write(file, TITLE)
            write(file, line(msgspec.json.encode(here)))
        else:
            there = _decoded(str(path), *records[0], dict[str, Any])
            if different := [name for name in here if there.get(name) != here[name]]:
                raise Unfit(f"{path} was made in other circumstances ({', '.join(different)}): name another file")
        held = dict(_read(str(path), *each) for each in records[1:])
        if records:
            file.truncate(end)  # half a record, if there is one
        yield Finished(file, held)


def _lines(path: str, content: bytes) -> tuple[list[tuple[int, bytes]], int]:
    """The records, each with the byte at which it begins, and the byte at which the last one ends."""
    start, found = len(TITLE), []
    while (stop := content.find(b"\n", start)) >= 0:
        whole = content[start : stop + 1]
        record = whole[9:-1]
        if line(record) != whole:
            raise _damaged(path, start)
        found.append((start, record))
        start = stop + 1
    if not HALF.fullmatch(content, start):
        raise _damaged(path, start)
    return found, start


def _damaged(path: str, start: int) -> Unfit:
    return Unfit(f"{path} is damaged: what it holds from byte {start} on is no record")


def _decoded(path: str, start: int, content: bytes, kind: Any) -> Any:
    try:
        return msgspec.json.decode(content, type=kind)
    except (ValueError, RecursionError):
        raise _damaged(path, start) from None


def _read(path: str, start: int, content: bytes) -> tuple[Unit, Tally]:
    try:
        return _unit(_decoded(path, start, content, Record))
    except Unfit:
        raise
    except (KeyError, ValueError, OverflowError):
        raise _damaged(path, start) from None
