"""The one loop over identities, formats and problems, in one process or in several.

Work is cut into units of one identity, one format and one batch of problems, each with its own seed: what is judged
does not depend on the number of processes.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass

from equivalences.catalogue import IDENTITIES
from equivalences.gate import processes
from equivalences.judging import judge, plan
from equivalences.judging.judge import Crash, Judgement
from equivalences.judging.plan import Planned
from equivalences.judging.tally import Tally
from equivalences.model import Identity, Problem
from equivalences.running.execute import Place

BATCH = 50  # drawn problems a unit
EXAMPLES = {"eager": 10, "compiled": 4}  # drawn problems of an identity in a format, unless told otherwise


def judged(tally: Tally, problem: Problem, wanted: Sequence[str], device: str, mode: str) -> list[Judgement]:
    """Judges every form on one problem in the layouts `wanted`, and adds it up.

    An oracle that raises is reported as the reference's failure: the rest of the catalogue is judged all the same.
    """
    identity = tally.identity
    met: list[Judgement] = []
    try:
        met += judge.judge(identity, problem, wanted, device=device, mode=mode)
    except Exception as error:
        said = RuntimeError(f"the oracle, not the form: {type(error).__name__}: {error}")
        met.append(Crash(identity, identity.reference, problem, Place(wanted[0], device, mode), error=said))
    for judgement in met:
        tally.add(judgement)
    tally.problems += 1
    tally.seen = zlib.crc32(problem.digest.to_bytes(4, "big"), tally.seen)
    return met


# --- units of work ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Unit:
    """One batch of problems of one identity in one format: batch 0 has no drawn ones, the others `count`."""

    identity: Identity
    format: str
    device: str
    mode: str
    batch: int
    count: int
    seed: int

    def __str__(self) -> str:
        return f"{self.identity.name} in {self.format}"


@dataclass(frozen=True)
class Progress:
    """Called for after every unit: units done and in all, and the tally so far of the cell that it belongs to."""

    done: int
    total: int
    tally: Tally


def units(identity: Identity, fmt: str, device: str, mode: str, examples: int, seed: int) -> list[Unit]:
    sizes = [0, *(min(BATCH, examples - start) for start in range(0, examples, BATCH))]
    return [
        Unit(identity, fmt, device, mode, k, size, zlib.crc32(f"{seed} {identity.name} {fmt} {k}".encode()))
        for k, size in enumerate(sizes)
    ]


def planned(unit: Unit) -> Iterator[Planned]:
    """The problems of a unit: drawn ones, or in batch 0 the edge problems and those that leave nothing out."""
    identity, fmt, mode = unit.identity, unit.format, unit.mode
    if unit.batch:
        yield from plan.drawn(identity, fmt, unit.count, unit.seed, mode)
    else:
        yield from plan.edges(identity, fmt, mode)
        yield from plan.exhaustive(identity, fmt, mode)


def run(unit: Unit) -> Tally:
    """Judges one unit."""
    tally, affordable = Tally(unit.identity, unit.format), plan.Options(unit.mode)
    for each in planned(unit):
        if affordable(each.problem):
            judged(tally, each.problem, each.layouts, unit.device, unit.mode)
    return tally


# --- the sweep -------------------------------------------------------------------------------------------------------


def sweep(
    identities: Sequence[Identity],
    formats: Sequence[str],
    device: str = "cpu",
    mode: str = "eager",
    examples: int | None = None,
    seed: int = 0,
    *,
    jobs: int = 1,
    progress: Callable[[Progress], None] = lambda _: None,
    finished: MutableMapping[Unit, Tally] | None = None,
) -> Iterator[Tally]:
    """Judges every identity in each of its formats among `formats`; yields a cell's tally as soon as it is complete.

    `jobs` processes share the work (identities of the catalogue only: others are judged here, whatever `jobs`).  Units
    that are in `finished` are not judged again; those that are judged without a failure are put there.
    """
    examples = EXAMPLES[mode] if examples is None else examples
    work = [
        unit
        for identity in identities
        for fmt in formats
        if fmt in identity.formats
        for unit in units(identity, fmt, device, mode, examples, seed)
    ]
    batches = {(unit.identity.name, unit.format): unit.batch + 1 for unit in work}  # the last batch has the last word
    cells: dict[tuple[str, str], Tally] = {}
    merged = dict.fromkeys(batches, 0)
    waiting: dict[tuple[str, str, int], Tally] = {}
    known = all(IDENTITIES.get(identity.name) is identity for identity in identities)
    for done, (unit, part) in enumerate(_parts(work, jobs if known else 1, finished), 1):
        key = unit.identity.name, unit.format
        waiting[(*key, unit.batch)] = part
        tally = cells.setdefault(key, Tally(unit.identity, unit.format))
        while (following := waiting.pop((*key, merged[key]), None)) is not None:  # in order, whoever comes first
            tally.merge(following)
            merged[key] += 1
        progress(Progress(done, len(work), tally))
        if merged[key] == batches[key]:
            yield cells.pop(key)


def _parts(
    units: Sequence[Unit], jobs: int, finished: MutableMapping[Unit, Tally] | None
) -> Iterator[tuple[Unit, Tally]]:
    held = {} if finished is None else finished
    yield from ((unit, held[unit]) for unit in units if unit in held)
    rest = [unit for unit in units if unit not in held]
    several = min(jobs, len(rest))
    for unit, part in processes.shared(run, rest, several) if several > 1 else ((unit, run(unit)) for unit in rest):
        if finished is not None and not part.failures:  # what failed is to be seen to fail
            finished[unit] = part
        yield unit, part
