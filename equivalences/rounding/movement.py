"""Rules for operations that move data: the same operation on the value and on the bound, and no rounding.

Views need no rule at all: they share the storage, and the tracker addresses shadows by geometry.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.arithmetic import converted, exact, operand, placed, product, rounded, selected
from equivalences.rounding.arrays import along, as_array, as_tensor, numbers, unbounded
from equivalences.rounding.tracker import Call, Shadow, rule


def _swap(tree: Any, call: Call, part: int) -> Any:
    """`tree` with every tensor replaced by part 0 (value) or 1 (bound) of its shadow."""
    if isinstance(tree, Tensor):
        return as_tensor(operand(call, tree)[part])
    if isinstance(tree, (list, tuple)):
        return type(tree)(_swap(branch, call, part) for branch in tree)
    return tree


def _here(tree: Any) -> Any:
    """`tree` with every tensor on the host."""
    if isinstance(tree, (list, tuple)):
        return type(tree)(_here(branch) for branch in tree)
    return tree.cpu() if isinstance(tree, Tensor) else tree


# Where an operation takes its indices, or its mask.
_PLACES = {
    "gather": 2, "index_select": 2, "index": 1, "take_along_dim": 1, "embedding": 1, "masked_select": 1,
    "masked_scatter": 1, "masked_select_backward": 2, "masked_scatter_backward": 1,
}  # fmt: skip


@rule(
    "cat", "stack", "gather", "index_select", "index", "take_along_dim", "flip", "roll",
    "repeat", "slice_backward", "select_backward", "embedding", "masked_select", "diagonal_backward", "tril", "triu",
    "lift_fresh_copy", "masked_scatter", "masked_select_backward", "masked_scatter_backward",
)  # fmt: skip
def _move(call: Call) -> Shadow:
    kwargs = {key: item for key, item in call.kwargs.items() if key not in ("dtype", "device", "layout", "pin_memory")}
    at = _PLACES.get(call.name)

    def moved(part: int) -> Array:
        args = (_here(arg) if k == at else _swap(arg, call, part) for k, arg in enumerate(call.args))
        found: Array = call.func(*args, **kwargs).numpy()
        return found

    found = Shadow(moved(0), moved(1))
    return found if at is None else placed(call, call.args[at], found)


@rule("clone", "contiguous")
def _clone(call: Call) -> Shadow:
    return call.shadow(call.args[0])


@rule("constant_pad_nd")
def _pad(call: Call) -> Shadow:
    v, e = selected(call, call.arg(2, "value", 0))
    return Shadow(
        *(call.func(_swap(call.args[0], call, k), call.args[1], float(x)).numpy() for k, x in enumerate((v, e)))
    )


@rule("unfold_backward")
def _unfold_backward(call: Call) -> Shadow:
    """Windows that overlap are added up."""
    a, rest = call.shadow(call.args[0]), call.args[1:]
    size = abs(a.v) + a.e
    v, e, size, terms = (
        call.func(as_tensor(x), *rest).numpy() for x in (a.v, a.e, size, (size > 0).astype(np.float64))
    )
    return _met(call, v, e, size, terms)


@rule("_to_copy", "to")
def _convert(call: Call) -> Shadow:
    return converted(call.tracker.shadow(call.args[0]), call.args[0], call.out)


@rule("copy")
def _copy(call: Call) -> Shadow:
    return converted(call.tracker.shadow(call.args[1]), call.args[1], call.args[0])


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
    if call.name == "fill" and isinstance(call.args[1], Tensor):
        return operand(call, call.args[1])
    fill = call.args[_FILL[call.name]] if call.name in _FILL and len(call.args) > _FILL[call.name] else None
    if isinstance(fill, (int, float)) and call.out.is_floating_point():
        taken = numbers(call.out)
        off = abs(taken - fill)
        return exact(np.full(taken.shape, float(fill)), np.where(np.isnan(off), 0.0, off))  # as the format takes it
    if call.name.startswith(("empty", "new_empty")):
        return exact(np.full(call.out.shape, math.nan))  # no value yet: no bound until it is written
    found = exact(numbers(call.out))
    return placed(call, call.args[0], found) if call.name == "one_hot" else found


def _places(call: Call) -> tuple[tuple[Array, ...], Shadow]:
    """Where a scatter puts its source, and what of the source it puts there."""
    index, source = as_array(call.args[2]), selected(call, call.args[3])
    if index.ndim == 0:
        return (), source
    taken = tuple(slice(size) for size in index.shape)
    return along(index, call.args[1]), Shadow(*(part[taken] if part.ndim else part for part in source))


@rule("scatter")
def _scatter(call: Call) -> Shadow:
    if call.kwargs.get("reduce"):
        raise NotImplementedError("scatter with reduce= is followed as scatter_add or scatter_reduce only")
    return placed(call, call.args[2], _replaced(call.shadow(call.args[0]), *_places(call)))


@rule("scatter_add")
def _scatter_add(call: Call) -> Shadow:
    return placed(call, call.args[2], _accumulated(call, call.shadow(call.args[0]), *_places(call), atomic=True))


@rule("index_put", "_index_put_impl")
def _index_put(call: Call) -> Shadow:
    where = tuple(slice(None) if index is None else as_array(index) for index in call.args[1])
    put = partial(_accumulated, call) if call.arg(3, "accumulate", False) else _replaced
    return placed(call, call.args[1], put(call.shadow(call.args[0]), where, operand(call, call.args[2])))


@rule("index_add")
def _index_add(call: Call) -> Shadow:
    a, b = call.shadow(call.args[0]), call.shadow(call.args[3])
    alpha = call.kwargs.get("alpha", 1)
    if abs(alpha) != 1:
        b = rounded(call, *product(b, selected(call, alpha)))
    b = Shadow(-b.v, b.e) if alpha == -1 else b
    every = (slice(None),) * (call.args[1] % max(a.v.ndim, 1))
    return placed(call, call.args[2], _accumulated(call, a, (*every, as_array(call.args[2])), b, atomic=True))


def _replaced(a: Shadow, where: Any, b: Shadow) -> Shadow:
    v, e = np.array(a.v), np.array(a.e)
    v[where], e[where] = b
    return Shadow(v, e)


def _accumulated(call: Call, a: Shadow, where: Any, b: Shadow, atomic: bool = False) -> Shadow:
    """A scatter that adds: k terms meeting in one place cost k additions in the storage format.

    `atomic`: an accelerator may do each of them in memory, as an operation of its own.
    """

    def added(x: Array, y: Array) -> Array:
        x = np.array(x, dtype=np.float64)
        np.add.at(x, where, y)
        return x

    v, e, size = added(a.v, b.v), added(a.e, b.e), added(abs(a.v) + a.e, abs(b.v) + b.e)
    terms = added(abs(a.v) + a.e > 0, abs(b.v) + b.e > 0)
    if atomic and call.assume.sums.flushes(call.format):
        e = e + 2 * terms * call.format.tiny
    return _met(call, v, e, size, terms)


def _met(call: Call, v: Array, e: Array, size: Array, terms: Array) -> Shadow:
    """Sums of so many `terms` each, of absolute values `size` in all: zeros are added exactly."""
    additions = np.maximum(terms - 1, 0) * call.format.u
    e = e + unbounded(size * additions / (1 - additions), additions >= 1)
    return Shadow(v, unbounded(e, size + e > call.format.max))


@rule("masked_fill")
def _masked_fill(call: Call) -> Shadow:
    a, fill = call.shadow(call.args[0]), selected(call, call.args[2])
    doubt = call.shadow(call.args[1])
    mask = as_array(call.args[1])
    return Shadow(np.where(mask, fill.v, a.v), np.where(mask, fill.e, a.e) + doubt.e)
