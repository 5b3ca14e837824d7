"""Each pitfall does what it says, on edge and drawn problems; what really holds instead is judged by the gate."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from equivalences.catalogue import IDENTITIES, PITFALLS
from equivalences.judging import judge
from equivalences.judging.judge import Measurement
from equivalences.model import Differs, Form, Pitfall, Problem, Raises, Warns
from equivalences.problems import strategies
from equivalences.report import failure, pitfalls
from equivalences.running import execute
from equivalences.running.execute import Place
from equivalences.running.forms import exists, torch_version
from equivalences.running.layouts import applies

PAGE = Path(__file__).parents[2] / "docs" / "pitfalls.md"


def outside(pitfall: Pitfall, problem: Problem, layout: str) -> bool:
    """Whether the mistake gives another number than the identity; its warnings are not looked at."""
    met = judge.measure(pitfall.of, pitfall.mistake, problem, layout=layout)
    for judgement in met:
        assert isinstance(judgement, Measurement), failure.text(judgement)
    return any(judgement.failed for judgement in met)


@pytest.mark.parametrize("pitfall", PITFALLS.values(), ids=PITFALLS)
def test_pitfall(pitfall: Pitfall) -> None:
    of, mistake, outcome = pitfall.of, pitfall.mistake, pitfall.outcome
    if not exists(mistake):
        pytest.skip(f"this torch has no torch.{mistake.needs}")
    layout = (mistake.layouts or judge.layouts(of))[0]
    if not exists(mistake):
        pytest.skip(f"torch {torch_version()} lacks what the mistake needs, or no longer takes it for one")
    formats = mistake.formats or of.formats
    seen = 0

    def show(problem: Problem) -> None:
        nonlocal seen
        if not applies(of, problem, layout):
            return
        if not pitfall.when(problem):
            if not isinstance(outcome, Raises):
                assert not outside(pitfall, problem, layout), "differs where `when` does not hold"
        elif isinstance(outcome, Raises):
            seen += 1
            with pytest.raises(outcome.error, match=outcome.match):
                execute.run(of, mistake, problem, Place(layout), follow=None)
        elif isinstance(outcome, Warns):
            seen += 1
            with pytest.warns(outcome.category, match=outcome.match):
                assert not outside(pitfall, problem, layout), "the value is wrong as well: that is more than a warning"
        else:
            seen += outside(pitfall, problem, layout)

    for fmt in formats:
        for problem in of.domain.edges(fmt):
            show(problem)
    strategy = st.sampled_from(formats).flatmap(lambda fmt: strategies.problems(of.domain, fmt))
    show.__name__ = pitfall.name  # Hypothesis keeps its examples by the function's name
    settings(max_examples=max(4, settings().max_examples // 10))(given(problem=strategy)(show))()
    assert seen, "not shown by any problem"


def test_what_holds_instead_is_judged() -> None:
    for pitfall in PITFALLS.values():
        for relation in pitfall.relations:
            assert IDENTITIES[relation.name] is relation


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_best_loss_of_a_softmax_before_the_loss(dtype: torch.dtype) -> None:
    perfect, label = F.one_hot(torch.tensor([3]), 10).to(dtype), torch.tensor([3])
    assert torch.equal(F.softmax(1000 * perfect, dim=1), perfect)
    for loss in (math.log(1 + 9 / math.e), F.cross_entropy(perfect, label).item()):
        assert f"{loss:.4f}" == "1.4612"
    assert "for K = 10 the loss is never below 1.4612" in IDENTITIES["softmax_twice_range"].source


@pytest.mark.parametrize(
    ("bound", "moved"), [("math.log(1", "1.01 * math.log(1"), ("math.log(math.e", "0.99 * math.log(math.e")]
)
def test_the_bounds_of_a_softmax_before_the_loss_are_met(bound: str, moved: str) -> None:
    identity = IDENTITIES["softmax_twice_range"]
    assert isinstance(identity.reference.code, str)
    assert bound in identity.reference.code
    wrong = Form(identity.reference.code.replace(bound, moved))
    ten = [problem for problem in identity.domain.edges("float32") if problem["z"].shape[1] == 10]
    assert any(met.failed for problem in ten for met in judge.measure(identity, wrong, problem))


@pytest.mark.parametrize("pitfall", PITFALLS.values(), ids=PITFALLS)
def test_the_page_shows_the_mistake(pitfall: Pitfall) -> None:
    """The small problem of the page is one at which the mistake does what the entry says, to the digits shown."""
    if not exists(pitfall.mistake):
        pytest.skip("not in this release")
    shown = pitfalls.problem(pitfall)
    assert pitfall.when(shown)
    right = pitfalls.gives(pitfall, pitfall.of.reference, shown)
    mistake = pitfalls.gives(pitfall, pitfall.mistake, shown)
    if isinstance(pitfall.outcome, Raises):
        assert mistake == f"`{pitfall.outcome.error.__name__}`"
    elif isinstance(pitfall.outcome, Warns):
        assert mistake == f"{right}, and a `{pitfall.outcome.category.__name__}`"
    else:
        assert isinstance(pitfall.outcome, Differs)
        assert mistake != right


def test_page_is_current() -> None:
    if not all(exists(pitfall.mistake) for pitfall in PITFALLS.values()):
        pytest.skip("this release does not have all of them")
    assert PAGE.read_text(encoding="utf-8") == pitfalls.page(), (
        "docs/pitfalls.md is out of date: python -m equivalences pitfalls > docs/pitfalls.md"
    )
