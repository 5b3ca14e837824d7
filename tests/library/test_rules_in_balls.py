"""Rounding rules of elementwise kernels against balls: every number lies within its bound, and the bounds are sharp.

Each case is PyTorch's code and the same function of balls (200 bits), on drawn numbers and on those where kernels
break: zeros, corners, both ends of the range.  Once they are off, and the analysis is told by how much.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.formats import FORMATS
from equivalences.rounding import Shadow, Tracker
from equivalences.rounding.arrays import numbers

arb = flint.arb
ATEN: Any = torch.ops.aten
SHARP = 0.03  # of its bound at least is seen of each rule
Ball = Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """Code of (x) or (g, x), the same of balls, and where it is asked.

    low, high  the range of x.
    formats    those in which PyTorch's kernel does what it documents (all, but for findings).
    dense      whether that holds for numbers adjacent in memory, too.
    """

    code: Callable[..., Tensor]
    ball: Ball
    low: float = -math.inf
    high: float = math.inf
    formats: tuple[str, ...] = tuple(FORMATS)
    dense: bool = True


def sigmoid(x: Any) -> Any:
    return 1 / (1 + (-x).exp())


def softplus(x: Any) -> Any:
    return x.exp().log1p()


def cdf(x: Any) -> Any:
    return (-x / arb(2).sqrt()).erfc() / 2


def tanh_argument(x: Any) -> Any:
    return (2 / arb.pi()).sqrt() * (x + arb("0.044715") * x**3)


def tanh_slope(x: Any) -> Any:
    t = tanh_argument(x).tanh()
    bend = (2 / arb.pi()).sqrt() * (1 + 3 * arb("0.044715") * x**2)
    return (1 + t) / 2 + x / 2 * (1 - t * t) * bend


def normal_slope(x: Any) -> Any:
    return cdf(x) + x * (-x * x / 2).exp() / (2 * arb.pi()).sqrt()


def mish_slope(x: Any) -> Any:
    t = softplus(x).tanh()
    return t + x * sigmoid(x) * (1 - t * t)


def elu(x: Any, a: float = 1.0, s: float = 1.0, t: float = 1.0) -> Any:
    return arb(s) * x if x >= 0 else arb(a) * arb(s) * ((x * arb(t)).exp() - 1)


def elu_slope(x: Any, a: float, s: float, t: float) -> Any:
    return arb(s) if x > 0 else arb(a) * arb(s) * arb(t) * (x * arb(t)).exp()


def relu6(x: Any) -> Any:
    return min(max(x, arb(0)), arb(6))


def power(p: float) -> Ball:
    return lambda x: arb(0) if x == 0 else x ** arb(p)


def shrunk(x: Any, width: float) -> Any:
    return arb(0) if abs(x) <= width else x - width if x > 0 else x + width


POSITIVE = 2.0**-140
A, S, T = 0.7, 1.3, 0.9
SELU = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946

CASES: dict[str, Case] = {
    "exp2": Case(torch.exp2, lambda x: arb(2) ** x),
    "log2": Case(torch.log2, lambda x: x.log() / arb(2).log(), POSITIVE),
    "log10": Case(torch.log10, lambda x: x.log() / arb(10).log(), POSITIVE),
    "rsqrt": Case(torch.rsqrt, lambda x: 1 / x.sqrt(), POSITIVE),
    **{f"power {p}": Case(lambda x, p=p: x**p, power(p), 0.0) for p in (2.5, 0.3, 1.5, 7, 4)},
    **{f"power {p}": Case(lambda x, p=p: x**p, power(p), POSITIVE) for p in (-0.5, -1, -2, -1.7)},
    **{f"power {p}, of any sign": Case(lambda x, p=p: x**p, lambda x, p=p: x**p) for p in (2, 3, 5)},
    "a power of 2": Case(lambda x: 2.0**x, lambda x: arb(2) ** x),
    "a power of 0.3": Case(lambda x: 0.3**x, lambda x: arb(0.3) ** x, -50.0),
    "erf": Case(torch.erf, lambda x: x.erf()),
    "erfc": Case(torch.erfc, lambda x: x.erfc()),
    "sin": Case(torch.sin, lambda x: x.sin(), -1e4, 1e4),
    "cos": Case(torch.cos, lambda x: x.cos(), -1e4, 1e4),
    "silu": Case(F.silu, lambda x: x * sigmoid(x)),
    "mish": Case(F.mish, lambda x: x * softplus(x).tanh()),
    # Adjacent numbers of float32 go to oneDNN, whose erf is off by 7e-7.
    "gelu": Case(F.gelu, lambda x: x * cdf(x), dense=False),
    "gelu by tanh": Case(
        lambda x: F.gelu(x, approximate="tanh"), lambda x: x / 2 * (1 + tanh_argument(x).tanh()), -20.0, 20.0
    ),
    "elu": Case(lambda x: F.elu(x, A), lambda x: elu(x, A)),
    "selu": Case(F.selu, lambda x: elu(x, *SELU)),
    "celu": Case(lambda x: F.celu(x, A), lambda x: elu(x, A, 1.0, 1 / A)),
    "hardsigmoid": Case(F.hardsigmoid, lambda x: relu6(x + 3) / 6),
    "hardswish": Case(F.hardswish, lambda x: x * relu6(x + 3) / 6),
    "softsign": Case(F.softsign, lambda x: x / (1 + abs(x))),
    "softshrink": Case(lambda x: F.softshrink(x, 0.5), lambda x: shrunk(x, 0.5)),
    "prelu": Case(lambda x: F.prelu(x, x.new_full((1,), 0.25)), lambda x: x if x > 0 else x / 4),
    "entropy": Case(torch.special.entr, lambda x: arb(0) if x == 0 else -x * x.log(), 0.0),
    "silu, backward": Case(ATEN.silu_backward, lambda g, x: g * sigmoid(x) * (1 + x * (1 - sigmoid(x)))),
    "mish, backward": Case(ATEN.mish_backward, lambda g, x: g * mish_slope(x)),
    "gelu, backward": Case(ATEN.gelu_backward, lambda g, x: g * normal_slope(x)),
    "gelu by tanh, backward": Case(
        lambda g, x: ATEN.gelu_backward(g, x, approximate="tanh"), lambda g, x: g * tanh_slope(x), -20.0, 20.0
    ),
    "elu, backward": Case(lambda g, x: ATEN.elu_backward(g, A, S, T, False, x), lambda g, x: g * elu_slope(x, A, S, T)),
    # In float64 the kernel multiplies by 1 / 6 of float32, in 16 bits of glu it loses 1 - s.
    "hardsigmoid, backward": Case(
        ATEN.hardsigmoid_backward, lambda g, x: g / 6 if abs(x) < 3 else arb(0), formats=tuple(FORMATS)[1:]
    ),
    "hardswish, backward": Case(
        ATEN.hardswish_backward, lambda g, x: arb(0) if x <= -3 else g if x >= 3 else g * (x / 3 + arb(0.5))
    ),
    "logit, backward": Case(lambda g, x: ATEN.logit_backward(g, x, None), lambda g, x: g / (x * (1 - x)), 0.01, 0.99),
    "glu": Case(lambda g, x: F.glu(torch.cat((g, x))), lambda g, x: g * sigmoid(x)),
    "glu, backward": Case(
        lambda g, x: ATEN.glu_backward(g, torch.cat((torch.ones_like(x), x)), 0)[len(x) :],
        lambda g, x: g * sigmoid(x) * (1 - sigmoid(x)),
        formats=tuple(FORMATS)[:2],
    ),
    "logaddexp2": Case(torch.logaddexp2, lambda g, x: (arb(2) ** g + arb(2) ** x).log() / arb(2).log()),
    "a tensor's power": Case(lambda g, x: x**g, lambda g, x: x**g, POSITIVE),
}


def drawn(case: Case, dtype: torch.dtype) -> Tensor:
    """Numbers of all sizes that the format has, corners and neighbours of them, in the case's range."""
    draw = torch.Generator().manual_seed(0)
    some = torch.randn(60, generator=draw, dtype=torch.float64)
    most = math.log2(torch.finfo(dtype).max)
    sizes = torch.exp2(torch.linspace(-min(most, 100), min(most, 100), 20, dtype=torch.float64))
    corners = torch.tensor([0.0, 1.0, 3.0, 6.0, 0.5, 20.0, 88.0, 2.0**-24, 1 + 2.0**-7], dtype=torch.float64)
    x = torch.cat((some, 3 * some[:40], 30 * some[:20], sizes, corners, -corners, -sizes)).to(dtype)
    return x[(x.double() >= case.low) & (x.double() <= case.high)]


def seen(got: np.ndarray[Any, Any], exact: list[Any], e: np.ndarray[Any, Any]) -> float:
    """The largest part of a bound that an error takes; more than 1 where one is beyond its bound."""
    worst = 0.0
    for a, b, bound in zip(got.ravel().tolist(), exact, np.broadcast_to(e, got.shape).ravel().tolist(), strict=True):
        if math.isinf(bound):
            continue
        off = abs(arb(a) - b).upper()
        worst = max(worst, float(off / bound) if bound else math.inf if off > 0 else 0.0)
    return worst


def declared(tracker: Tracker, exact: Tensor, off: float, gap: bool) -> Tensor:
    """A tensor whose numbers are `off` the exact ones, relatively, by none, half or all of it; the analysis is told."""
    moved = (exact.double() * (1 - off * (torch.arange(len(exact)) % 3 / 2))).to(exact.dtype)
    laid = torch.stack((moved, moved), 1)[:, 0] if gap else moved
    tracker.write(laid, Shadow(numbers(exact), abs(numbers(moved) - numbers(exact))))
    return laid


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_keeps_within_its_bound_and_uses_it(name: str) -> None:
    case, largest = CASES[name], 0.0
    two = case.ball.__code__.co_argcount > 1 and case.ball.__code__.co_varnames[1] == "x"
    for fmt in case.formats:
        dtype = FORMATS[fmt].dtype
        x = drawn(case, dtype)
        g = torch.randn(len(x), generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(dtype)
        inputs = (g, x) if two else (x,)
        with flint.ctx.workprec(200):
            balls = [[arb(a) for a in each.double().tolist()] for each in inputs]
            exact = [case.ball(*some) for some in zip(*balls, strict=True)]
        for gap, off in ((False, 0.0), (True, 0.0), (True, 64 * FORMATS[fmt].u)):
            if not gap and not case.dense:
                continue
            tracker = Tracker()
            taken = [declared(tracker, each, off, gap) for each in inputs]
            with tracker:
                got = case.code(*taken)
            _, e = tracker.shadow(got)
            with flint.ctx.workprec(200):
                part = seen(numbers(got), exact, e)
            assert part <= 1, (fmt, gap, off, part)
            assert np.isfinite(e).mean() > 0.4, (fmt, gap, off)
            largest = max(largest, part)
    assert largest >= SHARP


@pytest.mark.parametrize(
    ("name", "ball"),
    [
        ("exp2", lambda x: arb(2) ** x),
        ("log2", lambda x: x.log() / arb(2).log()),
        ("log10", lambda x: x.log() / arb(10).log()),
    ],
)
def test_the_analysis_computes_as_well_as_it_expects_of_a_kernel(name: str, ball: Ball) -> None:
    draw = np.random.default_rng(0).uniform
    x = 10 ** draw(-300, 2, 1000) if name != "exp2" else draw(-1000, 1000, 1000)
    computed = getattr(np, name)(x)
    with flint.ctx.workprec(200):
        worst = max(float(abs(arb(y) / ball(arb(a)) - 1)) for y, a in zip(computed.tolist(), x.tolist(), strict=True))
    assert worst <= 2 * FORMATS["float64"].u
