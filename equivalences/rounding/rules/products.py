"""Rules for matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.call import Call, in_registers, rule
from equivalences.rounding.rules.arithmetic import exact, product, rounded
from equivalences.rounding.shadows import Shadow


def matrix_product(call: Call, a: Shadow, b: Shadow, bias: Shadow | None = None) -> Shadow:
    """Inner products in any order, with or without fused multiply-add: n u |A||B| (Higham 2002, 3.5)."""
    inner = call.arithmetic
    n = a.v.shape[-1] + (bias is not None)
    gamma = n * inner.u / (1 - n * inner.u)
    sizes = abs(a.v) + a.e, abs(b.v) + b.e
    size = sizes[0] @ sizes[1]
    v = a.v @ b.v
    e = abs(a.v) @ b.e + a.e @ abs(b.v) + a.e @ b.e
    if call.format.name == "bfloat16":
        e = e + _flushed(*sizes, inner.tiny)
    if bias is not None:
        v, e, size = v + bias.v, e + bias.e, size + abs(bias.v) + bias.e
    return rounded(call, v, e + gamma * size + n * inner.eta, roundings=0.0, underflow=False)


def _flushed(a: Array, b: Array, tiny: float) -> Array:
    """What VDPBF16PS loses, which takes subnormal numbers for zero and gives none (Intel SDM, volume 2).

    oneDNN uses it for all but the smallest products, where the processor has it.
    """
    small = [np.where(x < tiny, x, 0.0) for x in (a, b)]
    lost = small[0] @ b + a @ small[1] if any(part.any() for part in small) else 0.0
    return np.asarray(lost + a.shape[-1] * tiny)


@rule("mm", "bmm")
@rule("mv", mat2="vec")
@rule("dot", mat2="tensor")
@rule("matmul", mat2="other")
def _mm(call: Call, self: Tensor, mat2: Tensor) -> Shadow:
    return matrix_product(call, call.shadow(self), call.shadow(mat2))


@rule("addmm")
@rule("addmv", mat1="mat", mat2="vec")
@rule("baddbmm", mat1="batch1", mat2="batch2")
def _addmm(call: Call, self: Tensor, mat1: Tensor, mat2: Tensor, beta: Any, alpha: Any) -> Shadow:
    """beta self + alpha (a b): the factors round once each, unless they are 1 or -1; beta = 0 leaves self out."""
    if call.name == "addmv" and (abs(alpha) != 1 or beta not in (0, 1)):
        raise NotImplementedError("addmv is followed for alpha = 1 or -1 and beta = 0 or 1 only")
    a = _times(call, alpha, call.shadow(mat1))
    bias = _times(call, beta, call.shadow(self)) if beta else exact(np.zeros(()))
    return matrix_product(call, a, call.shadow(mat2), bias)


def _times(call: Call, factor: Any, x: Shadow) -> Shadow:
    if abs(factor) == 1:
        return Shadow(factor * x.v, x.e)
    return rounded(in_registers(call), *product(call.shadow(factor), x))
