"""Rules for variances, standard deviations and norms, and the moments that normalisations need.

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
from equivalences.rounding.arrays import doubtful, spread
from equivalences.rounding.call import Call, in_registers, rule
from equivalences.rounding.rules.arithmetic import converted, in_storage, product, rounded
from equivalences.rounding.rules.elementary import sqrt
from equivalences.rounding.rules.powers import any_power
from equivalences.rounding.rules.reductions import dims_of, kept, summed
from equivalences.rounding.shadows import Shadow


def moments(u: float, x: Shadow, merges: float) -> tuple[Shadow, Shadow]:
    """Mean and variance (divided by n) along the last axis, which stays, from `merges` merges that round to `u`."""
    v, e = x.v, spread(x.e, x.v.shape)
    n = max(v.shape[-1], 1)

    def mean_of(terms: Array) -> Array:
        total: Array = terms.sum(-1, keepdims=True) / n
        return total

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
def variance_of(
    call: Call, self: Tensor, dim: Any = None, correction: float | None = 1, unbiased: bool = True
) -> Shadow:
    variance, _ = _deviations(call, self, dim, correction if unbiased else 0)
    return _stored(call, _root(call, variance) if call.name == "std" else variance, call.out)


@rule("var_mean", "std_mean")
def _variance_and_mean(
    call: Call, self: Tensor, dim: Any = None, correction: float | None = 1, unbiased: bool = True
) -> list[Shadow]:
    variance, mean = _deviations(call, self, dim, correction if unbiased else 0)
    first = _root(call, variance) if call.name == "std_mean" else variance
    return [_stored(call, part, out) for part, out in zip((first, mean), call.out, strict=True)]


# --- norms -----------------------------------------------------------------------------------------------------------


@rule("linalg_vector_norm")
@rule("norm", ord="p")
def _norm(call: Call, self: Tensor, ord: float | None = 2, dim: Any = None, keepdim: bool = False) -> Shadow:
    """(sum |x|**p)**(1 / p); the largest |x| for p = inf, how many are not zero for p = 0 (cpu/ReduceOpsKernel.cpp).

    Squares along the last dimension are added up lane by lane, all else in one loop.
    """
    p = 2.0 if ord is None else float(ord)
    x = call.shadow(self)
    x = converted(x, self, call.out) if self.dtype != call.out.dtype else x
    dims = dims_of(x.v, dim)
    rows = as_rows(Shadow(abs(x.v), x.e), dims)
    n, inner = rows.v.shape[-1], in_registers(call)
    if math.isinf(p):
        found = Shadow(*((np.max if p > 0 or part is rows.e else np.min)(part, axis=-1) for part in rows))
    elif p == 0:
        doubt = doubtful((rows.e > 0) & (rows.v <= rows.e)).max(-1)
        found = rounded(inner, (rows.v > 0).sum(-1).astype(np.float64), doubt, n > 2**24, underflow=False)
    else:
        last = p == 2 and dims == [x.v.ndim - 1]
        height = call.assume.sums.row(n, inner.arithmetic.precision > 24) if last else call.assume.sums.any(n)
        found = _root_of_powers(inner, rows, p, height)
    return in_storage(call, Shadow(*(np.reshape(part, call.out.shape) for part in found)))


def _root_of_powers(inner: Call, rows: Shadow, p: float, height: int) -> Shadow:
    nowhere = np.zeros(rows.v.shape, dtype=bool)
    if p == 1:
        terms = rows
    elif p == 2:
        terms = rounded(inner, *product(rows, rows))
    else:
        terms = any_power(inner, rows, inner.shadow(p), nowhere)
    total = summed(inner, terms, [rows.v.ndim - 1], False, height)
    if p == 1:
        return total
    if p == 2:
        return sqrt(inner, total)
    one_by_p = inner.shadow(1 / p)
    return any_power(inner, total, Shadow(one_by_p.v, one_by_p.e + inner.arithmetic.u / abs(p)), nowhere[..., 0])
