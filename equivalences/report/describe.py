"""One entry of the catalogue with all that belongs to it; its forms and its witness are tried on this machine."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from equivalences import devices, entries
from equivalences.catalogue import FAMILY_OF, IDENTITIES, PITFALLS
from equivalences.entries import Entry
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.model import KnownDefect, Unstable
from equivalences.findings.unstable import UNSTABLE
from equivalences.gate import sweep
from equivalences.judging import judge, known, plan, witness
from equivalences.judging.facts import EXCUSED, OUTSIDE
from equivalences.judging.judge import Held, Measurement
from equivalences.judging.tally import Tally
from equivalences.model import Form, Identity, Pitfall, Raises, Warns
from equivalences.problems import regions
from equivalences.report import failure, formula, listing, table
from equivalences.running import execute
from equivalences.running.execute import Place
from equivalences.running.forms import exists
from equivalences.running.layouts import LAYOUTS

AXES = {"": "a number", "R": "one number for each row", "C": "one number for each class", "RC": "rows x classes"}
TRIED = 300  # numbers at most in a problem that is judged to say where a form loses digits


def entry(found: Entry, width: int | None = None) -> str:
    """Everything about one entry, as text; prose is wrapped at `width` (None: not at all)."""
    said = _KINDS[found.kind](found)
    return "\n".join(line for each in said for line in _wrapped(each, width))


def _wrapped(line: str, width: int | None) -> list[str]:
    """A line of prose in lines of at most `width` characters; what belongs to it starts where its text does."""
    if width is None or len(line) <= width:
        return [line]
    indent = len(line) - len(line.lstrip(" -*"))
    if line[:2] == "  " and line[2:12].strip() and line[12:13] == " ":
        indent = 13  # of a field, below its text
    return textwrap.wrap(
        line, width, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False,
        drop_whitespace=True, replace_whitespace=False, expand_tabs=False,
    )  # fmt: skip


def _field(name: str, text: str) -> str:
    return f"  {name:10} {text}"


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)


def _identity(identity: Identity) -> Iterator[str]:
    domain, words = identity.domain, regions.described(identity.domain)
    yield f"{identity.name} (family {FAMILY_OF.get(identity.name, '-')})"
    yield _field("statement", formula.text(identity.statement))
    yield _field("source", identity.source)
    yield _field("judged", "bit for bit" if identity.bitwise else "value" + _gradients(identity))
    yield _field("formats", _all(identity.formats))
    yield from ("", "forms: all compute this; the first, *, is the reference, whose error bound is the contract")
    tried = _tried(identity)
    for form in identity.forms:
        yield from _form(form, "*" if form is identity.reference else "-")
        yield from (f"      {said}" for said in _breaks(identity, form, tried))
    yield from ("", "regions: the kinds of inputs that are told apart")
    yield from (_field(name, words[name]) for name in identity.regions or domain.regions)
    yield from ("", f"inputs: {domain.name}")
    for name, axes in domain.axes.items():
        what = "upstream gradient, like the output" if name == "g" else AXES.get(axes, f"axes {axes}")
        yield _field(name, what)
    yield _field("output", AXES.get(identity.out, f"axes {identity.out}"))
    for name in judge.layouts(identity):
        yield _field("layout", f"{name}: {LAYOUTS[name].what}")
    yield from _near(identity)


def _gradients(identity: Identity) -> str:
    return f", gradient with respect to {_all(identity.wrt)} under the upstream gradient g" if identity.wrt else ""


# --- forms, and where they break -------------------------------------------------------------------------------------


def _form(form: Form, mark: str) -> Iterator[str]:
    code = textwrap.dedent(form.code).strip() if isinstance(form.code, str) else form.label
    lines = code.splitlines()
    if isinstance(form.code, str) and form.label != " ; ".join(line.strip() for line in lines):
        lines = [f"# {form.label}", *lines]
    yield f"  {mark} {lines[0]}"
    yield from (f"    {line}" for line in lines[1:])
    claims = (("formats", form.formats), ("layouts", form.layouts))
    yield from (f"      only for the {what}: {_all(names)}" for what, names in claims if names)
    if form.needs:
        there = "" if exists(form) else ", which this torch does not have"
        yield f"      needs torch.{form.needs}{there}"


def _tried(identity: Identity) -> Tally | None:
    """The forms on the small edge problems, in float32 (None: bit for bit, not in float32, or no problem is small)."""
    if identity.bitwise or "float32" not in identity.formats:
        return None
    tally = Tally(identity, "float32")
    for each in plan.edges(identity, "float32"):
        if sum(np.size(item) for item in each.problem.items.values()) <= TRIED:
            sweep.judged(tally, each.problem, each.layouts[:1], "cpu", "eager")
    return tally if tally.problems else None


def _breaks(identity: Identity, form: Form, tried: Tally | None) -> Iterator[str]:
    """Where a form is not as good as the reference: what it does not claim, what is known of it, what was measured."""
    every = identity.regions or identity.domain.regions
    if form.regions and (rest := [name for name in every if name not in form.regions]):
        yield f"wrong or without a bound in: {_all(rest)}"
    for entry in UNSTABLE:
        if entry.identity == identity.name and entry.form == form.name:
            yield f"loses digits of the {entry.quantity} ({entry.name}): {entry.why}"
    lost: dict[str, tuple[int, int]] = {}
    for (label, _, region), cell in tried.cells.items() if tried else ():
        if label == form.label and region in (form.regions or every):
            judged, beyond = lost.get(region, (0, 0))
            lost[region] = judged + cell.judged, beyond + cell.judged - cell.stable
    shares = {name: table.percent(lost[name][1], lost[name][0]) for name in every if name in lost and lost[name][1]}
    if worse := [f"{name} {share}" for name, share in shares.items()]:
        yield f"less accurate than the reference must be (share of the float32 numbers tried): {_all(worse)}"


# --- what is near an identity ----------------------------------------------------------------------------------------


def _near(identity: Identity) -> Iterator[str]:
    if defects := concerning(identity):
        yield from ("", "known defects of PyTorch that it may meet")
        for defect in defects:
            where = f"{_all(defect.formats)}; seen in torch {_all(defect.seen)}"
            yield f"  - {defect.name} ({where}): {defect.why}"
            if defect.link:
                yield f"    {defect.link}"
    if near := [p for p in PITFALLS.values() if p.of is identity or identity in p.relations]:
        yield from ("", "pitfalls near it")
        yield from (f"  - {pitfall.name}: {formula.text(pitfall.statement)}" for pitfall in near)
    if unstable := [each for each in UNSTABLE if each.identity == identity.name]:
        yield from ("", "accurate only in absolute terms: within its own arithmetic, beyond the contract")
        for each in unstable:
            yield f"  - {each.name}"
            yield from _loses(each)


def _loses(unstable: Unstable) -> Iterator[str]:
    first = unstable.witnesses[0]
    label = IDENTITIES[unstable.identity].form(unstable.form).label
    yield f"    {label}: {unstable.quantity} ({_all(unstable.formats)}): {unstable.why}"
    yield f"    gives {first.got:g} for {first.exact:g} at {first.problem}"
    yield f"    who is hurt: {unstable.who}"
    yield f"    do instead: {unstable.instead}"
    yield f"    {unstable.link}"


def concerning(identity: Identity) -> list[KnownDefect]:
    """The known defects that some form of the identity may meet: of operations that it runs.

    A defect that a total over rows shows concerns no identity whose rows are each their own.
    """
    met = {defect for defect in KNOWN_DEFECTS if defect.identity == identity.name}
    if not identity.bitwise:
        fmt, layout = identity.formats[-1], judge.layouts(identity)[0]
        possible = [defect for defect in KNOWN_DEFECTS if not (identity.by_row and _of_totals(defect))]
        problem = identity.domain.edges(fmt)[0]
        for form in judge.forms(identity, fmt, layout):
            try:
                ran = execute.run(identity, form, problem, Place(layout))
            except Exception:  # `verify` reports it
                continue
            met |= {defect for defect in possible if known.concerns(defect, ran)}
    return [defect for defect in KNOWN_DEFECTS if defect in met]


def _of_totals(defect: KnownDefect) -> bool:
    """Whether the defect is shown by an identity whose output is one number for many rows."""
    shown = next(each.thing for each in entries.ENTRIES if each.name == defect.identity)
    return isinstance(shown, Identity) and shown.out == ""


# --- pitfalls, defects, unstable forms -------------------------------------------------------------------------------


def _pitfall(pitfall: Pitfall) -> Iterator[str]:
    outcome = pitfall.outcome
    yield f"{pitfall.name} (pitfall, of {pitfall.of.name})"
    yield _field("statement", formula.text(pitfall.statement))
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
        yield _field(relation.name, formula.text(relation.statement))


def _unstable(unstable: Unstable) -> Iterator[str]:
    yield f"{unstable.name} (accurate only in absolute terms; of {unstable.identity})"
    yield from _loses(unstable)


def _defect(defect: KnownDefect) -> Iterator[str]:
    yield f"{defect.name} (known defect of PyTorch, in aten::{defect.operation})"
    yield _field("what", defect.why)
    yield _field("severity", defect.severity.name.lower().replace("_", " "))
    yield _field("how far", defect.off)
    yield _field("who", defect.hurts)
    yield _field("do instead", defect.instead)
    yield _field("link", defect.link or "none: no thread about it was found")
    yield _field("where", f"{_all(defect.formats)}; {_all(defect.devices)}; {_all(defect.modes)}")
    yield _field("seen in", f"torch {_all(defect.seen)}" + (f"; gone from {defect.fixed} on" if defect.fixed else ""))
    here = next((device for device in defect.devices if device in devices.available()), "")
    if not here:
        yield from ("", f"its witness needs a device that is not here: {_all(defect.devices)}")
        return
    yield from ("", "its witness here, judged as if nobody knew", "")
    for met in witness.witnessed(defect, here):
        if isinstance(met, Measurement) and np.isin(met.own.fact, (EXCUSED, OUTSIDE)).any():
            fact = np.where(met.own.fact == EXCUSED, OUTSIDE, met.own.fact)
            unknown = replace(met, own=Held(met.own.bound, fact), defects=())
            yield from failure.text(unknown, shrink=False).splitlines()
            return
    yield "not outside its allowance: this torch does not have the defect"


_KINDS = {
    entries.IDENTITY: lambda found: _identity(found.thing),
    entries.PITFALL: lambda found: _pitfall(found.thing),
    entries.DEFECT: lambda found: _defect(found.thing),
    entries.UNSTABLE_FORM: lambda found: _unstable(found.thing),
    entries.FAMILY: listing.family,
    entries.SPECIAL: listing.values,
}
