"""What is to be done: the problems and the special values of all cases and formats, cheap and telling ones first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np

from equivalences.judging import plan
from equivalences.own.limits import Limits
from equivalences.own.problems import Todo, todo
from equivalences.own.special import Asked, asked
from equivalences.own.verdict import Judge
from equivalences.problems.draw import sample

ROWS = 3  # of a problem that is drawn for a number of classes


class Asking(NamedTuple):
    """What is asked for: the formats, and how many and which problems."""

    formats: Sequence[str]
    device: str
    examples: int
    seed: int
    shape: tuple[int, ...] | None
    many_rows: bool
    many_classes: bool


def listed(judges: Sequence[Judge], asking: Asking, limits: Limits, left_out: Counter[str]) -> list[tuple[Judge, Todo]]:
    """Every problem, small ones first, across formats; `left_out` counts those outside of the limits, by reason."""
    work = []
    for judge in judges:
        for fmt in asking.formats:
            if fmt not in judge.case.identity.formats:
                continue
            every = todo(
                judge.case.identity, fmt, asking.device, asking.examples, asking.seed, asking.shape, asking.many_rows,
                asking.many_classes,
            )  # fmt: skip
            for one in (*every, *_on_borders(judge, fmt, asking, limits)):
                if why := judge.refuses(one.problem):
                    left_out[why] += 1
                else:
                    judge.probe = judge.probe or one  # an edge problem of several classes
                    work.append((judge, one))
    return sorted(work, key=lambda at: _size(at[1]))  # stable: the layouts of a problem stay together


def _size(one: Todo) -> int:
    return int(np.size(next(iter(one.problem.items.values()))))


def _on_borders(judge: Judge, fmt: str, asking: Asking, limits: Limits) -> Iterator[Todo]:
    """Problems of the numbers of classes that are declared, where some are: their least and most, and between."""
    identity = judge.case.identity
    if asking.shape is not None or next(iter(identity.domain.axes.values()), "") != "RC":
        return
    count = max(1, asking.examples // 8)
    drawn = (sample(identity.domain, fmt, count, asking.seed, (ROWS, classes)) for classes in limits.sizes())
    for each in plan.taking_turns(identity, chain.from_iterable(drawn)):
        yield from (Todo(each.problem, layout) for layout in each.layouts)


def asked_of(
    judges: Sequence[Judge], asking: Asking, limits: Limits, left_out: Counter[str]
) -> Iterator[tuple[Judge, Asked]]:
    """Every special value that is asked for."""
    for judge in judges:
        for fmt in asking.formats:
            if fmt in judge.case.identity.formats:
                for value in asked(judge.case, fmt, judge.mode, asking.shape, asking.many_classes, limits):
                    if why := judge.refuses(value.problem):
                        left_out[why] += 1
                    else:
                        yield judge, value
