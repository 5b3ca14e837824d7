"""Rules for + - * /, fused multiply-adds, comparisons and selections.

Every rule is the standard model fl(a op b) = (a op b)(1 + d), |d| <= u (Higham 2002, 2.4), applied to operands that
are themselves off by e_a and e_b, with no term dropped.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivalences import formats
from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arrays import NOTHING, as_array, doubtful, held, numbers, unbounded
from equivalences.rounding.call import Call, rule
from equivalences.rounding.shadows import Shadow


def rounded(call: Call, v: Array, e: Array, roundings: float = 1.0, underflow: bool = True) -> Shadow:
    """A result `v` with error `e` before rounding, after `roundings` relative roundings in the kernel's arithmetic.

    16-bit results get one more, into their storage.  Results that might overflow have no bound.  `underflow`: the
    operation is inexact among subnormals too (sums and differences are not).
    """
    inner, stored = call.arithmetic, call.format
    size = abs(v)
    e = e + roundings * inner.u * (size + e)
    if underflow:
        e = e + inner.eta
    if stored.precision != inner.precision:
        e = e + stored.u * (size + e) + stored.eta / 2
    return Shadow(v, unbounded(e, size + e > stored.max))


def stored(call: Call, tensor: Tensor, x: Shadow) -> Shadow:
    """`x` as `tensor` keeps it: 16-bit tensors round once more."""
    return rounded(call.giving(tensor), *x, roundings=0.0, underflow=False)


def in_storage(call: Call, x: Shadow) -> Shadow:
    """What a kernel has in its registers as it is stored: 16-bit results are rounded once more."""
    return rounded(call, *x, roundings=0.0, underflow=False)


def either(x: Shadow, low: Shadow, high: Shadow) -> Shadow:
    """`low` where x <= 0, `high` where x > 0; both where rounding may decide that, with how far they are apart."""
    v = np.where(x.v > 0, high.v, low.v)
    both = np.maximum(low.e + abs(low.v - v), high.e + abs(high.v - v))
    return Shadow(v, np.where(x.v - x.e > 0, high.e, np.where(x.v + x.e <= 0, low.e, both)))


def infinite(found: Shadow, a: Shadow, b: Shadow, sign: bool = False) -> Shadow:
    """`found`, exact where it is infinite because an operand is, exactly (a mask, the start of a running maximum).

    The other one must have a bound; of a product or a quotient (`sign`) also its sign must be known.
    """
    if np.logical_and.reduce(np.isfinite(found.v), axis=None):  # nearly always: cheap
        return found
    given = endless(a) & (b.e < math.inf) & ((abs(b.v) > b.e) | (not sign))
    given = given | endless(b) & (a.e < math.inf) & ((abs(a.v) > a.e) | (not sign))
    return Shadow(found.v, np.where(given & np.isinf(found.v), 0.0, found.e))


def endless(x: Shadow) -> Array:
    """Where a number is exactly infinite."""
    found: Array = np.isinf(x.v) & (x.e == 0)
    return found


def exact(v: Array, e: Array = NOTHING) -> Shadow:
    """A result that the operation does not round."""
    return Shadow(v, e)


def constant(number: float) -> Shadow:
    """A number that every format holds."""
    return exact(np.array(number))


def one() -> Shadow:
    """The constant 1."""
    return constant(1.0)


def neg(a: Shadow) -> Shadow:
    """-a, exactly."""
    return Shadow(-a.v, a.e)


def product(a: Shadow, b: Shadow) -> Shadow:
    """The product of two shadows, before any rounding: |ab - a'b'| <= |a| e_b + |b| e_a + e_a e_b."""
    return Shadow(a.v * b.v, abs(a.v) * b.e + abs(b.v) * a.e + a.e * b.e)


def quotient(a: Shadow, b: Shadow) -> Shadow:
    """The quotient of two shadows, before any rounding; no bound where the divisor may vanish."""
    v = a.v / b.v
    room = abs(b.v) - b.e
    e = (a.e + abs(v) * b.e) / room
    return Shadow(v, unbounded(e, room <= 0))


def averaged(call: Call, x: Shadow, n: int) -> Shadow:
    """A total divided by the number of its terms."""
    return rounded(call, x.v / n, x.e / n, roundings=call.assume.scalar_division_roundings)


def converted(a: Shadow, source: Tensor, target: Tensor) -> Shadow:
    """What `target` holds of `source`."""
    if not target.is_floating_point():
        if source.is_floating_point() and a.e.any():
            return Shadow(numbers(target), doubtful(a.e > 0))
        return a
    fmt = formats.of(target.dtype)
    size = abs(a.v) + a.e
    if not source.is_floating_point():
        lost = (size > 2.0**fmt.precision) * fmt.u * size  # an integer small enough for the format converts exactly
    elif formats.of(source.dtype).precision > fmt.precision or formats.of(source.dtype).max > fmt.max:
        lost = fmt.u * size + fmt.eta / 2  # bfloat16 to float16 too: of another range
    else:
        return a
    return infinite(Shadow(a.v, unbounded(a.e + lost, size + a.e + lost > fmt.max)), a, a)


def operand(call: Call, x: Any, fmt: Format | None = None) -> Shadow:
    """An operand as the operation takes it in: scalar tensors and integers are converted to its format first."""
    fmt, shadow = fmt or call.format, call.shadow(x)
    if not isinstance(x, Tensor) or x.dtype == torch.bool:
        return shadow
    if x.is_floating_point():
        if x.dim() > 0 or formats.of(x.dtype).precision <= fmt.precision:
            return shadow
        lost = fmt.u * (abs(shadow.v) + shadow.e) + fmt.eta / 2
    else:
        lost = fmt.u * abs(shadow.v) * (abs(shadow.v) > 2.0**fmt.precision)
    e = shadow.e + lost
    return infinite(Shadow(shadow.v, unbounded(e, abs(shadow.v) + e > fmt.max)), shadow, shadow)


def selected(call: Call, x: Any) -> Shadow:
    """An operand that is copied, not computed with: a Python number is rounded to the format that stores it."""
    v, e = operand(call, x)
    if not isinstance(x, Tensor) and call.format.precision < call.arithmetic.precision and math.isfinite(float(v)):
        e = e + abs(held(float(v), call.format.dtype) - v)
    return Shadow(v, e)


def placed(call: Call, places: Any, found: Shadow) -> Shadow:
    """`found`, a result that indices or masks select; no bound if rounding may have decided one of them."""
    return Shadow(found.v, np.full(found.v.shape, math.inf)) if call.doubted(places) else found


def _term(call: Call, x: Any, steps: Format) -> Shadow:
    """An operand of a sum; numbers and wider scalars are converted to the format `steps` first."""
    shadow = operand(call, x, steps)
    if isinstance(x, Tensor):
        return shadow
    off = abs(held(float(x), steps.dtype) - float(x)) if math.isfinite(x) else 0.0
    return Shadow(shadow.v, shadow.e + off)


def _sum(call: Call, left: Any, right: Any, alpha: Any) -> Shadow:
    """left + alpha right: everything but the last sum in the format `steps`.

    In 16 bits on the CPU these are the number alpha and, in the scalar loop, its product.
    """
    steps = call.format if call.assume.alpha_in_storage else call.arithmetic
    a, b = _term(call, left, steps), _term(call, right, steps)
    if abs(float(alpha)) == 1:
        b = Shadow(float(alpha) * b.v, b.e)
    elif alpha:
        v, e = product(b, _term(call, alpha, steps))
        b = Shadow(v, e + steps.u * (abs(v) + e) + steps.eta)
    else:
        b = exact(0 * b.v)
    return infinite(rounded(call, a.v + b.v, a.e + b.e, underflow=False), a, b)


@rule("add")
def _add(call: Call, self: Any, other: Any, alpha: Any = 1) -> Shadow:
    return _sum(call, self, other, alpha)


@rule("sub")
def _sub(call: Call, self: Any, other: Any, alpha: Any = 1) -> Shadow:
    return _sum(call, self, other, -alpha)


@rule("rsub")
def _rsub(call: Call, self: Any, other: Any, alpha: Any = 1) -> Shadow:
    return _sum(call, other, self, -alpha)


@rule("mul")
def _mul(call: Call, self: Any, other: Any) -> Shadow:
    if not isinstance(other, Tensor) and other == -1:
        return neg(call.shadow(self))
    x, y = operand(call, self), operand(call, other)
    v, e = rounded(call, *product(x, y))
    if (v == 0).any():  # a product with an exact zero is one
        none = ((x.v == 0) & (x.e == 0) & np.isfinite(y.e)) | ((y.v == 0) & (y.e == 0) & np.isfinite(x.e))
        e = np.where(none, 0.0, e)
    return infinite(Shadow(v, e), x, y, sign=True)


@rule("div")
def _div(call: Call, self: Any, other: Any, rounding_mode: str | None = None) -> Shadow:
    if rounding_mode:
        raise NotImplementedError("a division with a rounding mode is a step function: no bound")
    # A scalar tensor on the host is a number for every device's kernel.
    number = not isinstance(other, Tensor) or (other.dim() == 0 and other.device.type == "cpu")
    roundings = call.assume.scalar_division_roundings if number else 1.0
    x, y = operand(call, self), operand(call, other)
    return infinite(rounded(call, *quotient(x, y), roundings=roundings), x, y, sign=True)


@rule("reciprocal")
def _reciprocal(call: Call, self: Tensor) -> Shadow:
    return rounded(call, *quotient(one(), call.shadow(self)))


@rule("remainder", "fmod")
def _remainder(call: Call, self: Any, other: Any) -> Shadow:
    # a step function of both operands: bounded for exact ones only
    a, b = call.shadow(self), call.shadow(other)
    e = doubtful((a.e > 0) | (b.e > 0))
    return rounded(call, getattr(np, call.name)(a.v, b.v), e, underflow=False)


@rule("neg")
def _neg(call: Call, self: Tensor) -> Shadow:
    return neg(call.shadow(self))


@rule("abs")
def _abs(call: Call, self: Tensor) -> Shadow:
    a = call.shadow(self)
    return Shadow(abs(a.v), a.e)


@rule("floor", "ceil", "trunc", "fix", "round")
def _whole(call: Call, self: Tensor, decimals: int = 0) -> Shadow:
    """A step function: no bound where rounding may have moved the argument over a step."""
    if decimals:
        raise NotImplementedError("round is followed to whole numbers only")
    x, step = call.shadow(self), {"fix": np.trunc, "round": np.rint}.get(call.name) or getattr(np, call.name)
    return Shadow(step(x.v), doubtful(step(x.v - x.e) != step(x.v + x.e)))


@rule("signbit")
def _signbit(call: Call, self: Tensor) -> Shadow:
    x = call.shadow(self)
    return Shadow(numbers(call.out), doubtful((x.e > 0) & (abs(x.v) <= x.e)))


@rule("isnan", "isinf", "isposinf", "isneginf")
def _no_number(call: Call, self: Tensor) -> Shadow:
    """As it stands there, unless the number has no bound."""
    return Shadow(numbers(call.out), doubtful(np.isinf(call.shadow(self).e)))


@rule("sgn", "sign")
def _sign(call: Call, self: Tensor) -> Shadow:
    a = call.shadow(self)
    return Shadow(np.sign(a.v), doubtful((abs(a.v) <= a.e) & (a.e > 0)))


@rule("addcmul")
def _addcmul(call: Call, self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Shadow:
    # a + value b c, in any order: what the first product loses by underflow is multiplied once more
    a, b, c = operand(call, self), operand(call, tensor1), operand(call, tensor2)
    bc = product(product(b, c), call.shadow(value))
    scale = 1 + np.maximum(abs(b.v) + b.e, abs(c.v) + c.e)
    e = a.e + bc.e + 2 * call.arithmetic.u * (abs(bc.v) + bc.e) + call.arithmetic.eta * scale
    return rounded(call, a.v + bc.v, e, underflow=False)


@rule("addcdiv")
def _addcdiv(call: Call, self: Tensor, tensor1: Tensor, tensor2: Tensor, value: Any) -> Shadow:
    # a + (value b) / c (PointwiseOpsKernel.cpp): what the product loses by underflow is divided by c
    a, b, c = operand(call, self), operand(call, tensor1), operand(call, tensor2)
    bc = quotient(product(call.shadow(value), b), c)
    room = np.maximum(abs(c.v) - c.e, 0.0)
    e = a.e + bc.e + 2 * call.arithmetic.u * (abs(bc.v) + bc.e) + call.arithmetic.eta * (1 + 1 / room)
    return rounded(call, a.v + bc.v, e, underflow=False)


def lerp(call: Call, a: Shadow, b: Shadow, w: Shadow) -> Shadow:
    """a + w (b - a) if |w| < 1/2, else b - (b - a)(1 - w) (Lerp.h): (1 - w) a + w b, and so no sum of its errors."""
    u, low = call.arithmetic.u, abs(w.v) < 0.5
    size = abs(b.v - a.v) + a.e + b.e
    e = abs(1 - w.v) * a.e + abs(w.v) * b.e + w.e * size
    # The difference and the product are rounded, and so is 1 - w; then the sum.
    hu = np.where(low, 2.0, 3.0) * u
    e = e + hu / (1 - hu) * (np.where(low, abs(w.v), abs(1 - w.v)) + w.e) * size + call.arithmetic.eta
    return rounded(call, a.v + w.v * (b.v - a.v), unbounded(e, size > call.arithmetic.max), underflow=False)


@rule("lerp")
def _lerp(call: Call, self: Tensor, end: Tensor, weight: Any) -> Shadow:
    return lerp(call, operand(call, self), operand(call, end), operand(call, weight))


# --- comparisons and selections --------------------------------------------------------------------------------


def _undecided(a: Shadow, b: Shadow) -> Array:
    """inf where rounding may have decided a comparison, else 0: equal exact operands compare as they should."""
    reach = a.e + b.e
    return doubtful((reach > 0) & (abs(a.v - b.v) <= reach))


@rule("eq", "ne", "gt", "ge", "lt", "le")
def _compare(call: Call, self: Tensor, other: Any) -> Shadow:
    common = torch.result_type(self, other)
    steps = formats.of(common) if common.is_floating_point else None
    a = operand(call, self, steps)
    b = operand(call, other, steps) if isinstance(other, Tensor) else _number_in(self, other)
    return Shadow(numbers(call.out), _undecided(a, b))


def _number_in(tensor: Tensor, x: Any) -> Shadow:
    """A number that is compared with a tensor: it is first rounded to the tensor's format."""
    off = abs(held(x, tensor.dtype) - x)
    return Shadow(np.array(float(x)), np.array(0.0 if math.isnan(off) else off))


@rule(
    "bitwise_and", "bitwise_or", "bitwise_not", "logical_and", "logical_or", "logical_not", "logical_xor", "all", "any",
    "bitwise_xor", "bitwise_left_shift", "bitwise_right_shift", "gcd", "lcm",
)  # fmt: skip
def _logical(call: Call, self: Any, other: Any = None) -> Shadow:
    # Any undecided operand leaves the result undecided; reductions spread it over the whole result.
    doubt = [call.shadow(x).e for x in (self, other) if isinstance(x, Tensor)]
    worst = doubt[0] if len(doubt) == 1 else np.maximum(*doubt)
    v = numbers(call.out)
    if v.shape != worst.shape:
        worst = np.full(v.shape, worst.max() if worst.size else 0.0)
    return Shadow(v, worst)


@rule("_is_all_true", "_is_any_true", "is_nonzero", "equal", "allclose", "is_same_size", "_has_same_storage_numel")
def _read(call: Call) -> None:
    """A question that Python asks (argument validation): whatever branch it takes, later operations are followed."""


@rule("_local_scalar_dense")
def _read_number(call: Call, self: Tensor) -> tuple[()]:
    """A number that Python reads is as far off as the tensor that held it, as long as nothing is done to it there."""
    v, e = (part.item() for part in call.shadow(self))
    taken = numbers(self).item()
    off = e + abs(taken - v)
    if self.is_floating_point() and off > 0:
        call.shadows.coefficients.note(abs(taken), off)
    return ()


@rule("where")
def where(call: Call, condition: Tensor, self: Any = None, other: Any = None) -> Shadow:
    if self is None:
        raise NotImplementedError("where(condition) alone returns positions: no bound")
    a, b, mask = operand(call, self), operand(call, other), as_array(condition)
    return Shadow(np.where(mask, a.v, b.v), np.where(mask, a.e, b.e) + call.shadow(condition).e)


@rule("maximum", "fmax")
def _maximum(call: Call, self: Tensor, other: Any) -> Shadow:
    a, b = operand(call, self), operand(call, other)
    return Shadow(np.maximum(a.v, b.v), np.maximum(a.e, b.e))


@rule("minimum", "fmin")
def _minimum(call: Call, self: Tensor, other: Any) -> Shadow:
    a, b = operand(call, self), operand(call, other)
    return Shadow(np.minimum(a.v, b.v), np.maximum(a.e, b.e))


def clamped(a: Shadow, low: Shadow, high: Shadow) -> Shadow:
    """min(max(a, low), high): one of the three is selected, and none moves the result by more than itself."""
    raised = np.maximum(a.v, low.v)
    low_reached, high_reached = a.v - a.e <= low.v + low.e, raised + np.maximum(a.e, low.e) >= high.v - high.e
    kept = (a.v + a.e >= low.v - low.e) & (a.v - a.e <= high.v + high.e) | ~np.isfinite(a.e)
    e = np.where(kept, a.e, 0.0)
    e = np.maximum(e, np.where(low_reached, low.e, 0.0))
    e = np.maximum(e, np.where(high_reached, high.e, 0.0))
    return Shadow(np.minimum(raised, high.v), e)


@rule("clamp", "clamp_min", "clamp_max")
def _clamp(call: Call, self: Tensor, min: Any = None, max: Any = None) -> Shadow:
    low, high = (selected(call, none if x is None else x) for x, none in ((min, -math.inf), (max, math.inf)))
    return clamped(call.shadow(self), low, high)
