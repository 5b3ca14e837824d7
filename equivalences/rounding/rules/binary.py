"""Rules for fused elementwise losses: binary cross entropy, soft margin, squared error, and their backward kernels.

One rule each, from the algorithm that the kernel documents (aten/src/ATen/native: Loss.cpp, cpu/BinaryOpsKernel.cpp,
cpu/PointwiseOpsKernel.cpp).  Where a kernel is worse than its rule, that is a known defect, not a wider rule.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.arrays import held, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import averaged, neg, one, product, rounded
from equivalences.rounding.rules.elementary import CLOSE, add, exp, log, log1p, log_sigmoid, mul
from equivalences.rounding.rules.reductions import Reduction, summed
from equivalences.rounding.shadows import Shadow


def reduced(call: Call, terms: Shadow, reduction: int) -> Shadow:
    """The reduction that elementwise losses share: at::sum or at::mean of the stored terms."""
    if reduction == Reduction.NONE:
        return terms
    n = terms.v.size
    height = call.assume.sums.whole(n, torch.get_num_threads())
    total = summed(call, terms, list(range(terms.v.ndim)), False, height)
    mean = reduction == Reduction.MEAN
    return averaged(call, total, n) if mean else rounded(call, *total, roundings=0.0, underflow=False)


def _weighted(call: Call, terms: Shadow, weight: Tensor | None) -> Shadow:
    return terms if weight is None else _scaled(call, call.shadow(weight), terms)


def _scaled(call: Call, factor: Shadow, x: Shadow, finite: bool = False) -> Shadow:
    """factor * x, rounded to storage; exact where the factor is exactly 0, 1 or -1 (hard targets).

    `finite`: the computed x never overflows, so that a zero factor removes it even where it has no bound.
    """
    v, e = mul(call, factor, x)
    plain = (factor.e == 0) & (abs(factor.v) == 1)
    none = (factor.e == 0) & (factor.v == 0) & (np.isfinite(x.v) & np.isfinite(x.e) | finite)
    return Shadow(np.where(none, 0.0, v), np.where(none, 0.0, np.where(plain, x.e, e)))


def _joined(call: Call, a: Shadow, b: Shadow) -> Shadow:
    """a + b, rounded to storage; exact where one of them is exactly zero."""
    v, e = add(call, a, b)
    e = np.where((a.v == 0) & (a.e == 0), b.e, e)
    return Shadow(v, np.where((b.v == 0) & (b.e == 0), a.e, e))


def _rest(call: Call, t: Shadow) -> Shadow:
    """1 - t, rounded to storage; exact for the hard targets 0 and 1."""
    v, e = add(call, one(), neg(t))
    return Shadow(v, np.where(((t.v == 0) | (t.v == 1)) & (t.e == 0), 0.0, e))


@rule("binary_cross_entropy")
def _binary_cross_entropy(call: Call, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int) -> Shadow:
    """(t - 1) max(log1p(-x), -100) - t max(log(x), -100), each step in the storage format."""
    x, t = call.shadow(self), call.shadow(target)
    hit = _scaled(call, t, _clamped(log(call, x)), finite=True)
    miss = _scaled(call, _rest(call, t), _clamped(log1p(call, neg(x))), finite=True)
    terms = neg(_joined(call, hit, miss))
    return reduced(call, _weighted(call, terms, weight), reduction)


def _clamped(logarithm: Shadow) -> Shadow:
    """max(logarithm, -100), which torch.nn.BCELoss documents: what the clamp cuts off is part of the bound."""
    return Shadow(logarithm.v, logarithm.e + np.maximum(-100.0 - logarithm.v, 0.0) * (1 + CLOSE))


@rule("binary_cross_entropy_backward")
def _binary_cross_entropy_backward(
    call: Call, grad_output: Tensor, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int
) -> Shadow:
    """g (x - t) / ((1 - x) x) = g ((1 - t) / (1 - x) - t / x), each step in the storage format.

    Its steps are relatively exact (x is a number here, whatever error it brought), so that an error of x counts as
    it does in the second formula: for t = 1 only through 1 / x, however close x comes to 1.
    That the kernel divides by no less than 1e-12 is not part of the rule.
    """
    g, x, t = call.shadow(grad_output), call.shadow(self), call.shadow(target)
    eta = call.format.eta
    slope = _log_loss_slope(x, t)
    # A difference, two products and a quotient; 1 - x has the same rounding as x - 1, and x - 0 has none.
    steps = np.where(t.e > 0, 5.0, np.where(t.v == 1, 3.0, np.where(t.v == 0, 4.0, 5.0)))
    terms = _stepwise(call, *product(g, slope), steps)
    # g (x - t), off by eta / 2 if subnormal, is divided by x (1 - x), which is smallest at one end.  The ends are no
    # closer to 0 than eta and to 1 than u: where the kernel meets 0 / 0, its formula has no meaning but the slope has.
    low, high = (np.clip(x.v + e, eta, 1 - call.format.u) for e in (-x.e, x.e))
    room = np.minimum(low * (1 - low), high * (1 - high))
    lost = eta / room / 2
    terms = _weighted(call, Shadow(terms.v, terms.e + lost), weight)
    return averaged(call, terms, terms.v.size) if reduction == Reduction.MEAN else terms


def _stepwise(call: Call, v: Array, e: Array, steps: Array | float) -> Shadow:
    """A result off by `e` before `steps` relative roundings to the storage format, the last into subnormals too."""
    hu = steps * call.format.u
    e = e + hu / (1 - hu) * (abs(v) + e) + call.format.eta
    return Shadow(v, unbounded(e, abs(v) + e > call.format.max))


def _log_loss_slope(x: Shadow, t: Shadow) -> Shadow:
    """(1 - t) / (1 - x) - t / x and how far the errors of x and t move it; no bound where x may reach the pole."""

    def part(share: Array, x: Array, e: Array) -> Shadow:
        room = x - e
        ratio = share / x
        moved = unbounded(ratio * e / room, room <= 0)
        none = (share == 0) & (t.e == 0)
        moved = np.where(t.e > 0, moved + t.e / np.maximum(room, 0.0), moved)
        return Shadow(np.where(none, 0.0, ratio), np.where(none, 0.0, moved))

    miss, hit = part(1 - t.v, 1 - x.v, x.e), part(t.v, x.v, x.e)
    return Shadow(miss.v - hit.v, miss.e + hit.e)


@rule("binary_cross_entropy_with_logits")
def _binary_cross_entropy_with_logits(
    call: Call, self: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: int
) -> Shadow:
    """(1 - t) z - (1 + (w - 1) t) log_sigmoid(z), each step in the storage format."""
    z, t = call.shadow(self), call.shadow(target)
    tail = neg(rounded(call, *log_sigmoid(call, z), roundings=0.0))
    if pos_weight is not None:
        factor = _joined(call, _scaled(call, t, add(call, call.shadow(pos_weight), neg(one()))), one())
        tail = _scaled(call, factor, tail)
    terms = _joined(call, _scaled(call, _rest(call, t), z), tail)
    return reduced(call, _weighted(call, terms, weight), reduction)


@rule("soft_margin_loss")
def _soft_margin_loss(call: Call, self: Tensor, target: Tensor, reduction: int) -> Shadow:
    """log1p(exp(-t z)), each step in the storage format."""
    z, t = call.shadow(self), call.shadow(target)
    terms = log1p(call, exp(call, _scaled(call, neg(t), z)))
    return reduced(call, terms, reduction)


@rule("soft_margin_loss_backward")
def _soft_margin_loss_backward(call: Call, grad_output: Tensor, self: Tensor, target: Tensor, reduction: int) -> Shadow:
    """-norm t y / (1 + y) g with y = exp(-t z), each step in the storage format."""
    g, z, t = call.shadow(grad_output), call.shadow(self), call.shadow(target)
    norm = 1.0 / z.v.size if reduction == Reduction.MEAN else 1.0
    y = exp(call, _scaled(call, neg(t), z))
    # y / (1 + y) as one function of y: a relative error of y counts by 1 / (1 + y)
    room = 1 + y.v - y.e
    share = Shadow(y.v / (1 + y.v), unbounded(y.e / (1 + y.v) / room, room <= 0))
    norm_t = product(t, call.shadow(-norm))
    v, e = product(product(share, norm_t), g)
    # A sum, a quotient and a product; two products more unless t is 1 or -1 and the norm is a power of two.
    plain = (t.e == 0) & (abs(t.v) == 1) & (math.frexp(norm)[0] == 0.5)
    return _stepwise(call, v, e + call.format.eta * abs(g.v), np.where(plain, 3.0, 5.0))


@rule("mse_loss")
def _mse_loss(call: Call, self: Tensor, target: Tensor, reduction: int) -> Shadow:
    """(a - b) (a - b), each step in the storage format (BinaryOpsKernel.cpp, mse_kernel)."""
    gap = add(call, call.shadow(self), neg(call.shadow(target)))
    return reduced(call, mul(call, gap, gap), reduction)


@rule("mse_loss_backward")
def _mse_loss_backward(call: Call, grad_output: Tensor, self: Tensor, target: Tensor, reduction: int) -> Shadow:
    """norm (a - b) g, each step in the storage format (PointwiseOpsKernel.cpp, mse_backward_cpu_kernel)."""
    g, a, b = call.shadow(grad_output), call.shadow(self), call.shadow(target)
    norm = 2.0 / a.v.size if reduction == Reduction.MEAN else 2.0
    factor = Shadow(np.array(norm), np.array(abs(held(norm, call.format.dtype) - norm)))
    return mul(call, mul(call, factor, add(call, a, neg(b))), g)
