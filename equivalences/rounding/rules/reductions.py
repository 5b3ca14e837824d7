"""Rules for sums, means, maxima and sorting."""

from __future__ import annotations

import math
from dataclasses import replace
from enum import IntEnum
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivalences import formats
from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arrays import add_up, along, as_array, doubtful, numbers, put, spread, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import averaged, converted, infinite, rounded
from equivalences.rounding.shadows import Shadow


class Reduction(IntEnum):
    """The codes that losses take for their reduction (aten/src/ATen/core/Reduction.h)."""

    NONE = 0
    MEAN = 1
    SUM = 2


def dims_of(x: Array | Tensor, dim: Any) -> list[int]:
    """The reduced dimensions as a list of non-negative numbers; none given means all."""
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.ndim))
    return [d % x.ndim for d in (dim if isinstance(dim, (list, tuple)) else [dim])] if x.ndim else []


def count(x: Array | Tensor, dims: list[int]) -> int:
    """How many numbers a reduction over `dims` takes in."""
    return math.prod(x.shape[d] for d in dims)


def running(call: Call) -> Format:
    """The format in which a loop keeps what it has added up, or multiplied, so far (at::acc_type)."""
    if not call.assume.running_in_double:
        return call.format
    wide = formats.FORMATS["float64" if call.arithmetic.name == call.format.name else "float32"]
    return replace(wide, precision=max(wide.precision, call.format.precision))


def kept(call: Call, steps: Format, x: Shadow) -> Shadow:
    """What was kept in the format `steps` as it is stored."""
    size = abs(x.v) + x.e
    lost = (call.format.u * size + call.format.eta / 2) * (call.format.precision < steps.precision)
    return infinite(Shadow(x.v, unbounded(x.e + lost, size + x.e + lost > call.format.max)), x, x)


def summed(call: Call, x: Shadow, dims: list[int], keepdim: bool, height: int) -> Shadow:
    """A sum by a tree of this height: h u / (1 - h u) sum |x| (Higham 2002, 4.2).

    In the kernel's arithmetic: no bound where part of the sum may overflow there.
    """
    e = spread(x.e, x.v.shape)
    if not dims:
        return Shadow(x.v, e)
    hu = height * call.arithmetic.u
    v, size = add_up(x.v, dims, keepdim), add_up(abs(x.v) + e, dims, keepdim)
    e = add_up(e, dims, keepdim) + (hu / (1 - hu) if hu < 1 else math.inf) * size
    return Shadow(v, unbounded(e, size + e > call.arithmetic.max))


def sum_over(call: Call, source: Tensor, dim: Any, keepdim: bool, *, mean: bool, height: int | None = None) -> Shadow:
    """A sum or mean over `dim`; `height` of the summation tree: by default, of numbers that lie evenly in memory."""
    x = call.shadow(source)
    dims = dims_of(x.v, dim)
    n = count(x.v, dims)
    height = call.assume.sums.whole(n, torch.get_num_threads()) if height is None else height
    if not source.is_floating_point() or formats.of(source.dtype).precision > call.format.precision:
        x = converted(x, source, call.out)  # on the CPU, each number by itself
    total = summed(call, x, dims, keepdim, height)
    if mean:
        return averaged(call, total, n)
    found = rounded(call, *total, roundings=0.0, underflow=False)
    if source.is_floating_point():
        return found
    # Integers and booleans are counted, exactly while they fit.
    size, e = (add_up(part, dims, keepdim) if dims else part for part in (abs(x.v), spread(x.e, x.v.shape)))
    return Shadow(found.v, np.where((e == 0) & (size <= 2.0**call.format.precision), 0.0, found.e))


@rule("sum")
def total(call: Call, self: Tensor, dim: Any = None, keepdim: bool = False) -> Shadow:
    if not call.out.is_floating_point():
        x = call.shadow(self)
        doubt = spread(x.e, x.v.shape)
        return Shadow(numbers(call.out), add_up(doubt, dims_of(x.v, dim), keepdim))
    return sum_over(call, self, dim, keepdim, mean=False)


@rule("trace")
def _trace(call: Call, self: Tensor) -> Shadow:
    """The diagonal in one loop (ReduceOps.cpp, trace_cpu)."""
    x, steps = call.shadow(self), running(call)
    v, e = (np.diagonal(spread(part, x.v.shape)) for part in x)
    hu = max(v.size - 1, 0) * steps.u
    return kept(call, steps, Shadow(v.sum(), e.sum() + hu / (1 - hu) * (abs(v) + e).sum()))


@rule("mean")
def _mean(call: Call, self: Tensor, dim: Any = None, keepdim: bool = False) -> Shadow:
    return sum_over(call, self, dim, keepdim, mean=True)


@rule("amax", "amin")
def extreme(call: Call, self: Tensor, dim: Any, keepdim: bool) -> Shadow:
    x = call.shadow(self)
    dims = tuple(dims_of(x.v, dim))
    largest = np.max if call.name == "amax" else np.min
    v = largest(x.v, axis=dims, keepdims=keepdim)
    # the maximum is 1-Lipschitz in the largest change
    return Shadow(v, np.max(spread(x.e, x.v.shape), axis=dims, keepdims=keepdim))


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
def _max(
    call: Call, self: Tensor, other: Tensor | None = None, dim: Any = None, keepdim: bool = False
) -> tuple[Shadow, Shadow] | Shadow:
    x = call.shadow(self)
    largest = call.name == "max"
    if other is not None:
        y = call.shadow(other)
        v = np.maximum(x.v, y.v) if largest else np.minimum(x.v, y.v)
        return Shadow(v, np.maximum(x.e, y.e))
    e = spread(x.e, x.v.shape)
    if isinstance(call.out, Tensor):
        return Shadow(x.v.max() if largest else x.v.min(), e.max())
    dims, (_, indices) = tuple(dims_of(x.v, dim)), call.out
    v = (np.max if largest else np.min)(x.v, axis=dims, keepdims=keepdim)
    where = Shadow(numbers(indices), _ambiguous(x, dim, keepdim, largest))
    return Shadow(v, np.max(e, axis=dims, keepdims=keepdim)), where


@rule("argmax", "argmin")
def _argmax(call: Call, self: Tensor, dim: int | None, keepdim: bool) -> Shadow:
    x = call.shadow(self)
    if dim is None:
        x, dim = Shadow(x.v.ravel(), spread(x.e, x.v.shape).ravel()), 0
    return Shadow(numbers(call.out), _ambiguous(x, dim, keepdim, call.name == "argmax"))


@rule("sort", "topk")
def _sort(call: Call, self: Tensor, dim: int) -> list[Shadow]:
    """Sorted values move by the largest error at most; their order is known for exact data alone."""
    x, (_, indices) = call.shadow(self), call.out
    order = as_array(indices)
    if not x.v.size or not x.v.ndim:
        return [x, Shadow(order.astype(np.float64), doubtful(x.e > 0))]
    e = spread(x.e, x.v.shape).max(dim, keepdims=True)
    return [Shadow(x.v[along(order, dim)], e), Shadow(order.astype(np.float64), doubtful(e > 0))]


@rule("kthvalue", "median", "nanmedian")
def _one_of_the_sorted(call: Call, self: Tensor, dim: int | None = None, keepdim: bool = False) -> Any:
    """The value of a place in the order moves by the largest error at most; whose it is, is known for exact data."""
    x = call.shadow(self)
    e = spread(x.e, x.v.shape)
    if isinstance(call.out, Tensor):  # of all numbers
        return Shadow(np.sort(x.v, axis=None)[(x.v.size - 1) // 2], e.max())
    order = as_array(call.out[1])
    if not x.v.ndim:
        return [x, Shadow(order.astype(np.float64), doubtful(x.e > 0))]
    assert dim is not None
    where = order if keepdim else np.expand_dims(order, dim)
    found = Shadow(x.v[along(where, dim)].reshape(order.shape), e.max(dim).reshape(order.shape))
    return [found, Shadow(order.astype(np.float64), doubtful(found.e > 0))]


@rule("nonzero", "count_nonzero")
def _places(call: Call, self: Tensor) -> Shadow:
    """Which numbers are not zero, or how many: known where no number may be zero by rounding."""
    x, found = call.shadow(self), numbers(call.out)
    doubt = bool(((x.e > 0) & (abs(x.v) <= x.e)).any())
    return Shadow(found, np.full(found.shape, math.inf if doubt else 0.0))


@rule("bucketize", sorted_sequence="boundaries")
@rule("searchsorted")
def _found(call: Call, sorted_sequence: Tensor, self: Any) -> Shadow:
    """Between which numbers a number lies: known unless rounding may decide it."""
    x, edges = call.shadow(self), call.shadow(sorted_sequence)
    found = numbers(call.out)
    if not x.e.any() and not edges.e.any():
        return Shadow(found, np.zeros(found.shape))
    if edges.v.ndim > 1:
        return Shadow(found, np.full(found.shape, math.inf))
    reach = spread(x.e, x.v.shape)[..., None] + edges.e
    return Shadow(found, doubtful(((reach > 0) & (abs(x.v[..., None] - edges.v) <= reach)).any(-1)))


@rule("aminmax")
def _both_extremes(call: Call, self: Tensor, dim: int | None, keepdim: bool) -> list[Shadow]:
    x = call.shadow(self)
    dims = tuple(dims_of(x.v, dim))
    e = np.max(spread(x.e, x.v.shape), axis=dims, keepdims=keepdim)
    return [Shadow(extreme(x.v, axis=dims, keepdims=keepdim), e) for extreme in (np.min, np.max)]


@rule("_assert_async")
def _asserted(call: Call) -> None:
    """A question that decides nothing but whether an exception is raised."""
