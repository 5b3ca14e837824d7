"""Rules for smooth and for bent activations beside sigmoid and relu, and for their backward kernels.

Each is the formula of its kernel, step by step in the kernel's arithmetic (aten/src/ATen/native/cpu/Activation.cpp,
cpu/Elu.h): 16-bit numbers are computed with in float32, and rounded once.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from equivalences.rounding.arrays import doubtful, spread
from equivalences.rounding.call import Call, in_registers, rule
from equivalences.rounding.rules.arithmetic import (
    clamped,
    constant,
    either,
    exact,
    in_storage,
    neg,
    one,
    product,
    rounded,
    selected,
)  # fmt: skip
from equivalences.rounding.rules.elementary import (
    add,
    exp,
    expm1,
    mul,
    sigmoid_kernel,
    softplus_kernel,
    softplus_moved,
    tanh,
)  # fmt: skip
from equivalences.rounding.shadows import Shadow

# --- smooth ----------------------------------------------------------------------------------------------------------


@rule("silu")
def _silu(call: Call, self: Tensor) -> Shadow:
    """x / (1 + exp(-x)): one division, as in sigmoid."""
    x = call.shadow(self)
    return rounded(call, *product(x, sigmoid_kernel(call, x)), roundings=0.0)


def _sigmoid(inner: Call, x: Shadow) -> Shadow:
    s = sigmoid_kernel(inner, x)
    return Shadow(s.v, s.e + inner.arithmetic.eta)


@rule("silu_backward")
def _silu_backward(call: Call, grad_output: Tensor, self: Tensor) -> Shadow:
    """g s (1 + x (1 - s)), s = sigmoid(x)."""
    g, x, inner = call.shadow(grad_output), call.shadow(self), in_registers(call)
    s = _sigmoid(inner, x)
    slope = add(inner, one(), mul(inner, x, add(inner, one(), neg(s))))
    return in_storage(call, mul(inner, mul(inner, g, s), slope))


def _tanh_of_softplus(inner: Call, x: Shadow) -> Shadow:
    """tanh(log1p(exp(x))); where exp overflows it is tanh(inf) = 1, as it should be."""
    softplus = softplus_kernel(inner, x.v)
    return tanh(inner, Shadow(softplus.v, softplus.e + softplus_moved(x.v, x.e)))


@rule("mish")
def _mish(call: Call, self: Tensor) -> Shadow:
    """x tanh(log1p(exp(x)))."""
    x, inner = call.shadow(self), in_registers(call)
    return in_storage(call, mul(inner, x, _tanh_of_softplus(inner, x)))


@rule("mish_backward")
def _mish_backward(call: Call, grad_output: Tensor, self: Tensor) -> Shadow:
    """g (t + x s (1 - t t)), t = tanh(log1p(exp(x))), s = sigmoid(x)."""
    g, x, inner = call.shadow(grad_output), call.shadow(self), in_registers(call)
    t = _tanh_of_softplus(inner, x)
    rest = add(inner, one(), neg(mul(inner, t, t)))
    slope = add(inner, t, mul(inner, mul(inner, x, _sigmoid(inner, x)), rest))
    return in_storage(call, mul(inner, g, slope))


@rule("elu")
def _elu(call: Call, self: Tensor, alpha: float, scale: float, input_scale: float) -> Shadow:
    return elu(call, call.shadow(self), (alpha, scale, input_scale))


def elu(call: Call, x: Shadow, numbers: tuple[float, float, float]) -> Shadow:
    """expm1(x input_scale) (alpha scale) where x < 0, else x scale; `numbers` are alpha, scale and input_scale."""
    inner = in_registers(call)
    a, s, t = (inner.shadow(number) for number in numbers)
    low = mul(inner, expm1(inner, mul(inner, x, t)), mul(inner, a, s))
    return in_storage(call, either(x, low, mul(inner, x, s)))


@rule("celu")
def _celu(call: Call, self: Tensor, alpha: float) -> Shadow:
    """elu(x, alpha, 1, 1 / alpha) (Activation.cpp)."""
    return elu(call, call.shadow(self), (alpha, 1.0, 1.0 / alpha))


@rule("elu_backward")
def _elu_backward(
    call: Call,
    grad_output: Tensor,
    alpha: float,
    scale: float,
    input_scale: float,
    is_result: bool,
    self_or_result: Tensor,
) -> Shadow:
    """g input_scale (alpha scale) exp(x input_scale) where x < 0, else g scale.

    Of the result y it is g input_scale (y + alpha scale).
    """
    g, x, inner = call.shadow(grad_output), call.shadow(self_or_result), in_registers(call)
    a, s, t = (inner.shadow(number) for number in (alpha, scale, input_scale))
    negative = mul(inner, a, s)
    if is_result:
        low = mul(inner, mul(inner, g, t), add(inner, x, negative))
    else:
        low = mul(inner, mul(inner, mul(inner, g, t), negative), exp(inner, mul(inner, x, t)))
    return in_storage(call, either(x, low, mul(inner, g, s)))


@rule("glu")
def _glu(call: Call, self: Tensor, dim: int) -> Shadow:
    """a / (1 + exp(-b)), a and b the halves along one dimension."""
    a, b = _halves(call.shadow(self), dim)
    return rounded(call, *product(a, sigmoid_kernel(call, b)), roundings=1.0)


def _halves(x: Shadow, dim: int) -> tuple[Shadow, Shadow]:
    v, e = (np.split(spread(part, x.v.shape), 2, dim) for part in x)
    return Shadow(v[0], e[0]), Shadow(v[1], e[1])


@rule("glu_backward")
def _glu_backward(call: Call, grad_output: Tensor, self: Tensor, dim: int) -> Shadow:
    """s g and (1 - s) s g a, s = sigmoid(b)."""
    g, inner = call.shadow(grad_output), in_registers(call)
    a, b = _halves(call.shadow(self), dim)
    s = _sigmoid(inner, b)
    first = mul(inner, s, g)
    second = mul(inner, mul(inner, add(inner, one(), neg(s)), first), a)
    parts = [in_storage(call, each) for each in (first, second)]
    return Shadow(*(np.concatenate(both, dim) for both in zip(*parts, strict=True)))


# --- bent ------------------------------------------------------------------------------------------------------------


def _six(inner: Call, x: Shadow) -> Shadow:
    """min(max(x + 3, 0), 6)."""
    return clamped(add(inner, x, constant(3.0)), constant(0.0), constant(6.0))


def _sixth(inner: Call, x: Shadow) -> Shadow:
    """x / 6."""
    return rounded(inner, x.v / 6, x.e / 6, roundings=inner.assume.scalar_division_roundings)


def _at(x: Shadow, *corners: float) -> Shadow:
    """0, without a bound where rounding may decide on which side of a corner x is."""
    doubt = [(x.e > 0) & (abs(x.v - corner) <= x.e) for corner in corners]
    return exact(np.zeros(()), doubtful(np.logical_or.reduce(doubt)))


@rule("hardsigmoid")
def _hardsigmoid(call: Call, self: Tensor) -> Shadow:
    """min(max(x + 3, 0), 6) / 6."""
    inner = in_registers(call)
    return in_storage(call, _sixth(inner, _six(inner, call.shadow(self))))


@rule("hardsigmoid_backward")
def _hardsigmoid_backward(call: Call, grad_output: Tensor, self: Tensor) -> Shadow:
    """g (1 / 6) where -3 < x < 3, else 0."""
    g, x = call.shadow(grad_output), call.shadow(self)
    v, e = rounded(call, g.v / 6, g.e / 6, roundings=2.0)
    on = abs(x.v) < 3
    return Shadow(np.where(on, v, 0.0), np.where(on, e, 0.0) + _at(x, -3.0, 3.0).e)


@rule("hardswish")
def _hardswish(call: Call, self: Tensor) -> Shadow:
    """x min(max(x + 3, 0), 6) / 6."""
    x, inner = call.shadow(self), in_registers(call)
    return in_storage(call, _sixth(inner, mul(inner, x, _six(inner, x))))


@rule("hardswish_backward")
def _hardswish_backward(call: Call, grad_output: Tensor, self: Tensor) -> Shadow:
    """0 where x <= -3, g (x / 3 + 1 / 2) where x < 3, else g."""
    g, x, inner = call.shadow(grad_output), call.shadow(self), in_registers(call)
    third = rounded(inner, x.v / 3, x.e / 3, roundings=call.assume.scalar_division_roundings)
    v, e = in_storage(call, mul(inner, g, add(inner, third, constant(0.5))))
    above, below = x.v >= 3, x.v <= -3
    v = np.where(above, g.v, np.where(below, 0.0, v))
    return Shadow(v, np.where(above, g.e, np.where(below, 0.0, e)) + _at(x, -3.0, 3.0).e)


@rule("_prelu_kernel")
def _prelu(call: Call, self: Tensor, weight: Tensor) -> Shadow:
    """x where it is positive, else weight x."""
    x = call.shadow(self)
    return either(x, rounded(call, *product(call.shadow(weight), x)), x)


@rule("_prelu_kernel_backward")
def _prelu_backward(call: Call, grad_output: Tensor, self: Tensor, weight: Tensor) -> list[Shadow]:
    """g and 0 where x is positive, else weight g and x g."""
    g, x, w = call.shadow(grad_output), call.shadow(self), call.shadow(weight)
    on, doubt = x.v > 0, _at(x, 0.0).e
    low, of_weight = rounded(call, *product(w, g)), rounded(call, *product(x, g))
    return [
        Shadow(np.where(on, g.v, low.v), np.where(on, g.e, low.e) + doubt),
        either(x, of_weight, constant(0.0)),
    ]


@rule("softshrink")
def _softshrink(call: Call, self: Tensor, lambd: float) -> Shadow:
    """x - lambd above lambd, x + lambd below -lambd, else 0."""
    x, width = call.shadow(self), selected(call, lambd)
    above = rounded(call, abs(x.v) - width.v, x.e + width.e, underflow=False)
    far = Shadow(abs(x.v) - width.v, x.e + width.e)
    v, e = either(far, constant(0.0), above)
    return Shadow(np.copysign(v, x.v), e)


@rule("softshrink_backward")
@rule("hardshrink_backward", grad_output="grad_out")
def _shrink_backward(call: Call, grad_output: Tensor, self: Tensor, lambd: float) -> Shadow:
    """g where |x| > lambd, else 0."""
    return _beyond(call, call.shadow(self), lambd, call.shadow(grad_output))


@rule("hardshrink")
def _hardshrink(call: Call, self: Tensor, lambd: float) -> Shadow:
    """x where |x| > lambd, else 0."""
    x = call.shadow(self)
    return _beyond(call, x, lambd, x)


def _beyond(call: Call, x: Shadow, lambd: float, found: Shadow) -> Shadow:
    width = selected(call, lambd)
    on, reach = abs(x.v) > width.v, x.e + width.e
    doubt = doubtful((reach > 0) & (abs(abs(x.v) - width.v) <= reach))
    return Shadow(np.where(on, found.v, 0.0), np.where(on, found.e, 0.0) + doubt)
