"""The oracle against itself by other means: naive formulas on jets at thousands of bits, and rational arithmetic."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from flint import arb, arb_series, ctx
from hypothesis import example, given, settings
from hypothesis import strategies as st

from equivalences.catalogue import IDENTITIES
from equivalences.model import Identity, Problem
from equivalences.oracle import enclosure, exact, specification
from equivalences.problems.rows import some_rows

MAX = float(np.finfo(np.float64).max)
NAIVE_BITS = 6000  # e**-2000 beside 1 leaves 3000 bits
SHARP = 100  # bits of relative accuracy that every formula must have left at 128


def identity(spec: Callable[[Any], Any], wrt: tuple[str, ...] = ("z",)) -> Identity:
    domain: Any = None
    return Identity("test", "", "", domain, spec, (), wrt=wrt, mixes_rows=True)


def of(
    spec: Callable[[Any], Any], z: Any, g: Any, precision: int = 128
) -> tuple[enclosure.Enclosure, enclosure.Enclosure]:
    problem = Problem("float64", {"z": np.array(z, dtype=np.float64), "g": np.array(g, dtype=np.float64)})
    result = specification.evaluate(identity(spec), problem, precision)
    return result.value, result.gradients["z"]


def s(z: Any) -> Any:
    return 1 / (1 + (-z).exp())


def p(zs: list[Any]) -> list[Any]:
    exps = [z.exp() for z in zs]
    return [e / sum(exps) for e in exps]


# name -> (the specification of a list, the naive formula of a list of jets)
FUNCTIONS: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
    "exp": (lambda z: exact.exp(z[0]), lambda z: z[0].exp()),
    "expm1": (lambda z: exact.expm1(z[0]), lambda z: z[0].exp() - 1),
    "log": (lambda z: exact.log(exact.exp(z[0]) + 2), lambda z: (z[0].exp() + 2).log()),
    "log1p": (lambda z: exact.log1p(z[0] * z[0]), lambda z: (1 + z[0] * z[0]).log()),
    "sqrt": (lambda z: exact.sqrt(z[0] ** 2 + 1), lambda z: (z[0] * z[0] + 1).sqrt()),
    "tanh": (lambda z: exact.tanh(z[0]), lambda z: 2 * s(2 * z[0]) - 1),
    "sech": (lambda z: (z[0] + 0.5).sech(), lambda z: 2 / ((z[0] + 0.5).exp() + (-z[0] - 0.5).exp())),
    "sigmoid": (lambda z: exact.sigmoid(z[0]), lambda z: s(z[0])),
    "softplus": (lambda z: exact.softplus(z[0]), lambda z: (1 + z[0].exp()).log()),
    "logsigmoid": (lambda z: exact.logsigmoid(z[0]), lambda z: s(z[0]).log()),
    "xlogy": (
        lambda z: exact.xlogy(exact.sigmoid(z[0]), exact.softplus(z[-1]) + 2),
        lambda z: s(z[0]) * (2 + (1 + z[-1].exp()).log()).log(),
    ),
    "pow": (lambda z: (exact.exp(z[0]) + 1) ** -3, lambda z: 1 / (z[0].exp() + 1) ** 3),
    "div": (lambda z: 3 / (2 - exact.sigmoid(z[0])) / 0.75, lambda z: 4 / (2 - s(z[0]))),
    "logsumexp": (lambda z: exact.logsumexp(z), lambda z: sum(x.exp() for x in z).log()),
    "log_softmax": (lambda z: exact.log_softmax(z)[0], lambda z: p(z)[0].log()),
    "log_softmax last": (lambda z: exact.log_softmax(z)[-1], lambda z: p(z)[-1].log()),
    "softmax": (lambda z: exact.softmax(z)[0], lambda z: p(z)[0]),
    "softmax last": (lambda z: exact.softmax(z)[-1], lambda z: p(z)[-1]),
    "dot mean total": (
        lambda z: exact.dot(z, exact.softmax(z)) - exact.mean(z) + exact.total([z[0], 1.5, z[0]]),
        lambda z: sum(a * b for a, b in zip(z, p(z), strict=True)) - sum(z) / len(z) + 2 * z[0] + 1.5,
    ),
}
SUMS = {"dot mean total"}  # terms of both signs: no relative accuracy to be had


def jet(naive: Callable[[Any], Any], z: list[float], by: int) -> tuple[arb, arb]:
    """Value and -2 times the derivative by entry `by`, of a formula that nobody has made stable."""
    cap, ctx.cap = ctx.cap, 2
    try:
        with exact.working_precision(NAIVE_BITS):
            out = naive([arb_series([arb(x), arb(int(i == by))], 2) for i, x in enumerate(z)])
            return out[0], -2 * out[1]
    finally:
        ctx.cap = cap


def check(got: enclosure.Enclosure, where: Any, want: arb, sharp: bool) -> None:
    hi, lo, radius = (float(part[where]) for part in (got.hi, got.lo, got.radius))
    shift = int(np.broadcast_to(got.shift, got.hi.shape)[where])
    with exact.working_precision(NAIVE_BITS):
        assert want.rel_accuracy_bits() > 2 * SHARP or want.rad() < 2.0**-1000
        want *= arb(2) ** shift
        assert arb(hi, radius).overlaps(want - lo), (hi, lo, radius, want)
        if sharp:
            assert radius <= abs(hi) * 2.0**-SHARP + 2.0**-1070


numbers = st.floats(-700, 700) | st.floats(-1, 1) | st.sampled_from([0.0, 1e-300, -1e-9, -600.0, 36.5])


@pytest.mark.parametrize("name", FUNCTIONS)
@settings(max_examples=12, deadline=None)
@example([-600.0])
@example([600.0, -3.0])
@example([0.5, 0.5, 0.5])
@given(st.lists(numbers, min_size=1, max_size=4))
def test_values_and_gradients_agree_with_naive_formulas_at_thousands_of_bits(name: str, z: list[float]) -> None:
    spec, naive = FUNCTIONS[name]
    value, gradient = of(lambda p: spec(p.z), z, -2.0)
    for by in range(len(z)):
        v, d = jet(naive, z, by)
        check(value, (), v, name not in SUMS and (name != "logsumexp" or v.abs_lower() > 1))
        check(gradient, by, d, name not in SUMS | {"xlogy"})


def test_a_second_tape_below_the_first_gives_the_hessian() -> None:
    inner = [exact.leaf(arb(x)) for x in (0.5, -1.0, 30.0)]
    outer = [exact.leaf(x) for x in inner]
    for out, scale in ((exact.logsumexp(outer), 1), (-exact.log_softmax(outer)[1], 1), (exact.softplus(outer[1]), 0)):
        first = exact.adjoints_of([(out, arb(1))])
        rows = [exact.adjoints_of([(first[x.order], arb(1))]) if x.order in first else {} for x in outer]
        prob, sig = exact.softmax([x.v for x in inner]), exact.sigmoid(inner[1].v)
        for i in range(3):
            for j in range(3):
                softmax = ((i == j) * prob[i] - prob[i] * prob[j]).v
                want = softmax if scale else (i == j == 1) * (sig * (1 - sig)).v
                got = rows[i].get(inner[j].order, arb(0))
                assert got.overlaps(want), (i, j)
                assert got.rad() < 1e-12


@pytest.mark.parametrize("big", [1e4, 3.4e38, MAX])
def test_tails_of_huge_arguments_are_tiny_and_never_nan(big: float) -> None:
    for spec in (exact.softplus, exact.sigmoid, lambda x: exact.logsumexp([x, 0.0]), exact.exp):
        value, gradient = of(lambda p, spec=spec: spec(p.z[0]), [-big], 1.0)  # type: ignore[misc]
        for part in (value, gradient):
            assert abs(part.hi).max() == 0
            assert part.radius.max() < 1e-320
    value, gradient = of(lambda p: exact.log_softmax(p.z), [big, 1.0, -big], [1.0, 1.0, 0.0])
    lower, upper = value.error([0.0, 1 - big, -np.inf])
    assert np.all(upper[:2] <= [1e-320, big * 2.0**-53])
    assert lower.tolist()[2] == (0.0 if big == MAX else np.inf)
    assert np.all(gradient.error([-1.0, 1.0, 0.0])[1] < 1e-30)
    assert of(lambda p: exact.tanh(p.z[0]), [-big], 1.0)[0].error(-1.0)[1] < 1e-30


def test_the_tail_has_relative_accuracy_at_128_bits() -> None:
    with exact.working_precision(128):
        z = exact.variables([-1000.0, 1000.0])
        tails = [
            exact.softplus(z[0]),
            exact.log_softmax(z)[1],
            exact.sigmoid(z[0]),
            *exact.grad(exact.tanh(z[1]), z[1:]),
        ]
        tails += exact.grad(exact.log_softmax(z)[1], z) + exact.grad(exact.softmax(z)[1], z)
        for tail in tails:
            assert tail.v.rel_accuracy_bits() > SHARP


def test_ties_one_class_masks_and_four_thousand_classes() -> None:
    value, gradient = of(lambda p: exact.softmax(p.z), [7.0] * 8, np.arange(8.0))
    assert np.all(value.error([0.125] * 8)[1] < 1e-35)
    assert np.all(gradient.error((np.arange(8) - 3.5) / 8)[1] < 1e-35)
    value, gradient = of(lambda p: exact.log_softmax(p.z), [3.5], [2.0])
    assert value.error([0.0])[1] == gradient.error([0.0])[1] == 0
    value, gradient = of(lambda p: exact.log_softmax(p.z)[1], [1.0, 1.0, -np.inf], 1.0)
    assert value.error(-math.log(2))[1] < 1e-16
    assert np.all(gradient.error([-0.5, 0.5, 0.0])[1] < 1e-35)
    value, gradient = of(lambda p: exact.logsumexp(p.z) - p.z[0], np.zeros(4096), 1.0)
    assert gradient.error(np.full(4096, 1 / 4096) - np.eye(1, 4096)[0])[1].max() < 1e-30
    with pytest.raises(ValueError, match="at least one"):
        exact.logsumexp([])


KINKS: list[tuple[Callable[[Any], Any], float, float, float]] = [  # at an exact kink: PyTorch's value and derivative
    (exact.relu, 0.0, 0.0, 0.0),
    (lambda x: exact.leaky_relu(x, 0.25), 0.0, 0.0, 0.25),
    (exact.hardtanh, 1.0, 1.0, 0.0),
    (exact.hardtanh, -1.0, -1.0, 0.0),
    (abs, 0.0, 0.0, 0.0),
    (lambda x: exact.maximum(2 * x, x + 1), 1.0, 2.0, 1.5),
]
SIDES = [  # beside it: value and derivative of the function, left and right
    (0.0, 1.0), (0.25, 1.0), (1.0, 0.0), (0.0, 1.0), (-1.0, 1.0), (1.0, 2.0)
]  # fmt: skip


@pytest.mark.parametrize(("case", "sides"), list(zip(KINKS, SIDES, strict=True)))
def test_kinks_follow_pytorch_and_a_ball_over_a_kink_covers_both_branches(
    case: tuple[Callable[[Any], Any], float, float, float], sides: tuple[float, float]
) -> None:
    function, at, want, derivative = case
    value, gradient = of(lambda p: function(p.z), at, 1.0)
    assert [float(value.error(want)[1]), float(gradient.error(derivative)[1])] == [0, 0]
    for step, slope in zip((-(2.0**-20), 2.0**-20), sides, strict=True):
        value, gradient = of(lambda p: function(p.z), at + step, 1.0)
        assert [float(value.error(want + slope * step)[1]), float(gradient.error(slope)[1])] == [0, 0]
    wide = exact.leaf(arb(at, 2.0**-20))
    out = function(wide)
    (undecided,) = exact.grad(out, [wide])
    for step, slope in zip((-(2.0**-20), 2.0**-20), sides, strict=True):
        assert out.v.contains(arb(want) + arb(slope) * arb(step))
        assert undecided.v.contains(arb(slope))
    assert out.v.rad() < 2.0**-16


def test_xlogy_is_zero_at_zero() -> None:
    value, gradient = of(lambda p: exact.xlogy(p.z[0], p.z[1]), [0.0, 0.0], 1.0)
    assert value.error(0.0)[1] == 0
    assert gradient.error([0.0, 0.0])[1].tolist() == [0, 0]
    _, gradient = of(lambda p: exact.xlogy(p.z[0], p.z[1]), [0.0, 2.0], 1.0)
    assert gradient.error([math.log(2), 0.0])[1].max() < 1e-16


def test_a_training_step_uses_gradients_as_values_and_refuses_to_differentiate_them() -> None:
    def step(p: Any) -> Any:
        w = exact.variables(p.z)
        for _ in range(2):  # minimise w0^2 w1: the gradient is (2 w0 w1, w0^2)
            d = exact.grad(w[0] ** 2 * w[1], w)
            w = exact.variables([a - b / 2 for a, b in zip(w, d, strict=True)])
        return w

    problem = Problem("float64", {"z": np.array([2.0, 3.0]), "g": np.ones(2)})
    value = specification.evaluate(identity(step, wrt=()), problem).value
    assert value.error([-4 + 4 * 1, 1.0 - 8])[1].tolist() == [0, 0]  # (2, 3) -> (-4, 1) -> (0, -7)
    with pytest.raises(TypeError, match="cannot be differentiated again"):
        specification.evaluate(identity(step), problem)
    with pytest.raises(TypeError, match="must be variables"):
        specification.evaluate(identity(lambda p: exact.grad(p.z[0] * 2, p.z), wrt=()), problem)


@settings(max_examples=150, deadline=None)
@example(1.0, 2.0**-60, 0.0, 1.0)
@example(MAX, 0.0, 0.0, -MAX)
@example(5e-324, 0.0, 5e-324, 0.0)
@example(1.0, 2.0**-54, 2.0**-120, 1.0000000000000002)
@example(-MAX, -1.0, 0.0, 0.0)  # only with lo is it more than the largest number
@example(11258999068426244.0, -1.0, 0.0, 1.0)  # every rounding goes up
@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(-1, 1), st.floats(0, 1), st.floats())
def test_error_bounds_contain_the_rational_error(hi: float, lo: float, radius: float, got: float) -> None:
    lo, radius = lo * math.ulp(hi) / 2, radius * math.ulp(hi)
    lower, upper = enclosure.Enclosure(np.array(hi), np.array(lo), np.array(radius)).error(got)
    if not math.isfinite(got):
        assert lower == upper == np.inf
        return
    distance, r = abs(Fraction(got) - Fraction(hi) - Fraction(lo)), Fraction(radius)
    assert Fraction(float(lower)) <= max(Fraction(0), distance - r)
    assert upper == np.inf or Fraction(float(upper)) >= distance + r
    overflow = distance > Fraction(MAX) / 2
    # 8 u of slack, and the roundings of s, t, their sum with the slack and the last product: 12 u; then float() here.
    assert overflow or upper <= float(distance + r) * (1 + 2.0**-49) + 1e-322
    assert lower >= (MAX / 4 if overflow and distance > MAX else 0)
    assert (
        overflow
        or lower
        >= float(max(Fraction(0), distance * (1 - Fraction(2) ** -49) - r * (1 + Fraction(2) ** -50))) * (1 - 1e-15)
        - 1e-322
    )


@given(st.fractions() | st.fractions(-1, 1), st.sampled_from([0, 600, -1000, -1075, -1200]))
@settings(max_examples=100, deadline=None)
def test_an_enclosure_contains_the_ball_it_was_made_from(fraction: Fraction, exponent: int) -> None:
    fraction *= Fraction(2) ** exponent
    with exact.working_precision(128):
        n, d = exact.numbers.as_number(fraction.numerator), exact.numbers.as_number(fraction.denominator)
        got = enclosure.enclose([(n / d).v], ())
    hi, lo, radius = (Fraction(float(x)) for x in (got.hi, got.lo, got.radius))
    fraction *= Fraction(2) ** int(got.shift)
    assert abs(fraction - hi - lo) <= radius <= abs(fraction) / 2**104 + Fraction(2) ** -1070
    assert abs(fraction - hi) <= Fraction(math.ulp(float(hi))) / 2


def test_errors_below_the_spacing_of_subnormals_are_known() -> None:
    with exact.working_precision(128):
        found = enclosure.enclose([arb(7) * arb(2) ** -1076], ())  # 1.75 times the smallest subnormal
    eta = 2.0**-1074
    for got, allowance, within in ((2 * eta, eta, True), (eta, eta, True), (3 * eta, eta, False), (eta, 0.0, False)):
        assert [bool(x) for x in found.decide(got, np.array(allowance))[:2]] == [within, not within]
    lower, upper = found.error(4 * eta)  # 2.25 eta away
    assert lower <= 2 * eta
    assert upper == 3 * eta
    assert found.nearest == 2 * eta


def test_infinities_are_exact_and_the_unknown_decides_nothing() -> None:
    balls = [arb("-inf"), arb("nan"), arb(0, math.inf), arb(10) ** 400]
    found = enclosure.enclose(balls, (4,))
    assert found.radius.tolist() == [0, np.inf, np.inf, np.inf]
    for got, lower, upper in (
        (-np.inf, [0, 0, 0, 0], [0] + [np.inf] * 3),
        (np.nan, [np.inf, 0, 0, 0], [np.inf] * 4),
        (1.0, [np.inf, 0, 0, 0], [np.inf] * 4),
    ):
        assert [x.tolist() for x in found.error(np.full(4, got))] == [lower, upper]


def test_evaluate_keeps_shapes_names_and_plain_values() -> None:
    def spec(p: Any) -> Any:
        assert (p.t, p.mask, p.reduction) == ([1, 0], [True, False], "sum")
        assert all(type(x) in (int, bool) for x in p.t + p.mask)
        return [[p.z[r][t] * p.w[0], p.w[1], p.mask[r], 2**60 + 1] for r, t in enumerate(p.t)]

    items = {"z": np.array([[1.0, 2.0], [3.0, 4.0]]), "w": np.array([0.5, 0.25]), "t": np.array([1, 0])}
    problem = Problem("float64", {**items, "mask": np.array([True, False]), "reduction": "sum", "g": np.ones((2, 4))})
    one = identity(spec, wrt=("z", "w"))
    before = ctx.prec
    result = specification.evaluate(one, problem, precision=200)
    assert ctx.prec == before
    assert result.value.hi.tolist() == [[1.0, 0.25, 1.0, 2.0**60], [1.5, 0.25, 0.0, 2.0**60]]
    assert (result.value.lo[0, 3], result.value.radius[0, :3].tolist()) == (1.0, [0, 0, 0])
    assert {name: x.hi.tolist() for name, x in result.gradients.items()} == {
        "z": [[0.0, 0.5], [0.5, 0.0]],
        "w": [5.0, 2.0],
    }
    assert specification.evaluate(one, Problem("float64", dict(problem.items)), precision=200) is result
    assert specification.evaluate(one, problem) is not result
    assert not specification.evaluate(one, problem, upstream=False).gradients
    with pytest.raises(ValueError, match="shape"):
        specification.evaluate(identity(lambda p: p.z[0]), problem)
    with pytest.raises(TypeError, match="no array of floats"):
        specification.evaluate(identity(spec, wrt=("t",)), problem)
    with pytest.raises(ValueError, match="ragged"):
        specification.evaluate(identity(lambda p: [p.z[0], p.z[0][0]]), problem)


@pytest.mark.parametrize("one", [one for one in IDENTITIES.values() if one.by_row], ids=lambda one: one.name)
def test_the_rows_of_an_identity_that_is_asked_row_by_row_are_their_own_affair(one: Identity) -> None:
    def shape(problem: Problem) -> tuple[int, ...]:
        return np.shape(next(iter(problem.items.values())))

    problem = max((edge for edge in one.domain.edges("float32") if shape(edge)[0] < 64), key=shape)
    order = np.array([-1, 0, -1])
    whole, some = (specification.evaluate(one, p) for p in (problem, some_rows(problem, one.domain.axes, order)))
    assert np.array_equal(whole.value.nearest[order], some.value.nearest)
    for name, gradient in some.gradients.items():
        assert np.array_equal(whole.gradients[name].nearest[order], gradient.nearest)


def test_rows_that_are_all_different_stay_in_their_order_whoever_asks() -> None:
    one, items = IDENTITIES["sigmoid"], {"z": np.array([2.0, -3.0, 1.0]), "g": np.array([1.0, -1.0, 0.5])}
    assert one.by_row
    # Equal problems, the second of which is met with the first in the cache.
    low, high = (specification.evaluate(one, Problem("float64", items), precision=bits) for bits in (128, 200))
    assert np.array_equal(low.value.nearest, high.value.nearest)
    assert np.array_equal(low.gradients["z"].nearest, high.gradients["z"].nearest)


def test_precision_comes_back_after_an_error() -> None:
    before = ctx.prec
    with pytest.raises(KeyError), exact.working_precision(999):
        raise KeyError
    assert ctx.prec == before


@pytest.mark.parametrize(
    "ask", [lambda x: x > 0, lambda x: x == x, bool, float, lambda x: x in [1], lambda x: max(x, 2)]
)
def test_a_number_refuses_to_be_compared(ask: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError, match="comparing it may have no answer"):
        ask(exact.exp(0))
    with pytest.raises(TypeError, match="integer powers"):
        exact.exp(0) ** 0.5  # type: ignore[operator]
    assert (np.float64(0.1) * exact.exp(0)).v == arb(0.1)
    with pytest.raises(TypeError, match="unsupported operand"):
        np.ones(2) * exact.exp(0)


@pytest.mark.parametrize("got", [1e200, math.inf, math.nan, -1e200])
def test_nothing_far_away_passes_beside_a_tiny_number(got: float) -> None:
    found = enclosure.enclose([arb(10) ** -300], ())
    within, beyond, _ = found.decide(got, np.array(1e130))
    assert beyond
    assert not within
    assert found.error(got)[0] <= (abs(got) if math.isfinite(got) else math.inf)
