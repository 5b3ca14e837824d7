"""Rules for fused loss kernels: softmax, log-softmax, negative log-likelihood, binary cross entropy, and backward.

One rule each, from the algorithm that the kernel documents (aten/src/ATen/native: cpu/SoftMaxKernel.cpp, LossNLL.cpp,
LossNLL2d.cpp, Loss.cpp).  Where a kernel is worse than its rule, that is a known defect, not a wider rule.
The softmax bounds are those of Blanchard, Higham and Higham, IMA J. Numer. Anal. 2021 (thm 4.3), with the terms kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arithmetic import averaged, exact, placed, product, quotient, rounded
from equivalences.rounding.arrays import add_up, along, as_array, fold, held, put, spread, unbounded
from equivalences.rounding.elementary import CLOSE, add, exp, growth, log, log1p, log_sigmoid, mul, neg, one
from equivalences.rounding.reductions import summed
from equivalences.rounding.tracker import Call, Shadow, rule


class Row(NamedTuple):
    """What every softmax kernel computes first, along one dimension (kept), with its bounds."""

    top: Array  # the maximum m
    gap: Array  # d_i = m - x_i >= 0
    worst: Array  # the largest error of x
    share: Array  # p_i, the exact softmax
    term: Array  # bound on the relative error of exp(x_i - m)
    total: Array  # bound on the relative error of the sum of those
    log: Array  # L = log sum exp(x - m) = lse - m
    log_e: Array  # bound on the rounding error of the computed L, for any x within its error
    moved: Array  # how far errors of x can move lse, beside that
    parted: Array  # how far they can move x_i - lse


def log_of_sum(call: Call, x: Shadow, dim: int, steps: Format) -> Row:
    """log(sum(exp(x - max))) with every step rounded to the format `steps` (16-bit steps compute in float32)."""
    inner = call.arithmetic
    narrow = steps.u if steps.precision != inner.precision else 0.0
    u = inner.u + narrow
    top, where = fold(np.maximum, x.v, dim), x.v.argmax(dim, keepdims=True)
    gap = top - x.v
    terms = np.exp(-gap)
    others = put(terms, dim, where, 0.0)
    tail = fold(np.add, others, dim)
    log = np.log1p(tail)
    share = terms / (1 + tail)
    # Errors of x: lse moves by the mean of e under shares that have themselves moved by exp(2 max e) at most.
    worst = fold(np.maximum, spread(x.e, x.v.shape), dim)
    drift = growth(2 * worst) + 1
    mean = fold(np.add, share * x.e, dim)
    moved = np.minimum(mean * drift, worst)
    # x_i - lse moves by the mean of d_i - d_j under such shares: by (1 - p_i) e_i and the p_j e_j of the others.
    rest = put(1 - share, dim, where, tail / (1 + tail))
    besides = put(mean - share * x.e, dim, where, fold(np.add, others * x.e, dim) / (1 + tail))
    parted = np.minimum((rest * x.e + np.maximum(besides, 0.0)) * drift, x.e + moved)
    # Rounding: x_i - m is off by u d_i, exp by kappa u; at the maximum both are exact (exp(0) = 1).
    term = growth(u * (gap + 2 * worst) + call.assume.relative("exp", inner.u) + narrow) * (gap + worst > 0)
    n = x.v.shape[dim]
    height = row_height(call, x.v, dim)
    gamma = height * inner.u / (1 - height * inner.u)
    total = fold(np.add, share * np.minimum(term, 1e300), dim) * drift
    total = total + gamma * (1 + total) + narrow + n * inner.eta
    change = unbounded(-np.log1p(-total), total >= 1)
    log_e = change + (call.assume.relative("log", inner.u) + narrow) * (log + change + moved)
    return Row(top, gap, worst, share, term, total, log, log_e, moved, parted)


def row_height(call: Call, x: Array, dim: int) -> int:
    """Additions on the way of a term along `dim`: lane by lane along the last dimension, one by one along others."""
    n = x.shape[dim]
    wide = call.arithmetic.precision > 24
    return call.assume.sums.row(n, wide) if dim % x.ndim == x.ndim - 1 else call.assume.sums.any(n)


@rule("_log_softmax")
def _log_softmax(call: Call) -> Shadow:
    """(x - max) - log(sum(exp(x - max))): 16-bit rows are computed in float32 and rounded once."""
    x = call.shadow(call.args[0])
    row = log_of_sum(call, x, call.args[1], call.arithmetic)
    e = row.parted + call.arithmetic.u * (row.gap + 2 * row.worst) + row.log_e
    return rounded(call, -row.gap - row.log, e, underflow=False)


@rule("_softmax")
def _softmax(call: Call) -> Shadow:
    """exp(x - max) / sum: one division, or one reciprocal and one product."""
    x = call.shadow(call.args[0])
    row = log_of_sum(call, x, call.args[1], call.arithmetic)
    moved = row.share * growth(x.e + row.moved)
    relative = (row.term + row.total) / (1 - row.total) + 2 * call.arithmetic.u
    kernel = (row.share + moved) * unbounded(relative, row.total >= 1)
    kernel = np.where(row.share + moved == 0, 0.0, kernel) + 2 * call.arithmetic.eta
    return rounded(call, row.share, moved + kernel, roundings=0.0)


@rule("_log_softmax_backward_data")
def _log_softmax_backward(call: Call) -> Shadow:
    """g - exp(log_softmax) sum(g), in float32 for 16-bit data."""
    g, out = call.shadow(call.args[0]), call.shadow(call.args[1])
    dim, u = call.args[2], call.arithmetic.u
    total = _row_sum(call, g, dim)
    share = np.exp(out.v)
    share_e = share * growth(out.e + call.assume.relative("exp", u)) + call.arithmetic.eta
    part = product(Shadow(share, unbounded(share_e, np.isinf(out.e))), total)
    size = abs(part.v) + part.e
    e = g.e + part.e + u * size + call.arithmetic.eta
    return rounded(call, g.v - part.v, unbounded(e, size > call.arithmetic.max), underflow=False)


@rule("_softmax_backward_data")
def _softmax_backward(call: Call) -> Shadow:
    return softmax_backward(call, call.arithmetic)


def softmax_backward(call: Call, steps: Format) -> Shadow:
    """(g - sum(g s)) s, or (cuda/SoftMax.cu) g s - s sum(g s), in float32 for 16-bit data; products in `steps`."""
    g, s = call.shadow(call.args[0]), call.shadow(call.args[1])
    dim, u, largest = call.args[2], call.arithmetic.u, call.arithmetic.max
    terms = product(g, s)
    terms = Shadow(terms.v, terms.e + steps.u * (abs(terms.v) + terms.e) + steps.eta)
    total = _row_sum(call, terms, dim)
    rest = Shadow(g.v - total.v, g.e + total.e)
    size = abs(rest.v) + rest.e
    if call.tracker.kind != "cuda":
        rest = Shadow(rest.v, unbounded(rest.e + u * size, size > largest))
        return rounded(call, *product(rest, s))
    v, e = product(rest, s)  # the errors of s count as they do there: both formulas are one function of it
    part = (abs(total.v) + total.e) * (abs(s.v) + s.e)
    size = abs(terms.v) + terms.e
    e = e + steps.u * size + steps.eta + u * part + call.arithmetic.eta
    return rounded(call, v, unbounded(e, (size > min(steps.max, largest)) | (part > largest)), underflow=False)


def _row_sum(call: Call, x: Shadow, dim: int) -> Shadow:
    """A sum along one dimension inside a kernel: exact zeros (one-hot gradients) add exactly."""
    size = abs(x.v) + x.e
    terms = fold(np.add, size > 0, dim)
    h = np.minimum(np.maximum(terms - 1, 0), row_height(call, x.v, dim)) * call.arithmetic.u
    total = fold(np.add, size, dim)
    e = fold(np.add, spread(x.e, x.v.shape), dim) + h / (1 - h) * total
    return Shadow(fold(np.add, x.v, dim), unbounded(e, total + e > call.arithmetic.max))


# --- negative log-likelihood -----------------------------------------------------------------------------------

_NONE, _MEAN, _SUM = 0, 1, 2


def _picked(x: Array, target: Array, kept: Array) -> Array:
    """The target's entry of every row; class dimension 1 (0 for an unbatched row); 0 where the row is ignored."""
    dim = 0 if target.ndim == 0 else 1
    where = np.expand_dims(np.where(kept, target, 0), dim)
    return np.where(kept, x[along(where, dim)].squeeze(dim), 0.0)


def _nll_weights(call: Call, weight: Tensor | None, target: Array, kept: Array) -> Shadow:
    if weight is None:
        return Shadow(np.where(kept, 1.0, 0.0), np.zeros(target.shape))
    chosen = np.where(kept, target, 0)
    return Shadow(*(np.where(kept, spread(part, tuple(weight.shape))[chosen], 0.0) for part in call.shadow(weight)))


def _accumulated(terms: Shadow, height: int, steps: Format) -> Shadow:
    """A total of `height` additions on the way of a term, each rounded to `steps`; zeros (ignored rows) add exactly."""
    size = abs(terms.v) + terms.e
    n = int((size > 0).sum())
    hu = min(height, max(n - 1, 0)) * steps.u
    e = add_up(terms.e) + (hu / (1 - hu) if hu < 1 else math.inf) * add_up(size)
    return Shadow(add_up(terms.v), e)


@rule("nll_loss_forward", "nll_loss2d_forward")
def _nll_loss(call: Call) -> list[Shadow]:
    rows, sums = call.args[1], call.assume.sums
    short = call.format.precision < call.arithmetic.precision
    if rows.dim() < 3:
        height = sums.nll(rows.numel(), short)
    else:
        height = sums.nll2d(rows.shape[0], math.prod(rows.shape[1:]), short)
    return nll_loss(call, height, call.format if sums.nll_in_storage else call.arithmetic)


def nll_loss(call: Call, height: int, steps: Format, counted: bool = True) -> list[Shadow]:
    """-w_y x_y of each row; or their sum, of `height` additions in `steps`, divided by that of w_y for the mean.

    The number of rows is known exactly, and rounded once (if not `counted`, it is added up like weights).  It, or the
    total weight, is no result: no bound is lost where it overflows.
    """
    x, target = placed(call, call.args[1], call.shadow(call.args[0])), as_array(call.args[1])
    reduction, ignore_index = call.args[3], call.args[4]
    kept = target != ignore_index
    w = _nll_weights(call, call.args[2], target, kept)
    picked = Shadow(-_picked(x.v, target, kept), _picked(spread(x.e, x.v.shape), target, kept))
    weighted = call.args[2] is not None
    u = call.format.u
    terms = product(picked, w) if weighted else picked
    if weighted:
        terms = Shadow(terms.v, terms.e + u * (abs(terms.v) + terms.e) + call.format.eta)
    if reduction == _NONE:
        e = unbounded(terms.e, abs(terms.v) + terms.e > call.format.max)
        return [Shadow(terms.v, e), exact(np.zeros(call.out[1].shape))]
    total = _accumulated(terms, height, steps)
    total = Shadow(total.v, unbounded(total.e, (abs(terms.v) + terms.e).sum() > steps.max))
    if call.name == "nll_loss2d_forward" and call.assume.sums.flushes(call.format):
        total = Shadow(total.v, total.e + 2 * height * call.format.tiny)
    if weighted or not counted:
        count = _accumulated(w, height, steps)
    else:
        n = kept.sum(dtype=np.float64)
        count = Shadow(n, steps.u * n * (n > 2.0**steps.precision))
    mean = reduction == _MEAN
    v, e = quotient(total, count) if mean else total
    if steps is not call.format:
        lost = u * (count.v + count.e) * (weighted or count.v > 2.0**call.format.precision)
        found = rounded(call, v, e, roundings=float(mean), underflow=mean)
        return [found, Shadow(count.v, count.e + lost)]
    if mean:
        e = e + u * (abs(v) + e) + call.format.eta
    return [Shadow(v, e), count]


@rule("nll_loss_backward", "nll_loss2d_backward")
def _nll_backward(call: Call) -> Shadow:
    g, target, weight = (
        placed(call, call.args[2], call.shadow(call.args[0])),
        as_array(call.args[2]),
        call.args[3],
    )
    reduction, ignore_index = call.args[4], call.args[5]
    kept = target != ignore_index
    u, lost = call.format.u, np.array(False)
    if reduction == _MEAN:  # the kernel divides first: the share of a small total weight may overflow
        v, e = quotient(g, call.shadow(call.args[6]))
        g = Shadow(v, e + u * (abs(v) + e) + call.format.eta)
        lost = abs(g.v) + g.e > call.format.max
    part = product(neg(g), _nll_weights(call, weight, target, kept))
    if weight is not None:
        part = Shadow(part.v, part.e + u * (abs(part.v) + part.e) + call.format.eta)
    part = Shadow(part.v, unbounded(part.e, lost))
    dim = 0 if target.ndim == 0 else 1
    where, zeros = np.expand_dims(np.where(kept, target, 0), dim), np.zeros(call.out.shape)
    return Shadow(*(put(zeros, dim, where, np.expand_dims(np.where(kept, x, 0.0), dim)) for x in part))


# --- binary cross entropy --------------------------------------------------------------------------------------


def _reduced(call: Call, terms: Shadow, reduction: int) -> Shadow:
    """The reduction that elementwise losses share: at::sum or at::mean of the stored terms."""
    if reduction == _NONE:
        return terms
    n = terms.v.size
    height = call.assume.sums.whole(n, torch.get_num_threads())
    total = summed(call, terms, list(range(terms.v.ndim)), False, height)
    return averaged(call, total, n) if reduction == _MEAN else rounded(call, *total, roundings=0.0, underflow=False)


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
def _binary_cross_entropy(call: Call) -> Shadow:
    """(t - 1) max(log1p(-x), -100) - t max(log(x), -100), each step in the storage format."""
    x, t = call.shadow(call.args[0]), call.shadow(call.args[1])
    hit = _scaled(call, t, _clamped(log(call, x)), finite=True)
    miss = _scaled(call, _rest(call, t), _clamped(log1p(call, neg(x))), finite=True)
    terms = neg(_joined(call, hit, miss))
    return _reduced(call, _weighted(call, terms, call.arg(2, "weight")), call.arg(3, "reduction", _MEAN))


def _clamped(logarithm: Shadow) -> Shadow:
    """max(logarithm, -100), which torch.nn.BCELoss documents: what the clamp cuts off is part of the bound."""
    return Shadow(logarithm.v, logarithm.e + np.maximum(-100.0 - logarithm.v, 0.0) * (1 + CLOSE))


@rule("binary_cross_entropy_backward")
def _binary_cross_entropy_backward(call: Call) -> Shadow:
    """g (x - t) / ((1 - x) x) = g ((1 - t) / (1 - x) - t / x), each step in the storage format.

    Its steps are relatively exact (x is a number here, whatever error it brought), so that an error of x counts as
    it does in the second formula: for t = 1 only through 1 / x, however close x comes to 1.
    That the kernel divides by no less than 1e-12 is not part of the rule.
    """
    g, x, t = (call.shadow(a) for a in call.args[:3])
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
    return _mean_of(call, _weighted(call, Shadow(terms.v, terms.e + lost), call.arg(3, "weight")))


def _stepwise(call: Call, v: Array, e: Array, steps: Array | float) -> Shadow:
    """A result off by `e` before `steps` relative roundings to the storage format, the last into subnormals too."""
    hu = steps * call.format.u
    e = e + hu / (1 - hu) * (abs(v) + e) + call.format.eta
    return Shadow(v, unbounded(e, abs(v) + e > call.format.max))


def _mean_of(call: Call, terms: Shadow) -> Shadow:
    if call.arg(4, "reduction", _MEAN) != _MEAN:
        return terms
    return averaged(call, terms, terms.v.size)


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
def _binary_cross_entropy_with_logits(call: Call) -> Shadow:
    """(1 - t) z - (1 + (w - 1) t) log_sigmoid(z), each step in the storage format."""
    z, t = call.shadow(call.args[0]), call.shadow(call.args[1])
    weight, pos_weight = call.arg(2, "weight"), call.arg(3, "pos_weight")
    tail = neg(rounded(call, *log_sigmoid(call, z), roundings=0.0))
    if pos_weight is not None:
        factor = _joined(call, _scaled(call, t, add(call, call.shadow(pos_weight), neg(one()))), one())
        tail = _scaled(call, factor, tail)
    terms = _joined(call, _scaled(call, _rest(call, t), z), tail)
    return _reduced(call, _weighted(call, terms, weight), call.arg(4, "reduction", _MEAN))


@rule("soft_margin_loss")
def _soft_margin_loss(call: Call) -> Shadow:
    """log1p(exp(-t z)), each step in the storage format."""
    z, t = call.shadow(call.args[0]), call.shadow(call.args[1])
    terms = log1p(call, exp(call, _scaled(call, neg(t), z)))
    return _reduced(call, terms, call.arg(2, "reduction", _MEAN))


@rule("soft_margin_loss_backward")
def _soft_margin_loss_backward(call: Call) -> Shadow:
    """-norm t y / (1 + y) g with y = exp(-t z), each step in the storage format."""
    g, z, t = (call.shadow(a) for a in call.args[:3])
    norm = 1.0 / z.v.size if call.arg(3, "reduction", _MEAN) == _MEAN else 1.0
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
def _mse_loss(call: Call) -> Shadow:
    """(a - b) (a - b), each step in the storage format (BinaryOpsKernel.cpp, mse_kernel)."""
    gap = add(call, call.shadow(call.args[0]), neg(call.shadow(call.args[1])))
    return _reduced(call, mul(call, gap, gap), call.arg(2, "reduction", _MEAN))


@rule("mse_loss_backward")
def _mse_loss_backward(call: Call) -> Shadow:
    """norm (a - b) g, each step in the storage format (PointwiseOpsKernel.cpp, mse_backward_cpu_kernel)."""
    g, a, b = (call.shadow(x) for x in call.args[:3])
    norm = 2.0 / a.v.size if call.arg(3, "reduction", _MEAN) == _MEAN else 2.0
    factor = Shadow(np.array(norm), np.array(abs(held(norm, call.format.dtype) - norm)))
    return mul(call, mul(call, factor, add(call, a, neg(b))), g)
