"""Masks: rows of any width of which -inf takes classes out, and what is exact about them.

The outcome of a masked row is that of the row without its masked classes, and 0 (or -inf, for a logarithm) in their
place.  The other logits are so far apart that no rounding is left: beside the largest, the exponential of each is 0 in
every format.  So one table serves every width, and `check` makes one for the shape that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import count, cycle, islice
from math import inf, nan
from typing import Any

import numpy as np

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values.cross_entropy import IGNORED, IGNORED_ROW, NO_GRADIENT, of_labels
from equivalences.findings.special_values.cross_entropy_options import SOFT
from equivalences.findings.special_values.softmax import MASK, SEEN, of_log_softmax, of_logsumexp, of_softmax
from equivalences.model import Array

ABOUT = (
    "Masks of many classes have a row for each pattern: the first class -inf, the last, the first and the last tile "
    "(16 classes to 32768), a block in the middle, every second class, all classes but one. The largest logit that is "
    "left is 0 or -32768, and lies first, in the middle or last; the target's is 1024 less, and all others are 2048 "
    "less. A row that cannot lose 1024 (one class is left, or the mean would not be exact) has its target on the "
    "largest logit and loses 0. `equivalences/findings/special_values/masks.py` makes them."
)
WIDTHS = (2, 5, 17, 64, 129, 1025, 4097)
VOCABULARY = 50_257
ROWS, FEW = 16, 4  # patterns of one width, and powers of two: then a mean and its gradient are exact
TILES = (16, 64, 128, 1024, 4096, 32_768)
TARGET, OTHERS = -1024.0, -2048.0  # beside the largest: exact in every format, and the exponential is 0
LOSING = 16  # at most so many rows lose 1024: their sum is exact in every format, in any order
FINEST = 2**14  # so many rows at most: the gradient of a mean is a normal number of float16
DELETED = "as without the masked classes"


def patterns(classes: int) -> dict[str, Array]:
    """Name -> which classes are masked; neither none nor all of them, and no two alike."""
    place = np.arange(classes)
    middle = (place >= classes // 3) & (place < -(-2 * classes // 3))
    tiles = {
        tile: {f"the first {tile} classes": place < tile, f"the last {tile} classes": place >= classes - tile}
        for tile in TILES
        if tile < classes
    }
    smaller, larger = ([{}, {}, *tiles.values()])[-2:]
    made = {
        **larger,
        "every second class, from the first": place % 2 == 0,
        "every second class, from the second": place % 2 == 1,
        **smaller,
        "the first class": place < 1,
        "the last class": place >= classes - 1,
        "all classes but the first": place > 0,
        "all classes but one in the middle": place != classes // 2,
        "all classes but the last": place < classes - 1,
        "a block in the middle": middle,
    }
    found: dict[bytes, tuple[str, Array]] = {}
    for name, masked in made.items():
        if masked.any() and not masked.all():
            found.setdefault(masked.tobytes(), (name, masked))
    return dict(found.values())


@dataclass(frozen=True, eq=False)
class Masked:
    """Rows of logits with their masks; for each row the class of the largest logit, of another, and of a masked one."""

    names: tuple[str, ...]
    z: Array
    masked: Array
    largest: Array
    other: Array  # the largest itself, where it is alone
    hidden: Array

    @property
    def rows(self) -> Array:
        return np.arange(len(self.z))

    def one_hot(self, column: Array, number: Any = 1) -> Array:
        """Zeros with a number in one column of each row.  float16 holds every number here, and saves memory."""
        made = np.zeros(self.z.shape, np.float16)
        made[self.rows, column] = number
        return made


def batches(rows: int, classes: int, fill: float = -inf) -> Iterator[Masked]:
    """As many batches of that shape as it takes to hold every pattern (none of one class: it cannot be masked)."""
    there = list(patterns(classes).items())
    for first in range(0, len(there), rows):
        yield _batch(rows, classes, fill, first)


@lru_cache(maxsize=4)
def _batch(rows: int, classes: int, fill: float, first: int) -> Masked:
    there = list(patterns(classes).items())
    names, masked = zip(*islice(cycle(there), first, first + rows), strict=True)
    z, chosen = np.empty((rows, classes), np.float16), []
    for row, mask, turn in zip(z, masked, count(first), strict=False):
        lap = turn + turn // len(there)  # a pattern that comes again is another problem
        top = MASK if lap % 2 and fill == -inf else 0.0  # a finite mask stands far below the rest
        kept = np.flatnonzero(~mask)
        largest = kept[(len(kept) - 1, 0, len(kept) // 2)[lap % 3]]
        other = kept[0] if kept[0] != largest else kept[-1]
        row[:] = np.where(mask, fill, top + OTHERS)
        row[other], row[largest] = top + TARGET, top
        hidden = np.flatnonzero(mask)
        chosen.append((largest, other, hidden[0 if lap % 4 < 2 else -1]))
    return Masked(names, z, np.array(masked), *np.array(chosen).T)


def entries(rows: int, classes: int, fill: float = -inf, most: int | None = None) -> Iterator[SpecialValue]:
    """What is asked about masks in logits of this shape; the first patterns in so many batches at most."""
    for number, batch in enumerate(islice(batches(rows, classes, fill), most)):
        name = f"masks{'' if fill == -inf else f' of {fill:.0f}'}, {rows} x {classes}"
        name += f", {number + 1}" if rows < len(patterns(classes)) else ""
        yield from _of_softmax(batch, name)
        yield from _of_labels(batch, name)
        if fill == -inf:
            yield from _of_strange_targets(batch, name)
            yield from _of_empty_rows(batch, name)


def _of_softmax(m: Masked, name: str) -> Iterator[SpecialValue]:
    where: dict[str, Any] = {"rows": m.names, "why": DELETED}
    one, zero = m.one_hot(m.largest), np.zeros(m.z.shape, np.float16)
    upstream = m.one_hot(m.hidden, 2) + m.one_hot(m.other) + m.one_hot(m.largest, 4)
    yield of_softmax(name, items={"z": m.z, "g": upstream}, outcome=Gives(one, zero), **where)
    top = m.z[m.rows, m.largest]
    less = upstream - m.one_hot(m.largest, upstream.sum(1))  # g - softmax(z) sum(g)
    logarithm = Gives(m.z - top[:, None], less)
    yield of_log_softmax(name, items={"z": m.z, "g": upstream}, outcome=logarithm, **where)
    sizes = 1.0 + m.rows % 2
    total = Gives(top, m.one_hot(m.largest, sizes))
    yield of_logsumexp(name, items={"z": m.z, "g": sizes}, outcome=total, **where)


def _exact(rows: int) -> bool:
    """Whether 1 / rows is a number of every format."""
    return rows & (rows - 1) == 0 and 0 < rows <= FINEST


def _target(m: Masked, judged: Array, mean: bool) -> Array:
    """The labels: beside the largest logit in some rows, on it in the others."""
    exactly = not mean or _exact(int(judged.sum()))
    return np.where(judged & (np.cumsum(judged) <= LOSING) & exactly, m.other, m.largest)


def _losses(m: Masked, y: Array, judged: Array, mean: bool) -> Gives:
    """What these rows lose; those that are not judged lose 0."""
    loses = judged & (y != m.largest)
    share = 1 / judged.sum() if mean else 1.0
    lost = -TARGET * loses
    gradient = (m.one_hot(m.largest) - m.one_hot(y)) * (loses * share)[:, None].astype(np.float16)
    return Gives(lost.sum() * share if mean else lost, gradient)


def _of_labels(m: Masked, name: str) -> Iterator[SpecialValue]:
    where: dict[str, Any] = {"rows": m.names, "why": DELETED}
    every = np.full(len(m.z), True)
    for mean in (False, True):
        y, how = _target(m, every, mean), "mean" if mean else "none"
        right = _losses(m, y, every, mean)
        yield of_labels(f"{name}, {how}", items={"z": m.z, "y": y, "reduction": how}, outcome=right, **where)
        p = (m.one_hot(y) + m.one_hot(m.largest)) / np.float16(2)
        half = Gives(np.divide(right.value, 2), right.gradient / np.float16(2))
        wrong = Gives(nan if mean else np.full(len(m.z), nan), half.gradient)
        yield of_labels(
            f"probabilities, {name}, {how}",
            call=SOFT,
            items={"z": m.z, "p": p, "reduction": how},
            outcome=half,
            deviations=(Deviation(wrong, "", "0 * inf", seen=SEEN),) if np.isinf(m.z).any() else (),
            **where,
        )


def _of_strange_targets(m: Masked, name: str) -> Iterator[SpecialValue]:
    """Targets on a masked class, and rows that are ignored, masked as the others are."""
    for how, share in (("none", 1.0), ("mean", 1 / len(m.z))):
        exactly = how == "none" or _exact(len(m.z))
        gradient = (m.one_hot(m.largest) - m.one_hot(m.hidden)) * np.float16(share) if exactly else None
        yield of_labels(
            f"a masked target, {name}, {how}",
            items={"z": m.z, "y": m.hidden, "reduction": how},
            outcome=Gives(inf if how == "mean" else np.full(len(m.z), inf), gradient),
            why="limit",
            rows=m.names,
        )
    yield _ignoring(m, m.z, f"ignored rows, {name}, mean", rows=m.names)


def _ignoring(m: Masked, z: Array, name: str, **more: Any) -> SpecialValue:
    judged = m.rows % 2 == 0
    y = _target(m, judged, True)
    items: Mapping[str, Any] = {"z": z, "y": np.where(judged, y, IGNORED), "reduction": "mean"}
    return of_labels(name, items=items, outcome=_losses(m, y, judged, True), why=NO_GRADIENT, **more)


def _of_empty_rows(m: Masked, name: str) -> Iterator[SpecialValue]:
    """Every second row is -inf in all its classes: nan, or ignored; the others are as they were."""
    if len(m.z) < 2:
        return
    empty = m.rows % 2 == 1
    z = np.where(empty[:, None], np.float16(-inf), m.z)
    rows = tuple("every class" if none else each for each, none in zip(m.names, empty, strict=True))
    undefined: dict[str, Any] = {"rows": rows, "why": "rows are independent; one without any class is undefined"}
    name = f"every second row -inf, {name}"

    def lost(right: Array) -> Array:
        return np.where(empty.reshape(-1, *(1,) * (right.ndim - 1)), nan, right)

    zero, top = np.zeros(z.shape, np.float16), m.z[m.rows, m.largest]
    yield of_softmax(name, items={"z": z}, outcome=Gives(lost(m.one_hot(m.largest)), lost(zero)), **undefined)
    less = 1 - m.one_hot(m.largest, m.z.shape[1])
    exactly = m.z.shape[1] <= 2**7  # the sum of so many 1 is exact in every format
    logarithm = Gives(lost(m.z - top[:, None]), lost(less) if exactly else None)
    yield of_log_softmax(name, items={"z": z}, outcome=logarithm, **undefined)
    total = Gives(np.where(empty, -inf, top), lost(m.one_hot(m.largest)))
    yield of_logsumexp(name, items={"z": z}, outcome=total, **undefined)
    y = _target(m, ~empty, False)
    right = _losses(m, y, ~empty, False)
    losses = Gives(lost(right.value), lost(right.gradient))
    yield of_labels(f"{name}, none", items={"z": z, "y": y, "reduction": "none"}, outcome=losses, **undefined)
    right = _losses(m, _target(m, ~empty, True), ~empty, True)
    wrong = Gives(right.value, lost(right.gradient))
    spoilt = Deviation(
        wrong,
        IGNORED_ROW,
        "the backward pass multiplies nan by the row's 0",
        seen=SEEN,
    )
    yield _ignoring(m, z, f"ignored, {name}, mean", rows=rows, deviations=(spoilt,))


def _table() -> Iterator[SpecialValue]:
    for classes in WIDTHS:
        yield from entries(ROWS, classes)
    yield from entries(FEW, VOCABULARY, most=1)
    for classes in (17, 1025):
        yield from entries(ROWS, classes, MASK)


TABLE = tuple(_table())
