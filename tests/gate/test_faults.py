"""Every planted fault is refused by the gate on the problems of the ci profile, in one format each: they take turns.

Those at special values are refused by their table, in every format.

`python -m equivalences faults` shows each in every format in which it exists (so does the nightly profile here).

The pages that say so are current: they have every entry as it is, and what a few of them say is measured again.
"""

from __future__ import annotations

import sys
import unittest
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import hypothesis
import pytest
import test_gate
import torch

from equivalences.__main__ import main
from equivalences.catalogue import FAMILIES, FAMILY_OF, IDENTITIES
from equivalences.evidence import peers, planted, sensitivity
from equivalences.evidence.faults import FAULTS, SPECIAL_FAULTS
from equivalences.evidence.faults.fault import Fault, SpecialFault
from equivalences.evidence.peers import opinfo
from equivalences.findings import outcomes
from equivalences.findings.model import SpecialValue
from equivalences.findings.special_values import SPECIAL_VALUES
from equivalences.formats import FORMATS
from equivalences.judging import judge, plan
from equivalences.report import markdown, sealed
from equivalences.report import planted as pages
from equivalences.report import sensitivity as of_sensitivity
from equivalences.running.forms import exists, torch_version

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(("turn", "fault"), list(enumerate(FAULTS.values())), ids=FAULTS)
def test_fault(turn: int, fault: Fault) -> None:
    expected = set() if fault.invisible else set(fault.breaks)
    everywhere = hypothesis.settings().max_examples >= hypothesis.settings.get_profile("nightly").max_examples
    for fmt in fault.formats if everywhere else plan.in_turn(fault.formats, turn):
        assert set(planted.refuted(fault, fmt)) == expected, fmt


def test_a_cell_gets_as_many_problems_as_in_the_ci_profile() -> None:
    examples = hypothesis.settings.get_profile("ci").max_examples  # of an identity: its formats share them
    assert examples // max(len(fault.of.formats) for fault in FAULTS.values()) == planted.EXAMPLES


@pytest.mark.parametrize("name", ["softmax", "linear_cross_entropy", "sgd_step"])
def test_planting_nothing_is_not_refused(name: str) -> None:
    identity = IDENTITIES[name]
    nothing = Fault("nothing", identity, replace(identity.reference, label="itself"), ("value",), "", hidden=True)
    assert not any(planted.refuted(nothing, fmt, 0) for fmt in ("float32", "bfloat16"))


@pytest.mark.parametrize("name", ["logsigmoid: log for log1p", "sgd_step: maximize turns the decay, too"])
def test_the_gate_itself_refuses_faults_on_drawn_problems(name: str) -> None:
    fault = FAULTS[name]
    drawn = replace(fault.of.domain, edges=lambda fmt: [])
    identity = replace(fault.of, forms=(fault.of.reference, planted.planted(fault)), domain=drawn)
    with pytest.raises(test_gate.Refuted):
        test_gate.gate(identity, "float32", "cpu", "eager", test_gate.CI)


def test_a_known_defect_of_a_library_does_not_excuse_others() -> None:
    # Both clamp; only torch.distributions is known to.
    fault = FAULTS["bernoulli_nll: probabilities moved into [eps, 1 - eps]"]
    problem = next(p for p in fault.of.domain.edges("float32") if len(p["p"]) > 1)
    inside = next(form for form in fault.of.forms if "Bernoulli" in form.label)
    assert any(m.failed for m in judge.measure(fault.of, fault.broken, problem))
    assert not any(m.failed for m in judge.measure(fault.of, inside, problem))


def test_faults_cover_the_catalogue() -> None:
    visible = [fault for fault in FAULTS.values() if not fault.invisible]
    assert len(visible) >= 80
    for kind in ("value", "gradient"):
        families = {FAMILY_OF[fault.of.name] for fault in visible if kind in fault.breaks}
        judged = {FAMILY_OF[identity.name] for identity in IDENTITIES.values() if kind == "value" or identity.wrt}
        assert families | {"pitfalls", "means"} >= judged & set(FAMILIES), kind


def test_entries_are_complete() -> None:
    for name, fault in FAULTS.items():
        assert IDENTITIES[fault.of.name] is fault.of, name
        assert fault.why, name
        assert fault.breaks, name
        assert set(fault.breaks) <= {"value", "gradient"}, name
        assert "gradient" not in fault.breaks or fault.of.wrt, name
        assert exists(fault.broken), name


@pytest.mark.parametrize("fault", SPECIAL_FAULTS, ids=lambda fault: f"{fault.name}: {fault.call}")
def test_fault_at_special_values(fault: SpecialFault) -> None:
    if not planted.entries(fault):
        pytest.skip("this torch has no such operation")
    for fmt in FORMATS:
        refusing = planted.refusing(fault, fmt)
        assert refusing, fmt
        for entry in refusing:  # and so says the test of the table
            assert not outcomes.broken(entry, fmt, "cpu", "eager", torch_version())
            broken = replace(entry, call=fault.broken)
            assert outcomes.broken(broken, fmt, "cpu", "eager", torch_version())
        assert not sound_but_refused(fault.call, fmt)


@lru_cache
def sound_but_refused(call: str, fmt: str) -> list[SpecialValue]:
    """The entries that refuse the very call that they are about, asked once for all its faults."""
    return planted.refusing(SpecialFault("none", call, call, ""), fmt)


def test_faults_at_special_values_cover_their_table() -> None:
    calls = {entry.call: entry.operation for entry in SPECIAL_VALUES}
    assert {calls[fault.call] for fault in SPECIAL_FAULTS} == set(calls.values())
    assert len({(fault.call, fault.name) for fault in SPECIAL_FAULTS}) == len(SPECIAL_FAULTS)
    assert all(fault.why for fault in SPECIAL_FAULTS)


# --- the pages -------------------------------------------------------------------------------------------------------


def lines(page: str) -> list[str]:
    return (DOCS / page).read_text(encoding="utf-8").splitlines()


def same_version(page: str) -> None:
    if f"torch {torch_version()} " not in "\n".join(lines(page)[:8]):
        pytest.skip(f"measured with another torch: `{pages.COMMAND}` measures with this one")


@pytest.mark.parametrize(
    ("page", "digest"), [("faults.md", pages.faults_digest), ("sensitivity.md", of_sensitivity.digest)]
)
def test_pages_have_the_entries_as_they_are(page: str, digest: Callable[[], str]) -> None:
    whole = lines(page)
    assert f"entries {digest()}, text {sealed.seal(whole)} -->" in whole[2], f"out of date: run `{pages.COMMAND}`"


@pytest.mark.parametrize(
    "name",
    [
        "cross_entropy: label off by one",
        "cross_entropy: scaled by 1 + 16 u",
        "cross_entropy: softmax term doubled",
        "sigmoid: upstream ignored",
        "sgd_step: first number alone",
    ],
)
def test_page_on_faults_says_what_is_measured(name: str) -> None:
    same_version("faults.md")
    assert pages.fault_row(pages.found(FAULTS[name])) in lines("faults.md")


@pytest.mark.parametrize("fault", SPECIAL_FAULTS[::6], ids=lambda fault: f"{fault.name}: {fault.call}")
def test_page_on_faults_says_what_is_measured_at_special_values(fault: SpecialFault) -> None:
    same_version("faults.md")
    assert pages.special_row(pages.special(fault)) in lines("faults.md")


def test_page_on_sensitivity_says_what_is_measured() -> None:
    same_version("sensitivity.md")
    shown = [line.split("|")[1:-1] for line in lines("sensitivity.md") if line.startswith("| `")]
    assert len(shown) == of_sensitivity.WEAKEST
    for cells in shown[::10]:
        name, kind, fmt, region, k = (cell.strip().strip("`") for cell in cells)
        identity = IDENTITIES[name]
        measured = sensitivity.measured(identity, fmt, (identity.reference,))
        (cell,) = (each for each in measured if each.kind == kind)
        assert of_sensitivity.multiple(cell.by_region[region]) == k


def test_sensitivity_is_shown_form_by_form() -> None:
    identity = IDENTITIES["sigmoid"]
    text = "\n".join(of_sensitivity.tables([identity], ("bfloat16",)))
    for cell in sensitivity.measured(identity, "bfloat16"):
        assert markdown.row(of_sensitivity.row(cell)) in text


def test_peers_leave_the_examples_alone(request: pytest.FixtureRequest) -> None:
    # torch.testing._internal.common_utils loads a profile of its own: the gate would go on with 10 examples.
    peers.verdicts(FAULTS["cross_entropy: label off by one"])
    assert "torch.testing._internal.common_utils" in sys.modules
    assert hypothesis.settings.get_profile("dev").max_examples == 25
    if asked := request.config.getoption("--hypothesis-profile"):
        assert hypothesis.settings.get_current_profile_name() == asked


def test_opinfo_has_the_tolerances_of_the_operator_for_the_test(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = opinfo.operator(IDENTITIES["softplus"])
    from torch.testing._internal.common_device_type import onlyCUDA, tol, toleranceOverride
    from torch.testing._internal.opinfo.core import DecorateInfo

    def tolerances(name: str, fmt: str) -> tuple[float, float] | None:
        case = opinfo.test_case.__wrapped__(IDENTITIES[name], fmt, "TestCommon.test_numpy_ref")
        return case and (case.precision, case.rel_tol)

    assert tolerances("sigmoid", "bfloat16") == (0.01, 0)
    assert tolerances("sigmoid", "float32") == (0, 0)
    assert tolerances("softplus", "bfloat16") == (0, 0)  # 0.01 is for other tests: TestUnaryUfuncs
    for decorator, found in (
        (toleranceOverride({torch.float32: tol(atol=1, rtol=2)}), (1, 2)),
        (unittest.skip("broken"), None),
        (unittest.expectedFailure, None),
        (onlyCUDA, None),
    ):
        monkeypatch.setattr(declared, "decorators", (DecorateInfo(decorator, "TestCommon", "test_numpy_ref"),))
        assert tolerances("softplus", "float32") == found


def test_a_folder_that_is_not_there_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main(["faults", "--docs", str(tmp_path / "nowhere")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "nowhere" in said


def test_a_gate_that_sees_everything_would_be_noticed() -> None:
    # A number inside its allowance is noticed only once it is moved: the threshold is never below half a rounding.
    for fmt in ("float32", "bfloat16"):
        for cell in sensitivity.measured(IDENTITIES["sigmoid"], fmt):
            assert min(cell.by_region.values()) > 0.5
