"""Rules for optimizers' kernels: foreach operations, which are loops, and the fused SGD and Adam steps.

Each fused rule is the algorithm of the documentation (torch.optim.SGD, Adam, AdamW), one rounding an operation, all in
the arithmetic of the kernel; what is stored is rounded once (aten/src/ATen/native/cpu/FusedSGDKernel.cpp and
FusedAdamKernel.cpp; cuda/fused_adam_utils.cuh).  A multiplication and an addition may be fused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from equivalences.rounding import arithmetic, elementary, reductions  # noqa: F401  (the rules that are repeated)
from equivalences.rounding.arithmetic import in_registers, lerp, stored
from equivalences.rounding.elementary import add, div, mul, neg, one, sqrt
from equivalences.rounding.tracker import RULES, Call, Rule, Shadow, rule

_EACH = ("add", "sub", "mul", "div", "neg", "lerp", "addcmul", "addcdiv", "sqrt", "maximum", "zero")


def _repeated(operation: str) -> Rule:
    """The rule of ``_foreach_<operation>``: on the CPU and wherever shapes differ, a loop over `operation`."""
    once = RULES[operation]

    def rule_of_each(call: Call) -> list[Any]:
        def the(i: int) -> Callable[[Any], Any]:
            return lambda operand: operand[i] if isinstance(operand, (list, tuple)) else operand

        found = []
        for i, out in enumerate(call.out):
            args, kwargs = [*map(the(i), call.args)], {key: the(i)(item) for key, item in call.kwargs.items()}
            if operation in ("addcmul", "addcdiv") and len(args) > 3:
                value = args.pop()
                kwargs["value"] = value[i] if isinstance(value, Tensor) else value
            found.append(once(Call(call.tracker, operation, call.func, tuple(args), kwargs, out)))
        return found

    return rule_of_each


for _operation in _EACH:
    rule(f"_foreach_{_operation}")(_repeated(_operation))


@rule("_foreach_copy")
def _copy_each(call: Call) -> list[Shadow]:
    """Every tensor is overwritten by its source, converted."""
    copy = RULES["copy"]
    return [copy(Call(call.tracker, "copy", call.func, pair, {}, pair[0])) for pair in zip(*call.args[:2], strict=True)]


def _refuse_scaling(call: Call) -> None:
    if call.kwargs.get("grad_scale") is not None or call.kwargs.get("found_inf") is not None:
        raise NotImplementedError("fused optimizers are followed without a gradient scaler only")


def sgd_step(call: Call, w: Shadow, g: Shadow, buffer: Shadow | None) -> tuple[Shadow, Shadow | None]:
    """One step of SGD in registers: new parameter and momentum."""
    inner, options = in_registers(call), call.kwargs
    lr, momentum, dampening, decay = (options[k] for k in ("lr", "momentum", "dampening", "weight_decay"))
    double = call.tracker.coefficient
    g = neg(g) if options["maximize"] else g
    if decay:
        g = add(inner, g, mul(inner, w, inner.shadow(decay)))
    if momentum:
        if buffer is None:
            buffer = g
        else:
            fresh = mul(inner, g, inner.shadow(1 - double(dampening)))
            buffer = add(inner, mul(inner, buffer, inner.shadow(momentum)), fresh)
        g = add(inner, g, mul(inner, buffer, inner.shadow(momentum))) if options["nesterov"] else buffer
    return add(inner, w, neg(mul(inner, g, inner.shadow(lr)))), buffer


@rule("_fused_sgd")
def _fused_sgd(call: Call) -> list[Shadow]:
    _refuse_scaling(call)
    parameters, gradients, buffers = call.args[:3]
    found = []
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        before = None if call.kwargs["is_first_step"] or not buffers else call.shadow(buffers[i])
        w, buffer = sgd_step(call, call.shadow(parameter), call.shadow(gradient), before)
        if buffers and buffer is not None:
            call.tracker.write(buffers[i], stored(call, buffers[i], buffer))
        found.append(stored(call, parameter, w))
    return found


def adam_step(
    call: Call, w: Shadow, g: Shadow, m: Shadow, v: Shadow, top: Shadow | None, step: float
) -> tuple[Shadow, Shadow, Shadow, Shadow | None]:
    """One step of Adam or AdamW in registers: new parameter, first and second moment, and the largest second moment."""
    inner, options = in_registers(call), call.kwargs
    lr, beta1, beta2, decay = (call.tracker.coefficient(options[k]) for k in ("lr", "beta1", "beta2", "weight_decay"))
    g = neg(g) if options["maximize"] else g
    if decay and call.name == "_fused_adamw":
        if call.tracker.kind == "cuda":
            w = add(inner, w, neg(mul(inner, mul(inner, inner.shadow(lr), inner.shadow(decay)), w)))
        else:
            w = mul(inner, w, inner.shadow(1 - lr * decay))
    elif decay:
        g = add(inner, g, mul(inner, w, inner.shadow(decay)))
    if call.tracker.kind == "cuda":  # takes the decay rates in its own arithmetic, and computes with them there
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
    below = add(inner, div(inner, sqrt(inner, largest), correction), inner.shadow(options["eps"]))
    return add(inner, w, neg(div(inner, mul(inner, m, rate), below))), m, v, top


def _rest(inner: Call, x: Shadow) -> Shadow:
    """1 - x."""
    return add(inner, one(), neg(x))


def _power(inner: Call, x: Shadow, n: float) -> Shadow:
    """x to the power of n, for x from 0 to 1."""
    v = x.v**n
    return arithmetic.rounded(
        inner, v, np.minimum(x.v + x.e, 1.0) ** n - v, roundings=inner.assume.relative("pow", 1.0)
    )


@rule("_fused_adam", "_fused_adamw")
def _fused_adam(call: Call) -> list[Shadow]:
    _refuse_scaling(call)
    parameters, gradients, firsts, seconds, tops, steps = call.args[:6]
    found = []
    for i, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
        top = call.shadow(tops[i]) if tops else None
        state = call.shadow(firsts[i]), call.shadow(seconds[i])
        w, m, v, top = adam_step(call, call.shadow(parameter), call.shadow(gradient), *state, top, float(steps[i]))
        call.tracker.write(firsts[i], stored(call, firsts[i], m))
        call.tracker.write(seconds[i], stored(call, seconds[i], v))
        if top is not None:
            call.tracker.write(tops[i], stored(call, tops[i], top))
        found.append(stored(call, parameter, w))
    return found
