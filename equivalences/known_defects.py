"""Known defects of PyTorch: data.  Each names the operation, what it really does, and a witness that must still fail.

`as_is` is the operation's rule as the kernel behaves, so that the gate stays sharp beside a defect: an error beyond
even that is a failure.  An entry whose witness no longer fails is to be deleted (tests/test_known_defects.py says so).
"""

from __future__ import annotations

import numpy as np

from equivalences.model import KnownDefect, Problem
from equivalences.rounding.arithmetic import rounded
from equivalences.rounding.elementary import add, mul, neg, one
from equivalences.rounding.fused import log_of_sum
from equivalences.rounding.tracker import RULES, Call, Shadow


def _log_softmax_in_storage(call: Call) -> Shadow:
    """Along the last dimension, the sum of exponentials and its logarithm are rounded to the 16-bit format."""
    dim = call.args[1] % call.out.dim()
    if dim != call.out.dim() - 1:
        shadow = RULES["_log_softmax"](call)
        assert isinstance(shadow, Shadow)
        return shadow
    x = call.shadow(call.args[0])
    row = log_of_sum(call, x, dim, call.format)
    return rounded(call, -row.gap - row.log, x.e + row.moved + call.arithmetic.u * row.gap + row.log_e, underflow=False)


def _softmax_rounds_exponentials(call: Call) -> Shadow:
    """Along a dimension that is not the last, the scalar tail stores exp(x - max) in the 16-bit format, then divides."""
    shadow = RULES["_softmax"](call)
    assert isinstance(shadow, Shadow)
    if call.args[1] % call.out.dim() == call.out.dim() - 1:
        return shadow
    u, eta = call.format.u, call.format.eta
    return Shadow(shadow.v, shadow.e + (1 + u) * (u * (shadow.v + shadow.e) + eta))


def _sigmoid_backward_in_storage(call: Call) -> Shadow:
    """grad * (1 - y) * y with every step rounded to float16; in bfloat16 the same kernel computes in float32."""
    g, y = call.shadow(call.args[0]), call.shadow(call.args[1])
    return mul(call, mul(call, g, add(call, one(), neg(y))), y)


def _clamp_moves_its_input(call: Call) -> Shadow:
    """What is clamped was never meant to be: it counts as an error, of the gradient's mask as well."""
    x, clamped = call.shadow(call.args[0]), RULES["clamp"](call)
    moved = Shadow(x.v, x.e + clamped.e + (clamped.v - x.v).abs())
    call.tracker.write(call.args[0], moved)
    return moved


KNOWN_DEFECTS = (
    KnownDefect(
        name="log_softmax-16bit-sum",
        operation="_log_softmax",
        formats=("bfloat16", "float16"),
        as_is=_log_softmax_in_storage,
        identity="log_softmax",
        form="F.log_softmax(z, dim)",
        layout="contiguous",
        witness=Problem("bfloat16", {"z": np.array([[0.0, -6.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension last: the sum of exponentials and its log are rounded to 16 bits before they are used",
        link="https://github.com/pytorch/pytorch/issues/113708",
        seen=("2.13.0", "2.14.1"),
    ),
    KnownDefect(
        name="softmax-16bit-tail",
        operation="_softmax",
        formats=("bfloat16", "float16"),
        as_is=_softmax_rounds_exponentials,
        identity="softmax",
        form="F.softmax(z, dim)",
        layout="inner",
        witness=Problem("bfloat16", {"z": np.array([[-161.0, -162.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension not last: rows in the scalar tail of the kernel round exp(x - max) to 16 bits, then divide",
        link="",
        seen=("2.13.0", "2.14.1"),
    ),
    KnownDefect(
        name="sigmoid-backward-float16-steps",
        operation="sigmoid_backward",
        formats=("float16",),
        as_is=_sigmoid_backward_in_storage,
        identity="sigmoid",
        form="torch.sigmoid(z)",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([-0.25]), "g": np.array([1.0625])}),
        why="float16: 1 - y and g (1 - y) are rounded to storage; bfloat16 and tanh's backward compute in float32",
        link="",
        seen=("2.13.0", "2.14.1"),
    ),
    KnownDefect(
        name="distributions-clamp-probabilities",
        operation="clamp",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=_clamp_moves_its_input,
        identity="bernoulli_nll",
        form="-torch.distributions.Bernoulli(p).log_prob(t)",
        layout="contiguous",
        witness=Problem("float32", {"p": np.array([2.0**-24]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="torch.distributions moves probabilities into [eps, 1 - eps] before the logarithm: 15.94 instead of 16.64",
        link="https://github.com/pytorch/pytorch/issues/186825",
        seen=("2.13.0", "2.14.1"),
    ),
)
