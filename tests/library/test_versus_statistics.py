"""The statistics of the A/B driver, on simulated launches: intervals, claims, Holm's correction, verdicts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.versus.verdict import Samples, Verdict, claim, estimate, holm, interval, judge, log_ratios, sees

MARGIN = 0.05
EDGE = math.log1p(MARGIN)


@pytest.mark.slow
@pytest.mark.parametrize("launches", [3, 12, 30])
@pytest.mark.parametrize("confidence", [0.95, 0.998])
@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_the_interval_misses_no_more_often_than_it_says(launches: int, confidence: float, outliers: float) -> None:
    """2000 simulated runs: launches scatter normally, or one in ten of them six times as far."""
    random = np.random.default_rng(0)
    runs = 2000
    scale = np.where(random.random((runs, launches)) < outliers, 6.0, 1.0)
    missed = sum(
        not low <= 0.1 <= high
        for low, high in (
            interval(run.tolist(), confidence) for run in 0.1 + 0.02 * scale * random.normal(size=scale.shape)
        )
    )
    expected = runs * (1 - confidence)
    assert missed <= expected + 4 * math.sqrt(expected)
    if not outliers:  # nor is it wider than it must be
        assert missed >= expected - 4 * math.sqrt(expected)
    assert missed or confidence > 0.95


def test_the_smallest_effect_is_what_four_runs_in_five_call_a_regression() -> None:
    random = np.random.default_rng(0)
    scatter, launches = 0.02, 12
    typical = [scatter * x for x in np.sqrt(12 / 11) * np.repeat([-1.0, 1.0], launches // 2) * np.sqrt(11 / 12)]
    found = sees(typical, MARGIN)
    assert found is not None
    runs = math.log(found) + scatter * random.normal(size=(1000, launches))
    called = sum(claim(*interval(run.tolist()), MARGIN) is Verdict.REGRESSED for run in runs)
    assert 740 <= called <= 870


@given(st.lists(st.floats(-0.3, 0.3), min_size=2, max_size=20), st.floats(0.5, 2))
def test_ratios_do_not_depend_on_which_side_is_called_a(values: list[float], factor: float) -> None:
    mirrored = {"REGRESSED": "IMPROVED", "IMPROVED": "REGRESSED"}
    there, back = ({"case": tuple(sign * v for v in values)} for sign in (1, -1))
    forth, reverse = holm(there, MARGIN)["case"][0].name, holm(back, MARGIN)["case"][0].name
    assert mirrored.get(forth, forth) == reverse
    seconds = [factor * math.exp(v) for v in values]
    assert log_ratios({"A": seconds, "A'": seconds, "B": seconds}) == (0, 0)


def test_a_launch_is_the_centre_of_its_paired_blocks() -> None:
    blocks = {"A": [1.0, 2.0, 4.0, 8.0], "A'": [1.0, 2.0, 4.0, 8.0], "B": [1.1, 2.2, 400.0, 8.8]}  # one was disturbed
    effect, null = log_ratios(blocks)
    assert math.exp(effect) == pytest.approx(1.1)
    assert null == 0
    first, second = [1.0] * 3, [4.0] * 3
    assert log_ratios({"A": first, "A'": second, "B": [2.0] * 3}) == pytest.approx((0, math.log(4)))
    with pytest.raises(ValueError, match="shorter"):
        log_ratios({"A": first, "A'": second, "B": [1.0]})


def test_skewed_noise_of_arms_that_are_alike_does_not_look_like_a_difference() -> None:
    """300 simulated launches of 100 blocks, whose times scatter exponentially; the centre against a mean is 1 % off."""
    random = np.random.default_rng(0)
    found = [
        log_ratios({arm: np.exp(random.exponential(0.15, 100)).tolist() for arm in ("A", "A'", "B")})
        for _ in range(300)
    ]
    for ratios in zip(*found, strict=True):
        assert abs(np.mean(ratios)) <= 3 * np.std(ratios) / math.sqrt(len(ratios))


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (EDGE + 1e-9, 1, Verdict.REGRESSED),
        (EDGE - 1e-9, 1, Verdict.INCONCLUSIVE),
        (-1, -EDGE - 1e-9, Verdict.IMPROVED),
        (-1, -EDGE + 1e-9, Verdict.INCONCLUSIVE),
        (-EDGE + 1e-9, EDGE - 1e-9, Verdict.EQUIVALENT),
        (0.01, 0.02, Verdict.EQUIVALENT),  # a difference that is there and does not matter
        (-1, 1, Verdict.INCONCLUSIVE),
        (-math.inf, math.inf, Verdict.INCONCLUSIVE),
    ],
)
def test_what_an_interval_claims(low: float, high: float, verdict: Verdict) -> None:
    assert claim(low, high, MARGIN) is verdict


def test_fewer_than_two_launches_have_no_interval() -> None:
    assert interval([0.3]) == (-math.inf, math.inf)
    assert interval([0.3, 0.3]) == (0.3, 0.3)
    assert estimate([]) is None
    assert sees([0.3], MARGIN) is None
    judged = judge({"case": Samples((0.3,), (0.0,))}, {}, MARGIN)
    assert (judged.cases[0].verdict, judged.status) == (Verdict.INCONCLUSIVE, 3)


def test_holm_holds_the_chance_of_any_false_claim() -> None:
    """300 simulated runs of 20 cases exactly on the margin, where every claim but INCONCLUSIVE is false."""
    random = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        cases = {str(i): tuple(EDGE + 0.02 * random.normal(size=12)) for i in range(20)}
        false += any(found is not Verdict.INCONCLUSIVE for found, _ in holm(cases, MARGIN).values())
    assert 3 <= false <= 300 * 0.05 + 4 * math.sqrt(300 * 0.05)  # corrected, and not more than it must be


def test_holm_steps_down() -> None:
    """What is decided leaves more confidence to spare for what is not; a case alone is not corrected at all."""

    def half_width(width: float, middle: float) -> tuple[float, ...]:
        """Twelve launches whose 95 % interval is middle -+ width."""
        shape = np.repeat([-1.0, 1.0], 6)
        return tuple(middle + shape * width / interval(shape.tolist())[1])

    clear, close = half_width(0.001, 0.5), half_width(0.97 * EDGE, 2 * EDGE)
    assert holm({"close": close}, MARGIN)["close"][0] is Verdict.REGRESSED
    assert holm({"close": close, "clear": clear}, MARGIN)["close"][0] is Verdict.REGRESSED
    crowd = {str(i): close for i in range(10)}
    claims = {name: found for name, (found, _) in holm({**crowd, "clear": clear}, MARGIN).items()}
    assert claims.pop("clear") is Verdict.REGRESSED
    assert set(claims.values()) == {Verdict.INCONCLUSIVE}
    judged = judge({name: Samples(values, (0.0, 0.0)) for name, values in crowd.items()}, {}, MARGIN)
    assert {each.why for each in judged.cases} == {"not after Holm's correction over 10 cases"}


STILL = (0.001, -0.001, 0.0005)
MOVED = (0.04, 0.041, 0.039)
TINY = (0.004, 0.0041, 0.0039)  # certain, and far below the margin


@pytest.mark.parametrize(
    ("timed", "control", "verdict", "status"),
    [
        (Samples(STILL, STILL), Samples(STILL, STILL), Verdict.EQUIVALENT, 0),
        (Samples(tuple(0.2 + x for x in STILL), STILL), Samples(STILL, STILL), Verdict.REGRESSED, 1),
        (Samples(tuple(x - 0.2 for x in STILL), STILL), Samples(STILL, STILL), Verdict.IMPROVED, 0),
        (Samples((-0.2, 0.2, 0.1), STILL), Samples(STILL, STILL), Verdict.INCONCLUSIVE, 3),
        (Samples(tuple(0.2 + x for x in STILL), MOVED), Samples(STILL, STILL), Verdict.INVALID, 4),
        (Samples(tuple(0.2 + x for x in STILL), STILL), Samples(MOVED, STILL), Verdict.INVALID, 4),
        (Samples(tuple(0.2 + x for x in STILL), STILL), Samples(STILL, MOVED), Verdict.INVALID, 4),
        (Samples(STILL, STILL), Samples(STILL, STILL, "died"), Verdict.INVALID, 4),
        (Samples(STILL, STILL, "died"), Samples(STILL, STILL), Verdict.INVALID, 4),
        (Samples(STILL, TINY), Samples(TINY, TINY), Verdict.EQUIVALENT, 0),
    ],
)
def test_verdicts(timed: Samples, control: Samples, verdict: Verdict, status: int) -> None:
    judged = judge({"case": timed}, {"control": control}, MARGIN)
    assert judged.cases[0].verdict is verdict
    assert judged.status == status
    assert judged.cases[0].why or verdict not in {Verdict.INVALID}


def test_many_cases_do_not_hide_a_machine_that_moved() -> None:
    shifted = Samples(tuple(0.04 + x for x in (0.03, -0.03) * 6), STILL)
    for count in (1, 203):
        judged = judge({str(i): Samples(STILL, STILL) for i in range(count)}, {"loop": shifted}, MARGIN)
        assert judged.moved == ("loop",)
        assert judged.status == 4


@pytest.mark.parametrize(
    ("effect", "verdict", "why"),
    [
        (STILL, Verdict.EQUIVALENT, "held"),
        ((-0.2, 0.2, 0.1), Verdict.INCONCLUSIVE, "unknown"),
        ((0.001,), Verdict.INCONCLUSIVE, "unknown"),
        (MOVED, Verdict.INVALID, "control moved"),
    ],
)
def test_a_control_holds_inside_the_margin_alone(effect: tuple[float, ...], verdict: Verdict, why: str) -> None:
    (control,) = judge({"case": Samples(STILL, STILL)}, {"control": Samples(effect, STILL)}, MARGIN).controls
    assert (control.verdict, control.why) == (verdict, why)


def test_a_regression_is_not_hidden_by_another_case_that_is_invalid() -> None:
    slow, ill, dead = (
        Samples(tuple(0.2 + x for x in STILL), STILL),
        Samples(STILL, MOVED),
        Samples((), (), "B died while timing dead"),
    )
    judged = judge({"slow": slow, "ill": ill, "dead": dead}, {}, MARGIN)
    assert [each.verdict.name for each in judged.cases] == ["REGRESSED", "INVALID", "INVALID"]
    assert judged.status == 1
    assert judged.cases[1].why == "its own A/A moved"
    assert judged.cases[2].why == "B died while timing dead"
