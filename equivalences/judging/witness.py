"""What is said of the witnesses of known defects and of unstable forms: do they still show what their entry says?"""

from __future__ import annotations

from equivalences.catalogue import IDENTITIES
from equivalences.findings.model import KnownDefect, Unstable
from equivalences.formats import FORMATS
from equivalences.judging.facts import EXCUSED, INSIDE, OUTSIDE
from equivalences.judging.judge import Judgement, Measurement, decide, layouts, measure
from equivalences.model import Problem


def witnessed(defect: KnownDefect, device: str = "") -> list[Judgement]:
    """What is said of a defect's witness, in the first of its modes and on `device` (default: the first of its own)."""
    identity = IDENTITIES[defect.identity]
    form = identity.form(defect.form)
    where = device or defect.devices[0]
    return measure(identity, form, defect.witness, layout=defect.layout, device=where, mode=defect.modes[0])


def still_defective(defect: KnownDefect, device: str = "") -> bool:
    """Whether the defect's witness is still outside the rule and inside what the entry says the kernel does."""
    return any(isinstance(m, Measurement) and bool((m.own.fact == EXCUSED).any()) for m in witnessed(defect, device))


def beside_reference(entry: Unstable, problem: Problem) -> tuple[Measurement, Measurement]:
    """What an unstable form and the reference beside it give for a problem: the entry's quantity, on the CPU."""
    identity = IDENTITIES[entry.identity]
    form = identity.form(entry.form)
    layout = layouts(identity)[0]
    found = []
    for each in (form, identity.reference):
        met = measure(identity, each, problem, layout=layout)
        found += [m for m in met if isinstance(m, Measurement) and m.quantity == entry.quantity]
    unstable, reference = found
    return unstable, reference


def still_unstable(entry: Unstable, problem: Problem) -> bool:
    """Whether the form is surely beyond the contract there, within its own bound, and the reference is sharp."""
    m, reference = beside_reference(entry, problem)
    contract, _, _ = decide(m.identity, problem, m.quantity, m.got, m.contract.bound)
    half = FORMATS[problem.format].u ** 0.5
    sharp = reference.own.bound[entry.at] < half * abs(reference.exact[entry.at])
    inside = m.own.fact[entry.at] == INSIDE == reference.own.fact[entry.at]
    return bool(contract[entry.at] == OUTSIDE and inside and sharp)
