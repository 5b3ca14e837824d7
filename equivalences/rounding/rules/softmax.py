"""Rules for softmax, log-softmax, log-sum-exp, and their backward kernels.

One rule each, from the algorithm that the kernel documents (aten/src/ATen/native: cpu/SoftMaxKernel.cpp, ReduceOps.cpp;
cuda/SoftMax.cu).  Where a kernel is worse than its rule, that is a known defect, not a wider rule.
The bounds are those of Blanchard, Higham and Higham, IMA J. Numer. Anal. 2021 (thm 4.3), with the terms kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arrays import fold, put, spread, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import exact, infinite, product, rounded
from equivalences.rounding.rules.elementary import growth
from equivalences.rounding.rules.reductions import dims_of
from equivalences.rounding.shadows import Shadow


class Row(NamedTuple):
    """What every softmax kernel computes first, along one dimension (kept), with its bounds."""

    maximum: Array  # m
    gap: Array  # d_i = m - x_i >= 0
    input_error: Array  # the largest error of x
    share: Array  # p_i, the exact softmax
    exp_error: Array  # bound on the relative error of the computed exp(x_i - m)
    sum_error: Array  # bound on the relative error of the computed sum of those
    log_sum: Array  # L = log sum exp(x - m) = lse - m
    log_sum_error: Array  # bound on the rounding error of the computed L, for any x within its error
    lse_change: Array  # the most that errors of x can change lse
    output_change: Array  # the most that they can change x_i - lse


def log_of_sum(call: Call, x: Shadow, dim: int, steps: Format) -> Row:
    """log(sum(exp(x - max))) with every step rounded to the format `steps` (16-bit steps compute in float32)."""
    inner = call.arithmetic
    storage_u = steps.u if steps.precision != inner.precision else 0.0
    u = inner.u + storage_u
    maximum, where = fold(np.maximum, x.v, dim), x.v.argmax(dim, keepdims=True)
    gap = maximum - x.v
    exponentials = np.exp(-gap)
    others = put(exponentials, dim, where, 0.0)  # all but the maximum's, which is 1
    sum_of_others = fold(np.add, others, dim)
    log_sum = np.log1p(sum_of_others)
    share = exponentials / (1 + sum_of_others)
    # Errors of x: lse changes by the mean of e under shares that have themselves changed by exp(2 max e) at most.
    input_error = fold(np.maximum, spread(x.e, x.v.shape), dim)
    share_growth = growth(2 * input_error) + 1
    mean_error = fold(np.add, share * x.e, dim)
    lse_change = np.minimum(mean_error * share_growth, input_error)
    # x_i - lse changes by the mean of d_i - d_j under such shares: by (1 - p_i) e_i and the p_j e_j of the others.
    rest = put(1 - share, dim, where, sum_of_others / (1 + sum_of_others))
    errors_of_others = put(mean_error - share * x.e, dim, where, fold(np.add, others * x.e, dim) / (1 + sum_of_others))
    output_change = (rest * x.e + np.maximum(errors_of_others, 0.0)) * share_growth
    output_change = np.minimum(output_change, x.e + lse_change)
    # Rounding: x_i - m is off by u d_i, exp by kappa u; at the maximum both are exact (exp(0) = 1).
    exponent_error = u * (gap + 2 * input_error) + call.assume.relative("exp", inner.u) + storage_u
    exp_error = growth(exponent_error) * (gap + input_error > 0)
    height = row_height(call, x.v, dim)
    gamma = height * inner.u / (1 - height * inner.u)
    sum_error = fold(np.add, share * np.minimum(exp_error, 1e300), dim) * share_growth
    sum_error = sum_error + gamma * (1 + sum_error) + storage_u + x.v.shape[dim] * inner.eta
    change = unbounded(-np.log1p(-sum_error), sum_error >= 1)
    log_error = call.assume.relative("log", inner.u) + storage_u
    log_sum_error = change + log_error * (log_sum + change + lse_change)
    return Row(
        maximum, gap, input_error, share, exp_error, sum_error, log_sum, log_sum_error, lse_change, output_change
    )


def log_softmax_of(call: Call, row: Row) -> Shadow:
    """(x - max) - log(sum(exp(x - max))), before the last subtraction is rounded."""
    e = row.output_change + call.arithmetic.u * (row.gap + 2 * row.input_error) + row.log_sum_error
    return Shadow(-row.gap - row.log_sum, e)


def row_height(call: Call, x: Array, dim: int) -> int:
    """The height of the summation tree along `dim`: lane by lane along the last dimension, one by one along others."""
    n = x.shape[dim]
    wide = call.arithmetic.precision > 24
    return call.assume.sums.row(n, wide) if dim % x.ndim == x.ndim - 1 else call.assume.sums.any(n)


@rule("_log_softmax")
def _log_softmax(call: Call, self: Tensor, dim: int) -> Shadow:
    """(x - max) - log(sum(exp(x - max))): 16-bit rows are computed in float32 and rounded once."""
    x = call.shadow(self)
    row = log_of_sum(call, x, dim, call.arithmetic)
    found = rounded(call, *log_softmax_of(call, row), underflow=False)
    return infinite(found, x, exact(row.log_sum, row.log_sum_error + row.lse_change))


@rule("_softmax")
def _softmax(call: Call, self: Tensor, dim: int) -> Shadow:
    """exp(x - max) / sum: one division, or one reciprocal and one product."""
    x = call.shadow(self)
    row = log_of_sum(call, x, dim, call.arithmetic)
    moved = row.share * growth(x.e + row.lse_change)
    relative = (row.exp_error + row.sum_error) / (1 - row.sum_error) + 2 * call.arithmetic.u
    kernel = (row.share + moved) * unbounded(relative, row.sum_error >= 1)
    kernel = np.where(row.share + moved == 0, 0.0, kernel) + 2 * call.arithmetic.eta
    return rounded(call, row.share, moved + kernel, roundings=0.0)


@rule("logsumexp")
def _logsumexp(call: Call, self: Tensor, dim: Any, keepdim: bool) -> Shadow:
    """max + log(sum(exp(x - max))), every step rounded to the storage format (LogsumexpKernel / ReduceOps.cpp)."""
    x = call.shadow(self)
    dims = dims_of(x.v, dim)
    if len(dims) != 1:
        raise NotImplementedError("logsumexp is followed over one dimension")
    row = log_of_sum(call, x, dims[0], call.format)
    v, e = row.maximum + row.log_sum, row.lse_change + row.log_sum_error
    if not keepdim:
        v, e = v.squeeze(dims[0]), e.squeeze(dims[0])
    return rounded(call, v, e, underflow=False)


@rule("_log_softmax_backward_data")
def _log_softmax_backward(call: Call, grad_output: Tensor, output: Tensor, dim: int) -> Shadow:
    """g - exp(log_softmax) sum(g), in float32 for 16-bit data."""
    g, out, u = call.shadow(grad_output), call.shadow(output), call.arithmetic.u
    total = _row_sum(call, g, dim)
    share = np.exp(out.v)
    share_e = share * growth(out.e + call.assume.relative("exp", u)) + call.arithmetic.eta
    part = product(Shadow(share, unbounded(share_e, np.isinf(out.e))), total)
    size = abs(part.v) + part.e
    e = g.e + part.e + u * size + call.arithmetic.eta
    return rounded(call, g.v - part.v, unbounded(e, size > call.arithmetic.max), underflow=False)


@rule("_softmax_backward_data")
def _softmax_backward(call: Call, grad_output: Tensor, output: Tensor, dim: int) -> Shadow:
    return softmax_backward(call, grad_output, output, dim, call.arithmetic)


def softmax_backward(call: Call, grad_output: Tensor, output: Tensor, dim: int, steps: Format) -> Shadow:
    """(g - sum(g s)) s, or g s - s sum(g s), in float32 for 16-bit data; the products g s are rounded to `steps`."""
    g, s = call.shadow(grad_output), call.shadow(output)
    u, largest = call.arithmetic.u, call.arithmetic.max
    terms = product(g, s)
    terms = Shadow(terms.v, terms.e + steps.u * (abs(terms.v) + terms.e) + steps.eta)
    total = _row_sum(call, terms, dim)
    rest = Shadow(g.v - total.v, g.e + total.e)
    size = abs(rest.v) + rest.e
    if not call.assume.softmax_backward_by_products:
        rest = Shadow(rest.v, unbounded(rest.e + u * size, size > largest))
        return rounded(call, *product(rest, s))
    v, e = product(rest, s)  # the errors of s count as they do there: both formulas are one function of it
    part = (abs(total.v) + total.e) * (abs(s.v) + s.e)
    size = abs(terms.v) + terms.e
    e = e + steps.u * size + steps.eta + u * part + call.arithmetic.eta
    return rounded(call, v, unbounded(e, (size > min(steps.max, largest)) | (part > largest)), underflow=False)


def _row_sum(call: Call, x: Shadow, dim: int) -> Shadow:
    """A sum along one dimension inside a kernel: exact zeros (one-hot gradients) add exactly."""
    size = abs(x.v) + x.e
    terms = fold(np.add, size > 0, dim)
    h = np.minimum(np.maximum(terms - 1, 0), row_height(call, x.v, dim)) * call.arithmetic.u
    total = fold(np.add, size, dim)
    e = fold(np.add, spread(x.e, x.v.shape), dim) + h / (1 - h) * total
    return Shadow(fold(np.add, x.v, dim), unbounded(e, total + e > call.arithmetic.max))
