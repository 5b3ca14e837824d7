"""The one loop over identities, formats, problems and layouts, in one process or in several.

The edge problems of a domain are judged in the identity's first layout and in one other, the drawn ones in one layout
each; the layouts take turns.  Compiled code is built once a shape, a layout and a set of options, which costs seconds:
there, problems have one shape, one layout, and few sets of options.

Work is cut into units of one identity, one format and one batch of problems, each with its own seed: what is judged
does not depend on the number of processes.
"""

from __future__ import annotations

import copyreg
import math
import multiprocessing
import os
import pickle
import signal
import threading
import zlib
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from equivalences.catalogue import IDENTITIES
from equivalences.judging import judge
from equivalences.judging.judge import Crash, Judgement
from equivalences.judging.tally import Tally
from equivalences.model import Form, Identity, Problem
from equivalences.problems import options
from equivalences.problems.draw import sample
from equivalences.running.execute import Place
from equivalences.running.layouts import applies

BATCH = 50  # drawn problems a unit
EXAMPLES = {"eager": 10, "compiled": 4}  # drawn problems of an identity in a format, unless told otherwise
OPTION_SETS = 4  # that compiled code is built for


# --- what is judged: also for whoever draws the problems elsewhere ---------------------------------------------------


def layouts(identity: Identity, problem: Problem, mode: str) -> tuple[str, ...]:
    """The layouts in which a problem is judged."""
    found = tuple(name for name in judge.layouts(identity) if applies(identity, problem, name))
    return found if mode == "eager" else found[:1]


def shape(identity: Identity, fmt: str, mode: str) -> tuple[int, ...] | None:
    """The shape of every problem: in compiled code that of an edge problem with many rows of many classes, else any."""
    if mode == "eager":
        return None
    shapes = [_first(problem) for problem in identity.domain.edges(fmt)]
    return max(shapes, key=lambda sizes: (min(sizes, default=1), math.prod(sizes), sizes))


def _first(problem: Problem) -> tuple[int, ...]:
    """The shape of a problem's first item, which stands for that of all."""
    return np.shape(next(iter(problem.items.values())))


def edges(identity: Identity, fmt: str, mode: str) -> list[tuple[Problem, tuple[str, ...]]]:
    """The edge problems (in compiled code those of the one shape), each with the layouts in which it is judged.

    One whose role asks for it is judged in all of them, the others in the first and the next in turn.
    """
    wanted, found = shape(identity, fmt, mode), []
    for turn, problem in enumerate(identity.domain.edges(fmt)):
        if wanted is None or _first(problem) == wanted:
            every = layouts(identity, problem, mode)
            if problem.role not in options.EVERYWHERE:
                every = tuple(dict.fromkeys((*every[:1], *in_turn(every, turn), *seldom(every))))
            found.append((problem, every))
    return found


def exhaustive(identity: Identity, fmt: str, mode: str) -> list[tuple[Problem, tuple[str, ...]]]:
    """What leaves nothing out, where the domain lists it, each problem in the first layout; none for compiled code."""
    listed = identity.domain.exhaustive(fmt) if mode == "eager" else []
    return [(problem, layouts(identity, problem, mode)[:1]) for problem in listed]


def seldom(every: Sequence[str]) -> tuple[str, ...]:
    """The layouts that few problems can have, so that they cannot wait for their turn."""
    return tuple(name for name in every if name in ("expanded", "unbatched"))


def in_turn(every: Sequence[str], turn: int) -> tuple[str, ...]:
    """The one layout whose turn it is (none if no layout applies)."""
    return (every[turn % len(every)],) if every else ()


@dataclass
class Options:
    """The few sets of options that compiled code is built for: a predicate on problems, which remembers.

    Code is specialised for everything that is no array, beside the shapes.
    """

    mode: str
    seen: set[tuple[Any, ...]] = field(default_factory=set)

    def __call__(self, problem: Problem) -> bool:
        """Whether a problem has options that code is built for already, or one of the first few sets of them."""
        if self.mode == "eager":
            return True
        mine = tuple(item for item in problem.items.values() if not hasattr(item, "shape"))
        if len(self.seen) < OPTION_SETS:
            self.seen.add(mine)
        return mine in self.seen


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


def chosen(unit: Unit) -> list[tuple[Problem, tuple[str, ...]]]:
    """The problems of a unit, each with the layouts in which it is judged."""
    identity, fmt, mode = unit.identity, unit.format, unit.mode
    if not unit.batch:
        return edges(identity, fmt, mode)
    drawn = sample(identity.domain, fmt, unit.count, unit.seed, shape(identity, fmt, mode))
    return [(p, in_turn(layouts(identity, p, mode), turn)) for turn, p in enumerate(drawn)]


def run(unit: Unit) -> Tally:
    """Judges one unit."""
    tally, affordable = Tally(unit.identity, unit.format), Options(unit.mode)
    every = [] if unit.batch else exhaustive(unit.identity, unit.format, unit.mode)
    for problem, wanted in (*chosen(unit), *every):
        if affordable(problem):
            judged(tally, problem, wanted, unit.device, unit.mode)
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
    for unit, part in _pool(rest, several) if several > 1 else _here(rest):
        if finished is not None and not part.failures:  # what failed is to be seen to fail
            finished[unit] = part
        yield unit, part


def _here(units: Sequence[Unit]) -> Iterator[tuple[Unit, Tally]]:
    for unit in units:
        yield unit, run(unit)


# --- between processes -----------------------------------------------------------------------------------------------


class WorkerDied(RuntimeError):
    """A worker process ended without a word, as after a segmentation fault or when memory ran out."""


def _begin(threads: int) -> None:
    for name in ("SIGINT", "SIGHUP"):  # the parent's business
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, however: a killed one tells nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _away(unit: Unit) -> Tally:
    tally = run(unit)
    tally.failures = [
        replace(failure, error=_portable(failure.error)) if isinstance(failure, Crash) else failure
        for failure in tally.failures
    ]
    return tally


def _portable(error: Exception) -> Exception:
    """The exception itself if it survives the journey between processes, else one that says what it said."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _pool(units: Sequence[Unit], jobs: int) -> Iterator[tuple[Unit, Tally]]:
    before = set(multiprocessing.active_children())
    # Not fork: torch's threads, and an accelerator's context, do not survive it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(1,))
    try:
        waiting = {pool.submit(_away, unit): unit for unit in units}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                unit = waiting.pop(future)
                try:
                    yield unit, future.result()
                except BrokenProcessPool:
                    raise WorkerDied(
                        f"a worker process died near {unit.identity.name} in {unit.format}: "
                        "`--jobs 1` shows which form kills it"
                    ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _identity(name: str) -> Identity:
    return IDENTITIES[name]


def _form(name: str, index: int) -> Form:
    return IDENTITIES[name].forms[index]


def _problem(fmt: str, items: dict[str, Any], role: str) -> Problem:
    return Problem(fmt, items, role)


_FORMS = {form: (name, index) for name, identity in IDENTITIES.items() for index, form in enumerate(identity.forms)}

# The catalogue is code: it travels by name.
copyreg.pickle(Identity, lambda identity: (_identity, (identity.name,)))
copyreg.pickle(Form, lambda form: (_form, _FORMS[form]))
copyreg.pickle(Problem, lambda problem: (_problem, (problem.format, dict(problem.items), problem.role)))
