"""Compiled code in the default gate: a few forms, one defect and one special value; `--mode compiled` runs all.

Compiling costs seconds a form (and some 20 once for a precompiled header, unless inductor's cache has it).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_known_defects import skip_unless_seen

from equivalences.catalogue import IDENTITIES
from equivalences.findings import outcomes
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.special_values import SPECIAL_VALUES
from equivalences.judging import judge, plan, witness
from equivalences.judging.judge import Crash, Measurement
from equivalences.model import Form, Identity, Problem
from equivalences.problems.rows import some_rows
from equivalences.report import failure
from equivalences.running import execute
from equivalences.running.forms import function, running, torch_version


def measured(identity: Identity, form: Form, fmt: str) -> list[judge.Judgement]:
    """The form's judgements on the edge problem that has compiled code's one shape."""
    problem: Problem = plan.edges(identity, fmt, "compiled")[0].problem
    return judge.measure(identity, form, problem, layout=judge.layouts(identity)[0], mode="compiled")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "named", "fmt"),
    [
        ("cross_entropy_options_reduced", "cross-entropy", "bfloat16"),
        ("binary_cross_entropy", "bce-with-logits", "float32"),
    ],
)
def test_form(name: str, named: str, fmt: str) -> None:
    identity = IDENTITIES[name]
    form = identity.form(named)
    met = measured(identity, form, fmt)
    assert {m.quantity for m in met if isinstance(m, Measurement)} == {"value", "gradient z"}
    for judgement in met:
        assert not judgement.failed, failure.text(judgement)


def test_large_sums_are_held_to_the_order_of_the_compiler() -> None:
    """4096 numbers one after the other are more than eager code may add up so, and no failure."""
    identity = IDENTITIES["binary_cross_entropy_large_batch"]
    form = identity.form("bce-with-logits")
    value = measured(identity, form, "float32")[0]
    assert isinstance(value, Measurement)
    assert not value.failed, failure.text(value)
    eager = judge.measure(identity, form, value.problem, layout=value.layout)[0]
    assert isinstance(eager, Measurement)
    assert eager.own.bound < value.error <= value.own.bound < 0.01 * value.exact


def test_eager_code_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", True)  # whoever compiled here before
    with running("compiled"):
        torch.compile(lambda: None, backend="eager")
        assert not torch.distributions.Distribution._validate_args
    assert torch.distributions.Distribution._validate_args, "torch.compile switched validation off, and it stayed off"


def test_defect_of_compiled_code_alone() -> None:
    defect = next(defect for defect in KNOWN_DEFECTS if defect.modes == ("compiled",))
    skip_unless_seen(defect, "cpu", "compiled")
    assert witness.still_defective(defect), f"fixed: delete {defect.name} from equivalences/findings/known_defects/"


def test_special_value_of_compiled_code_alone() -> None:
    entry = next(entry for entry in SPECIAL_VALUES if any(d.modes == ("compiled",) for d in entry.deviations))
    fmt = entry.deviations[0].formats[0]
    assert not outcomes.broken(entry, fmt, "cpu", "compiled", torch_version())


# --- the gate can fail: forms that are wrong only where they are compiled -------------------------------------------


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code is traced, and run without inductor: fast, and the same to whoever asks `is_compiling`."""

    def compiled(form: Form, names: tuple[str, ...], variant: tuple[str, ...]) -> Any:
        return torch.compile(function(form, names, ("traced", *variant)), backend="eager", dynamic=False)

    monkeypatch.setattr(execute, "compiled", compiled)


WRONG = "x = F.cross_entropy(z, y, reduction='none')\n"


@pytest.mark.usefixtures("traced")
@pytest.mark.parametrize(
    ("code", "says"),
    [
        (WRONG + "x * 1.001 if torch.compiler.is_compiling() else x", ""),
        (WRONG + "x.double() if torch.compiler.is_compiling() else x", "torch.float64"),
        (WRONG + "x.refuse() if torch.compiler.is_compiling() else x", "refuse"),
        (WRONG + "x", None),
    ],
    ids=["number", "dtype", "exception", "right"],
)
def test_what_only_compiled_code_does_is_seen(code: str, says: str | None) -> None:
    met = measured(IDENTITIES["cross_entropy"], Form(code), "float32")
    assert any(judgement.failed for judgement in met) == (says is not None)
    if says:
        assert isinstance(met[0], Crash)
        assert says in str(met[0].error)


@pytest.mark.usefixtures("traced")
def test_it_never_falls_back_to_eager_code() -> None:
    identity, wrong = IDENTITIES["cross_entropy"], Form(WRONG + "x * 1.001 if torch.compiler.is_compiling() else x")
    whole = plan.edges(identity, "float32", "compiled")[0].problem
    for rows in range(2, 14):  # torch's own limit is 8 shapes
        part = some_rows(whole, identity.domain.axes, np.arange(rows))
        met = judge.measure(identity, wrong, part, layout=judge.layouts(identity)[0], mode="compiled")
        assert any(judgement.failed for judgement in met), rows
