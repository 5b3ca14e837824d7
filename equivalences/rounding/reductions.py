"""Rules for sums, means, maxima and log-sum-exp."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivalences import formats
from equivalences.model import Array
from equivalences.rounding.arithmetic import averaged, converted, rounded
from equivalences.rounding.arrays import add_up, along, as_array, doubtful, numbers, put, spread, unbounded
from equivalences.rounding.tracker import Call, Shadow, rule


def dims_of(x: Array, dim: Any) -> list[int]:
    """The reduced dimensions as a list of non-negative numbers; none given means all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.ndim))
    return [d % x.ndim for d in (dim if isinstance(dim, (list, tuple)) else [dim])] if x.ndim else []


def count(x: Array, dims: list[int]) -> int:
    """How many numbers a reduction over `dims` takes in."""
    return math.prod(x.shape[d] for d in dims)


def summed(call: Call, x: Shadow, dims: list[int], keepdim: bool, height: int) -> Shadow:
    """A sum with at most `height` additions on the way of any term: h u / (1 - h u) sum |x| (Higham 2002, 4.2).

    In the kernel's arithmetic: no bound where part of the sum may overflow there.
    """
    e = spread(x.e, x.v.shape)
    if not dims:
        return Shadow(x.v, e)
    hu = height * call.arithmetic.u
    v, size = add_up(x.v, dims, keepdim), add_up(abs(x.v) + e, dims, keepdim)
    e = add_up(e, dims, keepdim) + (hu / (1 - hu) if hu < 1 else math.inf) * size
    return Shadow(v, unbounded(e, size + e > call.arithmetic.max))


def _sum_over(call: Call, mean: bool, height: int | None = None) -> Shadow:
    x, source = call.shadow(call.args[0]), call.args[0]
    dims = dims_of(x.v, call.arg(1, "dim"))
    n = count(x.v, dims)
    height = call.assume.sums.whole(n, torch.get_num_threads()) if height is None else height
    keep = bool(call.arg(2, "keepdim", False))
    if not source.is_floating_point() or formats.of(source.dtype).precision > call.format.precision:
        x = converted(x, source, call.out)  # on the CPU, each number by itself
    total = summed(call, x, dims, keep, height)
    if mean:
        return averaged(call, total, n)
    found = rounded(call, *total, roundings=0.0, underflow=False)
    if source.is_floating_point():
        return found
    # Integers and booleans are counted, exactly while they fit.
    size, e = (add_up(part, dims, keep) if dims else part for part in (abs(x.v), spread(x.e, x.v.shape)))
    return Shadow(found.v, np.where((e == 0) & (size <= 2.0**call.format.precision), 0.0, found.e))


@rule("sum")
def _sum(call: Call) -> Shadow | None:
    if not call.out.is_floating_point():
        x = call.shadow(call.args[0])
        doubt = spread(x.e, x.v.shape)
        v = numbers(call.out)
        dims = dims_of(x.v, call.arg(1, "dim"))
        return Shadow(v, add_up(doubt, dims, bool(call.arg(2, "keepdim", False))))
    return _sum_over(call, mean=False)


@rule("mean")
def _mean(call: Call) -> Shadow:
    return _sum_over(call, mean=True)


def evenly(x: Tensor, dims: list[int]) -> bool:
    """Whether the numbers that are added up are equally far apart in memory, so that one loop goes over them all."""
    run = sorted((x.stride(d), x.shape[d]) for d in dims if x.shape[d] > 1)
    return all(stride * size == following for (stride, size), (following, _) in itertools.pairwise(run))


def sum_in_order(call: Call) -> Shadow:
    """A sum or mean of numbers that do not lie evenly in memory: piece after piece is added to the result."""
    x = call.args[0]
    dims = dims_of(x, call.arg(1, "dim"))
    height = None if evenly(x, dims) else call.assume.sums.any(count(x, dims))
    return _sum_over(call, call.name == "mean", height)


@rule("amax", "amin")
def _extreme(call: Call) -> Shadow:
    x = call.shadow(call.args[0])
    dims, keep = dims_of(x.v, call.arg(1, "dim")), bool(call.arg(2, "keepdim", False))
    extreme = np.max if call.name == "amax" else np.min
    v = extreme(x.v, axis=tuple(dims), keepdims=keep)
    # the maximum is 1-Lipschitz in the largest change
    return Shadow(v, np.max(spread(x.e, x.v.shape), axis=tuple(dims), keepdims=keep))


def _ambiguous(x: Shadow, dim: int, keepdim: bool, largest: bool) -> Array:
    """inf where rounding may have moved the position of the extreme entry; ties of exact data are no doubt."""
    v = x.v if largest else -x.v
    if not v.ndim:
        return doubtful(np.array(False))
    e, where = spread(x.e, v.shape), v.argmax(dim, keepdims=True)
    best = along(where, dim)
    near = (v + e >= v[best] - e[best]) & (e + e[best] > 0)
    return doubtful(put(near, dim, where, False).any(dim, keepdims=keepdim))


@rule("max", "min")
def _max(call: Call) -> tuple[Shadow, Shadow] | Shadow:
    x = call.shadow(call.args[0])
    largest = call.name == "max"
    if len(call.args) > 1 and isinstance(call.args[1], Tensor):
        y = call.shadow(call.args[1])
        v = np.maximum(x.v, y.v) if largest else np.minimum(x.v, y.v)
        return Shadow(v, np.maximum(x.e, y.e))
    e = spread(x.e, x.v.shape)
    if isinstance(call.out, Tensor):
        return Shadow(x.v.max() if largest else x.v.min(), e.max())
    dims, keep = tuple(dims_of(x.v, call.args[1])), bool(call.arg(2, "keepdim", False))
    v = (np.max if largest else np.min)(x.v, axis=dims, keepdims=keep)
    where = Shadow(numbers(call.out[1]), _ambiguous(x, call.args[1], keep, largest))
    return Shadow(v, np.max(e, axis=dims, keepdims=keep)), where


@rule("argmax", "argmin")
def _argmax(call: Call) -> Shadow:
    x = call.shadow(call.args[0])
    dim, keep = call.arg(1, "dim"), bool(call.arg(2, "keepdim", False))
    if dim is None:
        x, dim = Shadow(x.v.ravel(), spread(x.e, x.v.shape).ravel()), 0
    return Shadow(numbers(call.out), _ambiguous(x, dim, keep, call.name == "argmax"))


@rule("sort")
def _sort(call: Call) -> list[Shadow]:
    """Sorted values move by the largest error at most; their order is known for exact data alone."""
    x, dim = call.shadow(call.args[0]), int(call.arg(1, "dim", -1))
    order = as_array(call.out[1])
    if not x.v.size or not x.v.ndim:
        return [x, Shadow(order.astype(np.float64), doubtful(x.e > 0))]
    e = spread(x.e, x.v.shape).max(dim, keepdims=True)
    return [Shadow(x.v[along(order, dim)], e), Shadow(order.astype(np.float64), doubtful(e > 0))]


@rule("aminmax")
def _both_extremes(call: Call) -> list[Shadow]:
    x, dim = call.shadow(call.args[0]), call.kwargs.get("dim")
    dims, keep = tuple(dims_of(x.v, dim)), bool(call.kwargs.get("keepdim", False))
    e = np.max(spread(x.e, x.v.shape), axis=dims, keepdims=keep)
    return [Shadow(extreme(x.v, axis=dims, keepdims=keep), e) for extreme in (np.min, np.max)]


@rule("_assert_async")
def _asserted(call: Call) -> None:
    """A question that decides nothing but whether an exception is raised."""


@rule("logsumexp")
def _logsumexp(call: Call) -> Shadow:
    """max + log(sum(exp(x - max))), every step rounded to the storage format (LogsumexpKernel / ReduceOps.cpp)."""
    from equivalences.rounding.fused import log_of_sum

    x = call.shadow(call.args[0])
    dims, keep = dims_of(x.v, call.args[1]), bool(call.arg(2, "keepdim", False))
    if len(dims) != 1:
        raise NotImplementedError("logsumexp is followed over one dimension")
    row = log_of_sum(call, x, dims[0], call.format)
    v, e = row.top + row.log, row.moved + row.log_e
    if not keep:
        v, e = v.squeeze(dims[0]), e.squeeze(dims[0])
    return rounded(call, v, e, underflow=False)
