"""Rules for elementary functions and activations, and for their backward kernels.

Each has two parts: how far an error of the argument can move the exact result (bounded over the whole interval, not
linearised), and how far the kernel can be from exact (`assumptions`, or the algorithm that it documents).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from equivalences.formats import FORMATS
from equivalences.model import Array
from equivalences.rounding.arrays import unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import endless, exact, one, operand, product, quotient, rounded
from equivalences.rounding.shadows import Shadow

_LARGE = 700.0  # exp(700) is finite in float64

# Where a kernel returns its argument, or a constant, the error is what the exact value is off by, however small.  It is
# known to the rounding of the shadow and of the oracle's difference, and to 2**-104 of the value, which is what the
# oracle keeps (enclosure.Enclosure).
CLOSE, CLOSEST = 16 * FORMATS["float64"].u, 16 * FORMATS["float64"].u ** 2


def growth(e: Array) -> Array:
    """expm1(e): the largest relative change of exp(x) when x moves by at most e; inf for huge e."""
    return unbounded(np.expm1(np.minimum(e, _LARGE)), e > _LARGE)


def swing(x: Array, e: Array) -> Array:
    """exp(x) (exp(e) - 1): the largest change of exp(x) when x moves by at most e."""
    change: Array = np.exp(x + e) * -np.expm1(-e)
    return change


def logistic(x: Array) -> Array:
    """1 / (1 + exp(-x)) to relative accuracy everywhere (the formula itself is 0 where exp(-x) overflows)."""
    small = np.exp(-abs(x))
    share: Array = np.where(x < 0, small, 1.0) / (1 + small)
    return share


def logistic_moved(x: Shadow) -> Array:
    """How far the error of x moves logistic(x): s(x + d) - s(x) = s r (exp(d) - 1) / (r + s exp(d)), r = 1 - s."""
    moved: Array = np.minimum(swing(-abs(x.v), x.e) / np.square(1 + np.exp(-abs(x.v))), 1.0)
    return moved


def log_change(ratio: Array) -> Array:
    """-log1p(-r): how far log(x) moves when x moves by the part r at most; inf where x may reach zero.

    At least r: log1p may flush the smallest float64 to zero.
    """
    return unbounded(np.maximum(-np.log1p(-ratio), ratio), ratio >= 1)


def exp(call: Call, x: Shadow) -> Shadow:
    """The exponential, rounded to storage; 0 at an exact -inf (C17, F.10.3.1), no bound where it may overflow."""
    v = np.exp(x.v)
    return vanished(rounded(call, v, swing(x.v, x.e), call.assume.relative("exp", 1.0)), x)


def vanished(power: Shadow, x: Shadow) -> Shadow:
    """A power of a number greater than 1, which is exactly 0 where the exponent `x` is -inf."""
    if power.v.all():  # nearly always: cheap
        return power
    return Shadow(power.v, np.where(endless(x) & (x.v < 0), 0.0, power.e))


def log(call: Call, x: Shadow) -> Shadow:
    """The logarithm, rounded to storage; no bound where the argument may be zero."""
    v = np.log(x.v)
    ratio = x.e / x.v
    moved = unbounded(log_change(ratio), x.v <= 0)
    return rounded(call, v, moved, call.assume.relative("log", 1.0))


def log1p(call: Call, x: Shadow) -> Shadow:
    """log(1 + x), rounded to storage; no bound where 1 + x may be zero."""
    v = np.log1p(x.v)
    ratio = x.e / (1 + x.v)
    moved = unbounded(log_change(ratio), x.v <= -1)
    return rounded(call, v, moved, call.assume.relative("log1p", 1.0))


def add(call: Call, a: Shadow, b: Shadow) -> Shadow:
    """a + b, rounded to storage."""
    return rounded(call, a.v + b.v, a.e + b.e, underflow=False)


def mul(call: Call, a: Shadow, b: Shadow) -> Shadow:
    """a b, rounded to storage."""
    return rounded(call, *product(a, b))


def div(call: Call, a: Shadow, b: Shadow) -> Shadow:
    """a / b, rounded to storage."""
    return rounded(call, *quotient(a, b))


@rule("exp")
def _exp(call: Call, self: Tensor) -> Shadow:
    return exp(call, call.shadow(self))


@rule("log")
def _log(call: Call, self: Tensor) -> Shadow:
    return log(call, call.shadow(self))


@rule("log1p")
def _log1p(call: Call, self: Tensor) -> Shadow:
    return log1p(call, call.shadow(self))


def expm1(call: Call, x: Shadow) -> Shadow:
    """exp(x) - 1, rounded to storage; no bound where it may overflow."""
    return rounded(call, np.expm1(x.v), swing(x.v, x.e), call.assume.relative("expm1", 1.0))


@rule("expm1")
def _expm1(call: Call, self: Tensor) -> Shadow:
    return expm1(call, call.shadow(self))


@rule("tanh")
def _tanh(call: Call, self: Tensor) -> Shadow:
    return tanh(call, call.shadow(self))


def tanh(call: Call, x: Shadow) -> Shadow:
    """The hyperbolic tangent, rounded to storage."""
    v = np.tanh(x.v)
    # tanh(x) = 2 logistic(2 x) - 1, and its slope is at most 1.
    moved = np.minimum(2 * logistic_moved(Shadow(2 * x.v, 2 * x.e)), x.e)
    return rounded(call, v, moved, call.assume.relative("tanh", 1.0))


def sqrt(call: Call, x: Shadow) -> Shadow:
    """Square root, rounded to storage."""
    v = np.sqrt(x.v)
    # |sqrt(a) - sqrt(b)| = |a - b| / (sqrt a + sqrt b) <= sqrt(|a - b|).
    moved = np.minimum(x.e / (v + np.sqrt(np.maximum(x.v - x.e, 0.0))), np.sqrt(x.e))
    moved = np.where(x.e == 0, 0.0, moved)
    return rounded(call, v, unbounded(moved, x.v < 0), call.assume.relative("sqrt", 1.0))


@rule("sqrt")
def _sqrt(call: Call, self: Tensor) -> Shadow:
    return sqrt(call, call.shadow(self))


@rule("lgamma")
def _lgamma(call: Call, self: Tensor) -> Shadow:
    # Zero at 1 and 2 (C17, F.10.5.3), where its slope, the digamma function, is below 1.1 within 1/4 (DLMF 5.4.14).
    x = call.shadow(self)
    if not bool((((x.v == 1) | (x.v == 2)) & (x.e < 0.25)).all()):
        raise NotImplementedError("lgamma is followed at 1 and 2 only, where it is zero")
    return exact(np.zeros_like(x.v), 1.1 * x.e)


@rule("square")
def _square(call: Call, self: Tensor) -> Shadow:
    x = call.shadow(self)
    return rounded(call, *product(x, x))


@rule("logit")
def _logit(call: Call, self: Tensor, eps: float | None) -> Shadow:
    """log(x / (1 - x)): the difference and the quotient are rounded; no bound where x may be 0 or 1."""
    if eps is not None:
        raise NotImplementedError("logit is followed without eps only")
    x = call.shadow(self)
    inner = call.arithmetic
    share = x.v / (1 - x.v)
    lost = log_change(2 * inner.u + inner.u**2 + inner.eta / share)
    moved = log_change(x.e / x.v) + log_change(x.e / (1 - x.v)) + lost
    v = np.log(share)
    return rounded(call, v, unbounded(moved, (x.v <= 0) | (x.v >= 1)), call.assume.relative("log", 1.0))


@rule("logit_backward")
def _logit_backward(call: Call, grad_output: Tensor, self: Tensor, eps: float | None) -> Shadow:
    """g / (x (1 - x)), each step in the storage format (BinaryOpsKernel.cpp)."""
    if eps is not None:
        raise NotImplementedError("logit is followed without eps only")
    g, x = call.shadow(grad_output), call.shadow(self)
    return div(call, g, mul(call, x, add(call, one(), Shadow(-x.v, x.e))))


@rule("special_entr")
def _entropy(call: Call, self: Tensor) -> Shadow:
    """-x log(x), each step in the storage format (UnaryOpsKernel.cpp); 0 at 0."""
    x = call.shadow(self)
    v, e = mul(call, Shadow(-x.v, x.e), log(call, x))
    zero = (x.v == 0) & (x.e == 0)
    return Shadow(np.where(zero, 0.0, v), np.where(zero, 0.0, e))


@rule("xlogy", "special_xlog1py")
def _xlogy(call: Call, self: Any, other: Any) -> Shadow:
    """x log(y) or x log1p(y), the logarithm rounded to storage too; 0 where x = 0, whatever y."""
    x, y = operand(call, self), operand(call, other)
    v, e = mul(call, x, (log if call.name == "xlogy" else log1p)(call, y))
    zero = (x.v == 0) & (x.e == 0)
    return Shadow(np.where(zero, 0.0, v), np.where(zero, 0.0, e))


# --- sigmoid and its kin ---------------------------------------------------------------------------------------


def softplus_moved(x: Array, e: Array) -> Array:
    """How far an error of x moves log(1 + exp(x)): by logistic(x) (exp(e) - 1), and by e, at most."""
    below = swing(x, e) / (1 + np.exp(-abs(x)))
    return np.minimum(np.where(x < 0, below, logistic(x) * growth(e)), e)


def sigmoid_kernel(call: Call, x: Shadow) -> Shadow:
    """1 / (1 + exp(-x)): exp errs by kappa u on its share 1 - s of the sum, then one sum and one division."""
    s, r = logistic(x.v), logistic(-x.v)
    u = call.arithmetic.u
    moved = logistic_moved(x)
    kernel = (s + moved) * u * (call.assume.relative("exp", 1.0) * (r + moved) + 2.0)
    # exp(-x) overflows to inf well before the sigmoid itself underflows: the result is then 0.
    lost = (-x.v + x.e > math.log(call.arithmetic.max)) * s
    return Shadow(s, moved + kernel + lost)


@rule("sigmoid")
def _sigmoid(call: Call, self: Tensor) -> Shadow:
    return rounded(call, *sigmoid_kernel(call, call.shadow(self)), roundings=0.0)


def log_sigmoid(call: Call, x: Shadow) -> Shadow:
    """min(0, x) - log1p(exp(-|x|)) (aten/.../cpu/Activation.cpp), before its final rounding to 16 bits."""
    u, z = call.arithmetic.u, x.v
    small = np.exp(-abs(z))
    tail = np.log1p(small)
    v = np.minimum(z, 0.0) - tail
    moved = softplus_moved(-z, x.e)
    kernel = call.assume.relative("exp", u) * small / (1 + small) + call.assume.relative("log1p", u) * tail
    kernel = kernel + 2 * call.arithmetic.eta
    return Shadow(v, moved + kernel + np.where(z - x.e < 0, u * (abs(v) + moved), 0.0))


@rule("log_sigmoid_forward")
def _log_sigmoid_forward(call: Call, self: Tensor) -> list[Shadow | None]:
    x, (_, buffer) = call.shadow(self), call.out
    out = rounded(call, *log_sigmoid(call, x), roundings=0.0)
    if buffer.numel() == 0:
        return [out, exact(np.zeros(buffer.shape))]
    return [out, exp(call, Shadow(-abs(x.v), x.e))]  # the buffer holds exp(-|x|)


@rule("log_sigmoid_backward")
def _log_sigmoid_backward(call: Call, grad_output: Tensor, self: Tensor, buffer: Tensor) -> Shadow:
    g, x = call.shadow(grad_output), call.shadow(self)
    u = call.arithmetic.u
    z = x.v
    if buffer.numel():
        b = call.shadow(buffer)
    else:  # on CUDA there is no buffer: exp(-|x|) is computed again, and not rounded to storage
        small, moved = np.exp(-abs(z)), swing(-abs(z), x.e)
        b = Shadow(small, moved + call.assume.relative("exp", u) * (small + moved))
    # (z < 0) - sign (b / (1 + b)): relative error of b shrinks by 1 / (1 + b); sum and division add two roundings.
    q = b.v / (1 + b.v)
    room = 1 + b.v - b.e
    q_e = np.minimum(np.where(room <= 0, 0.5, b.e / (1 + b.v) / room), 0.5)  # b <= 1 and so b / (1 + b) <= 1/2
    q_e = q_e + 2 * u * (q + q_e) + call.arithmetic.eta
    slope = logistic(-z)
    slope_e = q_e + np.where(z - x.e < 0, u * (slope + q_e), 0.0)
    # Where rounding may have turned the sign of x, the kernel takes 1 - q for q or q for 1 - q; both are near 1/2:
    # |1 - 2 q(b)| = tanh(|z| / 2) <= |z| / 2 for the exact and for the computed argument, and |z| <= e for both.
    slope_e = slope_e + np.where(abs(z) <= x.e, x.e / 2, 0.0)
    return rounded(call, *product(Shadow(slope, slope_e), g))


@rule("sigmoid_backward")
def _sigmoid_backward(call: Call, grad_output: Tensor, output: Tensor) -> Shadow:
    # grad * (1 - y) * y, with y the computed sigmoid: y (1 - y) moves by |1 - 2 y| e + e^2; a difference, two products
    g, y = call.shadow(grad_output), call.shadow(output)
    slope = Shadow((1 - y.v) * y.v, abs(1 - 2 * y.v) * y.e + np.square(y.e))
    return rounded(call, *product(slope, g), roundings=3.0)


@rule("tanh_backward")
def _tanh_backward(call: Call, grad_output: Tensor, output: Tensor) -> Shadow:
    g, y = call.shadow(grad_output), call.shadow(output)
    u = call.arithmetic.u
    square = product(y, y)
    rest = Shadow(1 - square.v, square.e + u * square.v)
    rest = Shadow(rest.v, rest.e + u * (abs(rest.v) + rest.e))
    return rounded(call, *product(g, rest))


@rule("softplus")
def _softplus(call: Call, self: Tensor, beta: float, threshold: float) -> Shadow:
    x = call.shadow(self)
    if beta != 1:
        raise NotImplementedError("softplus is followed for beta = 1 only")
    v, kernel = softplus_kernel(call, x.v)
    # Documented: beyond the threshold the function is the identity.
    linear = np.log1p(np.exp(x.e - x.v)) * (1 + CLOSE) + CLOSEST * v
    kernel = _beyond(x, float(threshold), kernel, linear)
    return rounded(call, v, softplus_moved(x.v, x.e) + kernel, roundings=0.0)


def softplus_kernel(call: Call, z: Array) -> Shadow:
    """log1p(exp(z)), and how far the kernel may be off, if exp(z) does not overflow."""
    u = call.arithmetic.u
    v = np.maximum(z, 0.0) + np.log1p(np.exp(-abs(z)))
    kernel = call.assume.relative("exp", u) * logistic(z) + call.assume.relative("log1p", u) * v
    return Shadow(v, kernel + 2 * call.arithmetic.eta)


def _beyond(x: Shadow, threshold: float, below: Array, above: Array) -> Array:
    """`above` where x > threshold, `below` where not, the larger of the two where rounding may decide."""
    return np.where(x.v - x.e > threshold, above, np.where(x.v + x.e > threshold, np.maximum(below, above), below))


@rule("softplus_backward")
def _softplus_backward(call: Call, grad_output: Tensor, self: Tensor, threshold: float) -> Shadow:
    g, x = call.shadow(grad_output), call.shadow(self)
    s, r = logistic(x.v), logistic(-x.v)
    u = call.arithmetic.u
    moved = logistic_moved(x)
    # grad * z / (z + 1) with z = exp(x): an error of z counts by 1 - s
    kernel = s * u * (call.assume.relative("exp", 1.0) * r + 2) + 2 * call.arithmetic.eta
    kernel = _beyond(x, float(threshold), kernel, logistic(x.e - x.v) * (1 + CLOSE) + CLOSEST)
    return rounded(call, *product(Shadow(s, moved + kernel), g))


def log_sum(call: Call, a: Shadow, b: Shadow, base: float = math.e) -> Shadow:
    """max(a, b) + log1p(exp(-|a - b|)) (BinaryOpsKernel.cpp); the derivatives are two shares whose sum is 1.

    To another base, 2, the power is one function and the logarithm is multiplied by 1 / log(2).
    """
    u, gap, scale = call.arithmetic.u, abs(a.v - b.v), math.log(base)
    small = np.exp(-gap * scale)
    tail = np.log1p(small)
    share = logistic((a.v - b.v) * scale)
    moved = (share * a.e + (1 - share) * b.e) * (1 + growth((a.e + b.e) * scale))
    power = call.assume.relative("exp" if base == math.e else "exp2", u)
    term = growth(u * (gap + a.e + b.e) * scale + power) * small / (1 + small)
    kernel = (term + call.assume.relative("log1p", u) * (tail + term)) / scale + 2 * call.arithmetic.eta
    if base != math.e:
        kernel = kernel + 2 * u * (tail / scale + kernel)
    v, e = rounded(call, np.maximum(a.v, b.v) + tail / scale, np.minimum(moved, np.maximum(a.e, b.e)) + kernel)
    if np.isfinite(gap).all():
        return Shadow(v, e)
    nothing = [endless(x) & (x.v < 0) for x in (a, b)]  # it adds exp(-inf) = 0
    v = np.where(nothing[0] & nothing[1], -math.inf, v)
    return Shadow(v, np.where(nothing[0], b.e, np.where(nothing[1], a.e, e)))


@rule("logaddexp")
def _logaddexp(call: Call, self: Tensor, other: Tensor) -> Shadow:
    return log_sum(call, operand(call, self), operand(call, other))


@rule("logaddexp2")
def _logaddexp2(call: Call, self: Tensor, other: Tensor) -> Shadow:
    return log_sum(call, operand(call, self), operand(call, other), 2.0)
