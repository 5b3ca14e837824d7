"""Rules for variances and standard deviations, and the moments that normalisations need.

Kernels merge means and sums of squares of parts, one number or many (Welford; Chan, Golub and LeVeque, Algorithms for
computing the sample variance, 1983).  With shares c and 1 - c, d the difference of two means and w = n c (1 - c):

    mean = mean_1 + c d                    S = S_1 + S_2 + w d d

Every part's rounding reaches the mean of all with its share.  On one level of merges these are u |mean| and 3 u c |d|,
which come to u mean(|x|) + 3 u sigma at most, as the sum of w d d is S; in a loop over k parts the k merges count half.
The error D of a difference of means moves S by 2 w |d| D + w D D, and by Cauchy and Schwarz all of them by
2 sqrt(W S) D + W D D, W the sum of all w: n in a loop over numbers, n in one over parts, n / 4 on a level of a tree.
All roundings are taken to go the same way: what is seen is a hundredth of this bound.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from equivalences.formats import FORMATS
from equivalences.model import Array
from equivalences.rounding.arrays import spread
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import converted
from equivalences.rounding.rules.elementary import sqrt
from equivalences.rounding.rules.reductions import dims_of, kept
from equivalences.rounding.shadows import Shadow


def moments(u: float, x: Shadow, merges: float) -> tuple[Shadow, Shadow]:
    """Mean and variance (divided by n) along the last axis, which stays, from `merges` merges that round to `u`."""
    v, e = x.v, spread(x.e, x.v.shape)
    n = max(v.shape[-1], 1)

    def mean_of(terms: Array) -> Array:
        return np.asarray(terms.sum(-1, keepdims=True)) / n

    mean = mean_of(v)
    off = v - mean
    variance, moved = mean_of(np.square(off)), 2 * mean_of(abs(off) * e) + mean_of(np.square(e))
    sigma, size = np.sqrt(variance + moved), np.sqrt(mean_of(np.square(abs(v) + e)))
    mean_error = merges * u * (size + 3 * sigma)
    difference = 2 * mean_error
    weight = 2 + math.log2(n) / 4
    lost = 2 * math.sqrt(weight) * sigma * difference + weight * np.square(difference)
    lost = lost + (2 * merges + 6) * u * np.square(sigma)
    return Shadow(mean, mean_of(e) + mean_error), Shadow(variance, moved + lost)


def as_rows(x: Shadow, dims: list[int]) -> Shadow:
    """The dimensions `dims` as one, the last."""
    v, e = x.v, spread(x.e, x.v.shape)
    if not v.ndim:
        return Shadow(v.reshape(1), e.reshape(1))
    last = tuple(range(-len(dims), 0))
    v, e = (np.moveaxis(part, tuple(dims), last) for part in (v, e))
    shape = v.shape[: v.ndim - len(dims)]
    return Shadow(v.reshape(*shape, -1), e.reshape(*shape, -1))


def _deviations(call: Call, self: Tensor, dim: Any, correction: float | None) -> tuple[Shadow, Shadow]:
    """Variance and mean in the format in which they are computed: double on the CPU (cpu/ReduceOpsKernel.cpp).

    Of all numbers of a tensor the mean is at::mean, in the arithmetic of the data, whose error enters the variance
    squared (ReduceOps.cpp, std_var_all_cpu).
    """
    x = call.shadow(self)
    x = converted(x, self, _first(call.out)) if self.dtype != _first(call.out).dtype else x
    dims = dims_of(x.v, dim)
    rows = as_rows(x, dims)
    n = rows.v.shape[-1]
    u = FORMATS["float64"].u if call.assume.running_in_double else call.arithmetic.u
    mean, variance = moments(u, rows, call.assume.sums.any(n) + 1.0)
    if len(dims) == x.v.ndim:
        height = call.assume.sums.whole(n, 1) + 1
        off = height * call.arithmetic.u * np.mean(abs(rows.v) + rows.e, axis=-1, keepdims=True)
        variance = Shadow(variance.v, variance.e + np.square(off))
    free = n - (1 if correction is None else correction)
    scale = n / free if free > 0 else math.nan
    v, e = variance.v * scale, variance.e * scale
    return Shadow(v, e + 2 * u * (v + e)), mean


def _first(out: Any) -> Tensor:
    found: Tensor = out if isinstance(out, Tensor) else out[0]
    return found


def _stored(call: Call, x: Shadow, like: Tensor) -> Shadow:
    """As it is stored, from double or from the kernel's arithmetic."""
    steps = FORMATS["float64"] if call.assume.running_in_double else call.arithmetic
    return kept(call, steps, Shadow(*(part.reshape(like.shape) for part in x)))


def _root(call: Call, variance: Shadow) -> Shadow:
    inner = call.giving(call.out)
    inner.format = inner.arithmetic = FORMATS["float64"] if call.assume.running_in_double else call.arithmetic
    return sqrt(inner, variance)


@rule("var", "std")
@rule("prims::var", self="inp", dim="dims")
def _variance(call: Call, self: Tensor, dim: Any = None, correction: float | None = 1, unbiased: bool = True) -> Shadow:
    variance, _ = _deviations(call, self, dim, correction if unbiased else 0)
    return _stored(call, _root(call, variance) if call.name == "std" else variance, call.out)


@rule("var_mean", "std_mean")
def _variance_and_mean(
    call: Call, self: Tensor, dim: Any = None, correction: float | None = 1, unbiased: bool = True
) -> list[Shadow]:
    variance, mean = _deviations(call, self, dim, correction if unbiased else 0)
    first = _root(call, variance) if call.name == "std_mean" else variance
    return [_stored(call, part, out) for part, out in zip((first, mean), call.out, strict=True)]
