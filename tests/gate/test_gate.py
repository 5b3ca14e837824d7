"""The gate: every form of every identity, in every format, within its allowance, on edge and on drawn problems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import hypothesis
import pytest
from hypothesis import strategies as st

from equivalences.catalogue import IDENTITIES
from equivalences.gate import sweep
from equivalences.judging import plan
from equivalences.judging.judge import Judgement
from equivalences.judging.tally import Tally
from equivalences.model import Form, Identity, Problem
from equivalences.problems import strategies
from equivalences.report import failure

CI = hypothesis.settings.get_profile("ci")


class Refuted(AssertionError):
    """A form outside its allowance, or one that raised; the report is written only if somebody reads it."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement)
        self.judgement = judgement

    @cached_property
    def report(self) -> str:
        return failure.text(self.judgement)

    def __str__(self) -> str:
        return f"\n\n{self.report}"


def hold(judgements: Sequence[Judgement]) -> None:
    for judgement in judgements:
        if judgement.failed:
            raise Refuted(judgement)


def test_identity(identity: Identity, fmt: str, device: str, mode: str) -> None:
    gate(identity, fmt, device, mode, hypothesis.settings())


def gate(identity: Identity, fmt: str, device: str, mode: str, profile: hypothesis.settings) -> None:
    """Judges a cell; the profile's examples are the identity's: its formats share them.

    With fewer than `ci` has, edge problems are judged in one layout each, and only until every form has been tested in
    every region; nor are the inputs of 16-bit formats exhausted, or the options of large batches.
    """
    whole, tally = profile.max_examples >= CI.max_examples, Tally(identity, fmt)
    affordable = plan.Options(mode)
    for each in plan.edges(identity, fmt, mode):
        if affordable(each.problem) and (whole or tally.vacuous()):
            hold(sweep.judged(tally, each.problem, each.layouts if whole else each.layouts[-1:], device, mode))
    untested = tally.vacuous() if mode == "eager" else []
    for each in plan.exhaustive(identity, fmt, mode) if whole else ():
        hold(sweep.judged(tally, each.problem, each.layouts, device, mode))

    def drawn(problem: Problem, turn: int) -> None:
        if not affordable(problem):
            return
        met, layouts = Tally(identity, fmt), plan.layouts(identity, problem, mode)
        hold(sweep.judged(met, problem, plan.in_turn(layouts, turn), device, mode))
        for kind, worst in met.worst.items():
            hypothesis.target(worst.ratio, label=kind)

    drawn.__name__ = f"{identity.name}_{fmt}"  # Hypothesis keeps its examples by the function's name
    strategy = strategies.problems(identity.domain, fmt, plan.shape(identity, fmt, mode))
    share = hypothesis.settings(profile, max_examples=max(1, profile.max_examples // len(identity.formats)))
    share(hypothesis.given(problem=strategy, turn=st.integers(0, 11))(drawn))()

    assert not untested, "edge problems never test it with an allowance that says something"


@pytest.mark.parametrize("edges", [True, False], ids=["on edge problems", "on drawn problems"])
def test_the_gate_can_fail(edges: bool) -> None:
    identity = IDENTITIES["log_softmax"]
    wrong = Form("torch.log(F.softmax(z, dim) + 1e-20)", label="eps inside the log")
    domain = identity.domain if edges else replace(identity.domain, edges=lambda fmt: [])
    with pytest.raises(Refuted) as caught:
        gate(replace(identity, forms=(*identity.forms, wrong), domain=domain), "float64", "cpu", "eager", CI)
    assert caught.value.judgement.form is wrong
    assert caught.value.judgement.problem["z"].shape[0] == 1 or edges
    assert "(shrunk from z" in caught.value.report or not edges


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
def test_every_16_bit_input_is_judged(fmt: str) -> None:
    wrong = Form("torch.sigmoid(z) * torch.where(z == 1.6328125, 1.03125, 1)", label="wrong for one input")
    identity = replace(IDENTITIES["sigmoid"], forms=(IDENTITIES["sigmoid"].reference, wrong))
    tally = Tally(identity, fmt)
    for each in plan.exhaustive(identity, fmt):
        sweep.judged(tally, each.problem, each.layouts, "cpu", "eager")
    assert tally.numbers > 4 * 60_000
    assert {failure.form for failure in tally.failures} == {wrong}


def test_the_gate_fails_where_nothing_was_tested() -> None:
    identity = IDENTITIES["log_softmax"]
    hopeless = Form(
        "F.log_softmax(z, dim) + 0 * torch.exp((z * z).sum(dim, keepdim=True))", regions=("extreme",)
    )  # overflows, always
    with pytest.raises(AssertionError, match="never test it"):
        gate(replace(identity, forms=(identity.reference, hopeless)), "float32", "cpu", "eager", CI)
