"""Where in its domain each row of a problem lies: named regions, decided from the numbers alone.

A region is a property of one row.  The first line that applies wins; `L = log(max)` and `E = log(1/eta)` are the
format's overflow and underflow logarithms (88.7 and 103.3 for float32, 11.1 and 16.6 for float16).

=============  =====================================================  ==========================================
rows of classes, with `spread = max z - min z`, `margin = max z - second z`
extreme        max|z| > L, or spread > E                              exp(z) overflows, or exp of a gap is zero
single         one class                                              (not where two columns are asked for)
offset         min|z| > 4 and min|z| > 8 spread                       a common offset dominates
tie            the maximum is attained more than once
tail           z_y <= max z - 8, row not ignored                      confidently wrong (only with labels)
saturated      margin >= 8                                            confidently right (or unlabelled)
wide           spread > 8                                             (not where two columns are asked for)
core           the rest

scalars: one logit a row, with `S = min(16, 3 L / 4)` (8.3 for float16)
extreme        |z| > L
tail           |z| > S, and some of the target on the other side      loss about |z| (only with a target)
saturated      |z| > S                                                loss about zero (or no target)
wide           |z| > 4
zero           |z| <= u                                               sigmoid(z) rounds to 1/2
core           the rest

layers: one sample a row, `s = x W' + b`, `T = |x| |W|' + |b|`
cancellation   some |s| < T / 64
core           the rest
=============  =====================================================  ==========================================
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from equivalences.formats import FORMATS, Format
from equivalences.model import Array, Domain, Problem

Regions = tuple[tuple[str, ...], Callable[[Problem], Array]]

# In words, for readers: what each region of a domain holds.
_CLASSES = {
    "extreme": "a logit so large that exp overflows, or so far below the largest that its exp is 0",
    "single": "one class only",
    "offset": "every logit shares a large offset: more than 8 times the distance between them",
    "tie": "the largest logit occurs more than once",
    "tail": "the label's logit is 8 or more below the largest: confidently wrong",
    "saturated": "the largest logit is 8 or more above the next: one class has nearly all the probability",
    "wide": "the logits lie more than 8 apart, and none dominates",
    "core": "all other rows: logits of ordinary size",
}
_SCALARS = {
    "extreme": "a logit so large that exp overflows (beyond 88.7 in float32)",
    "tail": "a large logit (beyond 16; 8.3 in float16) on the wrong side of its target: confidently wrong",
    "saturated": "a large logit (beyond 16; 8.3 in float16): the sigmoid is nearly 0 or 1",
    "wide": "a logit beyond 4",
    "zero": "a logit so small that the sigmoid rounds to 1/2",
    "core": "all other logits",
}
_PROBABILITIES = {
    "certain": "a probability of exactly 0 or 1",
    "extreme": "a probability so small that its reciprocal overflows, or nearly",
    "clamped": "a probability so near 0 or 1 that torch.distributions moves it",
    "rare": "a small probability",
    "sure": "a probability above 63/64",
    "core": "all other probabilities",
}
_LAYERS = {
    "cancellation": "an output that is less than 1/64 of the terms that it is the sum of",
    "core": "all other samples",
}
_SQUARES = {
    "equal": "prediction and target are equal",
    "cancellation": "prediction and target differ by less than 1/64 of the prediction",
    "core": "all other rows",
}
_STEPS = {
    "lost": "a step so small that the parameter does not change",
    "cancellation": "a step that nearly cancels the parameter",
    "still": "no gradient, and no momentum",
    "underflow": "a gradient whose square underflows, or nearly",
    "core": "all other parameters",
}


def described(domain: Domain) -> dict[str, str]:
    """Each region of a domain, in words; which words, its items say ("any": a domain without parts)."""
    axes = domain.axes
    if axes.get("z") == "RC":
        words = _CLASSES
    elif "z" in axes:
        words = _SQUARES if "equal" in domain.regions else _SCALARS
    elif "W" in axes:
        words = _LAYERS
    else:
        words = _STEPS if "m" in axes else _PROBABILITIES
    return {name: {"any": "everything", **words}[name] for name in domain.regions}


def overflow(fmt: Format) -> float:
    """The logarithm of the largest finite number: exp overflows beyond it."""
    return math.log(fmt.max)


def underflow(fmt: Format) -> float:
    """The logarithm of 1 / (smallest subnormal): exp of anything further below zero rounds to zero (or to `eta`)."""
    return -math.log(fmt.eta)


def saturation(fmt: Format) -> float:
    """Where a scalar logit counts as saturated: 16, or three quarters of the way to overflow in a short range."""
    return min(16.0, 0.75 * overflow(fmt))


def _first(conditions: dict[str, Array], names: tuple[str, ...], rows: int) -> Array:
    """The index in `names` of the first condition that holds in each row; the last name is the rest."""
    found = np.full(rows, len(names) - 1, dtype=np.int64)
    for index in reversed(range(len(names) - 1)):
        found[conditions[names[index]]] = index
    return found


def classes(*, labels: bool, columns: int | None = None) -> Regions:
    """The regions of rows of class logits `z`, with labels `y` (and `ignore_index`) where `labels`."""
    unreachable = {"single", "wide"} if columns == 2 else set()
    unreachable |= set() if labels else {"tail"}
    order = ("extreme", "single", "offset", "tie", "tail", "saturated", "wide", "core")
    names = tuple(name for name in order if name not in unreachable)

    def locate(problem: Problem) -> Array:
        z, fmt = problem["z"], FORMATS[problem.format]
        rows, count = z.shape
        size = np.abs(z)
        top, least = z.max(axis=1), size.min(axis=1)
        spread = top - z.min(axis=1)
        margin = top - np.partition(z, count - 2, axis=1)[:, -2] if count > 1 else np.full(rows, np.inf)
        conditions = {
            "extreme": (size.max(axis=1) > overflow(fmt)) | (spread > underflow(fmt)),
            "single": np.full(rows, count == 1),
            "offset": (least > 4) & (least > 8 * spread),
            "tie": margin == 0,
            "saturated": margin >= 8,
            "wide": spread > 8,
        }
        if labels:
            y = problem["y"]
            kept = y != problem.items.get("ignore_index", -100)
            labelled = z[np.arange(rows), np.where(kept, y, 0)]
            conditions["tail"] = kept & (top - labelled >= 8)
        return _first(conditions, names, rows)

    return names, locate


def scalars(*, target: str | None) -> Regions:
    """The regions of scalar logits `z`, whose right side the targets `t` decide: index, soft, sign or None."""
    order = ("extreme", "tail", "saturated", "wide", "zero", "core")
    names = tuple(name for name in order if name != "tail" or target)

    def locate(problem: Problem) -> Array:
        z, fmt = problem["z"], FORMATS[problem.format]
        size = np.abs(z)
        conditions = {
            "extreme": size > overflow(fmt),
            "saturated": size > saturation(fmt),
            "wide": size > 4,
            "zero": size <= fmt.u,
        }
        if target:
            negative = -1.0 if target == "sign" else 0.0
            conditions["tail"] = conditions["saturated"] & (problem["t"] != np.where(z > 0, 1.0, negative))
        return _first(conditions, names, len(z))

    return names, locate


def layers() -> Regions:
    """The regions of samples `x` of an affine layer `W`, `b`."""
    names = ("cancellation", "core")

    def locate(problem: Problem) -> Array:
        x, weight, bias = problem["x"], problem["W"], problem["b"]
        terms = np.abs(x) @ np.abs(weight).T + np.abs(bias)
        cancelled = 64 * np.abs(x @ weight.T + bias) < terms
        return _first({"cancellation": cancelled.any(axis=1)}, names, len(x))

    return names, locate
