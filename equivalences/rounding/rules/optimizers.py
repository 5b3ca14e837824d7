"""Rules for optimizers' kernels: foreach operations, which are loops, and the fused SGD and Adam steps.

Each fused rule is the documented algorithm (torch.optim.SGD, Adam, AdamW).  Each operation rounds once, in the
arithmetic of the kernel; stored results round once more (aten/src/ATen/native/cpu/FusedSGDKernel.cpp and
FusedAdamKernel.cpp; cuda/fused_adam_utils.cuh).  A multiplication and an addition may be fused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from equivalences.rounding.call import RULES, Call, in_registers, rule
from equivalences.rounding.rules import movement  # noqa: F401  (copy and zero are repeated, too)
from equivalences.rounding.rules.arithmetic import lerp, neg, one, rounded, stored
from equivalences.rounding.rules.elementary import add, div, mul, sqrt
from equivalences.rounding.shadows import Shadow

# What the schema of a foreach operation calls an argument of the operation that it repeats.
_SAME: dict[str, str] = {}
_OTHER = {"scalar": "other", "scalars": "other"}
_VALUE = {"scalars": "value"}
_WORDS = {
    "add": _OTHER, "sub": _OTHER, "mul": _OTHER, "div": _OTHER, "maximum": _OTHER,
    "neg": _SAME, "sqrt": _SAME, "zero": _SAME, "copy": _SAME,
    "addcmul": _VALUE, "addcdiv": _VALUE, "lerp": {"tensors1": "end", "weights": "weight"},
}  # fmt: skip


def _repeated(operation: str) -> Callable[[Call], list[Any]]:
    """The rule of ``_foreach_<operation>``: on the CPU and wherever shapes differ, a loop over `operation`."""
    once, words = RULES[operation], _WORDS[operation]

    def each(call: Call) -> list[Any]:
        found = []
        for i, out in enumerate(call.out):
            arguments = {words.get(name, name): _entry(name, item, i) for name, item in call.arguments.items()}
            found.append(once(call.like(operation, arguments, out)))
        return found

    return each


def _entry(name: str, item: Any, i: int) -> Any:
    """The part of an argument that is for the i-th tensor: one of a list, or of the tensor `scalars`, or all of it."""
    return item[i] if isinstance(item, (list, tuple)) or name == "scalars" else item


for _operation in _WORDS:
    rule(f"_foreach_{_operation}")(_repeated(_operation))


def _refuse_scaling(grad_scale: Tensor | None, found_inf: Tensor | None) -> None:
    if grad_scale is not None or found_inf is not None:
        raise NotImplementedError("fused optimizers are followed without a gradient scaler only")


class Sgd(NamedTuple):
    """The options of torch.optim.SGD, as its fused kernel takes them."""

    lr: Any
    momentum: float
    dampening: float
    weight_decay: float
    nesterov: bool
    maximize: bool


def sgd_step(call: Call, options: Sgd, w: Shadow, g: Shadow, buffer: Shadow | None) -> tuple[Shadow, Shadow | None]:
    """One step of SGD in registers: new parameter and momentum."""
    inner, double = in_registers(call), call.shadows.coefficient
    lr, momentum, dampening, decay, nesterov, maximize = options
    g = neg(g) if maximize else g
    if decay:
        g = add(inner, g, mul(inner, w, inner.shadow(decay)))
    if momentum:
        if buffer is None:
            buffer = g
        else:
            fresh = mul(inner, g, inner.shadow(1 - double(dampening)))
            buffer = add(inner, mul(inner, buffer, inner.shadow(momentum)), fresh)
        g = add(inner, g, mul(inner, buffer, inner.shadow(momentum))) if nesterov else buffer
    return add(inner, w, neg(mul(inner, g, inner.shadow(lr)))), buffer


@rule("_fused_sgd")
def _fused_sgd(
    call: Call,
    self: list[Tensor],
    grads: list[Tensor],
    momentum_buffer_list: list[Tensor],
    lr: Any,
    momentum: float,
    dampening: float,
    weight_decay: float,
    nesterov: bool,
    maximize: bool,
    is_first_step: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> list[Shadow]:
    _refuse_scaling(grad_scale, found_inf)
    options = Sgd(lr, momentum, dampening, weight_decay, nesterov, maximize)
    buffers, found = momentum_buffer_list, []
    for i, (parameter, gradient) in enumerate(zip(self, grads, strict=True)):
        before = None if is_first_step or not buffers else call.shadow(buffers[i])
        w, buffer = sgd_step(call, options, call.shadow(parameter), call.shadow(gradient), before)
        if buffers and buffer is not None:
            call.shadows.write(buffers[i], stored(call, buffers[i], buffer))
        found.append(stored(call, parameter, w))
    return found


class Adam(NamedTuple):
    """The options of torch.optim.Adam and AdamW, as their fused kernels take them."""

    lr: float
    beta1: float
    beta2: float
    weight_decay: float
    eps: float
    maximize: bool


class Moments(NamedTuple):
    """The state of Adam: first and second moment, and the largest second moment (AMSGrad)."""

    first: Shadow
    second: Shadow
    largest: Shadow | None


def adam_step(call: Call, options: Adam, w: Shadow, g: Shadow, state: Moments, step: float) -> tuple[Shadow, Moments]:
    """One step of Adam or AdamW in registers: new parameter and state."""
    inner, (m, v, top), in_kernel = in_registers(call), state, call.assume.adam_rates_in_kernel
    lr, beta1, beta2, decay = (call.shadows.coefficient(option) for option in options[:4])
    g = neg(g) if options.maximize else g
    if decay and call.name == "_fused_adamw":
        if in_kernel:
            w = add(inner, w, neg(mul(inner, mul(inner, inner.shadow(lr), inner.shadow(decay)), w)))
        else:
            w = mul(inner, w, inner.shadow(1 - lr * decay))
    elif decay:
        g = add(inner, g, mul(inner, w, inner.shadow(decay)))
    if in_kernel:
        b1, b2 = inner.shadow(beta1), inner.shadow(beta2)
        m = add(inner, mul(inner, m, b1), mul(inner, g, _rest(inner, b1)))
        v = add(inner, mul(inner, v, b2), mul(inner, mul(inner, g, g), _rest(inner, b2)))
        rate = div(inner, inner.shadow(lr), _rest(inner, _power(inner, b1, step)))
        correction = sqrt(inner, _rest(inner, _power(inner, b2, step)))
    else:
        m = lerp(inner, m, g, inner.shadow(1 - beta1))
        v = add(inner, mul(inner, v, inner.shadow(beta2)), mul(inner, mul(inner, g, inner.shadow(1 - beta2)), g))
        rate, correction = inner.shadow(lr / (1 - beta1**step)), inner.shadow((1 - beta2**step) ** 0.5)
    largest = v
    if top is not None:
        largest = top = Shadow(np.maximum(top.v, v.v), np.maximum(top.e, v.e))
    below = add(inner, div(inner, sqrt(inner, largest), correction), inner.shadow(options.eps))
    return add(inner, w, neg(div(inner, mul(inner, m, rate), below))), Moments(m, v, top)


def _rest(inner: Call, x: Shadow) -> Shadow:
    """1 - x."""
    return add(inner, one(), neg(x))


def _power(inner: Call, x: Shadow, n: float) -> Shadow:
    """x to the power of n, for x from 0 to 1."""
    v = x.v**n
    return rounded(inner, v, np.minimum(x.v + x.e, 1.0) ** n - v, roundings=inner.assume.relative("pow", 1.0))


@rule("_fused_adam", "_fused_adamw")
def _fused_adam(
    call: Call,
    self: list[Tensor],
    grads: list[Tensor],
    exp_avgs: list[Tensor],
    exp_avg_sqs: list[Tensor],
    max_exp_avg_sqs: list[Tensor],
    state_steps: list[Tensor],
    lr: Any,
    beta1: float,
    beta2: float,
    weight_decay: float,
    eps: float,
    maximize: bool,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
) -> list[Shadow]:
    _refuse_scaling(grad_scale, found_inf)
    options = Adam(lr, beta1, beta2, weight_decay, eps, maximize)
    found = []
    for i, (parameter, gradient, step) in enumerate(zip(self, grads, state_steps, strict=True)):
        kept = (exp_avgs[i], exp_avg_sqs[i], max_exp_avg_sqs[i] if max_exp_avg_sqs else None)
        state = Moments(call.shadow(kept[0]), call.shadow(kept[1]), None if kept[2] is None else call.shadow(kept[2]))
        w, state = adam_step(call, options, call.shadow(parameter), call.shadow(gradient), state, float(step))
        for tensor, moment in zip(kept, state, strict=True):
            if tensor is not None and moment is not None:
                call.shadows.write(tensor, stored(call, tensor, moment))
        found.append(stored(call, parameter, w))
    return found
