"""Rules for operations that move data: the same operation on the value and on the bound, and no rounding.

Views need no rule at all: they share the storage, and the tracker addresses shadows by geometry.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from equivalences import formats
from equivalences.model import Array
from equivalences.rounding.arithmetic import exact, product, rounded
from equivalences.rounding.arrays import along, as_array, as_tensor, doubtful, numbers, unbounded
from equivalences.rounding.tracker import Call, Shadow, rule


def _swap(tree: Any, call: Call, part: int) -> Any:
    """`tree` with every floating-point tensor replaced by part 0 (value) or 1 (bound) of its shadow."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            return as_tensor(call.tracker.shadow(tree)[part])
        return tree.cpu()
    if isinstance(tree, (list, tuple)):
        return type(tree)(_swap(branch, call, part) for branch in tree)
    return tree


@rule(
    "clone", "contiguous", "cat", "stack", "gather", "index_select", "index", "take_along_dim", "flip", "roll",
    "repeat", "constant_pad_nd", "slice_backward", "select_backward", "embedding", "masked_select", "diagonal_backward",
    "tril", "triu", "lift_fresh_copy", "unfold_backward",
)  # fmt: skip
def _move(call: Call) -> Shadow:
    kwargs = {key: item for key, item in call.kwargs.items() if key not in ("dtype", "device", "layout", "pin_memory")}
    return Shadow(*(call.func(*_swap(call.args, call, part), **kwargs).numpy() for part in (0, 1)))


@rule("_to_copy", "to")
def _convert(call: Call) -> Shadow:
    a = call.shadow(call.args[0])
    source, target = call.args[0], call.out
    if not target.is_floating_point():
        if source.is_floating_point() and a.e.any():
            return Shadow(numbers(target), doubtful(a.e > 0))
        return a
    if not source.is_floating_point() or formats.of(source.dtype).precision > formats.of(target.dtype).precision:
        fmt = formats.of(target.dtype)
        size = abs(a.v) + a.e
        # An integer small enough for the format converts exactly.
        moved = fmt.u * size + fmt.eta / 2 if source.is_floating_point() else (size > 2.0**fmt.precision) * fmt.u * size
        return Shadow(a.v, unbounded(a.e + moved, size + a.e + moved > fmt.max))
    if source.dtype != target.dtype and formats.of(source.dtype).max > formats.of(target.dtype).max:
        return rounded(call, a.v, a.e, roundings=1.0)  # bfloat16 to float16
    return a


@rule("copy")
def _copy(call: Call) -> Shadow:
    destination, source = call.args[:2]
    a = call.shadow(source)
    narrow = source.is_floating_point() and formats.of(source.dtype).precision > formats.of(destination.dtype).precision
    return rounded(call, a.v, a.e, roundings=0.0 if call.format.precision < 24 else 1.0) if narrow else a


@rule("squeeze", "unsqueeze", "transpose", "t")
def _reshaped_in_place(call: Call) -> None:
    """Only the geometry has changed, and shadows are looked up by it (as functions these are views)."""


_FILL = {"scalar_tensor": 0, "full": 1, "full_like": 1, "fill": 1, "new_full": 2}  # where a number is to be held


@rule("lift_fresh")
def _constant(call: Call) -> None:
    call.tracker.declare(call.out)


@rule("_new_zeros_with_same_feature_meta")
def _zeros_like_another(call: Call) -> Shadow:
    return exact(np.zeros(call.out.shape))


@rule(
    "_efficientzerotensor",
    "zeros", "ones", "zeros_like", "ones_like", "new_zeros", "new_ones", "arange", "eye", "full", "full_like",
    "new_full", "scalar_tensor", "empty", "empty_like", "new_empty", "fill", "zero", "one_hot",
    "empty_strided", "new_empty_strided", "uniform", "normal", "bernoulli", "random",
)  # fmt: skip
def _factory(call: Call) -> Shadow:
    # What stands in a fresh constant is what it holds, drawn at random or not; a fill by a computed tensor carries
    # that tensor's bound.
    for operand in call.args[1:]:
        if isinstance(operand, Tensor):
            return call.shadow(operand)
    fill = call.args[_FILL[call.name]] if call.name in _FILL and len(call.args) > _FILL[call.name] else None
    if isinstance(fill, (int, float)) and call.out.is_floating_point():
        taken = numbers(call.out)
        off = abs(taken - fill)
        return exact(np.full(taken.shape, float(fill)), np.where(np.isnan(off), 0.0, off))  # as the format takes it
    if call.name.startswith(("empty", "new_empty")):
        return exact(np.full(call.out.shape, math.nan))  # no value yet: no bound until it is written
    return exact(numbers(call.out))


def _places(call: Call) -> tuple[tuple[Array, ...], Shadow]:
    """Where a scatter puts its source, and what of the source it puts there."""
    index, source = as_array(call.args[2]), call.shadow(call.args[3])
    if index.ndim == 0:
        return (), source
    taken = tuple(slice(size) for size in index.shape)
    return along(index, call.args[1]), Shadow(*(part[taken] if part.ndim else part for part in source))


@rule("scatter")
def _scatter(call: Call) -> Shadow:
    if call.kwargs.get("reduce"):
        raise NotImplementedError("scatter with reduce= is followed as scatter_add or scatter_reduce only")
    return _replaced(call.shadow(call.args[0]), *_places(call))


@rule("scatter_add")
def _scatter_add(call: Call) -> Shadow:
    return _accumulated(call, call.shadow(call.args[0]), *_places(call))


@rule("index_put", "_index_put_impl")
def _index_put(call: Call) -> Shadow:
    where = tuple(slice(None) if index is None else as_array(index) for index in call.args[1])
    put = partial(_accumulated, call) if call.arg(3, "accumulate", False) else _replaced
    return put(call.shadow(call.args[0]), where, call.shadow(call.args[2]))


@rule("index_add")
def _index_add(call: Call) -> Shadow:
    a, b = call.shadow(call.args[0]), call.shadow(call.args[3])
    alpha = call.kwargs.get("alpha", 1)
    if abs(alpha) != 1:
        b = rounded(call, *product(b, call.shadow(alpha)))
    b = Shadow(-b.v, b.e) if alpha == -1 else b
    every = (slice(None),) * (call.args[1] % max(a.v.ndim, 1))
    return _accumulated(call, a, (*every, as_array(call.args[2])), b)


def _replaced(a: Shadow, where: Any, b: Shadow) -> Shadow:
    v, e = np.array(a.v), np.array(a.e)
    v[where], e[where] = b
    return Shadow(v, e)


def _accumulated(call: Call, a: Shadow, where: Any, b: Shadow) -> Shadow:
    """A scatter that adds: k terms meeting in one place cost k additions in the storage format."""

    def added(x: Array, y: Array) -> Array:
        x = np.array(x, dtype=np.float64)
        np.add.at(x, where, y)
        return x

    v, e, size = added(a.v, b.v), added(a.e, b.e), added(abs(a.v) + a.e, abs(b.v) + b.e)
    # Zeros are added exactly: only places where two nonzero numbers meet are rounded.
    terms = added(a.v != 0, b.v != 0)
    additions = np.maximum(terms - 1, 0) * call.format.u
    e = e + size * additions / (1 - additions)
    return Shadow(v, unbounded(e, size + e > call.format.max))


@rule("masked_fill")
def _masked_fill(call: Call) -> Shadow:
    a, fill = call.shadow(call.args[0]), call.shadow(call.args[2])
    doubt = call.shadow(call.args[1])
    mask = as_array(call.args[1])
    return Shadow(np.where(mask, fill.v, a.v), np.where(mask, fill.e, a.e) + doubt.e)


@rule("masked_scatter", "masked_select_backward", "masked_scatter_backward")
def _masked_scatter(call: Call) -> Shadow:
    return Shadow(*(call.func(*_swap(call.args, call, part)).numpy() for part in (0, 1)))
