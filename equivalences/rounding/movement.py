"""Rules for operations that move data: the same operation on the value and on the bound, and no rounding.

Views need no rule at all: they share the storage, and the tracker addresses shadows by geometry.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from equivalences import formats
from equivalences.rounding.arithmetic import exact, product, rounded
from equivalences.rounding.tracker import Call, Shadow, rule


def _swap(tree: Any, call: Call, part: int) -> Any:
    """`tree` with every floating-point tensor replaced by part 0 (value) or 1 (bound) of its shadow."""
    if isinstance(tree, Tensor):
        if tree.is_floating_point():
            return call.tracker.shadow(tree)[part]
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
    v = call.func(*_swap(call.args, call, 0), **kwargs)
    return Shadow(v, call.func(*_swap(call.args, call, 1), **kwargs))


@rule("_to_copy", "to")
def _convert(call: Call) -> Shadow:
    a = call.shadow(call.args[0])
    source, target = call.args[0], call.out
    if not target.is_floating_point():
        if source.is_floating_point() and bool(a.e.any()):
            return Shadow(target.to("cpu", torch.float64), torch.where(a.e > 0, math.inf, 0.0).double())
        return a
    if not source.is_floating_point() or formats.of(source.dtype).precision > formats.of(target.dtype).precision:
        fmt = formats.of(target.dtype)
        size = a.v.abs() + a.e
        # An integer small enough for the format converts exactly.
        moved = fmt.u * size + fmt.eta / 2 if source.is_floating_point() else (size > 2.0**fmt.precision) * fmt.u * size
        return Shadow(a.v, (a.e + moved).masked_fill(size + a.e + moved > fmt.max, math.inf))
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
    return exact(torch.zeros(call.out.shape).double())


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
        held = call.out.to("cpu", torch.float64)
        return exact(torch.full_like(held, fill), (held - fill).abs().nan_to_num(nan=0.0))  # as the format takes it
    if call.name.startswith(("empty", "new_empty")):
        return exact(torch.full(call.out.shape, math.nan).double())  # no value yet: no bound until it is written
    return exact(call.out.to("cpu", torch.float64, copy=True))


def _with_source(call: Call) -> Shadow:
    value = call.args[3]
    a, b = call.shadow(call.args[0]), call.shadow(value)
    dim, index = call.args[1], call.args[2].cpu()
    b = Shadow(*(x.expand(index.shape) if not isinstance(value, Tensor) else x for x in b))
    return Shadow(a.v.scatter(dim, index, b.v), a.e.expand(a.v.shape).scatter(dim, index, b.e))


@rule("scatter")
def _scatter(call: Call) -> Shadow:
    if call.kwargs.get("reduce"):
        raise NotImplementedError("scatter with reduce= is followed as scatter_add or scatter_reduce only")
    return _with_source(call)


@rule("scatter_add")
def _scatter_add(call: Call) -> Shadow:
    a, b = call.shadow(call.args[0]), call.shadow(call.args[3])
    dim, index = call.args[1], call.args[2].cpu()
    return _accumulated(call, a, lambda x, y: x.scatter_add(dim, index, y), b)


@rule("index_put", "_index_put_impl")
def _index_put(call: Call) -> Shadow:
    a, b = call.shadow(call.args[0]), call.shadow(call.args[2])
    indices = [None if i is None else i.cpu() for i in call.args[1]]
    if not call.arg(3, "accumulate", False):
        return Shadow(a.v.index_put(indices, b.v), a.e.expand(a.v.shape).index_put(indices, b.e.expand(b.v.shape)))
    return _accumulated(call, a, lambda x, y: x.index_put(indices, y, accumulate=True), b)


@rule("index_add")
def _index_add(call: Call) -> Shadow:
    a, b = call.shadow(call.args[0]), call.shadow(call.args[3])
    dim, index, alpha = call.args[1], call.args[2].cpu(), call.kwargs.get("alpha", 1)
    if abs(alpha) != 1:
        b = rounded(call, *product(b, call.shadow(alpha)))
    b = Shadow(-b.v, b.e) if alpha == -1 else b
    return _accumulated(call, a, lambda x, y: x.index_add(dim, index, y), b)


def _accumulated(call: Call, a: Shadow, scatter: Any, b: Shadow) -> Shadow:
    """A scatter that adds: k terms meeting in one place cost k additions in the storage format."""
    be = b.e.expand(b.v.shape)
    ae = a.e.expand(a.v.shape)
    v, e = scatter(a.v, b.v), scatter(ae, be)
    size = scatter(a.v.abs() + ae, b.v.abs() + be)
    # Zeros are added exactly: only places where two nonzero numbers meet are rounded.
    terms = scatter((size * 0) + (a.v != 0), (b.v != 0).double())
    additions = (terms - 1).clamp_min(0) * call.format.u
    e = e + size * additions / (1 - additions)
    return Shadow(v, e.masked_fill(size + e > call.format.max, math.inf))


@rule("masked_fill")
def _masked_fill(call: Call) -> Shadow:
    a, fill = call.shadow(call.args[0]), call.shadow(call.args[2])
    doubt = call.shadow(call.args[1])
    mask = call.args[1].cpu()
    return Shadow(torch.where(mask, fill.v, a.v), torch.where(mask, fill.e, a.e) + doubt.e)


@rule("masked_scatter", "masked_select_backward", "masked_scatter_backward")
def _masked_scatter(call: Call) -> Shadow:
    v = call.func(*_swap(call.args, call, 0))
    return Shadow(v, call.func(*_swap(call.args, call, 1)))
