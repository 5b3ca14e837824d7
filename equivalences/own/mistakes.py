"""Likely mistakes in the words of those who write kernels, from where an implementation fails and where it does not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from equivalences.model import Problem

ENOUGH = 3  # problems, and sizes, that are right below a border or without a feature: else nothing is said


@dataclass(frozen=True)
class Seen:
    """One problem as it was run, and whether any number of it is beyond the contract."""

    rows: int
    classes: int  # 0: it has none
    layout: str
    format: str
    features: frozenset[str]
    fails: bool


# A feature of a problem -> the line where it fails with it alone.
FEATURES: dict[str, str] = {
    "ignored": "fails only where rows are ignored: they are counted, or their label is read as a class",
    "weights": "fails only with class weights that differ",
    "smoothing": "fails only with label smoothing",
    "upstream": "fails only where the gradient from above is not 1: it is not multiplied by it",
    "late": "fails only where the largest logit is not among the first 128 classes: what was added up before it is not "
    "rescaled, or it is not seen",
}


def features(problem: Problem) -> frozenset[str]:
    """What a problem has that code may treat in a path of its own."""
    items, found = problem.items, set[str]()
    z, y, weight = next(iter(items.values())), items.get("y"), items.get("weight")
    if y is not None and (y == items.get("ignore_index", -100)).any():
        found.add("ignored")
    if weight is not None and np.size(weight) and (weight != np.ravel(weight)[0]).any():
        found.add("weights")
    if items.get("label_smoothing"):
        found.add("smoothing")
    if "g" in items and (items["g"] != 1).any():
        found.add("upstream")
    if np.ndim(z) == 2 and z.shape[1] > 128 and (z.argmax(1) >= 128).any():
        found.add("late")
    return frozenset(found)


def seen(problem: Problem, layout: str, fails: bool) -> Seen:
    """What is to be remembered of a run."""
    shape = (*np.shape(next(iter(problem.items.values()))), 0, 0)
    return Seen(shape[0], shape[1], layout, problem.format, features(problem), fails)


def likely(every: Sequence[Seen]) -> tuple[str, ...]:
    """The likely mistakes, one line each."""
    if sum(each.fails for each in every) < ENOUGH:
        return ()
    return (*_sizes(every), *_features(every), *_layouts(every))


def _mostly(some: Sequence[Seen]) -> bool:
    """Whether at least half of them fail: else what they have in common is not why."""
    return 2 * sum(each.fails for each in some) >= len(some)


def _sizes(every: Sequence[Seen]) -> Iterator[str]:
    sizes: dict[str, Callable[[Seen], int]] = {"classes": lambda s: s.classes, "rows": lambda s: s.rows}
    for what, size in sizes.items():
        first = min(size(each) for each in every if each.fails)
        below = {size(each) for each in every if size(each) < first}  # none of them fails
        if len(below) >= ENOUGH and _mostly([each for each in every if size(each) >= first]):
            yield f"wrong only beyond {max(below):,} {what}: right up to there, wrong first at {first:,}"


def _features(every: Sequence[Seen]) -> Iterator[str]:
    for name, line in FEATURES.items():
        alike = [each for each in every if name != "late" or each.classes > 128]  # of several blocks
        having = [each for each in alike if name in each.features]
        alone = all(name in each.features for each in every if each.fails)
        if alone and len(alike) - len(having) >= ENOUGH and _mostly(having):
            yield line


def _layouts(every: Sequence[Seen]) -> Iterator[str]:
    fails = {each.layout for each in every if each.fails}
    tried = Counter(each.layout for each in every)
    right = {layout for layout, count in tried.items() if count >= ENOUGH} - fails
    if not right:
        return
    if fails == {"offset"}:
        yield "the storage offset is ignored, or vectors are read as if aligned"
    elif fails == {"expanded"}:
        yield "rows are read as if each had memory of its own (their stride is 0)"
    elif "transposed" in right and fails <= {"strided", "inner", "movedim"}:
        yield "labels (or weights) are read as if contiguous; logits are not"
    elif fails <= {"strided", "transposed", "expanded", "inner", "movedim"} and "contiguous" in right:
        yield "logits are read as if contiguous"
