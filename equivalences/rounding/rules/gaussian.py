"""Rules for erf, erfc, gelu and its backward kernel, and for sine and cosine."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.call import Call, in_registers, rule
from equivalences.rounding.rules.arithmetic import constant, in_storage, neg, one, operand, rounded
from equivalences.rounding.rules.elementary import add, exp, mul, tanh
from equivalences.rounding.shadows import Shadow

_ROOT_PI = math.sqrt(math.pi)


def _each(function: Callable[[float], float]) -> Callable[[Array], Array]:
    """A function of the C library, of each number (NumPy has none of these)."""
    every = np.frompyfunc(function, 1, 1)

    def of(x: Array) -> Array:
        return np.asarray(every(x), dtype=np.float64)

    return of


_erf, _erfc = _each(math.erf), _each(math.erfc)


@rule("sin", "cos")
def _sine(call: Call, self: Tensor) -> Shadow:
    """Of slope 1 at most, and of size 1."""
    x = operand(call, self)
    v = np.sin(x.v) if call.name == "sin" else np.cos(x.v)
    slope = abs(np.cos(x.v) if call.name == "sin" else np.sin(x.v))
    moved = np.minimum(np.minimum(slope * x.e + np.square(x.e) / 2, x.e), 2.0)
    return rounded(call, v, moved, call.assume.relative(call.name, 1.0))


def _erf_moved(x: Shadow) -> Array:
    """How far an error of x moves erf(x): its slope is 2 / sqrt(pi) exp(-x x), and falls on both sides of 0."""
    nearest = np.maximum(abs(x.v) - x.e, 0.0)
    moved: Array = np.minimum(x.e * (2 / _ROOT_PI) * np.exp(-np.square(nearest)), 2.0)
    return moved


def erf_in_vectors(call: Call, x: Shadow) -> Shadow:
    """erf as kernels with vectors compute it: 1 - r t exp(-x x) in float32, t = 1 / (1 + p |x|), r a polynomial in t.

    Its formula is off by `erf_of_vectors`; then come the roundings.  Those of r and of its constants are at most 8 u
    where t <= 1 (its terms are 1.06, 1.45, 1.42, 0.28 and 0.25); those of t, exp, x x and two products are relative.
    """
    v, formula = _erf(x.v), call.assume.erf_of_vectors
    if not formula or call.arithmetic.name != "float32":
        kernel = call.assume.relative("erf", call.arithmetic.u) * abs(v)
        return Shadow(v, _erf_moved(x) + kernel + call.arithmetic.eta)
    u, square = call.arithmetic.u, np.square(x.v)
    size, rest = np.exp(-square) / (1 + 0.3275911 * abs(x.v)), _erfc(abs(x.v))
    relative = 4 + call.assume.relative("exp", 1.0) + square
    return Shadow(v, _erf_moved(x) + formula + u * (8 * size + relative * rest + 1))


@rule("erf", "special_erf")
def _erf_rule(call: Call, self: Tensor) -> Shadow:
    x = operand(call, self)
    if call.format.precision < call.arithmetic.precision:  # vectors of 16-bit numbers
        return in_storage(call, erf_in_vectors(call, x))
    return rounded(call, _erf(x.v), _erf_moved(x), call.assume.relative("erf", 1.0))


@rule("erfc", "special_erfc")
def _erfc_rule(call: Call, self: Tensor) -> Shadow:
    x = operand(call, self)
    return rounded(call, _erfc(x.v), _erf_moved(x), call.assume.relative("erfc", 1.0))


# --- gelu (aten/.../native/cpu/Gelu.h, Activation.cpp) ---------------------------------------------------------------


def _cdf2(inner: Call, x: Shadow) -> Shadow:
    """1 + erf(x sqrt(1/2)), twice the normal distribution."""
    argument = mul(inner, x, inner.shadow(math.sqrt(0.5)))
    erf = erf_in_vectors(inner, argument)
    v = _erfc(-argument.v)
    return Shadow(v, erf.e + inner.arithmetic.u * (v + erf.e))


def _tanh_argument(inner: Call, x: Shadow) -> Shadow:
    """sqrt(2 / pi) (x + 0.044715 x x x)."""
    cube = mul(inner, mul(inner, x, x), x)
    total = add(inner, x, mul(inner, inner.shadow(0.044715), cube))
    return mul(inner, inner.shadow(math.sqrt(2 / math.pi)), total)


def _tanh_cdf2(inner: Call, x: Shadow) -> Shadow:
    """1 + tanh of it."""
    return add(inner, one(), tanh(inner, _tanh_argument(inner, x)))


@rule("gelu")
def _gelu(call: Call, self: Tensor, approximate: str) -> Shadow:
    """x / 2 (1 + erf(x sqrt(1/2))), or x / 2 (1 + tanh(sqrt(2 / pi) (x + 0.044715 x x x))), in any order."""
    x, inner = call.shadow(self), in_registers(call)
    v, e = mul(inner, x, _tanh_cdf2(inner, x) if approximate == "tanh" else _cdf2(inner, x))
    return in_storage(call, Shadow(v / 2, e / 2 + inner.arithmetic.eta))


@rule("gelu_backward")
def _gelu_backward(call: Call, grad_output: Tensor, self: Tensor, approximate: str) -> Shadow:
    g, x, inner = call.shadow(grad_output), call.shadow(self), in_registers(call)
    slope = (_tanh_slope if approximate == "tanh" else _normal_slope)(inner, x)
    return in_storage(call, mul(inner, g, slope))


def _normal_slope(inner: Call, x: Shadow) -> Shadow:
    """(1 + erf(x sqrt(1/2))) / 2 + x exp(-x x / 2) / sqrt(2 pi)."""
    twice, square = _cdf2(inner, x), mul(inner, x, x)
    density = exp(inner, Shadow(-square.v / 2, square.e / 2))
    density = mul(inner, density, inner.shadow(1 / math.sqrt(2 * math.pi)))
    return add(inner, Shadow(twice.v / 2, twice.e / 2), mul(inner, x, density))


def _tanh_slope(inner: Call, x: Shadow) -> Shadow:
    """(1 + t) / 2 + x / 2 (1 - t t) sqrt(2 / pi) (1 + 3 0.044715 x x)."""
    t = tanh(inner, _tanh_argument(inner, x))
    right = add(inner, one(), t)
    rest = add(inner, one(), neg(mul(inner, t, t)))
    kappa = mul(inner, constant(3.0), inner.shadow(0.044715))
    bend = add(inner, one(), mul(inner, kappa, mul(inner, x, x)))
    bend = mul(inner, inner.shadow(math.sqrt(2 / math.pi)), bend)
    tail = mul(inner, mul(inner, Shadow(x.v / 2, x.e / 2), rest), bend)
    return add(inner, Shadow(right.v / 2, right.e / 2), tail)
