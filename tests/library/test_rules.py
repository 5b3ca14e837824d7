"""Rounding rules one by one, on what the catalogue's forms do not do: a bound holds, and it says something.

`check` and `audit` follow whatever code they are given.  Each case here was once outside its bound, or inside one that
would have let anything pass.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.known_defects.rules import rule_of
from equivalences.findings.model import KnownDefect
from equivalences.formats import of
from equivalences.rounding import RULES, Call, Shadow, Tracker, Untracked
from equivalences.rounding.arrays import numbers
from equivalences.rounding.call import by_schema
from equivalences.rounding.coefficients import Book, Coefficient

BF16, FP16, FP32, FP64 = torch.bfloat16, torch.float16, torch.float32, torch.float64
X = torch.tensor([0.125, 0.5, 1.0, -2.0, 3.0])
MASK = torch.tensor([True, False, True, False, True])
DRAWN = torch.randn(500, generator=torch.Generator().manual_seed(0))
COUNTS = torch.arange(1, 2001, 4)

Case = tuple[Callable[..., Any], tuple[Tensor, ...]]


def followed(code: Callable[..., Any], inputs: tuple[Tensor, ...]) -> tuple[Tensor, Shadow]:
    tracker = Tracker()
    for each in inputs:
        tracker.declare(each)
    with tracker:
        got = code(*inputs)
    return got, tracker.shadow(got)


def assign(x: Tensor, where: Any, value: Any) -> Tensor:
    x = x.clone()
    x[where] = value
    return x


TENTH = torch.tensor(0.1, dtype=FP32)

BOUNDED: dict[str, Case] = {
    # numbers and scalar tensors that are stored in 16 bits are rounded to them
    "clamp": (lambda x: x.clamp(min=0.3), (X.to(BF16),)),
    "hardtanh": (lambda x: F.hardtanh(x, -0.3, 0.3), (X.to(BF16),)),
    "threshold": (lambda x: F.threshold(x, 0.3, 0.7), (X.to(BF16),)),
    "masked_fill": (lambda x, m: x.masked_fill(m, 0.1), (X.to(BF16), MASK)),
    "masked_fill, large": (lambda x, m: x.masked_fill(m, -1e4), (X.to(BF16), MASK)),
    "scatter of a number": (lambda x: x.scatter(0, torch.tensor([1]), 0.9), (X.to(BF16),)),
    "where": (lambda x, m, t: torch.where(m, x, t), (X.to(BF16), MASK, TENTH)),
    "maximum": (torch.maximum, (X.to(BF16), TENTH)),
    "fill by a tensor": (lambda x, t: x.clone().fill_(t), (X.to(BF16), TENTH)),
    "mul by a wider scalar": (torch.mul, (DRAWN.to(BF16), TENTH)),
    "div by a wider scalar": (torch.div, (DRAWN, TENTH.double())),
    "logaddexp": (torch.logaddexp, (DRAWN.to(FP16), TENTH)),
    "pad": (lambda x: F.pad(x * 1.1, (0, 1), value=-10.1), (X.to(BF16),)),
    # integers, and numbers of a wider or another format, are converted
    "div by integers": (torch.div, (DRAWN.to(BF16), COUNTS)),
    "mul by integers": (torch.mul, (DRAWN.to(FP16), COUNTS * 3)),
    "cat with integers": (lambda x, n: torch.cat((x, n)), (DRAWN.to(BF16), COUNTS)),
    "assigned integers": (lambda x, n: assign(x, slice(None), n), (DRAWN.to(BF16), COUNTS)),
    "bfloat16 into float16": (lambda x, y: x.clone().copy_(y), (DRAWN.to(FP16), (DRAWN * 1e-6).to(BF16))),
    "a count of 257": (lambda m: m.sum(dtype=BF16), (torch.ones(257, dtype=torch.bool),)),
    "a narrowing sum": (lambda x: x.sum(1, dtype=BF16), (torch.tensor([[1.0 + 2**-8 + 2**-20, -1.0]]),)),
    # additions
    "windows that overlap": (
        lambda x: torch.ops.aten.unfold_backward(x, [6], 0, 3, 1),
        ((DRAWN[:12].reshape(4, 3) / 3).to(BF16),),
    ),
    "scatter_add to an inexact zero": (
        lambda x: (x * x.reciprocal() - 1).scatter_add(0, torch.zeros(5, dtype=torch.long), x / 3),
        (torch.tensor([49.0, 3.0, 7.0, 41.0, 5.0]),),
    ),
    "index_add": (
        lambda x: torch.zeros(3, dtype=x.dtype).index_add(0, torch.arange(10) % 3, x, alpha=0.3),
        (DRAWN[:10].to(BF16),),
    ),
    "cube": (lambda x: x**3, (DRAWN.to(BF16),)),
    # classes that are masked out
    "softmax of -inf": (lambda x, m: F.softmax((x / 3).masked_fill(m, -math.inf), 0), (X, MASK)),
    "cross entropy beside -inf": (
        lambda x, m: F.cross_entropy((x / 3).masked_fill(m, -math.inf)[None], torch.tensor([1])),
        (X.to(BF16), MASK),
    ),
    # read by Python
    "divided by item()": (lambda x: x / x.exp().sum().item(), (DRAWN[:8].to(BF16),)),
    # sharper than it was
    "a moving average": (
        lambda x: [m := torch.zeros_like(x[0]), *(m.lerp_(row, 0.1) for row in x)][0],
        (DRAWN.reshape(100, 5),),
    ),
    "aminmax": (lambda x: torch.stack(torch.aminmax(x / 3)), (DRAWN.to(BF16),)),
}


IDEAL = {"a count of 257": 257.0, "a narrowing sum": [2**-8 + 2**-20]}  # where the code names a format


@pytest.mark.parametrize("name", BOUNDED)
def test_a_bound_holds_and_says_something(name: str) -> None:
    code, inputs = BOUNDED[name]
    got, (v, e) = followed(code, inputs)
    # In float64 the same code is exact to a thousandth of any bound here.
    doubles = (x.double() if x.is_floating_point() else x for x in inputs)
    ideal = np.asarray(IDEAL[name]) if name in IDEAL else code(*doubles).double().numpy()
    size = max(np.abs(x).max() for x in (ideal, *(numbers(x) for x in inputs if x.is_floating_point())))
    for found in (got.double().numpy(), v):  # the analysis' own value is an oracle elsewhere
        assert (np.abs(found - ideal) <= e + 1e-14 * size).all()
    assert (e <= 40 * of(got.dtype).u * size).all()


def gradient_of(pick: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    def gradient(p: Tensor, q: Tensor) -> Tensor:
        p = p.clone().requires_grad_()
        return torch.autograd.grad(pick(p * q), p)[0]

    return gradient


# In float32 the two products are equal; the second is really the larger one.
P = torch.tensor([1.0003162622451782, 1.0002341270446777])
Q = torch.tensor([1.949144959449768, 1.9493050575256348])
W = torch.tensor([1.0, 100.0])

UNDECIDED: dict[str, Case] = {
    "index_select": (lambda p, q, w: w.index_select(0, (p * q).argmax(0, keepdim=True)), (P, Q, W)),
    "gather": (lambda p, q, w: w.gather(0, (p * q).argmax(0, keepdim=True)), (P, Q, W)),
    "scatter": (lambda p, q, w: w.scatter(0, (p * q).argmax(0, keepdim=True), 5.0), (P, Q, W)),
    "one_hot": (lambda p, q: F.one_hot((p * q).argmax(0), 2) * 0.5, (P, Q)),
    "nll_loss": (lambda p, q, w: F.nll_loss(torch.log(p * q * w)[None], (p * q).argmax()[None]), (P, Q, W)),
    "a mask": (lambda p, q, w: assign(w[:1], (p * q)[:1] >= (p * q)[1:], 5.0), (P, Q, W)),
    "a copied mask": (lambda p, q, w: torch.where(((p * q)[:1] >= (p * q)[1:]).clone(), w[0], w[1]), (P, Q, W)),
    "joined masks": (lambda p, q, w: torch.where(torch.cat(((p * q)[:1] >= (p * q)[1:],)), w[0], w[1]), (P, Q, W)),
    "index arithmetic": (lambda p, q: ((p * q).argmax() + 1).to(FP32), (P, Q)),
    "an exact competitor": (lambda p, q, x: torch.stack((x, (p * q)[1])).argmax(), (P, Q, P[0] * Q[0])),
    "gradient of max": (gradient_of(lambda x: x.max(0).values), (P, Q)),
    "gradient of sort": (gradient_of(lambda x: x.sort().values[1]), (P, Q)),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_rounding_may_have_chosen_has_no_bound(name: str) -> None:
    code, inputs = UNDECIDED[name]
    assert np.isinf(followed(code, inputs)[1].e).all()


OVERFLOWING: dict[str, Case] = {
    "mean": (lambda x: x.mean(), (torch.tensor([3e38, 3e38]),)),
    "sum that comes back": (lambda x: x.sum(), (torch.tensor([3e38, 3e38, -3e38]),)),
    "mse_loss": (lambda x: F.mse_loss(x, torch.zeros(2)), (torch.tensor([1.5e19, 1.5e19]),)),
    "lerp": (lambda x: x.lerp(-x, 0.25), (torch.tensor([3e38]),)),
    "log_softmax, backward": (
        lambda g, x: torch.ops.aten._log_softmax_backward_data(g, torch.log_softmax(x, 0), 0, FP32),
        (torch.tensor([3e38, 3e38]), torch.zeros(2)),
    ),
    "softmax, backward": (
        lambda g, x: torch.ops.aten._softmax_backward_data(g, torch.softmax(x, 0), 0, FP32),
        (torch.tensor([3e38, -3e38]), torch.tensor([-20.0, 20.0])),
    ),
    "nll_loss, backward": (
        lambda g, x, w: torch.ops.aten.nll_loss_backward(g, x, torch.tensor([0, 1]), w, 1, -100, w.sum()),
        (torch.tensor(83.0, dtype=FP16), torch.zeros(2, 2, dtype=FP16), torch.tensor([2.0**-10, 0.0], dtype=FP16)),
    ),
}


@pytest.mark.parametrize("name", OVERFLOWING)
def test_what_may_overflow_on_the_way_has_no_bound(name: str) -> None:
    got, (_, e) = followed(*OVERFLOWING[name])
    assert np.isinf(e[~np.isfinite(got.numpy())]).all()
    assert not np.isfinite(got.numpy()).all()


def test_a_dominated_probability_of_computed_logits_is_told_from_zero() -> None:
    _, (v, e) = followed(lambda x: F.log_softmax(x * 1.1, 0), (torch.tensor([20.0, -21.3]),))
    assert v[0] == pytest.approx(-np.exp(-45.43), rel=1e-6)
    assert e[0] < 5e-7  # of the logits' own errors, 4e-6, hardly anything is left


def test_softplus_beyond_a_low_threshold_is_its_argument() -> None:
    got, (v, e) = followed(lambda x: F.softplus(x, threshold=-5), (torch.tensor([-3.0]),))
    assert got.item() == -3
    assert v[0] == np.log1p(np.exp(-3.0))
    assert 3.04 < e[0] < 3.05


def test_a_number_that_stays_in_its_tensor() -> None:
    """Adam's bias correction, in Python and as compiled code takes it: a bound for each, and neither for the other."""
    used = []
    for beta, t in ((0.9, 1.0), (0.999, 1.0), (0.999, 2.0), (0.99, 30.0), (0.9999, 1000.0)):
        exact = 1 - Fraction(beta) ** int(t)
        in_python = 1 - Coefficient(beta, Book()) ** t
        in_tensor = 1 - Coefficient(beta, Book(tensors={t: 2.0**-24})) ** t
        narrow = float(1 - torch.tensor(beta, dtype=FP32) ** torch.tensor(t, dtype=FP32))
        assert abs(Fraction(in_python) - exact) <= in_python.e < 1e-12 * in_python
        off = abs(float(Fraction(narrow) - exact))
        assert in_python.e < off <= in_tensor.e
        used.append(off / in_tensor.e)
    assert max(used) > 0.1


# --- rules by the schema's names -------------------------------------------------------------------------------------


def overloads(operation: str) -> list[set[str]]:
    """The names of the arguments of each overload that takes tensors, in place or not."""
    schemas = [
        schema
        for name in (operation, f"{operation}_")
        for schema in torch._C._jit_get_schemas_for_operator(name if "::" in name else f"aten::{name}")
    ]
    return [{each.name for each in schema.arguments} for schema in schemas]


def actual(defect: KnownDefect) -> tuple[str, Any]:
    assert isinstance(defect.as_is, partial)  # of a name, until it is applied
    return defect.operation, rule_of(*defect.as_is.args)


def test_rules_ask_for_arguments_that_their_operations_have() -> None:
    """Every operation has what its rule needs; what a rule may do without, one of its operations has."""
    served: dict[Any, set[str]] = {}
    for operation, rule in [*RULES.items(), *map(actual, KNOWN_DEFECTS)]:
        served.setdefault(rule, set()).add(operation)
    for rule, operations in served.items():
        has = {operation: {name for names in overloads(operation) for name in names} for operation in operations}
        for operation, names in has.items():
            needed = rule.names - rule.optional
            assert needed <= names, f"{rule.__name__} asks for {needed - names} of aten::{operation}"
        assert rule.names <= set().union(*has.values()), f"{rule.__name__}: {rule.names}"


def test_a_name_that_the_schema_lacks_is_told_with_the_rule_and_the_operation() -> None:
    def halved(call: Call, self: Tensor, input: Tensor) -> Shadow:
        return call.shadow(self)

    tracker = Tracker(as_is={"exp": by_schema(halved)})
    tracker.declare(X)
    said = r"rule halved asks for the argument 'input' of aten::exp, whose arguments are self:"
    with pytest.raises(Untracked, match=said), tracker:
        X.exp()


def test_arguments_reach_a_rule_however_they_are_passed() -> None:
    met: list[tuple[Any, ...]] = []

    def noted(call: Call, self: Tensor, beta: float, threshold: float, missing: str = "none") -> Shadow:
        met.append((beta, threshold, missing))
        return call.shadow(self)

    softplus: Any = torch.ops.aten.softplus
    tracker = Tracker(as_is={"softplus": by_schema(noted)})
    tracker.declare(X)
    with tracker:
        softplus(X)
        softplus(X, 2.0)
        softplus(self=X, threshold=9.0, beta=3.0)
    assert met == [(1, 20, "none"), (2, 20, "none"), (3, 9, "none")]


A, B = [DRAWN[:5] ** 2, DRAWN[5:10] ** 2], [DRAWN[10:15], DRAWN[15:20]]
FOREACH: dict[str, tuple[Callable[[], Any], Callable[[Tensor, Tensor, float], Tensor]]] = {
    "a number": (lambda: torch._foreach_add(B, 0.1), lambda a, b, c: b + 0.1),
    "numbers": (lambda: torch._foreach_mul(B, [0.5, 0.25]), lambda a, b, c: b * c),
    "tensors": (lambda: torch._foreach_div(B, A), lambda a, b, c: b / a),
    "tensors and a number": (lambda: torch._foreach_sub(B, A, alpha=0.1), lambda a, b, c: b.sub(a, alpha=0.1)),
    "one tensor": (lambda: torch._foreach_mul(B, TENTH), lambda a, b, c: b * TENTH),
    "the larger": (lambda: torch._foreach_maximum(torch._foreach_div(B, A), A), lambda a, b, c: (b / a).maximum(a)),
    "a weight": (lambda: torch._foreach_lerp(B, A, 0.1), lambda a, b, c: b.lerp(a, 0.1)),
    "weights": (lambda: torch._foreach_lerp(B, A, A), lambda a, b, c: b.lerp(a, a)),
    "a factor": (lambda: torch._foreach_addcmul(B, A, A, 0.1), lambda a, b, c: b.addcmul(a, a, value=0.1)),
    "factors": (lambda: torch._foreach_addcdiv(B, B, A, [0.5, 0.25]), lambda a, b, c: b.addcdiv(b, a, value=c)),
    "a tensor of factors": (
        lambda: torch._foreach_addcdiv(B, B, A, torch.tensor([0.5, 0.25], dtype=FP64)),
        lambda a, b, c: b.addcdiv(b, a, value=c),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREACH)
def test_a_foreach_operation_is_followed_as_the_one_that_it_repeats(name: str) -> None:
    each, once = FOREACH[name]
    tracker = Tracker()
    for tensor in (*A, *B, TENTH):
        tracker.declare(tensor)
    with tracker:
        together = each()
        alone = [once(a, b, c) for a, b, c in zip(A, B, (0.5, 0.25), strict=True)]
    for got, expected in zip(together, alone, strict=True):
        (v, e), (same_v, same_e) = tracker.shadow(got), tracker.shadow(expected)
        assert np.allclose(v, same_v, rtol=1e-15, atol=0)
        assert (same_e > 0).any()
        assert np.array_equal(e, same_e)
