"""Rules for piecewise linear activations and dropout, and for their backward kernels."""

from __future__ import annotations

import numpy as np
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.arrays import as_array, doubtful
from equivalences.rounding.call import Call, rule
from equivalences.rounding.rules.arithmetic import clamped, neg, one, product, quotient, rounded, selected
from equivalences.rounding.shadows import Shadow

# --- piecewise linear activations ------------------------------------------------------------------------------


@rule("relu")
def _relu(call: Call, self: Tensor) -> Shadow:
    x = call.shadow(self)
    return Shadow(np.maximum(x.v, 0.0), np.where(x.v + x.e <= 0, 0.0, x.e))


def _above(call: Call, x: Shadow, limit: float) -> tuple[Array, Array]:
    """Where x > limit, and inf where rounding, of x or of the limit as it is stored, may decide that."""
    v, e = selected(call, limit)
    return x.v > v, doubtful((x.e + e > 0) & (abs(x.v - v) <= x.e + e))


@rule("threshold")
def _threshold(call: Call, self: Tensor, threshold: float, value: float) -> Shadow:
    x, below = call.shadow(self), selected(call, value)
    on, doubt = _above(call, x, threshold)
    return Shadow(np.where(on, x.v, below.v), np.where(on, x.e, below.e) + doubt)


@rule("threshold_backward")
def _threshold_backward(call: Call, grad_output: Tensor, self: Tensor, threshold: float) -> Shadow:
    g, x = call.shadow(grad_output), call.shadow(self)
    on, doubt = _above(call, x, threshold)
    return Shadow(g.v * on, g.e * on + doubt)


@rule("hardtanh")
def _hardtanh(call: Call, self: Tensor, min_val: float, max_val: float) -> Shadow:
    return clamped(call.shadow(self), selected(call, min_val), selected(call, max_val))


@rule("hardtanh_backward")
def _hardtanh_backward(call: Call, grad_output: Tensor, self: Tensor, min_val: float, max_val: float) -> Shadow:
    g, x = call.shadow(grad_output), call.shadow(self)
    (above, doubt), (below, other) = _above(call, x, min_val), _above(call, neg(x), -max_val)
    on = above & below
    return Shadow(g.v * on, g.e * on + doubt + other)


@rule("leaky_relu")
def _leaky_relu(call: Call, self: Tensor, negative_slope: float) -> Shadow:
    x = call.shadow(self)
    low = rounded(call, *product(x, call.shadow(negative_slope)))
    negative = x.v <= 0
    return Shadow(np.where(negative, low.v, x.v), np.where(x.v + x.e <= 0, low.e, np.maximum(x.e, low.e * negative)))


@rule("leaky_relu_backward")
def _leaky_relu_backward(call: Call, grad_output: Tensor, self: Tensor, negative_slope: float) -> Shadow:
    g, x = call.shadow(grad_output), call.shadow(self)
    low = rounded(call, *product(g, call.shadow(negative_slope)))
    doubt = doubtful((x.e > 0) & (abs(x.v) <= x.e))
    return Shadow(np.where(x.v > 0, g.v, low.v), np.where(x.v > 0, g.e, low.e) + doubt)


# --- dropout, as accelerators have it: one operation -----------------------------------------------------------


@rule("native_dropout")
def _native_dropout(call: Call, input: Tensor, p: float, train: bool | None) -> list[Shadow | None]:
    """x mask / (1 - p): the share kept, its reciprocal and the product are rounded (cuda/Dropout.cu)."""
    x, dropped, u = call.shadow(input), call.shadow(p), call.arithmetic.u
    if not train:
        return [x, None]
    share = Shadow(1 - dropped.v, dropped.e + u * (1 - dropped.v + dropped.e))
    kept = as_array(call.out[1])
    v, e = rounded(call, *product(x, quotient(one(), share)), roundings=2.0)
    return [Shadow(np.where(kept, v, 0.0), np.where(kept, e, 0.0)), None]


@rule("native_dropout_backward")
def _native_dropout_backward(call: Call, grad_output: Tensor, mask: Tensor, scale: float) -> Shadow:
    """g mask scale, the scale being 1 / (1 - p)."""
    g, kept = call.shadow(grad_output), as_array(mask)
    v, e = rounded(call, *product(g, call.shadow(scale)))
    return Shadow(np.where(kept, v, 0.0), np.where(kept, e, 0.0))
