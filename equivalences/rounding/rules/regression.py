"""Rules for Huber's and the smooth L1 loss, and for their backward kernels (cpu: BinaryOpsKernel, PointwiseOpsKernel).

Both are quadratic near zero and linear beyond a corner, where neither the loss nor its slope jumps.  Each step is
rounded to the storage format, as in the squared error: so it is in Huber's loss of bfloat16 and in the smooth one of
float16.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from equivalences.rounding.call import Call, in_registers, rule
from equivalences.rounding.rules.arithmetic import clamped, either, in_storage, neg, selected
from equivalences.rounding.rules.binary import reduced
from equivalences.rounding.rules.elementary import add, div, mul
from equivalences.rounding.rules.reductions import Reduction
from equivalences.rounding.shadows import Shadow


def _gap(inner: Call, a: Shadow, b: Shadow) -> Shadow:
    """a - b."""
    return add(inner, a, neg(b))


def _half(x: Shadow) -> Shadow:
    return Shadow(x.v / 2, x.e / 2)


def _norm(inner: Call, reduction: int, n: int) -> Shadow:
    """1 / n for the mean, as the kernel takes it in, else 1."""
    return selected(inner, 1.0 / n if reduction == Reduction.MEAN else 1.0)


@rule("huber_loss")
def _huber_loss(call: Call, self: Tensor, target: Tensor, reduction: int, delta: float) -> Shadow:
    """z = |a - b|; z z / 2 where z < delta, else delta (z - delta / 2), and then reduced."""
    gap, width = _gap(call, call.shadow(self), call.shadow(target)), selected(call, delta)
    z = Shadow(abs(gap.v), gap.e)
    far = mul(call, width, _gap(call, z, _half(width)))
    terms = either(Shadow(z.v - width.v, z.e + width.e), mul(call, _half(z), z), far)
    return reduced(call, terms, reduction)


@rule("smooth_l1_loss")
def _smooth_l1_loss(call: Call, self: Tensor, target: Tensor, reduction: int, beta: float) -> Shadow:
    """z = |a - b|; z z / 2 / beta where z < beta, else z - beta / 2, and then reduced."""
    gap, width = _gap(call, call.shadow(self), call.shadow(target)), selected(call, beta)
    z = Shadow(abs(gap.v), gap.e)
    near = div(call, mul(call, _half(z), z), width)
    terms = either(Shadow(z.v - width.v, z.e + width.e), near, _gap(call, z, _half(width)))
    return reduced(call, terms, reduction)


@rule("huber_loss_backward")
def _huber_loss_backward(
    call: Call, grad_output: Tensor, self: Tensor, target: Tensor, reduction: int, delta: float
) -> Shadow:
    """norm clamp(a - b, -delta, delta) g."""
    g = call.shadow(grad_output)
    width = selected(call, delta)
    kept = clamped(_gap(call, call.shadow(self), call.shadow(target)), neg(width), width)
    norm = _norm(call, reduction, int(np.size(kept.v)))
    return mul(call, mul(call, norm, kept), g)


@rule("smooth_l1_loss_backward")
def _smooth_l1_loss_backward(
    call: Call, grad_output: Tensor, self: Tensor, target: Tensor, reduction: int, beta: float
) -> Shadow:
    """norm (a - b) g / beta where |a - b| < beta, else norm g with the sign of a - b, in the kernel's arithmetic."""
    g, inner = call.shadow(grad_output), in_registers(call)
    gap, width = _gap(inner, call.shadow(self), call.shadow(target)), inner.shadow(beta)
    norm = _norm(inner, reduction, int(np.size(gap.v)))
    near, far = div(inner, mul(inner, mul(inner, norm, gap), g), width), mul(inner, norm, g)
    above = either(Shadow(gap.v - width.v, gap.e + width.e), near, far)
    return in_storage(call, either(Shadow(gap.v + width.v, gap.e + width.e), neg(far), above))
