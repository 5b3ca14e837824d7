"""Targets and class weights: what stands beside the rows of a domain with labels or soft targets."""

from __future__ import annotations

import numpy as np

from equivalences.model import Array
from equivalences.problems.rows import LABEL, PATTERNS, TARGET, Rows, moderated


def ignored(rows: Rows, y: Array, count: int) -> tuple[Array, int, Array]:
    """Labels of which exactly a pattern is the ignored index, that index, and which rows are kept (never none)."""
    asked, number = rows.recipe.ignored, len(y)
    indices = {"another": (-1, -2, 255)[rows.recipe.salt % 3], "a class": int(rows.shared(1, LABEL)[0] * count)}
    index = indices.get(asked.index, -100) if count > 1 else -100
    kept = ~PATTERNS[asked.pattern](np.arange(number), number, asked.period)
    kept[-1] |= not kept.any()
    return np.where(kept, np.where(y == index, (y + 1) % count, y), index), index, kept


def class_weights(rows: Rows, count: int, used: Array | None, spread: float, optional: bool) -> Array | None:
    """A weight for each class, not all zero among the classes `used`; or, if `optional`, at times none."""
    if optional and not rows.recipe.weights.given:
        return None
    w = rows.weights(count, used)
    return moderated(w, spread * float(w.max()), rows.fmt)


def smoothed(rows: Rows) -> float:
    """The label smoothing, in [0, 1]."""
    fixed = rows.recipe.smoothing
    return float(rows.shared(1, TARGET)[0]) if fixed is None else fixed


def soft_targets(v: Array, y: Array, weights: bool = False) -> Array:
    """Rows of probabilities, from uniform numbers (the first of a row chooses its kind) and a favoured class each.

    With `weights`, some are any weights of classes: several ones, or one beyond 1 and one below 0.
    """
    kind, v = (7 if weights else 5) * v[:, :1], v[:, 1:]
    count = v.shape[1]
    hot = (np.arange(count) == y[:, None]).astype(float)
    sparse = np.where(v < 0.5, 0.0, v) + 2.0**-10 * hot  # never all zero
    dense = v + 2.0**-10
    uniform = np.full(v.shape, 1 / count)
    several, either = (v < 0.5) * 1.0, 1.5 * hot - 0.5 * np.roll(hot, 1, axis=1)
    chosen = [hot, uniform, 0.9 * hot + 0.1 * uniform, *(x / x.sum(1, keepdims=True) for x in (sparse, dense)), several]
    return np.select([kind < i + 1 for i in range(6)], chosen, either)
