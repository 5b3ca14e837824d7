"""Rules for the margin losses of several classes, and their backward kernels.

The kernels are loops in the format of the data (LossMultiMargin.cpp, LossMultiLabelMargin.cpp).  A class counts if its
margin is positive.  The loss does not jump there, its slope does: no bound where rounding may decide it (but for p = 2,
whose slope is zero there).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arrays import as_array, doubtful, numbers, put, spread, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import exact, neg, one, placed, rounded
from equivalences.rounding.rules.elementary import add, mul
from equivalences.rounding.rules.reductions import Reduction, kept, running
from equivalences.rounding.shadows import Shadow


def _positive(x: Shadow) -> Shadow:
    """max(x, 0), and no error where x is surely below zero."""
    return Shadow(np.maximum(x.v, 0.0), np.where(x.v + x.e <= 0, 0.0, x.e))


def _undecided(x: Shadow) -> Array:
    """inf where rounding may decide whether x is positive."""
    return doubtful((x.e > 0) & (abs(x.v) <= x.e))


def _masked(x: Shadow, on: Array) -> Shadow:
    """`x` where the mask holds, else exactly 0."""
    return Shadow(np.where(on, x.v, 0.0), np.where(on, x.e, 0.0))


def _rows(x: Shadow) -> Shadow:
    """As rows of classes."""
    shape = np.atleast_2d(x.v).shape
    return Shadow(np.reshape(x.v, shape), np.reshape(spread(x.e, x.v.shape), shape))


def _in_order(terms: Shadow, steps: Format) -> Shadow:
    """Sums along rows, one addition after the other in the format `steps`; zeros add exactly."""
    size = abs(terms.v) + terms.e
    hu = np.maximum((size > 0).sum(-1) - 1, 0) * steps.u
    e = terms.e.sum(-1) + unbounded(hu / (1 - hu), hu >= 1) * size.sum(-1)
    return Shadow(terms.v.sum(-1), unbounded(e, size.sum(-1) > steps.max))


def _divided(call: Call, x: Shadow, n: int) -> Shadow:
    return rounded(call, x.v / n, x.e / n)


def _total(call: Call, rows: Shadow, divisors: tuple[int, ...]) -> Shadow:
    """The losses of the rows added up in a wide format, divided there, and stored."""
    steps = running(call)
    v, e = _in_order(rows, steps)
    for n in divisors:
        v, e = v / n, e / n + steps.u * (abs(v) + e) / n
    return kept(call, steps, Shadow(v, e))


def _shaped(x: Shadow, like: Tensor) -> Shadow:
    return Shadow(*(np.reshape(part, like.shape) for part in x))


def _times_upstream(call: Call, grad_output: Tensor, gradient: Shadow) -> Shadow:
    """The gradient times that of the loss of its row, or of all."""
    g = call.shadow(grad_output)
    g = Shadow(*(np.reshape(spread(part, g.v.shape), (-1, 1)) for part in g))
    return _shaped(mul(call, gradient, g), call.out)


# --- one class is right ----------------------------------------------------------------------------------------------


def _margins(call: Call, self: Tensor, target: Tensor, margin: float) -> tuple[Shadow, Array]:
    """margin - x_y + x_d of each row and class, and the labels as a column."""
    x = _rows(placed(call, target, call.shadow(self)))
    labels = as_array(target).reshape(-1, 1)
    right = Shadow(*(np.take_along_axis(part, labels, 1) for part in x))
    return add(call, add(call, call.shadow(margin), neg(right)), x), labels


def _weighted(call: Call, terms: Shadow, weight: Tensor | None, labels: Array) -> Shadow:
    if weight is None:
        return terms
    w = Shadow(*(spread(part, tuple(weight.shape))[labels] for part in call.shadow(weight)))
    return mul(call, terms, w)


@rule("multi_margin_loss")
def _multi_margin_loss(
    call: Call, self: Tensor, target: Tensor, p: int, margin: float, weight: Tensor | None, reduction: int
) -> Shadow:
    """Over d != y the sum of w_y max(0, margin - x_y + x_d)**p, divided by the number of classes, row by row."""
    z, labels = _margins(call, self, target, margin)
    over = _positive(z)
    terms = _weighted(call, over if p == 1 else mul(call, over, over), weight, labels)
    counted = put((over.v > 0) | (over.e > 0), 1, labels, False)
    rows = _divided(call, _in_order(_masked(terms, counted), call.format), z.v.shape[1])
    if reduction == Reduction.NONE:
        return _shaped(rows, call.out)
    return _total(call, rows, (len(labels),) if reduction == Reduction.MEAN else ())


@rule("multi_margin_loss_backward")
def _multi_margin_loss_backward(
    call: Call,
    grad_output: Tensor,
    self: Tensor,
    target: Tensor,
    p: int,
    margin: float,
    weight: Tensor | None,
    reduction: int,
) -> Shadow:
    """w_y g (p = 1) or w_y 2 g z for each class that counts, minus their sum for the right one, times upstream."""
    z, labels = _margins(call, self, target, margin)
    rows, classes = z.v.shape
    g = call.shadow(1.0 / (rows * classes if reduction == Reduction.MEAN else classes))
    if p == 1:
        terms, doubt = Shadow(np.where(z.v > 0, g.v, 0.0), np.where(z.v > 0, g.e, 0.0)), _undecided(z)
    else:
        terms, doubt = mul(call, Shadow(2 * g.v, 2 * g.e), _positive(z)), np.zeros(z.v.shape)
    terms = _weighted(call, terms, weight, labels)
    terms = Shadow(terms.v, terms.e + doubt)
    counted = put((z.v > 0) | (abs(z.v) <= z.e), 1, labels, False)
    terms = _masked(terms, counted)
    right = _in_order(terms, call.format)
    gradient = Shadow(*(put(a, 1, labels, b[:, None]) for a, b in zip(terms, neg(right), strict=True)))
    return _times_upstream(call, grad_output, gradient)


# --- several classes are right ---------------------------------------------------------------------------------------


def _pairs(call: Call, x: Shadow, labels: Array) -> tuple[Array, Array, Shadow]:
    """Of one row: its right classes, the others, and 1 - x_t + x_d for each pair of them."""
    right = labels[: int(np.argmax(np.append(labels, -1) < 0))]
    others = np.setdiff1d(np.arange(labels.size), right)
    low, high = (Shadow(*(part[where] for part in x)) for where in (right, others))
    start = add(call, one(), neg(low))
    return right, others, add(call, Shadow(start.v[:, None], start.e[:, None]), Shadow(high.v[None], high.e[None]))


def _each_row(call: Call, self: Tensor, target: Tensor) -> list[tuple[Array, Array, Shadow]]:
    x, labels = _rows(placed(call, target, call.shadow(self))), np.atleast_2d(as_array(target))
    return [_pairs(call, Shadow(x.v[k], x.e[k]), labels[k]) for k in range(len(labels))]


@rule("multilabel_margin_loss_forward")
def _multilabel_margin_loss(call: Call, self: Tensor, target: Tensor, reduction: int) -> list[Shadow]:
    """Over right classes t and others d the sum of max(0, 1 - x_t + x_d), divided by the number of classes."""
    out, is_target = call.out
    steps, found = running(call), []
    for _, _, z in _each_row(call, self, target):
        over = _positive(z)
        found.append(kept(call, steps, _in_order(Shadow(over.v.ravel(), over.e.ravel()), steps)))
    rows = Shadow(*(np.array(part) for part in zip(*found, strict=True)))
    classes = int(np.atleast_2d(as_array(target)).shape[1])
    if reduction == Reduction.NONE and out.dim():
        loss = _shaped(_divided(call, rows, classes), out)
    else:
        loss = _total(call, rows, (classes, len(found)) if reduction == Reduction.MEAN else (classes,))
    return [loss, exact(numbers(is_target))]


@rule("multilabel_margin_loss_backward")
def _multilabel_margin_loss_backward(
    call: Call, grad_output: Tensor, self: Tensor, target: Tensor, reduction: int
) -> Shadow:
    """g for each pair that counts, added up for the other class and taken from the right one, times upstream."""
    every = _each_row(call, self, target)
    classes = int(np.atleast_2d(as_array(target)).shape[1])
    g = call.shadow(1.0 / (len(every) * classes if reduction == Reduction.MEAN else classes))
    count: Any = np.zeros((len(every), classes))
    steps, doubt = np.zeros_like(count), np.zeros_like(count)
    for k, (right, others, z) in enumerate(every):
        on, unsure = (z.v > 0).astype(float), _undecided(z)
        np.add.at(count[k], others, on.sum(0))
        np.add.at(count[k], right, -on.sum(1))
        for where, axis in ((others, 0), (right, 1)):
            np.add.at(doubt[k], where, unsure.sum(axis))
            np.add.at(steps[k], where, on.sum(axis))
    hu = np.maximum(steps - 1, 0) * call.format.u
    e = steps * g.e + unbounded(hu / (1 - hu), hu >= 1) * steps * (g.v + g.e) + doubt
    return _times_upstream(call, grad_output, Shadow(count * g.v, e))
