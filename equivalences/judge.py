"""The only place that decides: is what a form computed within the error that its arithmetic allows?

A form's *own* allowance comes from following its run; the *contract* is the allowance of the identity's reference
form on the same problem.  Cheap first: the reference followed in float64 encloses the exact result tightly enough to
decide nearly every float32 and 16-bit number; balls decide the rest, and everything in float64.  Undecided raises
the precision, and never passes.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import numpy as np

from equivalences import devices, execute, oracle
from equivalences.catalogue import IDENTITIES
from equivalences.enclosure import Enclosure
from equivalences.execute import Outcome
from equivalences.formats import FORMATS
from equivalences.known_defects import KNOWN_DEFECTS
from equivalences.model import Array, Form, Identity, KnownDefect, Problem, Unstable
from equivalences.problems.rows import some_rows

INSIDE, OUTSIDE, UNBOUNDED, UNDECIDED, KNOWN = range(5)
VERDICTS = ("inside", "outside", "no bound", "undecided", "known defect")

PRECISIONS = (128, 512, 2048, 8192)


@dataclass(frozen=True, eq=False)
class Trial:
    """One form on one problem in one place: what is judged."""

    identity: Identity
    form: Form
    problem: Problem
    layout: str = "contiguous"
    device: str = "cpu"
    mode: str = "eager"


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement(Trial):
    """One quantity of one run, number by number: what came out, how far it is from exact, what was allowed.

    Arrays have the quantity's canonical shape.  `error` is an upper bound on |got - exact|.  `own` and `contract`
    are allowances (inf: none).  `verdict` indexes VERDICTS.  `region` holds, for each number, a bit set of regions
    (bit i: the i-th region of the domain): a number that mixes rows belongs to all of theirs.
    """

    quantity: str
    got: Array
    exact: Array
    error: Array
    own: Array
    contract: Array
    verdict: Array
    region: Array
    defects: tuple[str, ...] = ()

    @property
    def ratio(self) -> Array:
        """error / own allowance; 0 where both vanish, nan where there is no allowance to divide by."""
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            ratio = self.error / self.own
        ratio = np.where((self.error == 0) & np.isfinite(self.own), 0.0, ratio)
        # `error` is rounded up to float64: what is surely inside has not used more than its allowance.
        ratio = np.where(self.verdict == INSIDE, np.minimum(ratio, 1.0), ratio)
        return np.where(np.isfinite(self.own), ratio, np.nan)

    @property
    def informative(self) -> Array:
        """Where the allowance says something, so that judging is not vacuous.

        Either it is smaller than the number itself (a constant zero would be noticed), or it holds the number to
        half of the format's digits of the largest number beside it (where all are exactly zero: of the largest
        upstream gradient, or of 1).
        """
        size = np.abs(self.exact)
        largest = float(size.max(initial=0.0)) or float(np.abs(self.problem.items.get("g", 1.0)).max()) or 1.0
        half = FORMATS[self.problem.format].u ** 0.5
        return np.asarray(np.isfinite(self.own) & ((self.own < size) | (self.own < half * largest)))

    @property
    def failed(self) -> bool:
        return bool(((self.verdict == OUTSIDE) | (self.verdict == UNDECIDED)).any())


@dataclass(frozen=True, eq=False, kw_only=True)
class Crash(Trial):
    """A form that raised instead of computing: an outcome to report, not an error of the harness."""

    error: Exception

    failed = True


Judgement = Measurement | Crash


@lru_cache(maxsize=256)
def reference_run(identity: Identity, problem: Problem, layout: str, device: str, mode: str = "eager") -> Outcome:
    """The reference form's run, followed: its bound, for code of this mode, is the contract."""
    return execute.run(identity, identity.reference, problem, layout=layout, device=device, held=mode)


@lru_cache(maxsize=16)
def _as_is(trial: Trial, defects: tuple[KnownDefect, ...]) -> Outcome:
    """A form followed by what known defects, one an operation, say that the kernels really do."""
    as_is = {defect.operation: defect.as_is for defect in defects}
    return execute.run(
        trial.identity,
        trial.form,
        trial.problem,
        layout=trial.layout,
        device=trial.device,
        held=trial.mode,
        as_is=as_is,
    )


@lru_cache(maxsize=256)
def _cheap(identity: Identity, problem: Problem) -> Mapping[str, Enclosure]:
    """The reference followed in float64: value and rigorous bound (its rules' own value, not the kernel's)."""
    plain = "unbatched" if layouts(identity) == ("unbatched",) else "contiguous"  # one row, else every row
    run = execute.run(identity, identity.reference, problem, layout=plain, fmt="float64")
    return {name: Enclosure(run.exact[name], np.zeros_like(run.exact[name]), run.bound[name]) for name in run.exact}


def _balls(identity: Identity, problem: Problem, precision: int) -> Mapping[str, Enclosure]:
    found = oracle.evaluate(identity, problem, precision)
    return {"value": found.value} | {f"gradient {name}": ball for name, ball in found.gradients.items()}


def _first(identity: Identity, problem: Problem) -> tuple[bool, Mapping[str, Enclosure]]:
    """Whether the cheap enclosure will do to begin with, and what to begin with."""
    if problem.format != "float64" and not identity.bitwise:
        return True, _cheap(identity, problem)
    return False, _balls(identity, problem, PRECISIONS[0])


def layouts(identity: Identity) -> tuple[str, ...]:
    """The layouts in which an identity is judged."""
    return identity.layouts or identity.domain.layouts


def forms(identity: Identity, fmt: str, layout: str, device: str = "cpu", mode: str = "eager") -> list[Form]:
    """The forms of an identity that exist in this torch and claim this format and layout, on this device, so run."""
    gaps, kind = execute.LAYOUTS[layout].gaps, devices.kind(device)
    return [
        form
        for form in identity.forms
        if fmt in (form.formats or identity.formats)
        and layout in (form.layouts or layouts(identity))
        and mode in (form.modes or execute.MODES)
        and not (gaps and kind in form.dense_on)
        and execute.exists(form)
    ]


@lru_cache(maxsize=64)
def _row_regions(identity: Identity, problem: Problem) -> Array:
    return np.left_shift(1, np.atleast_1d(identity.domain.locate(problem)).astype(np.int64))


def region_bits(identity: Identity, problem: Problem, axes: str, shape: tuple[int, ...]) -> Array:
    bits = _row_regions(identity, problem)
    if axes.startswith("R") and shape and len(bits) == shape[0]:
        return np.broadcast_to(bits.reshape(-1, *(1,) * (len(shape) - 1)), shape)
    return np.full(shape, np.bitwise_or.reduce(bits))


def _decide(enclosure: Enclosure, got: Array, own: Array) -> tuple[Array, Array]:
    within, beyond, error = enclosure.decide(got, own)
    verdict = np.where(within, INSIDE, np.where(beyond, OUTSIDE, UNDECIDED))
    return np.where(np.isinf(own), UNBOUNDED, verdict), error


def measure(
    identity: Identity,
    form: Form,
    problem: Problem,
    *,
    layout: str = "contiguous",
    device: str = "cpu",
    mode: str = "eager",
) -> list[Judgement]:
    """Judges one form on one problem: its value, and its gradient if the identity judges one."""
    trial = Trial(identity, form, problem, layout, device, mode)
    try:
        if form is identity.reference and not identity.bitwise:
            run = reference_run(identity, problem, layout, device, mode)
        else:
            track = not identity.bitwise
            run = execute.run(identity, form, problem, layout=layout, device=device, track=track, held=mode)
        got = run.got
        if mode == "compiled":
            compiled = execute.run(identity, form, problem, layout=layout, device=device, mode=mode, track=False)
            if compiled.dtypes != run.dtypes:
                raise TypeError(f"the results are {dict(compiled.dtypes)}, those of eager code {dict(run.dtypes)}")
            got = compiled.got
    except Exception as error:
        return [Crash(**vars(trial), error=error)]
    if identity.bitwise:
        own: Mapping[str, Array] = {name: np.zeros(numbers.shape) for name, numbers in got.items()}
        contract = own
    else:
        own = run.bound
        contract = own if form is identity.reference else reference_run(identity, problem, layout, device, mode).bound
    return [_judged(trial, run, name, numbers, own[name], contract[name]) for name, numbers in got.items()]


def decide(
    identity: Identity, problem: Problem, quantity: str, got: Array, allowance: Array
) -> tuple[Array, Array, Enclosure]:
    """The verdict on every number, an upper bound of its error, and the enclosure of the exact values that decided."""
    cheap, first = _first(identity, problem)
    ball = first[quantity]
    verdict, error = _decide(ball, got, allowance)
    # A failure is only ever pronounced by balls.
    for precision in PRECISIONS[0 if cheap else 1 :]:
        unsettled = (verdict == UNDECIDED) | (cheap & (verdict == OUTSIDE))
        if not unsettled.any():
            break
        if identity.by_row and not unsettled.all():  # a few of 65,280 inputs, say
            where = np.flatnonzero(unsettled.reshape(len(unsettled), -1).any(axis=1))
            ball = ball.patched(
                where, _balls(identity, some_rows(problem, identity.domain.axes, where), precision)[quantity]
            )
        else:
            ball = _balls(identity, problem, precision)[quantity]
        cheap = False
        verdict, error = _decide(ball, got, allowance)
    return verdict, error, ball


def _judged(trial: Trial, run: Outcome, quantity: str, got: Array, own: Array, contract: Array) -> Measurement:
    identity, problem = trial.identity, trial.problem
    verdict, error, ball = decide(identity, problem, quantity, got, own)
    defects: tuple[str, ...] = ()
    if (verdict == OUTSIDE).any() and not identity.bitwise:
        verdict, defects = excused(trial, run, quantity, ball, got, verdict)
    exactly = np.where(np.abs(ball.hi) > ball.radius, ball.nearest, 0.0)  # what cannot be told from 0 is shown as 0
    axes = identity.out if quantity == "value" else identity.domain.axes[quantity.removeprefix("gradient ")]
    region = region_bits(identity, problem, axes, got.shape)
    return Measurement(
        **vars(trial), quantity=quantity, got=got, exact=exactly, error=error, own=own, contract=contract,
        verdict=verdict, region=region, defects=defects,
    )  # fmt: skip


def enclosure(m: Measurement) -> Enclosure:
    """The exact numbers of a measurement, as it was judged: what another result can be held against."""
    return _first(m.identity, m.problem)[1][m.quantity]


def existing(fmt: str, device: str, mode: str) -> list[KnownDefect]:
    """The known defects that this torch has there."""
    return [
        defect
        for defect in KNOWN_DEFECTS
        if fmt in defect.formats
        and devices.kind(device) in defect.devices
        and mode in defect.modes
        and not (defect.fixed and execute.reached(defect.fixed))
    ]


def concerns(defect: KnownDefect, form: Form, operations: Collection[str]) -> bool:
    """Whether it is one of a form that runs these operations."""
    return defect.operation in operations and defect.within in (form.code if isinstance(form.code, str) else form.label)


def excused(
    trial: Trial, run: Outcome, quantity: str, ball: Enclosure, got: Array, verdict: Array
) -> tuple[Array, tuple[str, ...]]:
    """Numbers outside their allowance, judged again by what known defects say that the kernels really do.

    `run` is the form's own, followed.  A defect is met if it explains a number that those before it do not;
    what none explains alone is held against one defect of every operation together.
    """
    possible: dict[str, list[KnownDefect]] = {}
    for defect in existing(trial.problem.format, trial.device, trial.mode):
        if concerns(defect, trial.form, run.operations):
            possible.setdefault(defect.operation, []).append(defect)
    alone = [(defect,) for several in possible.values() for defect in several]
    together = product(*possible.values()) if len(possible) > 1 else ()
    left, met = verdict == OUTSIDE, dict[str, None]()
    for some in (*alone, *together):
        if not left.any():
            break
        really = _as_is(trial, some)
        bound = really.bound[quantity]
        with np.errstate(invalid="ignore"):  # inf - inf
            moved = really.exact[quantity] - run.exact[quantity]  # by what the kernel is known to give
        moved = np.where(np.isfinite(moved), moved, 0.0)
        explained = ball.decide(got, bound)[0]
        if moved.any():
            explained = explained | ball.decide(got - moved, bound)[0]
        explained = explained & left
        if explained.any():
            met |= dict.fromkeys(defect.name for defect in some)
            left = left & ~explained
    return np.where((verdict == OUTSIDE) & ~left, KNOWN, verdict), tuple(met)


def judge(
    identity: Identity, problem: Problem, *, layout: str = "contiguous", device: str = "cpu", mode: str = "eager"
) -> Iterator[Judgement]:
    """Judges every form of an identity on one problem."""
    for form in forms(identity, problem.format, layout, device, mode):
        yield from measure(identity, form, problem, layout=layout, device=device, mode=mode)


def witnessed(defect: KnownDefect, device: str = "") -> list[Judgement]:
    """What is said of a defect's witness, in the first of its modes and on `device` (default: the first of its own)."""
    identity = IDENTITIES[defect.identity]
    form = next(form for form in identity.forms if form.label == defect.form)
    where = device or defect.devices[0]
    return measure(identity, form, defect.witness, layout=defect.layout, device=where, mode=defect.modes[0])


def still_defective(defect: KnownDefect, device: str = "") -> bool:
    """Whether the defect's witness is still outside the rule and inside what the entry says the kernel does."""
    return any(isinstance(m, Measurement) and bool((m.verdict == KNOWN).any()) for m in witnessed(defect, device))


def beside_reference(entry: Unstable, problem: Problem) -> tuple[Measurement, Measurement]:
    """What an unstable form and the reference beside it give for a problem: the entry's quantity, on the CPU."""
    identity = IDENTITIES[entry.identity]
    form = next(form for form in identity.forms if form.label == entry.form)
    layout = layouts(identity)[0]
    found = []
    for each in (form, identity.reference):
        met = measure(identity, each, problem, layout=layout)
        found += [m for m in met if isinstance(m, Measurement) and m.quantity == entry.quantity]
    unstable, reference = found
    return unstable, reference


def still_unstable(entry: Unstable, problem: Problem) -> bool:
    """Whether the form is surely beyond the contract there, within its own allowance, and the reference is sharp."""
    m, reference = beside_reference(entry, problem)
    contract, _, _ = decide(m.identity, problem, m.quantity, m.got, m.contract)
    half = FORMATS[problem.format].u ** 0.5
    sharp = reference.own[entry.at] < half * abs(reference.exact[entry.at])
    return bool(
        contract[entry.at] == OUTSIDE and m.verdict[entry.at] == INSIDE == reference.verdict[entry.at] and sharp
    )
