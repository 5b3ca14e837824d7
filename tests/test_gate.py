"""The gate: every form of every identity, in every format, within its allowance, on edge and on drawn problems."""

from __future__ import annotations

from collections.abc import Sequence

import hypothesis
from hypothesis import strategies as st

from equivalences import sweep
from equivalences.judge import Judgement, Tally
from equivalences.model import Identity, Problem
from equivalences.report import failure


class Refuted(AssertionError):
    """A form outside its allowance, or one that raised; the report is written only if somebody reads it."""

    def __init__(self, judgement: Judgement) -> None:
        super().__init__(judgement)
        self.judgement = judgement

    def __str__(self) -> str:
        return "\n\n" + failure.text(self.judgement)


def hold(judgements: Sequence[Judgement]) -> None:
    for judgement in judgements:
        if judgement.failed:
            raise Refuted(judgement)


def test_identity(identity: Identity, fmt: str, device: str, mode: str) -> None:
    tally = Tally(identity, fmt)
    for problem in sweep.edges(identity, fmt, mode):
        hold(sweep.judged(tally, problem, sweep.layouts(identity, problem, mode), device, mode))

    def drawn(problem: Problem, turn: int) -> None:
        part, layouts = Tally(identity, fmt), sweep.layouts(identity, problem, mode)
        hold(sweep.judged(part, problem, layouts[turn % len(layouts) :][:1], device, mode))
        sweep.merge(tally, part)
        for kind, worst in part.worst.items():
            hypothesis.target(worst.ratio, label=kind)

    drawn.__name__ = f"{identity.name}_{fmt}"  # Hypothesis keeps its examples by the function's name
    strategy = identity.domain.draw(fmt, sweep.shape(identity, fmt, mode))
    hypothesis.given(problem=strategy, turn=st.integers(0, 11))(drawn)()

    if mode == "eager" and hypothesis.settings().max_examples >= 100:
        assert not tally.vacuous(), "never tested with an allowance that says something"
