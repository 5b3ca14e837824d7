"""What an implementation is tried on: edge problems, the rows of each region, drawn ones, many rows, many classes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from equivalences.judging import plan
from equivalences.judging.plan import Planned
from equivalences.model import Identity, Problem


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
    for each in _planned(identity, fmt, device, examples, seed, shape, many_rows, many_classes):
        yield from (Todo(each.problem, layout, each.threads) for layout in each.layouts)


def _planned(
    identity: Identity, fmt: str, device: str, examples: int, seed: int, shape: tuple[int, ...] | None,
    many_rows: bool, many_classes: bool,
) -> Iterator[Planned]:  # fmt: skip
    for each in plan.edges(identity, fmt):
        if shape is None and (many_classes or plan.classes(identity, each.problem) <= plan.FEW):
            yield each
            yield from plan.by_region(identity, each)
        elif shape == each.problem.shape:
            yield each
    yield from plan.drawn(identity, fmt, examples, seed, sizes=shape)
    if many_rows and shape is None:
        yield from plan.many_rows(identity, fmt, device)
    if many_classes and shape is None:
        yield from plan.many_classes(identity, fmt)
