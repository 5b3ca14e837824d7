"""Actual rules: what kernels with known defects really do.

Each takes the place of the rule of the documented algorithm, for one entry of the table.  It is as
sharp as any other rule: an error beyond it is a failure, not the known defect.  The value `v` of its shadow is either
the right one, and `e` covers the whole defect; or, where that is known, what the kernel would give in exact arithmetic
(0 for a mean whose count overflows).
"""

from __future__ import annotations

import itertools
import math
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from torch import Tensor

from equivalences import formats
from equivalences.model import Array
from equivalences.rounding.arrays import as_array, held, unbounded
from equivalences.rounding.call import RULES, Call, by_schema, in_registers
from equivalences.rounding.rules.arithmetic import neg, one, product, rounded, stored
from equivalences.rounding.rules.elementary import CLOSE, add, div, exp, log, logistic, mul, sigmoid_kernel
from equivalences.rounding.rules.nll import nll_loss, nll_terms
from equivalences.rounding.rules.reductions import Reduction, count, dims_of, sum_over
from equivalences.rounding.rules.softmax import log_of_sum, log_softmax_of, softmax_backward
from equivalences.rounding.shadows import Shadow
from equivalences.rounding.summation import cascade_power, nll2d_blocks

# --- sums ------------------------------------------------------------------------------------------------------------


def evenly(x: Tensor, dims: list[int]) -> bool:
    """Whether the numbers that are added up are equally far apart in memory, so that one loop goes over them all."""
    run = sorted((x.stride(d), x.shape[d]) for d in dims if x.shape[d] > 1)
    return all(stride * size == following for (stride, size), (following, _) in itertools.pairwise(run))


@by_schema
def sum_in_order(call: Call, self: Tensor, dim: Any = None, keepdim: bool = False) -> Shadow:
    """A sum or mean of numbers that do not lie evenly in memory: piece after piece is added to the result."""
    dims = dims_of(self, dim)
    height = None if evenly(self, dims) else call.assume.sums.any(count(self, dims))
    return sum_over(call, self, dim, keepdim, mean=call.name == "mean", height=height)


# --- softmax ---------------------------------------------------------------------------------------------------------


@by_schema
def log_softmax_in_storage(call: Call, self: Tensor, dim: int) -> Shadow:
    """Along the last dimension, the sum of exponentials and its logarithm are rounded to the 16-bit format.

    The sum of some 65,504 classes and more overflows it.
    """
    if dim % self.dim() != self.dim() - 1:
        return _shadow(RULES["_log_softmax"](call))
    row = log_of_sum(call, call.shadow(self), dim % self.dim(), call.format)
    v, e = log_softmax_of(call, row)
    e = unbounded(e, np.exp(row.log_sum) * (1 + row.sum_error) > call.format.max)
    return rounded(call, v, e, underflow=False)


@by_schema
def softmax_rounds_exponentials(call: Call, self: Tensor, dim: int) -> Shadow:
    """Along a dimension that is not the last, the scalar tail rounds exp(x - max) to 16 bits, then divides."""
    shadow = _shadow(RULES["_softmax"](call))
    if dim % self.dim() == self.dim() - 1:
        return shadow
    u, eta = call.format.u, call.format.eta
    return Shadow(shadow.v, shadow.e + (1 + u) * (u * (shadow.v + shadow.e) + eta))


@by_schema
def softmax_backward_rounds_products(call: Call, grad_output: Tensor, output: Tensor, dim: int) -> Shadow:
    """CUDA: grad * output is a 16-bit tensor before it is added up, and before the sum is taken from it."""
    return softmax_backward(call, grad_output, output, dim, call.format)


# --- elementwise functions -------------------------------------------------------------------------------------------


@by_schema
def sigmoid_backward_in_storage(call: Call, grad_output: Tensor, output: Tensor) -> Shadow:
    """grad * (1 - y) * y with every step rounded to float16; in bfloat16 the same kernel computes in float32."""
    g, y = call.shadow(grad_output), call.shadow(output)
    return mul(call, mul(call, g, add(call, one(), neg(y))), y)


@by_schema
def tanh_backward_in_storage(call: Call, grad_output: Tensor, output: Tensor) -> Shadow:
    """CUDA: grad * (1 - y * y) with every step rounded to 16 bits."""
    g, y = call.shadow(grad_output), call.shadow(output)
    return mul(call, g, add(call, one(), neg(mul(call, y, y))))


@by_schema
def logit_in_storage(call: Call, self: Tensor) -> Shadow:
    """log(x / (1 - x)) with the difference and the quotient rounded to 16 bits."""
    x = call.shadow(self)
    return log(call, div(call, x, add(call, one(), neg(x))))


@by_schema
def clamp_moves_its_input(call: Call, self: Tensor, min: Any, max: Any) -> Shadow:
    """What is clamped was never meant to be: it counts as an error, of the gradient's mask as well.

    So does a number at a bound: since torch 2.14 its gradient is masked, too (#191142).
    """
    x, clamped = call.shadow(self), _shadow(RULES["clamp"](call))
    bounds = [call.shadow(bound).v for bound in (min, max) if bound is not None]
    at_bound = sum((x.v == bound for bound in bounds), np.zeros(x.v.shape))
    moved = Shadow(x.v, x.e + clamped.e + abs(clamped.v - x.v) + call.format.eta * at_bound)
    call.shadows.write(self, moved)
    return moved


@by_schema
def bce_backward_with_floor(
    call: Call, grad_output: Tensor, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int
) -> Shadow:
    """g (x - t) / max(x (1 - x), 1e-12), whose floor float16 rounds to zero: then 0 / 0 where x = t is 0 or 1."""
    g, x, t = call.shadow(grad_output), call.shadow(self), call.shadow(target)
    shadow = _shadow(RULES["binary_cross_entropy_backward"](call))
    floor = held(1e-12, call.format.dtype)
    ends = [np.clip(x.v + e, 0.0, 1.0) for e in (-x.e, x.e)]
    below = np.minimum(*(end * (1 - end) for end in ends))
    gap = np.maximum(*(abs(end - t.v) for end in ends)) + t.e
    u = call.format.u
    reach = (abs(g.v) + g.e) * gap / np.maximum(below, floor) * (1 + 8 * u)
    if weight is not None:
        w = call.shadow(weight)
        reach = reach * (abs(w.v) + w.e) * (1 + u)
    if reduction == Reduction.MEAN:
        reach = reach / x.v.size * (1 + 2 * u)
    # Near a pole the exact slope is no better known, in float64, than the rule's bound of it says.
    reach = (abs(shadow.v) + reach) * (1 + CLOSE) + 2 * call.format.eta
    return Shadow(shadow.v, shadow.e + np.where(below > 2 * floor, 0.0, reach))


# --- optimizers ------------------------------------------------------------------------------------------------------

_STATE = ("momentum_buffer_list", "exp_avgs", "exp_avg_sqs", "max_exp_avg_sqs")  # what a fused kernel writes, too


@by_schema
def fused_ignores_strides(call: Call, self: list[Tensor]) -> list[Shadow]:
    """The fused CPU kernels walk from each tensor's first number to the next ones in memory, whatever the strides."""

    def flat(item: Any) -> Any:
        if not isinstance(item, (list, tuple)):
            return item
        return [x.as_strided((x.numel(),), (1,), x.storage_offset()) for x in item]

    def now(tensors: list[Tensor]) -> list[Shadow]:
        return [call.shadow(tensor) for tensor in tensors]

    def write(tensors: list[Tensor], shadows: list[Shadow]) -> None:
        for tensor, shadow in zip(tensors, shadows, strict=True):
            call.shadows.write(tensor, shadow)

    follow = RULES[call.name]
    state = [tensor for name in _STATE for tensor in call.arguments.get(name, ())]
    before = now(state)
    right = [*follow(call), *now(state)]
    write(state, before)
    arguments = {name: flat(item) for name, item in call.arguments.items()}
    write(arguments["self"], follow(call.like(call.name, arguments, arguments["self"])))
    walked = now([*self, *state])
    found = [Shadow(r.v, r.e + w.e + abs(w.v - r.v) * (1 + CLOSE)) for r, w in zip(right, walked, strict=True)]
    write(state, found[len(self) :])
    return found[: len(self)]


@by_schema
def fused_sgd_skips_blocks(
    call: Call, self: list[Tensor], momentum_buffer_list: list[Tensor], weight_decay: float, is_first_step: bool
) -> list[Shadow]:
    """Full vectors of 16-bit numbers (8 at least) keep their old values; their momentum is read as float32.

    The first momentum, which is the gradient, has the weight decay rounded to 16 bits in it.
    """
    before = [call.shadow(parameter) for parameter in self]
    found = _shadows(fused_ignores_strides(call))
    for i, (old, new) in enumerate(zip(before, found, strict=True)):
        if old.v.size >= 8:
            found[i] = Shadow(new.v, new.e + old.e + abs(new.v - old.v) * (1 + CLOSE))
            if momentum_buffer_list:
                buffer, moved = momentum_buffer_list[i], np.inf
                if is_first_step:
                    largest = (abs(old.v) + old.e).max()  # the walk may have met any
                    moved = abs(held(weight_decay, buffer.dtype) - weight_decay) * largest * (1 + call.format.u)
                v, e = call.shadow(buffer)
                call.shadows.write(buffer, Shadow(v, e + moved))
    return found


@by_schema
def foreach_mul_rounds_its_number(
    call: Call, self: list[Tensor], scalar: Any = None, scalars: Any = None
) -> list[Shadow]:
    """In place, a number is rounded to the 16-bit format before it is used: mul_ makes it the first operand."""
    found = _shadows(RULES["_foreach_mul"](call))
    factors = [scalar] * len(found) if scalars is None else scalars
    if not call.func._schema.is_mutable:
        return found
    for i, (tensor, factor) in enumerate(zip(self, factors, strict=True)):
        if factor is not None:  # not multiplied by tensors
            x, (v, e) = call.shadow(tensor), found[i]
            off = abs(held(float(factor), tensor.dtype) - factor)
            found[i] = Shadow(v, e + off * (abs(x.v) + x.e) * (1 + formats.of(tensor.dtype).u))
    return found


# --- nll_loss --------------------------------------------------------------------------------------------------------


def _folded_height(kept: Array) -> int:
    """The height of the summation tree where a level is folded at its rows' turn, unless just that row is ignored."""
    return _height_of_folds(kept.tobytes(), cascade_power(kept.size))


@lru_cache(maxsize=64)
def _height_of_folds(kept: bytes, power: int) -> int:
    depth: list[int | None] = [None] * 8  # of each level: the most additions that a term in it has seen; None: empty

    def joined(a: int | None, b: int | None) -> int | None:
        return b if a is None else a if b is None else max(a, b) + 1

    for row in np.flatnonzero(np.frombuffer(kept, dtype=bool)).tolist():
        depth[0] = joined(depth[0], 0)
        for level in range(7):
            if row >> level * power & (1 << power) - 1:
                break
            depth[level + 1], depth[level] = joined(depth[level + 1], depth[level]), None
    return reduce(joined, depth) or 0


@by_schema
def nll_loss_skips_folds(
    call: Call, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> list[Shadow]:
    """An ignored row skips the fold of the cascade sum that falls on it."""
    rows = nll_terms(call, self, target, weight, ignore_index)
    return nll_loss(call, rows, reduction, _folded_height(rows.kept), call.format)


@by_schema
def nll_loss_loses_weight(call: Call, reduction: int) -> list[Shadow]:
    """The number of rows, or their total weight, is inf beyond the format: the mean is 0 (and folds are skipped)."""
    loss, total = _shadows(nll_loss_skips_folds(call))
    lost, doubtful = total.v - total.e > call.format.max, total.v + total.e > call.format.max
    if reduction == Reduction.MEAN:
        nothing = lost & np.isfinite(loss.e)  # inf / inf where the losses' own total overflows
        e = np.where(nothing, call.format.eta, unbounded(loss.e, doubtful))
        loss = Shadow(np.where(nothing, 0.0, loss.v), e)
    return [loss, Shadow(np.where(lost, np.inf, total.v), np.where(lost, 0.0, unbounded(total.e, doubtful)))]


@by_schema
def nll_loss_total_in_float16(call: Call) -> list[Shadow]:
    """CUDA: the loss is a float32 quotient; what the backward pass divides by is float16, and may be inf."""
    loss, total = _shadows(RULES[call.name](call))
    return [loss, Shadow(total.v, unbounded(total.e, total.v + total.e > call.format.max))]


@by_schema
def nll_loss2d_adds_blocks_in_storage(
    call: Call, self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> list[Shadow]:
    """CUDA: every block of threads rounds its part of the totals to 16 bits, and adds it to them in 16 bits."""
    images, *pixels = target.shape
    height = nll2d_blocks(images, math.prod(pixels)) + 1
    rows = nll_terms(call, self, target, weight, ignore_index)
    loss, total = nll_loss(call, rows, reduction, height, call.format, counted=False)
    lost = total.v + total.e > call.format.max
    of_loss = lost & (reduction == Reduction.MEAN)
    return [Shadow(loss.v, unbounded(loss.e, of_loss)), Shadow(total.v, unbounded(total.e, lost))]


# --- compiled code ---------------------------------------------------------------------------------------------------


@by_schema
def soft_margin_backward_by_difference(
    call: Call, grad_output: Tensor, self: Tensor, target: Tensor, reduction: int
) -> Shadow:
    """Compiled: t g (sigmoid(t z) - 1), where sigmoid(t z) is close to 1."""
    g, z, t = call.shadow(grad_output), call.shadow(self), call.shadow(target)
    shadow = _shadow(RULES["soft_margin_loss_backward"](call))
    x = product(t, z)
    s = sigmoid_kernel(call, x)
    slope = Shadow(-logistic(-x.v), s.e + call.arithmetic.u * (logistic(-x.v) + s.e))
    mean = reduction == Reduction.MEAN
    by_difference = rounded(call, *product(slope, product(t, g)), roundings=4.0)
    return Shadow(shadow.v, np.maximum(shadow.e, by_difference.e / (z.v.size if mean else 1)))


@by_schema
def expm1_by_difference(call: Call, self: Tensor) -> Shadow:
    """Compiled, where vectors are worked on: exp(x) - 1."""
    shadow = _shadow(RULES["expm1"](call))
    inner = in_registers(call)
    difference = stored(call, call.out, add(inner, exp(inner, call.shadow(self)), neg(one())))
    with np.errstate(invalid="ignore"):  # inf - inf
        e = difference.e + abs(difference.v - shadow.v)
    return Shadow(shadow.v, np.where(np.isfinite(e), np.maximum(shadow.e, e), shadow.e))


@by_schema
def number_stays_in_its_tensor(call: Call, self: Tensor) -> tuple[()]:
    """Compiled Adam never reads the step count into Python, so beta**t is computed in its tensor, in float32."""
    RULES["_local_scalar_dense"](call)
    call.shadows.coefficients.tensors[float(as_array(self))] = formats.of(self.dtype).u
    return ()


# --- what a rule gives -----------------------------------------------------------------------------------------------


def _shadow(found: Any) -> Shadow:
    assert isinstance(found, Shadow)
    return found


def _shadows(found: Any) -> list[Shadow]:
    assert isinstance(found, list)
    return found
