"""A known defect is still there, in the releases of torch that it names, and the gate would find it without its entry.

An entry that is out of date fails here.
"""

from __future__ import annotations

import pytest

from equivalences.catalogue import FAMILY_OF, IDENTITIES
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.model import KnownDefect, Severity
from equivalences.judging import judge, known, plan, witness
from equivalences.running.forms import torch_version


def skip_unless_seen(defect: KnownDefect, device: str, mode: str) -> None:
    """Skips, with the reason, what this torch, device and mode are not said to have."""
    version = torch_version()
    if device not in defect.devices:
        pytest.skip(f"a defect on {', '.join(defect.devices)}: choose with --device")
    if version not in defect.seen:
        pytest.skip(
            f"seen in torch {', '.join(defect.seen)}, this is {version}: add it to `seen` if the witness fails here, "
            "delete the entry if no release that is supported has it"
        )
    if mode not in defect.modes:
        pytest.skip(f"a defect of {', '.join(defect.modes)} code: choose with --mode")


@pytest.mark.parametrize("defect", KNOWN_DEFECTS, ids=lambda defect: defect.name)
def test_witness_still_fails(defect: KnownDefect, device: str, mode: str) -> None:
    skip_unless_seen(defect, device, mode)
    assert witness.still_defective(defect, device), (
        f"fixed: delete this entry ({defect.name} in equivalences/findings/known_defects/): "
        f"its witness is no longer outside the rule of aten::{defect.operation} and inside `as_is`"
    )


@pytest.mark.parametrize("defect", KNOWN_DEFECTS, ids=lambda defect: defect.name)
def test_the_gate_finds_it(defect: KnownDefect, device: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the entry, the gate is red on the edge problems of the witness's family."""
    skip_unless_seen(defect, device, mode)
    monkeypatch.setattr(known, "KNOWN_DEFECTS", tuple(other for other in KNOWN_DEFECTS if other is not defect))
    family = [identity for name, identity in IDENTITIES.items() if FAMILY_OF[name] == FAMILY_OF[defect.identity]]
    assert any(
        met.failed
        for identity in sorted(family, key=lambda identity: identity.name != defect.identity)
        for fmt in defect.formats
        if fmt in identity.formats
        for each in plan.edges(identity, fmt, mode)
        for met in judge.judge(identity, each.problem, each.layouts, device=device, mode=mode)
    )


@pytest.mark.parametrize("defect", KNOWN_DEFECTS, ids=lambda defect: defect.name)
def test_entry_is_complete(defect: KnownDefect) -> None:
    assert defect.witness.format in defect.formats
    assert IDENTITIES[defect.identity].form(defect.form) in IDENTITIES[defect.identity].forms
    assert defect.seen, "name the releases of torch that it was seen in"
    assert defect.why
    assert defect.severity in Severity
    for told in (defect.off, defect.hurts, defect.instead):
        assert told.strip(), "say how far off, who is hurt and what to do instead"
        assert told == told.strip().rstrip(".")


def test_forms_of_an_identity_have_different_names() -> None:
    for identity in IDENTITIES.values():
        names = [form.name for form in identity.forms if form.name]
        assert len(names) == len({*names, "reference"}) - 1, identity.name
