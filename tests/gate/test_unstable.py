"""What loses its digits still does, in numbers as stated, beside a reference that keeps them.

An entry that is out of date fails here.
"""

from __future__ import annotations

import numpy as np
import pytest

from equivalences.catalogue import IDENTITIES
from equivalences.findings.model import Unstable, Witness
from equivalences.findings.unstable import UNSTABLE
from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.judging.judge import Measurement
from equivalences.judging.witness import beside_reference, still_unstable
from equivalences.running.forms import reached

SHOWN = [
    pytest.param(entry, witness, id=f"{entry.name}-{witness.problem.format}-{witness.problem['z'].flat[0]:g}")
    for entry in UNSTABLE
    for witness in entry.witnesses
]


def stated(number: float) -> float:
    """A number as the table states it: three significant digits."""
    return float(f"{number:.3g}")


def skip_if_fixed(entry: Unstable) -> None:
    if entry.fixed and reached(entry.fixed):
        pytest.skip(f"fixed in torch {entry.fixed}: delete the entry once no older release is supported")


@pytest.mark.parametrize(("entry", "witness"), SHOWN)
def test_witness_still_loses_its_digits(entry: Unstable, witness: Witness) -> None:
    skip_if_fixed(entry)
    assert still_unstable(entry, witness.problem), (
        f"fixed: delete this entry ({entry.name} in equivalences/findings/unstable.py): {entry.form} is no longer "
        f"beyond the contract of {entry.identity} and within its own allowance, beside a reference "
        "that keeps half of the digits"
    )


@pytest.mark.parametrize(("entry", "witness"), SHOWN)
def test_numbers_are_as_stated(entry: Unstable, witness: Witness) -> None:
    skip_if_fixed(entry)
    unstable, reference = beside_reference(entry, witness.problem)
    assert stated(unstable.got[entry.at]) == witness.got
    assert stated(unstable.exact[entry.at]) == witness.exact
    assert unstable.exact[entry.at] == reference.exact[entry.at]


@pytest.mark.parametrize(("entry", "witness"), SHOWN)
def test_a_form_that_keeps_its_digits_is_told(entry: Unstable, witness: Witness) -> None:
    """The reference in the form's place is not unstable: an entry that is mended would be noticed."""
    mended = {**vars(entry), "form": "reference"}
    assert not still_unstable(Unstable(**mended), witness.problem)


@pytest.mark.parametrize("fmt", ["float64", "float32"])
@pytest.mark.parametrize("name", ["log_softmax_tail", "softmax_vjp_tail"])
def test_the_contract_is_relative_for_the_class_that_dominates(name: str, fmt: str) -> None:
    """Half of the digits at least, wherever the exact number is not among the smallest of the format."""
    identity, u, held = IDENTITIES[name], FORMATS[fmt].u, 0
    for problem in identity.domain.edges(fmt):
        (value, *_) = judge.measure(identity, identity.reference, problem)
        assert isinstance(value, Measurement)
        each = np.arange(len(problem["z"])), problem["z"].argmax(1)
        size, own = np.abs(value.exact[each]), value.own.bound[each]
        there = size > FORMATS[fmt].tiny / u
        assert (own < u**0.5 * size)[there].all()
        held += int((there & (size < u)).sum())
    assert held, "no class dominates"


@pytest.mark.parametrize("entry", UNSTABLE, ids=lambda entry: entry.name)
def test_entry_is_complete(entry: Unstable) -> None:
    identity = IDENTITIES[entry.identity]
    form = identity.form(entry.form)
    assert form is not identity.reference
    assert {"float32", "float64"} <= set(entry.formats) <= set(form.formats or identity.formats)
    assert entry.why
    assert entry.who
    assert entry.instead
    assert entry.link


def test_names_are_told_apart() -> None:
    assert len({entry.name for entry in UNSTABLE}) == len(UNSTABLE)
