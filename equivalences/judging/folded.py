"""A grant: the exponential as exp2 with the constant log2(e) folded in, which is what kernels for a GPU call exp.

exp(x) is computed as exp2(x c), c = log2(e) rounded: the product is off by u, and c by up to u (0.22 u in float32).
So the exponent, by the natural logarithm, is off by their sum times |x| before exp2 begins, and the exponential by that
relative error.  It is another condition than exp has, whose argument is exact.

x is a *shifted* logit (by the row's maximum, or by log-sum-exp), or minus the size of one.  What is granted ends at
|x| = log(largest number), 88.7 in float32, since the exponential of anything further below is no normal number: at most
1.22 * 88.7 = 109 units of roundoff, in the tail of a row.  Not granted is exp2(z c - m c), whose products are of the
whole logits: its error is that of a common offset.

Each rule here is the registered one with that error beside it: `FOLDED` replaces them while a reference is followed.
Sources: NVIDIA PTX ISA, ex2.approx; CUDA C++ Programming Guide, intrinsics, __expf; Triton compiles exp and exp2 so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arrays import fold, held, spread
from equivalences.rounding.call import RULES, Call, Rule
from equivalences.rounding.rules.arithmetic import rounded
from equivalences.rounding.rules.elementary import growth, logistic
from equivalences.rounding.rules.reductions import Reduction
from equivalences.rounding.rules.softmax import log_of_sum
from equivalences.rounding.shadows import Shadow

LOG2_E = 1 / math.log(2)


def _folded(fmt: Format) -> float:
    """How far an exponent is off, relative to it: by the product, and by the constant as the format holds it."""
    constant = abs(held(LOG2_E, fmt.dtype) - LOG2_E) / LOG2_E if fmt.precision < 53 else fmt.u
    return fmt.u + constant


def _lost(call: Call, exponent: Array) -> Array:
    """The relative error of an exponential of that exponent; beyond the largest, none is a normal number."""
    return growth(_folded(call.arithmetic) * np.minimum(abs(exponent), math.log(call.arithmetic.max)))


def _wider(found: Shadow, more: Array) -> Shadow:
    return Shadow(found.v, found.e + more)


def _rows(call: Call) -> tuple[Array, Array, Array]:
    """Shares, the relative error of each exponential, and of their sum, along the dimension of the call (kept)."""
    x, dim = call.shadow(call.arguments["self"]).v, call.arguments["dim"]
    dim = dim[0] if isinstance(dim, (list, tuple)) else dim
    gap = fold(np.maximum, x, dim) - x
    small = np.exp(-gap)
    share, lost = small / fold(np.add, small, dim), _lost(call, gap)
    return share, lost, fold(np.add, share * lost, dim)


def _softmax(call: Call, found: Shadow) -> Shadow:
    share, lost, of_sum = _rows(call)
    return _wider(found, share * (lost + of_sum))


def _log_softmax(call: Call, found: Shadow) -> Shadow:
    return _wider(found, spread(_rows(call)[2], found.v.shape))


def _logsumexp(call: Call, found: Shadow) -> Shadow:
    return _wider(found, _rows(call)[2].reshape(np.shape(found.v)))


def _log_softmax_backward(call: Call, found: Shadow) -> Shadow:
    """A kernel that keeps the logits makes the shares again: exp2 of a shifted logit, over their sum.

    The reference makes them of the logarithm that it has stored: the larger of both is granted.
    """
    g, out, dim = (
        call.shadow(call.arguments["grad_output"]),
        call.shadow(call.arguments["output"]).v,
        call.arguments["dim"],
    )
    row = log_of_sum(call, Shadow(out, np.zeros_like(out)), dim, call.arithmetic)
    lost = _lost(call, row.gap)
    relative = row.exp_error + lost + row.sum_error + fold(np.add, row.share * lost, dim) + call.arithmetic.u
    total, u = abs(fold(np.add, spread(g.v, out.shape), dim)), call.arithmetic.u
    term = row.share * total
    e = term * growth(relative) + u * (term + abs(found.v)) + 2 * call.arithmetic.eta
    kept = rounded(call, found.v, e + g.e, underflow=False)
    return Shadow(found.v, np.where(np.isfinite(kept.e), np.fmax(found.e, kept.e), found.e))


def _exp(call: Call, found: Shadow) -> Shadow:
    exponent = call.shadow(call.arguments["self"]).v
    return _wider(found, found.v * _lost(call, exponent))


def _sigmoid(call: Call, found: Shadow) -> Shadow:
    z = call.shadow(call.arguments["self"]).v
    return _wider(found, logistic(z) * logistic(-z) * _lost(call, z))


def _log_sigmoid(call: Call, z: Array) -> Array:
    """How far log(1 + exp(-|z|)) is off."""
    return logistic(-abs(z)) * _lost(call, z)


def _log_sigmoid_forward(call: Call, found: list[Shadow | None]) -> list[Shadow | None]:
    first, *rest = found
    assert first is not None
    return [_wider(first, _log_sigmoid(call, call.shadow(call.arguments["self"]).v)), *rest]


def _softplus(call: Call, found: Shadow) -> Shadow:
    return _wider(found, _log_sigmoid(call, call.shadow(call.arguments["self"]).v))


def _binary_cross_entropy_with_logits(call: Call, found: Shadow) -> Shadow:
    given = call.arguments
    z, t = call.shadow(given["self"]).v, call.shadow(given["target"]).v
    more = _log_sigmoid(call, z)
    if given["pos_weight"] is not None:
        more = more * (1 + (call.shadow(given["pos_weight"]).v - 1) * t)
    if given["weight"] is not None:
        more = more * call.shadow(given["weight"]).v
    if given["reduction"] == Reduction.NONE:
        return _wider(found, abs(more))
    return _wider(found, abs(more).sum() / (more.size if given["reduction"] == Reduction.MEAN else 1))


def _beside(more: Any, rule: Rule, call: Call) -> Any:
    return more(call, rule(call))


FOLDED: Mapping[str, Rule] = {
    name: partial(_beside, more, RULES[name])
    for name, more in {
        "exp": _exp,
        "_softmax": _softmax,
        "_log_softmax": _log_softmax,
        "logsumexp": _logsumexp,
        "_log_softmax_backward_data": _log_softmax_backward,
        "sigmoid": _sigmoid,
        "log_sigmoid_forward": _log_sigmoid_forward,
        "softplus": _softplus,
        "binary_cross_entropy_with_logits": _binary_cross_entropy_with_logits,
    }.items()
}
