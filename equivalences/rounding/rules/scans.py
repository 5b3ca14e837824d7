"""Rules for running sums, products and maxima along one dimension, and for products of all numbers along it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.arrays import add_up, doubtful, numbers, spread, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import converted, product
from equivalences.rounding.rules.elementary import growth, log_sum
from equivalences.rounding.rules.reductions import count, dims_of, kept, running
from equivalences.rounding.shadows import Shadow


def _taken(call: Call, self: Tensor) -> Shadow:
    """The operand in the type of the result, with one dimension at least."""
    x = call.shadow(self)
    x = converted(x, self, call.out) if self.dtype != call.out.dtype else x
    v = np.atleast_1d(x.v)
    return Shadow(v, spread(x.e, v.shape))


def _shaped(call: Call, found: Shadow) -> Shadow:
    return Shadow(*(np.reshape(part, call.out.shape) for part in found))


def _whole(call: Call, x: Shadow, dim: int) -> Shadow:
    """Integers: as they stand there, unless rounding may have decided one that comes before."""
    return _shaped(call, Shadow(np.atleast_1d(numbers(call.out)), doubtful(np.cumsum(x.e, dim) > 0)))


@rule("cumsum")
def _cumsum(call: Call, self: Tensor, dim: int) -> Shadow:
    """One addition after the other: k - 1 of them for the k-th sum, k the numbers so far that are not zero."""
    x = _taken(call, self)
    if not call.out.is_floating_point():
        return _whole(call, x, dim)
    steps, size = running(call), abs(x.v) + x.e
    hu = np.maximum(np.cumsum(size > 0, dim) - 1, 0) * steps.u
    e = np.cumsum(x.e, dim) + unbounded(hu / (1 - hu), hu >= 1) * np.cumsum(size, dim)
    e = unbounded(e, np.cumsum(size, dim) > steps.max)
    return _shaped(call, kept(call, steps, Shadow(np.cumsum(x.v, dim), e)))


@rule("cumprod")
def _cumprod(call: Call, self: Tensor, dim: int) -> Shadow:
    """One product after the other."""
    x = _taken(call, self)
    if not call.out.is_floating_point():
        return _whole(call, x, dim)
    steps = running(call)

    def times(a: Shadow, b: Shadow) -> Shadow:
        v, e = product(a, b)
        size = abs(v) + e
        return Shadow(v, unbounded(e + (steps.u * size + steps.eta) * (size > 0), size > steps.max))

    return _shaped(call, kept(call, steps, _scanned(times, x, dim)))


@rule("logcumsumexp")
def _logcumsumexp(call: Call, self: Tensor, dim: int) -> Shadow:
    """log(exp(a) + exp(b)) of what has been so far and the next number (cpu/LogAddExp.h), from -inf on."""
    x = _taken(call, self)
    steps, inner = running(call), call.giving(call.out)
    inner.format = inner.arithmetic = steps
    return _shaped(call, kept(call, steps, _scanned(lambda a, b: log_sum(inner, a, b), x, dim)))


def _scanned(step: Callable[[Shadow, Shadow], Shadow], x: Shadow, dim: int) -> Shadow:
    """What each number makes of the result before it; the first is itself."""
    v, e = (np.moveaxis(np.array(part, dtype=np.float64), dim, 0) for part in x)
    for k in range(1, len(v)):
        v[k], e[k] = step(Shadow(v[k - 1], e[k - 1]), Shadow(v[k], e[k]))
    return Shadow(np.moveaxis(v, 0, dim), np.moveaxis(e, 0, dim))


@rule("cummax", "cummin")
def _running_extreme(call: Call, self: Tensor, dim: int) -> list[Shadow]:
    """Exact, as a maximum is; which of the numbers it is, is known where they are exact."""
    x = call.shadow(self)
    values, indices = call.out
    v, e = np.atleast_1d(x.v), spread(x.e, np.atleast_1d(x.v).shape)
    extreme = np.maximum if call.name == "cummax" else np.minimum
    e = np.maximum.accumulate(e, dim)
    found = Shadow(extreme.accumulate(v, dim).reshape(values.shape), e.reshape(values.shape))
    return [found, Shadow(numbers(indices), doubtful(found.e > 0))]


@rule("prod")
def prod(call: Call, self: Tensor, dim: Any = None, keepdim: bool = False) -> Shadow:
    """n - 1 products in any order; no bound where a part of them may overflow.

    What a part loses to underflow is multiplied by all the others: by the product of those beyond 1 at most.
    """
    x = call.shadow(self)
    x = converted(x, self, call.out) if self.dtype != call.out.dtype else x
    dims = dims_of(x.v, dim)
    e, axes, n = spread(x.e, x.v.shape), tuple(dims), count(x.v, dims)
    if not call.out.is_floating_point():
        return Shadow(numbers(call.out), doubtful(add_up(e, dims, keepdim)) if dims else e)
    steps = call.format if call.assume.steps_in_storage else call.arithmetic
    size = abs(x.v) + e

    def times(factors: Array) -> Array:
        return np.asarray(np.prod(factors, axis=axes, keepdims=keepdim))

    def added(terms: Array) -> Array:
        return np.asarray(np.sum(terms, axis=axes, keepdims=keepdim))

    v, beyond = times(x.v), times(np.maximum(size, 1.0))
    # Zeros are left out of |v| (exp(sum of log(1 + e / |x|)) - 1), and nothing is lost where one of them is exact.
    zero = x.v == 0
    moved = abs(v) * growth(added(np.log1p(e / np.where(zero, 1.0, abs(x.v)))))
    moved = np.where(added(zero) > 0, times(size), moved)
    hu = (n - 1) * steps.u
    lost = unbounded(hu / (1 - hu) * (abs(v) + moved) + (n - 1) * steps.eta * beyond, hu >= 1)
    lost = np.where(added(size == 0) > 0, 0.0, lost)
    return kept(call, steps, Shadow(v, unbounded(moved + lost, beyond > steps.max)))
