"""Rules for piecewise linear activations and dropout, and for their backward kernels."""

from __future__ import annotations

import numpy as np

from equivalences.model import Array
from equivalences.rounding.arithmetic import clamped, product, quotient, rounded, selected
from equivalences.rounding.arrays import as_array, doubtful
from equivalences.rounding.elementary import neg, one
from equivalences.rounding.tracker import Call, Shadow, rule

# --- piecewise linear activations ------------------------------------------------------------------------------


@rule("relu")
def _relu(call: Call) -> Shadow:
    x = call.shadow(call.args[0])
    return Shadow(np.maximum(x.v, 0.0), np.where(x.v + x.e <= 0, 0.0, x.e))


def _above(call: Call, x: Shadow, limit: float) -> tuple[Array, Array]:
    """Where x > limit, and inf where rounding, of x or of the limit as it is stored, may decide that."""
    v, e = selected(call, limit)
    return x.v > v, doubtful((x.e + e > 0) & (abs(x.v - v) <= x.e + e))


@rule("threshold")
def _threshold(call: Call) -> Shadow:
    x, value = call.shadow(call.args[0]), selected(call, call.args[2])
    on, doubt = _above(call, x, call.args[1])
    return Shadow(np.where(on, x.v, value.v), np.where(on, x.e, value.e) + doubt)


@rule("threshold_backward")
def _threshold_backward(call: Call) -> Shadow:
    g, x = call.shadow(call.args[0]), call.shadow(call.args[1])
    on, doubt = _above(call, x, call.args[2])
    return Shadow(g.v * on, g.e * on + doubt)


@rule("hardtanh")
def _hardtanh(call: Call) -> Shadow:
    low, high = selected(call, call.arg(1, "min_val", -1)), selected(call, call.arg(2, "max_val", 1))
    return clamped(call.shadow(call.args[0]), low, high)


@rule("hardtanh_backward")
def _hardtanh_backward(call: Call) -> Shadow:
    g, x = call.shadow(call.args[0]), call.shadow(call.args[1])
    (above, doubt), (below, other) = _above(call, x, call.args[2]), _above(call, neg(x), -call.args[3])
    on = above & below
    return Shadow(g.v * on, g.e * on + doubt + other)


@rule("leaky_relu")
def _leaky_relu(call: Call) -> Shadow:
    x = call.shadow(call.args[0])
    slope = call.shadow(call.arg(1, "negative_slope", 0.01))
    low = rounded(call, *product(x, slope))
    negative = x.v <= 0
    return Shadow(np.where(negative, low.v, x.v), np.where(x.v + x.e <= 0, low.e, np.maximum(x.e, low.e * negative)))


@rule("leaky_relu_backward")
def _leaky_relu_backward(call: Call) -> Shadow:
    g, x = call.shadow(call.args[0]), call.shadow(call.args[1])
    low = rounded(call, *product(g, call.shadow(call.args[2])))
    doubt = doubtful((x.e > 0) & (abs(x.v) <= x.e))
    return Shadow(np.where(x.v > 0, g.v, low.v), np.where(x.v > 0, g.e, low.e) + doubt)


# --- dropout, as accelerators have it: one operation -----------------------------------------------------------


@rule("native_dropout")
def _native_dropout(call: Call) -> list[Shadow | None]:
    """x mask / (1 - p): the share kept, its reciprocal and the product are rounded (cuda/Dropout.cu)."""
    x, p, u = call.shadow(call.args[0]), call.shadow(call.args[1]), call.arithmetic.u
    if not call.arg(2, "train", True):
        return [x, None]
    share = Shadow(1 - p.v, p.e + u * (1 - p.v + p.e))
    kept = as_array(call.out[1])
    v, e = rounded(call, *product(x, quotient(one(), share)), roundings=2.0)
    return [Shadow(np.where(kept, v, 0.0), np.where(kept, e, 0.0)), None]


@rule("native_dropout_backward")
def _native_dropout_backward(call: Call) -> Shadow:
    """g mask scale, the scale being 1 / (1 - p)."""
    g, kept = call.shadow(call.args[0]), as_array(call.args[1])
    v, e = rounded(call, *product(g, call.shadow(call.args[2])))
    return Shadow(np.where(kept, v, 0.0), np.where(kept, e, 0.0))
