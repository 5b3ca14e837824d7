"""The catalogue for readers: every identity, pitfall and known defect in a line, or one with all that belongs to it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from equivalences import devices, execute, judge
from equivalences.catalogue import FAMILIES, FAMILY_OF, IDENTITIES, PITFALLS
from equivalences.execute import LAYOUTS
from equivalences.judge import KNOWN, OUTSIDE, Measurement
from equivalences.known_defects import KNOWN_DEFECTS
from equivalences.model import Form, Identity, KnownDefect, Pitfall, Raises, Warns
from equivalences.report import failure
from equivalences.special_values import SPECIAL_VALUES
from equivalences.unstable import UNSTABLE

AXES = {"": "a number", "R": "a number a row", "C": "a number a class", "RC": "rows x classes"}


def catalogue() -> Iterator[str]:
    """One line an identity, by family, with its statement and number of forms; one a pitfall and a known defect."""
    width = max(map(len, [*IDENTITIES, *PITFALLS]))
    for family in FAMILIES:
        members = [identity for name, identity in IDENTITIES.items() if FAMILY_OF[name] == family]
        if members:
            yield f"{family}: {len(members)} identities, {sum(len(each.forms) for each in members)} forms"
        for identity in members:
            yield f"  {identity.name:{width}} {len(identity.forms):3} forms  {identity.statement}"
    if PITFALLS:
        yield f"pitfalls: {len(PITFALLS)}"
    for name, pitfall in PITFALLS.items():
        yield f"  {name:{width}} of {pitfall.of.name}: {pitfall.statement}"
    yield f"known defects of PyTorch: {len(KNOWN_DEFECTS)}"
    for defect in KNOWN_DEFECTS:
        yield f"  {defect.name:{width}} {defect.why}"
    yield f"accurate only in absolute terms: {len(UNSTABLE)} (`python -m equivalences show` of their identities)"
    for unstable in UNSTABLE:
        yield f"  {unstable.name:{width}} of {unstable.identity}: {unstable.why}"
    operations = len({entry.operation for entry in SPECIAL_VALUES})
    yield f"special values: {len(SPECIAL_VALUES)} of {operations} operations (`python -m equivalences special`)"


def entry(found: Identity | Pitfall | KnownDefect) -> str:
    """Everything about one entry, as text; of a known defect also what its witness does on this machine."""
    if isinstance(found, KnownDefect):
        return "\n".join(_defect(found))
    return "\n".join(_identity(found) if isinstance(found, Identity) else _pitfall(found))


def _field(name: str, text: str) -> str:
    return f"  {name:10} {text}"


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)


def _identity(identity: Identity) -> Iterator[str]:
    domain = identity.domain
    yield f"{identity.name} (family {FAMILY_OF.get(identity.name, '-')})"
    yield _field("statement", identity.statement)
    yield _field("source", identity.source)
    yield _field("judged", "bit for bit" if identity.bitwise else "value" + _gradients(identity))
    yield _field("formats", _all(identity.formats))
    yield ""
    yield f"domain {domain.name}"
    for name, axes in domain.axes.items():
        what = "upstream gradient, like the output" if name == "g" else AXES.get(axes, f"axes {axes}")
        yield _field(name, what)
    yield _field("output", AXES.get(identity.out, f"axes {identity.out}"))
    yield _field("regions", _all(identity.regions or domain.regions) + " (see `equivalences.problems.regions`)")
    for name in judge.layouts(identity):
        yield _field("layout", f"{name}: {LAYOUTS[name].what}")
    yield ""
    yield "forms (the first, *, is the reference: its allowance is the contract)"
    for form in identity.forms:
        yield from _form(form, "*" if form is identity.reference else "-")
    if defects := _concerning(identity):
        yield from ("", "known defects of PyTorch that it meets")
        for defect in defects:
            yield f"  - {defect.name} ({_all(defect.formats)}; seen in torch {_all(defect.seen)}): {defect.why}"
            yield f"    {defect.link}"
    if unstable := [entry for entry in UNSTABLE if entry.identity == identity.name]:
        yield from ("", "accurate only in absolute terms: within its own arithmetic, beyond the contract")
        for entry in unstable:
            first = entry.witnesses[0]
            yield f"  - {entry.form}: {entry.quantity} ({_all(entry.formats)}): {entry.why}"
            yield f"    gives {first.got:g} for {first.exact:g} at {first.problem}"
            yield f"    who is hurt: {entry.who}"
            yield f"    {entry.link}"
    near = [p for p in PITFALLS.values() if p.of is identity or identity in p.relations]
    if near:
        yield from ("", "pitfalls near it")
        for pitfall in near:
            yield f"  - {pitfall.name}: {pitfall.statement}"


def _gradients(identity: Identity) -> str:
    return f", gradient with respect to {_all(identity.wrt)} under the upstream gradient g" if identity.wrt else ""


def _form(form: Form, mark: str) -> Iterator[str]:
    code = textwrap.dedent(form.code).strip() if isinstance(form.code, str) else form.label
    lines = code.splitlines()
    if isinstance(form.code, str) and form.label != " ; ".join(line.strip() for line in lines):
        lines = [f"# {form.label}", *lines]
    yield f"  {mark} {lines[0]}"
    yield from (f"    {line}" for line in lines[1:])
    claims = (("regions", form.regions), ("formats", form.formats), ("layouts", form.layouts))
    yield from (f"      claims only {what}: {_all(names)}" for what, names in claims if names)
    if form.needs:
        there = "" if execute.exists(form) else ", which this torch does not have"
        yield f"      needs torch.{form.needs}{there}"


def _concerning(identity: Identity) -> list[KnownDefect]:
    """The known defects of operations that some form of the identity runs."""
    met = {defect for defect in KNOWN_DEFECTS if defect.identity == identity.name}
    if not identity.bitwise:
        fmt = identity.formats[-1]
        problem = identity.domain.edges(fmt)[0]
        for form in judge.forms(identity, fmt, judge.layouts(identity)[0]):
            try:
                ran = execute.run(identity, form, problem, layout=judge.layouts(identity)[0]).operations
            except Exception:  # `verify` reports it
                continue
            met |= {defect for defect in KNOWN_DEFECTS if judge.concerns(defect, form, ran)}
    return [defect for defect in KNOWN_DEFECTS if defect in met]


def _pitfall(pitfall: Pitfall) -> Iterator[str]:
    outcome = pitfall.outcome
    yield f"{pitfall.name} (pitfall, of {pitfall.of.name})"
    yield _field("statement", pitfall.statement)
    yield _field("source", pitfall.source)
    yield from ("", "the mistake")
    yield from _form(pitfall.mistake, "-")
    if isinstance(outcome, Raises):
        yield f"    raises {outcome.error.__name__}: {outcome.match}"
    elif isinstance(outcome, Warns):
        yield f"    warns {outcome.category.__name__}: {outcome.match}"
    else:
        yield "    gives a different number, without a word"
    for relation in pitfall.relations:
        yield from ("", "what does hold")
        yield _field(relation.name, relation.statement)


def _defect(defect: KnownDefect) -> Iterator[str]:
    yield f"{defect.name} (known defect of PyTorch, in aten::{defect.operation})"
    yield _field("what", defect.why)
    yield _field("link", defect.link or "none: no thread about it was found")
    yield _field("where", f"{_all(defect.formats)}; {_all(defect.devices)}; {_all(defect.modes)}")
    yield _field("seen in", f"torch {_all(defect.seen)}" + (f"; gone from {defect.fixed} on" if defect.fixed else ""))
    here = next((device for device in defect.devices if device in devices.available()), "")
    if not here:
        yield from ("", f"its witness needs a device that is not here: {_all(defect.devices)}")
        return
    yield from ("", "its witness here, judged as if nobody knew", "")
    for met in judge.witnessed(defect, here):
        if isinstance(met, Measurement) and np.isin(met.verdict, (KNOWN, OUTSIDE)).any():
            unknown = replace(met, verdict=np.where(met.verdict == KNOWN, OUTSIDE, met.verdict), defects=())
            yield failure.text(unknown, shrink=False)
            return
    yield "not outside its allowance: this torch does not have the defect"
