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
from equivalences.rounding.arrays import along, as_array, as_tensor, numbers, spread, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import (
    converted,
    endless,
    exact,
    neg,
    operand,
    placed,
    product,
    rounded,
    selected,
)  # fmt: skip
from equivalences.rounding.shadows import Shadow


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


_KIND = {"dtype", "device", "layout", "pin_memory"}  # arguments that say what the result is: a shadow has its own


@rule(
    "cat", "stack", "flip", "roll", "repeat", "slice_backward", "select_backward", "diagonal_backward", "tril", "triu",
    "lift_fresh_copy", "alias_copy", "detach_copy", "diag_embed", "diagonal_copy", "diagonal_scatter", "expand_copy",
    "narrow_copy", "permute_copy", "pixel_shuffle", "pixel_unshuffle", "rot90", "select_copy", "select_scatter",
    "slice_copy", "slice_scatter", "squeeze_copy", "t_copy", "transpose_copy", "unsqueeze_copy", "view_copy",
)  # fmt: skip
def move(call: Call) -> Shadow:
    return _again(call)


@rule("gather", "index_select")
def _move_by_index(call: Call, index: Tensor) -> Shadow:
    return placed(call, index, _again(call, where="index"))


@rule("index", "_unsafe_index", "take_along_dim", "embedding")
def _move_by_indices(call: Call, indices: Any) -> Shadow:
    return placed(call, indices, _again(call, where="indices"))


@rule("masked_select", "masked_scatter", "masked_select_backward", "masked_scatter_backward")
def _move_by_mask(call: Call, mask: Tensor) -> Shadow:
    return placed(call, mask, _again(call, where="mask"))


def _again(call: Call, where: str = "") -> Shadow:
    """The operation itself, done to the values and to the bounds; its argument `where` says where numbers are."""

    def moved(part: int) -> Array:
        arguments = {
            name: _here(item) if name == where else _swap(item, call, part)
            for name, item in call.arguments.items()
            if name not in _KIND
        }
        found: Array = call.func(**arguments).numpy()
        return found

    return Shadow(moved(0), moved(1))


@rule("clone", "contiguous", "_unsafe_view")
def _clone(call: Call, self: Tensor) -> Shadow:
    return call.shadow(self)


@rule("constant_pad_nd")
def _pad(call: Call, self: Tensor, pad: list[int], value: float) -> Shadow:
    v, e = selected(call, value)
    return Shadow(*(call.func(_swap(self, call, k), pad, float(x)).numpy() for k, x in enumerate((v, e))))


@rule("unfold_backward")
def _unfold_backward(call: Call, grad_in: Tensor) -> Shadow:
    """Windows that overlap are added up."""
    a = call.shadow(grad_in)
    size = abs(a.v) + a.e
    v, e, size, terms = (
        call.func(**{**call.arguments, "grad_in": as_tensor(x)}).numpy()
        for x in (a.v, a.e, size, (size > 0).astype(np.float64))
    )
    return _met(call, v, e, size, terms)


@rule("_to_copy", "to")
def convert(call: Call, self: Tensor) -> Shadow:
    return converted(call.shadow(self), self, call.out)


@rule("copy")
def _copy(call: Call, self: Tensor, src: Tensor) -> Shadow:
    return converted(call.shadow(src), src, self)


@rule("squeeze", "unsqueeze", "transpose", "t", "as_strided", "detach")
def _reshaped_in_place(call: Call) -> None:
    """Only the geometry has changed, and shadows are looked up by it (as functions these are views)."""


@rule("lift_fresh")
def _constant(call: Call) -> None:
    if not call.shadows.known(call.out):
        call.shadows.take(call.out)


@rule("_new_zeros_with_same_feature_meta")
def _zeros_like_another(call: Call) -> Shadow:
    return exact(np.zeros(call.out.shape))


@rule(
    "_efficientzerotensor",
    "zeros", "ones", "zeros_like", "ones_like", "new_zeros", "new_ones", "arange", "eye", "zero", "uniform", "normal",
    "bernoulli", "random", "rand", "randn", "rand_like", "randn_like", "randint", "randint_like", "randperm",
    "exponential", "log_normal", "cauchy", "geometric", "linspace", "logspace", "range", "tril_indices",
    "triu_indices",
)  # fmt: skip
def fresh(call: Call) -> Shadow:
    """What stands in a fresh tensor is what it holds, drawn at random or not."""
    return exact(numbers(call.out))


@rule("empty", "empty_like", "empty_strided", "empty_permuted", "new_empty", "new_empty_strided")
def _empty(call: Call) -> Shadow:
    return exact(np.full(call.out.shape, math.nan))  # no value yet: no bound until it is written


@rule("full", "full_like", "new_full")
@rule("scalar_tensor", fill_value="s")
@rule("fill", fill_value="value")
def _filled(call: Call, fill_value: Any) -> Shadow:
    """A number as the format takes it in; a computed tensor brings its bound."""
    if isinstance(fill_value, Tensor):
        return operand(call, fill_value)
    found = numbers(call.out)
    if not isinstance(fill_value, (int, float)) or not call.out.is_floating_point():
        return exact(found)
    off = abs(found - fill_value)
    return exact(np.full(found.shape, float(fill_value)), np.where(np.isnan(off), 0.0, off))


@rule("one_hot")
def _one_hot(call: Call, self: Tensor) -> Shadow:
    return placed(call, self, exact(numbers(call.out)))


def _places(call: Call, dim: int, index: Tensor, source: Any) -> tuple[tuple[Array, ...], Shadow]:
    """Where a scatter puts its source, and what of the source it puts there."""
    at, whole = as_array(index), selected(call, source)
    if at.ndim == 0:
        return (), whole
    taken = tuple(slice(size) for size in at.shape)
    return along(at, dim), Shadow(*(part[taken] if part.ndim else part for part in whole))


@rule("scatter")
def _scatter(
    call: Call,
    self: Tensor,
    dim: int,
    index: Tensor,
    src: Tensor | None = None,
    value: Any = None,
    reduce: str | None = None,
) -> Shadow:
    if reduce:
        raise NotImplementedError("scatter with reduce= is followed as scatter_add or scatter_reduce only")
    source = value if src is None else src
    return placed(call, index, _replaced(call.shadow(self), *_places(call, dim, index, source)))


@rule("scatter_add")
def _scatter_add(call: Call, self: Tensor, dim: int, index: Tensor, src: Tensor) -> Shadow:
    added = _accumulated(call, call.shadow(self), *_places(call, dim, index, src), atomic=True)
    return placed(call, index, added)


@rule("scatter_reduce", source="src")
def _scatter_reduce(
    call: Call, self: Tensor, dim: int, index: Tensor, source: Tensor, reduce: str, include_self: bool
) -> Shadow:
    """The largest or smallest of what meets in one place is exact; sums are added up in the storage format."""
    a, (where, b) = call.shadow(self), _places(call, dim, index, source)
    if reduce not in ("amax", "amin", "sum"):
        raise NotImplementedError(f"scatter_reduce is followed for sum, amax and amin, not for {reduce}")
    if not include_self:
        nothing = {"sum": 0.0, "amax": -math.inf, "amin": math.inf}[reduce]
        a = _replaced(a, where, exact(np.full(np.shape(b.v), nothing), np.zeros(np.shape(b.v))))
    if reduce == "sum":
        return placed(call, index, _accumulated(call, a, where, b, atomic=True))
    v, e = np.array(a.v), np.array(spread(a.e, a.v.shape))
    (np.maximum if reduce == "amax" else np.minimum).at(v, where, b.v)
    np.maximum.at(e, where, b.e)
    return placed(call, index, Shadow(v, e))


@rule("index_fill")
def _index_fill(call: Call, self: Tensor, dim: int, index: Tensor, value: Any) -> Shadow:
    every = (slice(None),) * (dim % max(self.dim(), 1))
    filled = selected(call, value)
    return placed(call, index, _replaced(call.shadow(self), (*every, as_array(index)), filled))


@rule("index_copy")
def _index_copy(call: Call, self: Tensor, dim: int, index: Tensor, source: Tensor) -> Shadow:
    every = (slice(None),) * (dim % max(self.dim(), 1))
    return placed(call, index, _replaced(call.shadow(self), (*every, as_array(index)), operand(call, source)))


@rule("embedding_dense_backward")
def _embedding_backward(
    call: Call, grad_output: Tensor, indices: Tensor, padding_idx: int, scale_grad_by_freq: bool
) -> Shadow:
    """The gradients of the rows that an index names are added up."""
    if scale_grad_by_freq:
        raise NotImplementedError("embedding is followed without scale_grad_by_freq only")
    at, g = as_array(indices).ravel(), call.shadow(grad_output)
    rows = Shadow(*(spread(part, g.v.shape).reshape(at.size, -1)[at != padding_idx] for part in g))
    nothing = np.zeros(call.out.shape)
    found = _accumulated(call, Shadow(nothing, nothing), at[at != padding_idx], rows, atomic=True)
    return placed(call, indices, found)


@rule("index_put", "_index_put_impl", "_unsafe_index_put")
def _index_put(call: Call, self: Tensor, indices: Any, values: Tensor, accumulate: bool) -> Shadow:
    where = tuple(slice(None) if index is None else as_array(index) for index in indices)
    put = partial(_accumulated, call) if accumulate else _replaced
    return placed(call, indices, put(call.shadow(self), where, operand(call, values)))


@rule("index_add")
def _index_add(call: Call, self: Tensor, dim: int, index: Tensor, source: Tensor, alpha: Any) -> Shadow:
    a, b = call.shadow(self), call.shadow(source)
    if abs(alpha) != 1:
        b = rounded(call, *product(b, selected(call, alpha)))
    b = neg(b) if alpha == -1 else b
    every = (slice(None),) * (dim % max(a.v.ndim, 1))
    return placed(call, index, _accumulated(call, a, (*every, as_array(index)), b, atomic=True))


def _replaced(a: Shadow, where: Any, b: Shadow) -> Shadow:
    v, e = np.array(a.v), np.array(a.e)
    v[where], e[where] = b
    return Shadow(v, e)


def _accumulated(call: Call, a: Shadow, where: Any, b: Shadow, atomic: bool = False) -> Shadow:
    """A scatter that adds: k terms meeting in one place cost k additions in the storage format.

    `atomic`: an accelerator may do each addition in memory, by an atomic instruction.
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
    """Sums of `terms` numbers each, whose absolute values add up to `size`; zeros add exactly."""
    additions = np.maximum(terms - 1, 0) * call.format.u
    e = e + unbounded(size * additions / (1 - additions), additions >= 1)
    return Shadow(v, unbounded(e, size + e > call.format.max))


@rule("nan_to_num")
def _nan_to_num(
    call: Call, self: Tensor, nan: float | None = None, posinf: float | None = None, neginf: float | None = None
) -> Shadow:
    """Numbers as they are, an exact infinity as the number that stands for it; nan has no bound."""
    x = call.shadow(self)
    high, low = (
        selected(call, end if given is None else given)
        for given, end in ((posinf, call.format.max), (neginf, -call.format.max))
    )
    top, bottom = (endless(x) & (sign * x.v > 0) for sign in (1, -1))
    v = np.where(top, high.v, np.where(bottom, low.v, x.v))
    return Shadow(v, np.where(top, high.e, np.where(bottom, low.e, x.e)))


@rule("masked_fill")
def _masked_fill(call: Call, self: Tensor, mask: Tensor, value: Any) -> Shadow:
    a, fill, filled = call.shadow(self), selected(call, value), as_array(mask)
    return Shadow(np.where(filled, fill.v, a.v), np.where(filled, fill.e, a.e) + call.shadow(mask).e)
