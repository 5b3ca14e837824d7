"""Rules for primitive operations of torch._prims: those of ATen, under other names of their arguments."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules import arithmetic, moments, movement, powers, reductions, scans
from equivalences.rounding.shadows import Shadow


@rule("prims::where")
def _where(call: Call, pred: Tensor, a: Tensor, b: Tensor) -> Shadow:
    return arithmetic.where(call, pred, a, b)


@rule("prims::pow")
def _pow(call: Call, self: Tensor, other: Tensor) -> Shadow:
    return powers.power(call, self, other)


@rule("prims::sum")
def _sum(call: Call, inp: Tensor, dims: Any) -> Shadow:
    return reductions.total(call, inp, dims)


@rule("prims::prod")
def _prod(call: Call, inp: Tensor, dims: Any) -> Shadow:
    return scans.prod(call, inp, dims)


@rule("prims::amax", "prims::amin")
def _extreme(call: Call, inp: Tensor, dims: Any) -> Shadow:
    return reductions.extreme(call, inp, dims, False)


@rule("prims::var")
def _variance(call: Call, inp: Tensor, dims: Any, correction: float | None) -> Shadow:
    return moments.variance_of(call, inp, dims, correction)


@rule("prims::convert_element_type")
def _convert(call: Call, a: Tensor) -> Shadow:
    return movement.convert(call, a)


@rule("prims::rev", "prims::reshape")
def _move(call: Call) -> Shadow:
    return movement.move(call)


@rule("prims::iota")
def _fresh(call: Call) -> Shadow:
    return movement.fresh(call)
