"""Rules for powers, for logarithms to other bases and for the reciprocal square root.

The exponents that a kernel treats on their own are products, roots and quotients there (aten/.../cpu/PowKernel.cpp);
any other one is the function pow of the mathematical library.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.arrays import doubtful, numbers, unbounded
from equivalences.rounding.call import Call, in_registers, rule
from equivalences.rounding.rules.arithmetic import one, operand, product, quotient, rounded, selected, stored
from equivalences.rounding.rules.elementary import div, growth, log_change, sqrt, vanished
from equivalences.rounding.shadows import Shadow


@rule("exp2", "special_exp2")
def _exp2(call: Call, self: Tensor) -> Shadow:
    """2**x: an error of x counts as that of x log(2) counts in exp."""
    x = operand(call, self)
    v = np.exp2(x.v)
    moved = np.exp2(x.v + x.e) * -np.expm1(-x.e * math.log(2))
    return vanished(rounded(call, v, moved, call.assume.relative("exp2", 1.0)), x)


@rule("log2", "log10")
def _log_to_base(call: Call, self: Tensor) -> Shadow:
    """log(x) / log(base), as one function of the library; no bound where x may be zero."""
    x = operand(call, self)
    v = getattr(np, call.name)(x.v)
    moved = unbounded(log_change(x.e / x.v), x.v <= 0) / math.log(2 if call.name == "log2" else 10)
    return rounded(call, v, moved, call.assume.relative(call.name, 1.0))


@rule("rsqrt")
def _rsqrt(call: Call, self: Tensor) -> Shadow:
    return rsqrt(call, operand(call, self))


def rsqrt(call: Call, x: Shadow) -> Shadow:
    """1 / sqrt(x), rounded to storage; no bound where x may be zero."""
    if call.assume.steps_in_storage:
        return div(call, one(), sqrt(call, x))
    v = 1 / np.sqrt(x.v)
    moved = v * growth(log_change(x.e / x.v) / 2)
    return rounded(call, v, unbounded(moved, x.v <= 0), call.assume.relative("rsqrt", 1.0))


@rule("pow")
def power(call: Call, self: Any, exponent: Any) -> Shadow:
    base, power = (
        operand(call, each) if isinstance(each, Tensor) else selected(call, each) for each in (self, exponent)
    )
    if not call.out.is_floating_point():
        found = numbers(call.out)
        return Shadow(found, np.broadcast_to(doubtful((base.e > 0) | (power.e > 0)), found.shape))
    if not isinstance(exponent, Tensor) and power.e == 0 and exponent in _KNOWN:
        return _KNOWN[exponent](call, base)
    may_turn = base.v - base.e < 0
    if isinstance(self, Tensor) and not call.func._schema.is_mutable:  # else it has been written over
        may_turn = may_turn & (numbers(self) < 0)
    return any_power(call, base, power, may_turn)


def _copied(call: Call, x: Shadow) -> Shadow:
    return x


def _square(call: Call, x: Shadow) -> Shadow:
    return rounded(call, *product(x, x))


def _cube(call: Call, x: Shadow) -> Shadow:
    """Product after product, each stored (base * base * base)."""
    return rounded(call, *product(_square(call, x), x))


def _reciprocal(call: Call, x: Shadow) -> Shadow:
    return rounded(call, *quotient(one(), x))


def _reciprocal_square(call: Call, x: Shadow) -> Shadow:
    """1 / (x x), the product stored as well."""
    if call.assume.steps_in_storage:
        return div(call, one(), _square(call, x))
    inner = in_registers(call)
    return stored(call, call.out, div(inner, one(), _square(inner, x)))


_KNOWN = {
    1: _copied, 2: _square, 3: _cube, 0.5: sqrt, -0.5: rsqrt, -1: _reciprocal, -2: _reciprocal_square,
}  # fmt: skip


def any_power(call: Call, x: Shadow, p: Shadow, may_turn: Array) -> Shadow:
    """x**p by the library's pow, rounded to storage; no bound at a pole.

    may_turn   where rounding may have made x negative: there is no number then, unless p is an integer.
    """
    whole = (p.e == 0) & (p.v == np.rint(p.v))
    v, size = np.power(x.v, p.v), np.power(abs(x.v), p.v)
    # x and p move log |x|**p by (|p| + e_p) (-log(1 - r)) + e_p |log |x||, r the relative error of x.
    turned = np.where(p.e > 0, p.e * abs(np.log(abs(x.v))), 0.0)
    near = size * growth((abs(p.v) + p.e) * log_change(x.e / abs(x.v)) + turned)
    # Where x may be zero, |x|**p lies between zero and the power of the largest |x|.
    largest = abs(x.v) + x.e
    top = np.maximum(np.power(largest, p.v - p.e), np.power(largest, p.v + p.e))
    far = np.where(whole & (p.v % 2 == 1), size + top, np.maximum(size, top - size))
    moved = np.where(x.e < abs(x.v), near, unbounded(far, p.v - p.e <= 0))
    moved = unbounded(moved, may_turn & ~whole)
    e = rounded(call, v, moved, call.assume.relative("pow", 1.0)).e
    nothing = (x.v == 0) & (x.e == 0) & (p.v - p.e > 0)
    always = ((p.v == 0) & (p.e == 0)) | ((x.v == 1) & (x.e == 0))  # C17, F.10.4.4: 1 even of a nan
    return Shadow(np.where(always, 1.0, v), np.where(nothing | always, 0.0, e))
