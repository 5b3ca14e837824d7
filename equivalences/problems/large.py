"""Batches of many rows, made of few: the rows of a small problem again and again, so that the oracle sees each once.

What a batch adds to its rows is their number: how a sum is ordered, what holds a count, how a mean divides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from equivalences.formats import FORMATS, truncate
from equivalences.model import Array, Domain, Problem
from equivalences.problems.rows import PATTERNS, PERIODS, some_rows

# Beyond 2048 float16 counts by twos, beyond 65504 it has no number, from 65520 on it rounds to infinity; the vectors
# and levels of sums end at powers of two.  Larger batches: tests/test_large.py.
SIZES = (65520, 65504, 2049, 32771)  # means, and sums, in turn
SOME = (257, 1000, 2049)
HUNDREDS = (127, 256, 1000)
VOCABULARY = (4099, 50_257)
MANY, ALONE = 10_000, 100_000  # classes: two rows then, and one


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

    Where the problem has an ignored index, a pattern of the new rows is ignored, whatever their labels were.
    """
    fmt, items = FORMATS[problem.format], dict(problem.items)
    index, place = items.get("ignore_index"), np.arange(rows)
    if index is not None:
        items["y"] = np.where(items["y"] == index, (index + 1) % items["z"].shape[1], items["y"])
    loss = _losses(items)
    # The total of so many losses is to be finite; and a row that dominates it would hide the others.
    few = np.flatnonzero(loss <= max(min(8.0, fmt.max / rows / 2), loss.min()))
    order = few[place % few.size if turn % 2 else place * few.size // rows]
    items = dict(some_rows(Problem(problem.format, items), axes, order).items)
    if index is not None:
        kinds = tuple(PATTERNS.values())
        ignored = kinds[turn % len(kinds)](place, rows, PERIODS[turn * 2 % len(PERIODS)])
        items["y"] = np.where(ignored, index, items["y"])
    heaviest = max((float(np.max(items[name])) for name in ("weight", "pos_weight") if _set(items, name)), default=1.0)
    excess = rows * heaviest / (fmt.max / 4)
    if excess > 1 and _set(items, "weight"):  # a power of two: exact
        items["weight"] = items["weight"] * 2.0 ** -math.ceil(math.log2(excess))
    return Problem(problem.format, items)


def widened(problem: Problem, axes: Mapping[str, str], columns: int, turn: int) -> Problem:
    """A few rows of a problem (one, if there are very many classes), their columns repeated up to `columns`."""
    fmt, items = FORMATS[problem.format], dict(problem.items)
    rows, few = items["z"].shape
    chosen = (np.arange(4 if columns < MANY else 2 if columns < ALONE else 1) * 7 + turn * 3) % rows
    order = np.arange(columns) % few
    for name, item in items.items():
        spelled = axes.get(name, "")
        item = item[chosen] if spelled.startswith("R") else item
        items[name] = item[..., order] if spelled.endswith("C") and item is not None else item
    if "y" in items:  # labels anywhere among the copies
        copies = np.maximum(1, (columns - items["y"] + few - 1) // few)
        moved = items["y"] + few * (np.arange(1, len(chosen) + 1) * 997 % copies)
        items["y"] = np.where(items["y"] == items.get("ignore_index"), items["y"], moved)
    if "p" in items:
        items["p"] = truncate(items["p"] / (columns / few), fmt)
    return Problem(problem.format, items)


def _set(items: dict[str, Any], name: str) -> bool:
    return items.get(name) is not None


def wide(base: Domain, columns: Mapping[str, tuple[int, ...]]) -> Domain:
    """Rows of `base` with very many classes: edge problems with `columns` (by format, else `VOCABULARY`) of them.

    Drawn ones have some hundreds.
    """
    return _enlarged("wide", base, widened, HUNDREDS, lambda format: columns.get(format, VOCABULARY))


def many(base: Domain, sizes: tuple[int, ...] = SIZES) -> Domain:
    """Few rows of `base`, repeated: its edge problems to `sizes` rows, drawn ones to some thousands."""
    return _enlarged("many", base, repeated, SOME, lambda format: sizes)


def _enlarged(
    kind: str,
    base: Domain,
    enlarge: Callable[[Problem, Mapping[str, str], int, int], Problem],
    some: tuple[int, ...],
    sizes: Callable[[str], tuple[int, ...]],
) -> Domain:
    """Problems of `base`, enlarged: edge problems to the `sizes` of a format in turn, drawn ones to one of `some`."""

    def draw(format: str, shape: tuple[int, ...] | None = None) -> Any:
        if shape is not None:
            return base.draw(format, shape)
        pieces = (base.draw(format, None), st.sampled_from(some), st.integers(0, 11))
        return st.tuples(*pieces).map(lambda drawn: enlarge(drawn[0], base.axes, *drawn[1:]))

    def edges(format: str) -> list[Problem]:
        small = base.edges(format)
        return [enlarge(small[turn % len(small)], base.axes, size, turn) for turn, size in enumerate(sizes(format))]

    return Domain(f"{kind}({base.name})", base.axes, draw, edges, base.regions, base.locate, base.layouts)
