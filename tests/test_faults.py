"""Every planted fault is refused by the gate, in every format in which it exists, on the problems of the ci profile."""

from __future__ import annotations

from dataclasses import replace

import hypothesis
import pytest
import test_gate

from equivalences import planted
from equivalences.catalogue import FAMILIES, FAMILY_OF, IDENTITIES
from equivalences.faults import FAULTS
from equivalences.model import Fault

CI = hypothesis.settings.get_profile("ci").max_examples  # of an identity: its formats share them


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_fault(fault: Fault) -> None:
    expected = set() if fault.invisible else set(fault.breaks)
    for fmt in fault.formats:
        assert set(planted.refuted(fault, fmt, CI // len(fault.of.formats))) == expected, fmt


@pytest.mark.parametrize("name", ["softmax", "cross_entropy_reduced", "linear_cross_entropy", "sgd_step"])
def test_planting_nothing_is_not_refused(name: str) -> None:
    identity = IDENTITIES[name]
    for fmt in identity.formats:
        nothing = Fault("nothing", identity, replace(identity.reference, label="itself"), ("value",), "", hidden=True)
        assert not planted.refuted(nothing, fmt, 2)


def test_the_gate_itself_refuses_what_only_drawn_problems_show() -> None:
    fault = FAULTS["full_batch_gradient: last batch dropped"]
    assert planted.refuted(fault, "bfloat16", 0) == {}
    identity = replace(fault.of, forms=(fault.of.reference, planted.planted(fault)))
    with pytest.raises(test_gate.Refuted):
        test_gate.test_identity(identity, "bfloat16", "cpu", "eager")


def test_faults_cover_the_catalogue() -> None:
    visible = [fault for fault in FAULTS.values() if not fault.invisible]
    assert len(visible) >= 80
    assert {FAMILY_OF[fault.of.name] for fault in visible} >= set(FAMILIES) - {"pitfalls"}
    for kind in ("value", "gradient"):
        families = {FAMILY_OF[fault.of.name] for fault in visible if kind in fault.breaks}
        judged = {FAMILY_OF[identity.name] for identity in IDENTITIES.values() if kind == "value" or identity.wrt}
        assert families >= judged - {"pitfalls"}, kind


def test_entries_are_complete() -> None:
    for name, fault in FAULTS.items():
        assert IDENTITIES[fault.of.name] is fault.of, name
        assert fault.why, name
        assert set(fault.breaks) <= {"value", "gradient"}, name
        assert "gradient" not in fault.breaks or fault.of.wrt, name
