"""What kernels with known defects really do: rules that take the place of the documented algorithm's.

Each belongs to an entry of `equivalences.known_defects`, and is as sharp as any other rule: an error beyond it is a
failure, and not the known defect.  A shadow's `v` may be what the kernel gives in exact arithmetic, where that is known
(0 for a mean whose count overflows), or remain what is right, with all that the kernel may be off in `e`.
"""

from __future__ import annotations

import math
from functools import lru_cache, reduce
from typing import Any

import numpy as np
from torch import Tensor

from equivalences import formats
from equivalences.rounding.arithmetic import in_registers, product, rounded, stored
from equivalences.rounding.arrays import as_array, held, unbounded
from equivalences.rounding.elementary import CLOSE, add, div, exp, log, logistic, mul, neg, one, sigmoid_kernel
from equivalences.rounding.fused import log_of_sum, nll_loss, softmax_backward
from equivalences.rounding.summation import cascade_power, nll2d_blocks
from equivalences.rounding.tracker import RULES, Call, Shadow


def log_softmax_in_storage(call: Call) -> Shadow:
    """Along the last dimension, the sum of exponentials and its logarithm are rounded to the 16-bit format.

    The sum of some 65,504 classes and more overflows it.
    """
    dim = call.args[1] % call.out.dim()
    if dim != call.out.dim() - 1:
        shadow = RULES["_log_softmax"](call)
        assert isinstance(shadow, Shadow)
        return shadow
    x = call.shadow(call.args[0])
    row = log_of_sum(call, x, dim, call.format)
    e = row.parted + call.arithmetic.u * (row.gap + 2 * row.worst) + row.log_e
    e = unbounded(e, np.exp(row.log) * (1 + row.total) > call.format.max)
    return rounded(call, -row.gap - row.log, e, underflow=False)


def softmax_rounds_exponentials(call: Call) -> Shadow:
    """Along a dimension that is not the last, the scalar tail rounds exp(x - max) to 16 bits, then divides."""
    shadow = RULES["_softmax"](call)
    assert isinstance(shadow, Shadow)
    if call.args[1] % call.out.dim() == call.out.dim() - 1:
        return shadow
    u, eta = call.format.u, call.format.eta
    return Shadow(shadow.v, shadow.e + (1 + u) * (u * (shadow.v + shadow.e) + eta))


def sigmoid_backward_in_storage(call: Call) -> Shadow:
    """grad * (1 - y) * y with every step rounded to float16; in bfloat16 the same kernel computes in float32."""
    g, y = call.shadow(call.args[0]), call.shadow(call.args[1])
    return mul(call, mul(call, g, add(call, one(), neg(y))), y)


def logit_in_storage(call: Call) -> Shadow:
    """log(x / (1 - x)) with the difference and the quotient rounded to 16 bits."""
    x = call.shadow(call.args[0])
    return log(call, div(call, x, add(call, one(), neg(x))))


def clamp_moves_its_input(call: Call) -> Shadow:
    """What is clamped was never meant to be: it counts as an error, of the gradient's mask as well.

    So does a number at a bound: since torch 2.14 its gradient is masked, too (#191142).
    """
    x, clamped = call.shadow(call.args[0]), RULES["clamp"](call)
    bounds = [call.shadow(bound).v for bound in (call.arg(1, "min"), call.arg(2, "max")) if bound is not None]
    at_bound = sum((x.v == bound for bound in bounds), np.zeros(x.v.shape))
    moved = Shadow(x.v, x.e + clamped.e + abs(clamped.v - x.v) + call.format.eta * at_bound)
    call.tracker.write(call.args[0], moved)
    return moved


def bce_backward_with_floor(call: Call) -> Shadow:
    """g (x - t) / max(x (1 - x), 1e-12), whose floor float16 rounds to zero: then 0 / 0 where x = t is 0 or 1."""
    g, x, t = (call.shadow(a) for a in call.args[:3])
    shadow = RULES["binary_cross_entropy_backward"](call)
    assert isinstance(shadow, Shadow)
    floor = held(1e-12, call.format.dtype)
    ends = [np.clip(x.v + e, 0.0, 1.0) for e in (-x.e, x.e)]
    below = np.minimum(*(end * (1 - end) for end in ends))
    gap = np.maximum(*(abs(end - t.v) for end in ends)) + t.e
    u = call.format.u
    reach = (abs(g.v) + g.e) * gap / np.maximum(below, floor) * (1 + 8 * u)
    if call.arg(3, "weight") is not None:
        weight = call.shadow(call.arg(3, "weight"))
        reach = reach * (abs(weight.v) + weight.e) * (1 + u)
    if call.arg(4, "reduction", 1) == 1:
        reach = reach / x.v.size * (1 + 2 * u)
    # Near a pole the exact slope is no better known, in float64, than the rule's bound of it says.
    reach = (abs(shadow.v) + reach) * (1 + CLOSE) + 2 * call.format.eta
    return Shadow(shadow.v, shadow.e + np.where(below > 2 * floor, 0.0, reach))


def fused_ignores_strides(call: Call) -> list[Shadow]:
    """The fused CPU kernels walk from each tensor's first number to the next ones in memory, whatever the strides."""

    def flat(tree: Any) -> Any:
        if isinstance(tree, (list, tuple)):
            return [flat(branch) for branch in tree]
        return tree.as_strided((tree.numel(),), (1,), tree.storage_offset())

    def now(tensors: list[Tensor]) -> list[Shadow]:
        return [call.shadow(tensor) for tensor in tensors]

    def write(tensors: list[Tensor], shadows: list[Shadow]) -> None:
        for tensor, shadow in zip(tensors, shadows, strict=True):
            call.tracker.write(tensor, shadow)

    follow = RULES[call.name]
    parameters, state = list(call.args[0]), [tensor for tensors in call.args[2:5] for tensor in tensors]
    before = now(state)
    right = [*follow(call), *now(state)]
    write(state, before)
    args = tuple(map(flat, call.args))
    write(args[0], follow(Call(call.tracker, call.name, call.func, args, call.kwargs, args[0])))
    walked = now([*parameters, *state])
    found = [Shadow(r.v, r.e + w.e + abs(w.v - r.v) * (1 + CLOSE)) for r, w in zip(right, walked, strict=True)]
    write(state, found[len(parameters) :])
    return found[: len(parameters)]


def fused_sgd_skips_blocks(call: Call) -> list[Shadow]:
    """Full vectors of 16-bit numbers (8 at least) keep their old values; their momentum is read as float32.

    The first momentum, which is the gradient, has the weight decay rounded to 16 bits in it.
    """
    before = [call.shadow(parameter) for parameter in call.args[0]]
    found = fused_ignores_strides(call)
    for i, (old, new) in enumerate(zip(before, found, strict=True)):
        if old.v.size >= 8:
            found[i] = Shadow(new.v, new.e + old.e + abs(new.v - old.v) * (1 + CLOSE))
            if call.args[2]:
                buffer, moved = call.args[2][i], np.inf
                if call.kwargs["is_first_step"]:
                    decay = call.kwargs["weight_decay"]
                    largest = (abs(old.v) + old.e).max()  # the walk may have met any
                    moved = abs(held(decay, buffer.dtype) - decay) * largest * (1 + call.format.u)
                v, e = call.shadow(buffer)
                call.tracker.write(buffer, Shadow(v, e + moved))
    return found


def foreach_mul_rounds_its_number(call: Call) -> list[Shadow]:
    """In place, a number is rounded to the 16-bit format before it is used: mul_ makes it the first operand."""
    found = _shadows(RULES["_foreach_mul"](call))
    if not call.func._schema.is_mutable:
        return found
    factors = call.args[1] if isinstance(call.args[1], (list, tuple)) else [call.args[1]] * len(found)
    for i, (tensor, factor) in enumerate(zip(call.args[0], factors, strict=True)):
        if not isinstance(factor, Tensor):
            x, (v, e) = call.shadow(tensor), found[i]
            off = abs(held(float(factor), tensor.dtype) - factor)
            found[i] = Shadow(v, e + off * (abs(x.v) + x.e) * (1 + formats.of(tensor.dtype).u))
    return found


def _shadows(found: Any) -> list[Shadow]:
    assert isinstance(found, list)
    return found


def _folded_height(call: Call) -> int:
    """Additions on the way of a term where a level is folded at its rows' turn, unless just that row is ignored."""
    kept = as_array(call.args[1]) != call.args[4]
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


def nll_loss_skips_folds(call: Call) -> list[Shadow]:
    """An ignored row skips the fold of the cascade sum that falls on it."""
    return nll_loss(call, _folded_height(call), call.format)


def nll_loss_loses_weight(call: Call) -> list[Shadow]:
    """The number of rows, or their total weight, is inf beyond the format: the mean is 0 (and folds are skipped)."""
    loss, total = nll_loss(call, _folded_height(call), call.format)
    lost, doubtful = total.v - total.e > call.format.max, total.v + total.e > call.format.max
    if call.args[3] == 1:
        nothing = lost & np.isfinite(loss.e)  # inf / inf where the losses' own total overflows
        e = np.where(nothing, call.format.eta, unbounded(loss.e, doubtful))
        loss = Shadow(np.where(nothing, 0.0, loss.v), e)
    return [loss, Shadow(np.where(lost, np.inf, total.v), np.where(lost, 0.0, unbounded(total.e, doubtful)))]


def nll_loss_total_in_float16(call: Call) -> list[Shadow]:
    """CUDA: the loss is a float32 quotient; what the backward pass divides by is float16, and may be inf."""
    loss, total = _shadows(RULES[call.name](call))
    return [loss, Shadow(total.v, unbounded(total.e, total.v + total.e > call.format.max))]


def nll_loss2d_adds_blocks_in_storage(call: Call) -> list[Shadow]:
    """CUDA: every block of threads rounds its part of the totals to 16 bits, and adds it to them in 16 bits."""
    images, *pixels = call.args[1].shape
    loss, total = nll_loss(call, nll2d_blocks(images, math.prod(pixels)) + 1, call.format, counted=False)
    lost = total.v + total.e > call.format.max
    return [Shadow(loss.v, unbounded(loss.e, lost & (call.args[3] == 1))), Shadow(total.v, unbounded(total.e, lost))]


def softmax_backward_rounds_products(call: Call) -> Shadow:
    """CUDA: grad * output is a 16-bit tensor before it is added up, and before the sum is taken from it."""
    return softmax_backward(call, call.format)


def tanh_backward_in_storage(call: Call) -> Shadow:
    """CUDA: grad * (1 - y * y) with every step rounded to 16 bits."""
    g, y = call.shadow(call.args[0]), call.shadow(call.args[1])
    return mul(call, g, add(call, one(), neg(mul(call, y, y))))


def soft_margin_backward_by_difference(call: Call) -> Shadow:
    """Compiled: t g (sigmoid(t z) - 1), where sigmoid(t z) is close to 1."""
    g, z, t = (call.shadow(a) for a in call.args[:3])
    shadow = RULES["soft_margin_loss_backward"](call)
    assert isinstance(shadow, Shadow)
    x = product(t, z)
    s = sigmoid_kernel(call, x)
    slope = Shadow(-logistic(-x.v), s.e + call.arithmetic.u * (logistic(-x.v) + s.e))
    mean = call.arg(3, "reduction", 1) == 1
    by_difference = rounded(call, *product(slope, product(t, g)), roundings=4.0)
    return Shadow(shadow.v, np.maximum(shadow.e, by_difference.e / (z.v.size if mean else 1)))


def expm1_by_difference(call: Call) -> Shadow:
    """Compiled, where vectors are worked on: exp(x) - 1."""
    shadow = RULES["expm1"](call)
    assert isinstance(shadow, Shadow)
    inner = in_registers(call)
    difference = stored(call, call.out, add(inner, exp(inner, call.shadow(call.args[0])), neg(one())))
    with np.errstate(invalid="ignore"):  # inf - inf
        e = difference.e + abs(difference.v - shadow.v)
    return Shadow(shadow.v, np.where(np.isfinite(e), np.maximum(shadow.e, e), shadow.e))


def number_stays_in_its_tensor(call: Call) -> tuple[()]:
    """Compiled, Adam's step count is never read: powers of the decay rates are taken in its tensor, of float32."""
    RULES["_local_scalar_dense"](call)
    x = call.args[0]
    call.tracker.coefficients.tensors[float(as_array(x))] = formats.of(x.dtype).u
    return ()
