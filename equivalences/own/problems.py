"""What an implementation is tried on: edge problems, the rows of each region, drawn ones, many rows, many classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from equivalences import devices
from equivalences.gate import sweep
from equivalences.model import Identity, Problem
from equivalences.problems import wide
from equivalences.problems.draw import sample
from equivalences.problems.large import repeated
from equivalences.problems.rows import some_rows
from equivalences.running.layouts import rows_of

# Edge problem (a mean, a total, one row) -> rows: more than the 32768 numbers that PyTorch gives to one thread, and
# more than a block of 1024 or 2048 has.
MANY = ((2, 32771), (3, 2049), (0, 2049))
THREADS = (1, 2)
FEW = 128  # classes at most, without many classes
BY_BALLS = 8193  # classes at most in float64 where each has a result: balls decide every one (the gate has 65,537)


class Todo(NamedTuple):
    """A problem, and how it is to be run: its layout, and the number of threads of the CPU (0: as it is)."""

    problem: Problem
    layout: str
    threads: int = 0


def todo(
    identity: Identity,
    fmt: str,
    device: str,
    examples: int,
    seed: int,
    shape: tuple[int, ...] | None,
    many_rows: bool,
    many_classes: bool,
) -> Iterator[Todo]:
    """Every problem of a format with its layouts; of many rows, or classes, if they are asked for, and no shape is."""
    for problem, wanted in sweep.edges(identity, fmt, "eager"):
        if shape is None and not many_classes and _classes(identity, problem) > FEW:
            continue
        if shape is None or shape == np.shape(next(iter(problem.items.values()))):
            yield from (Todo(problem, layout) for layout in wanted)
            usual = [layout for layout in wanted if layout not in sweep.seldom(wanted)]
            if usual and shape is None and identity.out == "":
                yield from (Todo(part, usual[-1]) for part in _by_region(identity, problem))
    drawn = sample(identity.domain, fmt, examples, seed, shape)
    for turn, problem in enumerate(drawn):
        for layout in sweep.in_turn(sweep.layouts(identity, problem, "eager"), turn):
            yield Todo(problem, layout)
    if many_rows and shape is None:
        yield from _of_many_rows(identity, fmt, device)
    if many_classes and shape is None:
        yield from _of_many_classes(identity, fmt)


def _of_many_rows(identity: Identity, fmt: str, device: str) -> Iterator[Todo]:
    """The rows of some edge problems, again and again, in one layout each; the largest by one thread and by two."""
    edges = identity.domain.edges(fmt)
    for turn, (index, rows) in enumerate(MANY):
        problem = repeated(edges[index], identity.domain.axes, rows, turn)
        every = sweep.layouts(identity, problem, "eager")
        shared = turn == 0 and devices.kind(device) == "cpu"
        for layout in sweep.seldom(every) or sweep.in_turn(every, turn):
            yield from (Todo(problem, layout, count) for count in (THREADS if shared else (0,)))


def _of_many_classes(identity: Identity, fmt: str) -> Iterator[Todo]:
    """A few rows of many classes, and of very many, in one layout each, in turn."""
    costly = fmt == "float64" and identity.out == "RC"
    shapes = tuple(shape for shape in wide.SHAPES if not costly or shape.classes <= BY_BALLS)
    for turn, problem in enumerate(wide.problems(identity.domain, fmt, shapes)):
        for layout in sweep.in_turn(sweep.layouts(identity, problem, "eager"), turn):
            yield Todo(problem, layout)


def _classes(identity: Identity, problem: Problem) -> int:
    """The number of classes (1 where there are none)."""
    name, axes = next(iter(identity.domain.axes.items()), ("", ""))
    return int(np.shape(problem[name])[1]) if axes == "RC" else 1


def is_large(problem: Problem) -> bool:
    """Whether a problem is one of many rows, or of many classes."""
    sizes = (*np.shape(next(iter(problem.items.values()))), 1, 1)
    return bool(sizes[0] >= min(size for _, size in MANY) or sizes[1] > FEW)


def _by_region(identity: Identity, problem: Problem) -> Iterator[Problem]:
    """The rows of each region as a problem of their own: a total says nothing about a region if it mixes several."""
    where = np.atleast_1d(identity.domain.locate(problem))
    if len(where) != rows_of(identity, problem) or len(set(where.tolist())) < 2:
        return
    y, weight = problem.items.get("y"), problem.items.get("weight")
    kept = np.ones(len(where)) if y is None else (y != problem.items.get("ignore_index", -100)).astype(float)
    if y is not None and weight is not None:
        kept = kept * np.asarray(weight)[np.where(kept > 0, y, 0)]
    for region in np.unique(where):
        rows = np.flatnonzero(where == region)
        if kept[rows].any():  # else the mean is 0 / 0
            yield some_rows(problem, identity.domain.axes, rows)
