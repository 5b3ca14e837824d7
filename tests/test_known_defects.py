"""A known defect is still there, in the releases of torch that it names: an entry that is out of date fails here."""

from __future__ import annotations

import pytest

from equivalences import execute, judge
from equivalences.catalogue import IDENTITIES
from equivalences.known_defects import KNOWN_DEFECTS
from equivalences.model import KnownDefect


@pytest.mark.parametrize("defect", KNOWN_DEFECTS, ids=lambda defect: defect.name)
def test_witness_still_fails(defect: KnownDefect, device: str, mode: str) -> None:
    version = execute.torch_version()
    if version not in defect.seen:
        pytest.skip(
            f"seen in torch {', '.join(defect.seen)}, this is {version}: add it to `seen` if the witness fails here, "
            "delete the entry if no release that is supported has it"
        )
    if device not in defect.devices:
        pytest.skip(f"a defect on {', '.join(defect.devices)}: choose with --device")
    if mode not in defect.modes:
        pytest.skip(f"a defect of {', '.join(defect.modes)} code: choose with --mode")
    assert judge.still_defective(defect), (
        f"fixed: delete this entry ({defect.name} in equivalences/known_defects.py): "
        f"its witness is no longer outside the rule of aten::{defect.operation} and inside `as_is`"
    )


@pytest.mark.parametrize("defect", KNOWN_DEFECTS, ids=lambda defect: defect.name)
def test_entry_is_complete(defect: KnownDefect) -> None:
    assert defect.witness.format in defect.formats
    assert defect.form in {form.label for form in IDENTITIES[defect.identity].forms}
    assert defect.seen, "name the releases of torch that it was seen in"
    assert defect.why
