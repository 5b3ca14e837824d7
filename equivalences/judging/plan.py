"""The plan: which problems are judged, in which layouts, by how many threads, in which order.

The edge problems of a domain are judged in the identity's first layout and in one other, the drawn ones in one layout
each; the layouts take turns.  Compiled code is built once a shape, a layout and a set of options, which costs seconds:
there, problems have one shape, one layout, and few sets of options.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from equivalences import devices
from equivalences.judging import judge
from equivalences.model import Identity, Problem
from equivalences.problems import options, wide
from equivalences.problems.draw import sample
from equivalences.problems.large import repeated
from equivalences.problems.rows import some_rows
from equivalences.running.layouts import applies, rows_of

OPTION_SETS = 4  # that compiled code is built for
# Rows of a batch: more than the 32768 numbers that PyTorch gives to one thread, and more than a block of 1024 or 2048.
VERY_MANY, MANY = 32771, 2049
THREADS = (1, 2)
KINDS = range(33, 200)  # rows of an edge problem with rows of every kind, few enough to be repeated
FEW = 128  # classes at most, without many classes
BY_BALLS = 8193  # classes at most in float64 where each has a result: balls decide every one (the gate has 65,537)


@dataclass(frozen=True)
class Planned:
    """A problem, the layouts in which it is judged, and the number of threads of the CPU (0: as it is)."""

    problem: Problem
    layouts: tuple[str, ...]
    threads: int = 0


# --- layouts, shapes -------------------------------------------------------------------------------------------------


def layouts(identity: Identity, problem: Problem, mode: str) -> tuple[str, ...]:
    """The layouts in which a problem can be judged."""
    found = tuple(name for name in judge.layouts(identity) if applies(identity, problem, name))
    return found if mode == "eager" else found[:1]


def in_turn(every: Sequence[str], turn: int) -> tuple[str, ...]:
    """The one layout whose turn it is (none if no layout applies)."""
    return (every[turn % len(every)],) if every else ()


def seldom(every: Sequence[str]) -> tuple[str, ...]:
    """The layouts that few problems can have, so that they cannot wait for their turn."""
    return tuple(name for name in every if name in ("expanded", "unbatched"))


def shape(identity: Identity, fmt: str, mode: str) -> tuple[int, ...] | None:
    """The shape of every problem: in compiled code that of an edge problem with many rows of many classes, else any."""
    if mode == "eager":
        return None
    shapes = [problem.shape for problem in identity.domain.edges(fmt)]
    return max(shapes, key=lambda sizes: (min(sizes, default=1), math.prod(sizes), sizes))


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


# --- what every form meets -------------------------------------------------------------------------------------------


def edges(identity: Identity, fmt: str, mode: str = "eager") -> list[Planned]:
    """The edge problems (in compiled code those of the one shape).

    One whose role asks for it is judged in all layouts, the others in the first and the next in turn.
    """
    wanted, found = shape(identity, fmt, mode), []
    for turn, problem in enumerate(identity.domain.edges(fmt)):
        if wanted is None or problem.shape == wanted:
            every = layouts(identity, problem, mode)
            if problem.role not in options.EVERYWHERE:
                every = tuple(dict.fromkeys((*every[:1], *in_turn(every, turn), *seldom(every))))
            found.append(Planned(problem, every))
    return found


def exhaustive(identity: Identity, fmt: str, mode: str = "eager") -> list[Planned]:
    """What leaves nothing out, where the domain lists it, each problem in the first layout; none for compiled code."""
    listed = identity.domain.exhaustive(fmt) if mode == "eager" else []
    return [Planned(problem, layouts(identity, problem, mode)[:1]) for problem in listed]


def drawn(
    identity: Identity, fmt: str, count: int, seed: int, mode: str = "eager", sizes: tuple[int, ...] | None = None
) -> list[Planned]:
    """`count` drawn problems, of any size or of the given one, in one layout each."""
    problems = sample(identity.domain, fmt, count, seed, sizes or shape(identity, fmt, mode))
    return taking_turns(identity, problems, mode)


def taking_turns(identity: Identity, problems: Iterable[Problem], mode: str = "eager") -> list[Planned]:
    """Problems in one layout each, the next in turn."""
    return [Planned(p, in_turn(layouts(identity, p, mode), turn)) for turn, p in enumerate(problems)]


# --- what an implementation of a whole loss meets beside it ----------------------------------------------------------


def by_region(identity: Identity, planned: Planned) -> Iterator[Planned]:
    """The rows of each region as a problem of their own, in the last layout that is usual.

    A total says nothing about a region if it mixes several.
    """
    problem = planned.problem
    usual = [layout for layout in planned.layouts if layout not in seldom(planned.layouts)]
    where = np.atleast_1d(identity.domain.locate(problem))
    if identity.out or not usual or len(where) != rows_of(identity, problem) or len(set(where.tolist())) < 2:
        return
    y, weight = problem.items.get("y"), problem.items.get("weight")
    kept = np.ones(len(where)) if y is None else (y != problem.items.get("ignore_index", -100)).astype(float)
    if y is not None and weight is not None:
        kept = kept * np.asarray(weight)[np.where(kept > 0, y, 0)]
    for region in np.unique(where):
        rows = np.flatnonzero(where == region)
        if kept[rows].any():  # else the mean is 0 / 0
            yield Planned(some_rows(problem, identity.domain.axes, rows), (usual[-1],))


def many_rows(identity: Identity, fmt: str, device: str) -> Iterator[Planned]:
    """The rows of some edge problems, again and again, in one layout each; the largest by one thread and by two."""
    every = identity.domain.edges(fmt)
    if "z" not in every[0]:
        yield from _again(identity, every)
        return
    several = [problem for problem in every if problem.shape[0] in KINDS][:2]
    alone = [problem for problem in every if problem.role == options.ALONE][:1]
    for turn, small in enumerate((*several, *alone)):
        problem = repeated(small, identity.domain.axes, MANY if turn else VERY_MANY, turn)
        possible = layouts(identity, problem, "eager")
        shared = turn == 0 and devices.kind(device) == "cpu"
        for layout in seldom(possible) or in_turn(possible, turn):
            yield from (Planned(problem, (layout,), count) for count in (THREADS if shared else (0,)))


def _again(identity: Identity, every: Sequence[Problem]) -> Iterator[Planned]:
    """The rows of the edge problem that has most, again and again, where rows are more than logits."""
    most = max(every, key=lambda problem: problem.shape[0])
    problem = some_rows(most, identity.domain.axes, np.arange(MANY) % most.shape[0])
    yield Planned(problem, layouts(identity, problem, "eager")[:1])


def many_classes(identity: Identity, fmt: str) -> list[Planned]:
    """A few rows of many classes, and of very many, in one layout each, in turn."""
    costly = fmt == "float64" and identity.out == "RC"
    shapes = tuple(each for each in wide.SHAPES if not costly or each.classes <= BY_BALLS)
    return taking_turns(identity, wide.problems(identity.domain, fmt, shapes))


def classes(identity: Identity, problem: Problem) -> int:
    """The number of classes (1 where there are none)."""
    name, axes = next(iter(identity.domain.axes.items()), ("", ""))
    return int(np.shape(problem[name])[1]) if axes == "RC" else 1


def is_large(problem: Problem) -> bool:
    """Whether a problem is one of many rows, or of many classes."""
    sizes = (*problem.shape, 1, 1)
    return sizes[0] >= MANY or sizes[1] > FEW
