"""Rules for negative log-likelihood and its backward kernels (aten/src/ATen/native: LossNLL.cpp, LossNLL2d.cpp)."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from torch import Tensor

from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arrays import add_up, along, as_array, put, spread, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import exact, neg, placed, product, quotient, rounded
from equivalences.rounding.rules.reductions import Reduction
from equivalences.rounding.shadows import Shadow


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
    """A total by a tree of this height, each addition rounded to `steps`; zeros (ignored rows) add exactly."""
    size = abs(terms.v) + terms.e
    n = int((size > 0).sum())
    hu = min(height, max(n - 1, 0)) * steps.u
    e = add_up(terms.e) + (hu / (1 - hu) if hu < 1 else math.inf) * add_up(size)
    return Shadow(add_up(terms.v), e)


@rule("nll_loss_forward", "nll_loss2d_forward")
def _nll_loss_forward(
    call: Call, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> list[Shadow]:
    sums, short = call.assume.sums, call.format.precision < call.arithmetic.precision
    if target.dim() < 3:
        height = sums.nll(target.numel(), short)
    else:
        height = sums.nll2d(target.shape[0], math.prod(target.shape[1:]), short)
    steps = call.format if sums.nll_in_storage else call.arithmetic
    return nll_loss(call, nll_terms(call, self, target, weight, ignore_index), reduction, height, steps)


class Terms(NamedTuple):
    """The losses of the rows, before they are added up: 0 where a row is ignored."""

    loss: Shadow  # -w_y x_y
    weight: Shadow  # w_y, or 1
    kept: Array  # the rows that are not ignored
    weighted: bool


def nll_terms(call: Call, self: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> Terms:
    """-w_y x_y of each row, the product rounded to storage."""
    x, labels = placed(call, target, call.shadow(self)), as_array(target)
    kept = labels != ignore_index
    w = _nll_weights(call, weight, labels, kept)
    picked = Shadow(-_picked(x.v, labels, kept), _picked(spread(x.e, x.v.shape), labels, kept))
    if weight is None:
        return Terms(picked, w, kept, False)
    v, e = product(picked, w)
    return Terms(Shadow(v, e + call.format.u * (abs(v) + e) + call.format.eta), w, kept, True)


def nll_loss(call: Call, rows: Terms, reduction: int, height: int, steps: Format, counted: bool = True) -> list[Shadow]:
    """The losses of the rows; or their sum, by a tree of `height` in `steps`, divided by that of w_y for the mean.

    The number of rows is known exactly, and rounded once (if not `counted`, it is added up like weights).  It, or the
    total weight, is no result: no bound is lost where it overflows.
    """
    terms, w, kept, weighted = rows
    u = call.format.u
    if reduction == Reduction.NONE:
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
    mean = reduction == Reduction.MEAN
    v, e = quotient(total, count) if mean else total
    if steps is not call.format:
        lost = u * (count.v + count.e) * (weighted or count.v > 2.0**call.format.precision)
        found = rounded(call, v, e, roundings=float(mean), underflow=mean)
        return [found, Shadow(count.v, count.e + lost)]
    if mean:
        e = e + u * (abs(v) + e) + call.format.eta
    return [Shadow(v, e), count]


@rule("nll_loss_backward", "nll_loss2d_backward")
def _nll_loss_backward(
    call: Call,
    grad_output: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    total_weight: Tensor,
) -> Shadow:
    g, labels = placed(call, target, call.shadow(grad_output)), as_array(target)
    kept = labels != ignore_index
    u, lost = call.format.u, np.array(False)
    if reduction == Reduction.MEAN:  # the kernel divides first: the share of a small total weight may overflow
        v, e = quotient(g, call.shadow(total_weight))
        g = Shadow(v, e + u * (abs(v) + e) + call.format.eta)
        lost = abs(g.v) + g.e > call.format.max
    part = product(neg(g), _nll_weights(call, weight, labels, kept))
    if weight is not None:
        part = Shadow(part.v, part.e + u * (abs(part.v) + part.e) + call.format.eta)
    part = Shadow(part.v, unbounded(part.e, lost))
    dim = 0 if labels.ndim == 0 else 1
    where, zeros = np.expand_dims(np.where(kept, labels, 0), dim), np.zeros(call.out.shape)
    return Shadow(*(put(zeros, dim, where, np.expand_dims(np.where(kept, x, 0.0), dim)) for x in part))
