"""Batches of many rows, made of few: the rows of a small problem again and again, so that the oracle sees each once.

What a batch adds to its rows is their number: how a sum is ordered, what holds a count, how a mean divides.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from equivalences.formats import FORMATS, Format, truncate
from equivalences.model import Array, Domain, Problem
from equivalences.problems import options
from equivalences.problems.draw import Choose
from equivalences.problems.rows import PATTERNS, PERIODS, moderated, some_rows

# Beyond 2048 float16 counts by twos, beyond 65504 it has no number, from 65520 on it rounds to infinity; the vectors
# and levels of sums end at powers of two.  Larger batches: tests/library/test_large.py.
SIZES = (65520, 65504, 2049, 32771)  # means, and sums, in turn
SOME = (257, 1000, 2049)
# Every combination of options is met once with so many rows: beyond 65536; and beyond 4096, where a format cannot count
# the former (their mean is lost).
VERY_MANY, SEVERAL = 65_537, 4111
# The total weight of a batch, as a part of the largest finite number.  It is no result: a heavy batch of light losses
# has a mean like any other.
MODERATE, HEAVY, BEYOND = 0.25, 1.0, 4.0
LOADS = (MODERATE, MODERATE, HEAVY, BEYOND)
MET = 2.0**20  # total weights that batches have
TURNS = 12


def _losses(items: dict[str, Any]) -> Array:
    """About how large the loss of each row is, without weights."""
    z = items["z"]
    if z.ndim == 1:
        return np.asarray(np.logaddexp(0, z) - items["t"] * z)
    shift = z - z.max(axis=1, keepdims=True)
    hit = items["p"] if "p" in items else np.arange(z.shape[1]) == items["y"][:, None]
    return np.asarray(np.log(np.exp(shift).sum(axis=1)) * hit.sum(axis=1) - (hit * shift).sum(axis=1))


def repeated(problem: Problem, axes: Mapping[str, str], rows: int, turn: int) -> Problem:
    """The milder rows of a problem, one after the other or in blocks, until there are `rows` of them.

    Where the problem has an ignored index, a pattern of the new rows is ignored, whatever their labels were.  After
    `TURNS` turns of each, its class weights are as heavy as the next of `LOADS` says.
    """
    kinds = tuple(PATTERNS.values())
    ignored = kinds[turn % len(kinds)](np.arange(rows), rows, PERIODS[turn * 2 % len(PERIODS)])
    return _repeated(problem, axes, ignored, turn, LOADS[turn // TURNS % len(LOADS)])


def combined(problem: Problem, axes: Mapping[str, str], rows: int, turn: int, load: float = MODERATE) -> Problem:
    """The same of one combination of options: some of the new rows are ignored if and only if some of the old ones are.

    The patterns leave the sums of nll_loss short, whose folds fall on every 16th row.
    """
    place, index = np.arange(rows), problem.items.get("ignore_index")
    ignored = place < 0
    if index is not None and (problem["y"] == index).any():
        pattern = ("column", "all but a column", "blocks")[turn % 3]
        ignored = PATTERNS[pattern](place, rows, (2, 5, 9)[turn // 3 % 3])
    return _repeated(problem, axes, ignored, turn, load)


def _repeated(problem: Problem, axes: Mapping[str, str], ignored: Array, turn: int, load: float) -> Problem:
    fmt, items, rows = FORMATS[problem.format], dict(problem.items), len(ignored)
    index, place = items.get("ignore_index"), np.arange(rows)
    if index is not None:
        items["y"] = np.where(items["y"] == index, (index + 1) % items["z"].shape[1], items["y"])
    heavy = load > MODERATE and can_be_heavy(problem)
    if heavy:
        items["z"] = _confident(items["z"], items["y"], fmt)
    loss = _losses(items)
    # The total of so many losses is to be finite; and a row that dominates it would hide the others.
    most = min(8.0, fmt.max / rows / 2, 0.5 / load if heavy else math.inf)
    few = np.flatnonzero(loss <= max(most, loss.min()))
    order = few[place % few.size if turn % 2 else place * few.size // rows]
    items = dict(some_rows(Problem(problem.format, items), axes, order).items)
    if heavy:
        items["weight"] = _weighing(items["weight"], items["y"][~ignored], fmt.max * load, fmt)
    if index is not None:
        items["y"] = np.where(ignored, index, items["y"])
    heaviest = max((float(np.max(items[name])) for name in ("weight", "pos_weight") if _set(items, name)), default=1.0)
    if _set(items, "weight") and not heavy:
        items["weight"] = moderated(items["weight"], rows * heaviest, fmt)
    return Problem(problem.format, items)


def losing(problem: Problem, axes: Mapping[str, str], rows: int, turn: int) -> Problem:
    """A combination of options whose losses have a total beyond the format, and a mean far within it.

    Its logits are multiplied by a power of two until they have.
    """
    fmt, found = FORMATS[problem.format], combined(problem, axes, rows, turn)
    for _ in range(8):
        if _losses(dict(found.items)).mean() * rows > 4 * fmt.max:
            break
        found = Problem(problem.format, {**found.items, "z": found["z"] * 2})
    return found


def can_be_heavy(problem: Problem) -> bool:
    """Whether a mean divides by a total weight, in a format that ends where such totals lie."""
    return FORMATS[problem.format].max < MET and "y" in problem and _set(problem.items, "weight")


def _confident(z: Array, y: Array, fmt: Format) -> Array:
    """Logits of which the labelled one is the largest, by 4."""
    return np.asarray(np.where(np.arange(z.shape[1]) == y[:, None], truncate(z.max(1, keepdims=True) + 4, fmt), z))


def _weighing(weight: Array, y: Array, total: float, fmt: Format) -> Array:
    """Class weights times a power of two, with which the rows labelled `y` weigh between a half of `total` and all."""
    scale = min(total / weight[y].sum(), fmt.max / weight.max()) if weight[y].any() else 1.0
    return np.asarray(truncate(weight * 2.0 ** math.floor(math.log2(scale)), fmt))


def _set(items: Mapping[str, Any], name: str) -> bool:
    return items.get(name) is not None


def _combinations(base: Domain, format: str) -> list[Problem]:
    """The edge problems that hold one combination of options each."""
    return [problem for problem in base.edges(format) if problem.role == options.COMBINATION]


def many(base: Domain, sizes: tuple[int, ...] = SIZES) -> Domain:
    """Few rows of `base`, repeated: its edge problems to `sizes` rows, drawn ones to some thousands.

    Every combination of options is met once, beyond 65536 rows, and with class weights that are heavy for the format.
    """

    def draw(choose: Choose, format: str, shape: tuple[int, ...] | None = None) -> Problem:
        small = base.draw(choose, format, shape)
        if shape is not None:
            return small
        return repeated(small, base.axes, choose.of(SOME), choose.of(range(TURNS * len(LOADS))))

    def edges(format: str) -> list[Problem]:
        small = base.edges(format)
        return [repeated(small[turn % len(small)], base.axes, size, turn) for turn, size in enumerate(sizes)]

    def exhaustive(format: str) -> list[Problem]:
        mild = _combinations(base, format)
        batches = (VERY_MANY,) if FORMATS[format].max > VERY_MANY else (VERY_MANY, SEVERAL)
        every = [combined(problem, base.axes, rows, turn) for rows in batches for turn, problem in enumerate(mild)]
        every += [
            combined(problem, base.axes, SEVERAL, turn, load)
            for load in (HEAVY, BEYOND)
            for turn, problem in enumerate(mild)
            if can_be_heavy(problem)
        ]
        return every + [
            losing(problem, base.axes, SEVERAL, turn)
            for turn, problem in enumerate(mild)
            if FORMATS[format].max < MET and problem["reduction"] == "mean"
        ]

    return replace(base, name=f"many({base.name})", draw=draw, edges=edges, exhaustive=exhaustive)
