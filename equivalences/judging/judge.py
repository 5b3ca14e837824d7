"""The one measurement: what a form gave, how far it is from exact, and the two facts that are known of each number.

A form's *own* bound comes from following its run; the *contract* is the bound of the identity's reference on the same
problem.  Cheap first: the reference followed in float64 encloses the exact result tightly enough to decide nearly
every float32 and 16-bit number; balls decide the rest, and everything in float64.  If an enclosure is too wide to
decide, the precision is raised; a number that stays undecided never passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from equivalences import devices
from equivalences.formats import FORMATS
from equivalences.judging import known
from equivalences.judging.facts import FAILS, INSIDE, OUTSIDE, UNBOUNDED, UNDECIDED, UNKNOWN
from equivalences.judging.trial import Trial
from equivalences.model import MODES, Array, Form, Identity, Problem
from equivalences.oracle import specification
from equivalences.oracle.enclosure import Enclosure
from equivalences.problems.rows import some_rows
from equivalences.running.execute import Outcome, Place, quantity_axes, run
from equivalences.running.forms import exists
from equivalences.running.layouts import LAYOUTS

PRECISIONS = (128, 512, 2048, 8192)  # bits of the balls, until they decide


@dataclass(frozen=True, eq=False)
class Held:
    """Numbers held to one error bound (inf: there is none), and the `Fact` that is known of each."""

    bound: Array
    fact: Array


@dataclass(frozen=True, eq=False, kw_only=True)
class Measurement(Trial):
    """One quantity of one run, number by number: what came out, how far it is from exact, what was allowed.

    Arrays have the quantity's canonical shape.  `error` is an upper bound on |got - exact|.  `own` and `contract`
    are the two facts and their bounds.  `region` holds, for each number, a bit set of regions (bit i: the i-th region
    of the domain): a number that mixes rows belongs to all of theirs.  `defects` are the names of those that excuse.
    """

    quantity: str
    got: Array
    exact: Array
    error: Array
    own: Held
    contract: Held
    region: Array
    defects: tuple[str, ...] = ()

    @property
    def ratio(self) -> Array:
        """error / own bound; 0 where both vanish, nan where there is no bound to divide by."""
        ratio = _ratio(self.error, self.own.bound)
        # `error` is rounded up to float64: what is surely inside has not used more than its bound.
        ratio = np.where(self.own.fact == INSIDE, np.minimum(ratio, 1.0), ratio)
        return np.where(np.isfinite(self.own.bound), ratio, np.nan)

    @property
    def contract_ratio(self) -> Array:
        """error / contract; 0 where there is no contract, or no error."""
        ratio = np.nan_to_num(_ratio(self.error, self.contract.bound), nan=np.inf)
        return np.where(np.isfinite(self.contract.bound), ratio, 0.0)

    @property
    def informative(self) -> Array:
        """Where the bound says something, so that judging is not vacuous.

        Either it is smaller than the number itself (a constant zero would be noticed), or it holds the number to
        half of the format's digits of the largest number beside it (where all are exactly zero: of the largest
        upstream gradient, or of 1).
        """
        own, size = self.own.bound, np.abs(self.exact)
        largest = float(size.max(initial=0.0)) or float(np.abs(self.problem.items.get("g", 1.0)).max()) or 1.0
        half = FORMATS[self.problem.format].u ** 0.5
        return np.asarray(np.isfinite(own) & ((own < size) | (own < half * largest)))

    @property
    def failed(self) -> bool:
        """Whether the gate refuses it."""
        return bool(np.isin(self.own.fact, FAILS).any())


@dataclass(frozen=True, eq=False, kw_only=True)
class Crash(Trial):
    """A form that raised instead of computing: an outcome to report, not an error of the harness."""

    error: Exception

    failed = True


Judgement = Measurement | Crash


def _ratio(error: Array, bound: Array) -> Array:
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = error / bound
    return np.where((error == 0) & np.isfinite(bound), 0.0, ratio)


# --- what is judged --------------------------------------------------------------------------------------------------


def layouts(identity: Identity) -> tuple[str, ...]:
    """The layouts in which an identity is judged."""
    return identity.layouts or identity.domain.layouts


def claims(identity: Identity, form: Form, fmt: str, layout: str, device: str = "cpu", mode: str = "eager") -> bool:
    """Whether a form exists in this torch and claims this format and layout, on this device, so run."""
    return (
        fmt in (form.formats or identity.formats)
        and layout in (form.layouts or layouts(identity))
        and mode in (form.modes or MODES)
        and not (LAYOUTS[layout].gaps and devices.kind(device) in form.dense_on)
        and exists(form)
    )


def forms(identity: Identity, fmt: str, layout: str, device: str = "cpu", mode: str = "eager") -> list[Form]:
    """The forms of an identity that claim this format and layout."""
    return [form for form in identity.forms if claims(identity, form, fmt, layout, device, mode)]


# --- exact values ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def _float64_enclosure(identity: Identity, problem: Problem) -> Mapping[str, Enclosure]:
    """The reference followed in float64: value and rigorous bound (its rules' own value, not the kernel's)."""
    plain = "unbatched" if layouts(identity) == ("unbatched",) else "contiguous"  # one row, else every row
    followed = run(identity, identity.reference, problem, Place(plain), fmt="float64")
    return {
        name: Enclosure(value, np.zeros_like(value), followed.bound[name]) for name, value in followed.exact.items()
    }


def _balls(identity: Identity, problem: Problem, precision: int) -> Mapping[str, Enclosure]:
    found = specification.evaluate(identity, problem, precision)
    return {"value": found.value} | {f"gradient {name}": ball for name, ball in found.gradients.items()}


def _initial_enclosure(identity: Identity, problem: Problem) -> tuple[bool, Mapping[str, Enclosure]]:
    """Whether the cheap enclosure will do to begin with, and what to begin with."""
    if problem.format != "float64" and not identity.bitwise:
        return True, _float64_enclosure(identity, problem)
    return False, _balls(identity, problem, PRECISIONS[0])


def enclosure(m: Measurement) -> Enclosure:
    """The exact numbers of a measurement, as it was judged: what another result can be held against."""
    return _initial_enclosure(m.identity, m.problem)[1][m.quantity]


# --- one number against one bound ------------------------------------------------------------------------------------


def facts(ball: Enclosure, got: Array, bound: Array) -> tuple[Array, Array]:
    """The fact about every number that an enclosure can decide, and an upper bound of its error."""
    within, beyond, error = ball.decide(got, bound)
    fact = np.where(within, INSIDE, np.where(beyond, OUTSIDE, UNDECIDED))
    return np.where(np.isinf(bound), UNBOUNDED, fact), error


def decide(
    identity: Identity, problem: Problem, quantity: str, got: Array, bound: Array
) -> tuple[Array, Array, Enclosure]:
    """The fact about every number, an upper bound of its error, and the enclosure of the exact values that decided."""
    cheap, first = _initial_enclosure(identity, problem)
    ball = first[quantity]
    fact, error = facts(ball, got, bound)
    # A failure is only ever pronounced by balls.
    for precision in PRECISIONS[0 if cheap else 1 :]:
        unsettled = (fact == UNDECIDED) | (cheap & (fact == OUTSIDE))
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
        fact, error = facts(ball, got, bound)
    return fact, error, ball


# --- regions ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _row_regions(identity: Identity, problem: Problem) -> Array:
    return np.left_shift(1, np.atleast_1d(identity.domain.locate(problem)).astype(np.int64))


def region_bits(identity: Identity, problem: Problem, axes: str, shape: tuple[int, ...]) -> Array:
    """The regions of every number of a quantity, as bits: a number that mixes rows belongs to all of theirs."""
    bits = _row_regions(identity, problem)
    if axes.startswith("R") and shape and len(bits) == shape[0]:
        return np.broadcast_to(bits.reshape(-1, *(1,) * (len(shape) - 1)), shape)
    return np.full(shape, np.bitwise_or.reduce(bits))


# --- both facts ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def reference_run(identity: Identity, problem: Problem, place: Place) -> Outcome:
    """The reference's run, followed: its bound, for code of this mode, is the contract."""
    return run(identity, identity.reference, problem, place)


def by_own_bound(
    trial: Trial, followed: Outcome, quantity: str, got: Array, own: Array, contract: Array
) -> Measurement:
    """Decides by the form's own bound; the fact about the contract is what the same enclosure says."""
    fact, error, ball = decide(trial.identity, trial.problem, quantity, got, own)
    defects: tuple[str, ...] = ()
    if (fact == OUTSIDE).any() and not trial.identity.bitwise:
        fact, defects = known.excused(trial, followed, quantity, ball, got, fact == OUTSIDE, fact)
    held = Held(contract, facts(ball, got, contract)[0])
    return _measurement(trial, quantity, got, error, ball, Held(own, fact), held, defects)


def by_contract(
    trial: Trial,
    follow: Callable[[], Outcome | None],
    quantity: str,
    got: Array,
    contract: Array,
    excused: Callable[..., tuple[Array, tuple[str, ...]]] = known.excused,
) -> Measurement:
    """Decides by the contract; only what is not inside it is held to the form's own bound.

    `follow` gives the form's run under the analysis, or None where it cannot be followed; `excused` is `known.excused`,
    or stands around it.
    """
    fact, error, ball = decide(trial.identity, trial.problem, quantity, got, contract)
    own, bound, defects = np.full(got.shape, UNKNOWN), np.full(got.shape, np.nan), tuple[str, ...]()
    followed = follow() if (fact != INSIDE).any() else None
    if followed and quantity in followed.bound:
        bound = followed.bound[quantity]
        own, _, ball = decide(trial.identity, trial.problem, quantity, got, bound)
        # What even balls cannot tell from the own bound is beyond the contract all the same.
        beyond = (fact != INSIDE) & ((own == OUTSIDE) | ((own == UNDECIDED) & (fact != UNBOUNDED)))
        own, defects = excused(trial, followed, quantity, ball, got, beyond, own)
    return _measurement(trial, quantity, got, error, ball, Held(bound, own), Held(contract, fact), defects)


def _measurement(
    trial: Trial, quantity: str, got: Array, error: Array, ball: Enclosure, own: Held, contract: Held,
    defects: tuple[str, ...],
) -> Measurement:  # fmt: skip
    exactly = np.where(np.abs(ball.hi) > ball.radius, ball.nearest, 0.0)  # what cannot be told from 0 is shown as 0
    region = region_bits(trial.identity, trial.problem, quantity_axes(trial.identity, quantity), got.shape)
    return Measurement(
        **vars(trial), quantity=quantity, got=got, exact=exactly, error=error, own=own, contract=contract,
        region=region, defects=defects,
    )  # fmt: skip


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
    place = Place(layout, device, mode)
    trial = Trial(identity, form, problem, place)
    try:
        if identity.bitwise:
            followed = run(identity, form, problem, Place(layout, device), follow=None)
        elif form is identity.reference:
            followed = reference_run(identity, problem, place)
        else:
            followed = run(identity, form, problem, place)
        got = followed.got
        if mode == "compiled":
            compiled = run(identity, form, problem, place, follow=None)
            if compiled.dtypes != followed.dtypes:
                raise TypeError(f"the results are {dict(compiled.dtypes)}, those of eager code {dict(followed.dtypes)}")
            got = compiled.got
    except Exception as error:
        return [Crash(**vars(trial), error=error)]
    if identity.bitwise:
        own: Mapping[str, Array] = {name: np.zeros(numbers.shape) for name, numbers in got.items()}
        contract = own
    else:
        own = followed.bound
        contract = own if form is identity.reference else reference_run(identity, problem, place).bound
    return [by_own_bound(trial, followed, name, numbers, own[name], contract[name]) for name, numbers in got.items()]


def in_layouts(
    identity: Identity, form: Form, problem: Problem, every: Sequence[str], *, device: str = "cpu", mode: str = "eager"
) -> Iterator[Judgement]:
    """Judges one form on one problem in those of the layouts that it claims.

    It is followed in the first.  Where its code then gives the same bits in another one, they are as far from exact as
    they were: it is followed again only if the bits are others, or were not all inside.
    """
    first: list[Judgement] = []
    for layout in every:
        if claims(identity, form, problem.format, layout, device, mode):
            found = _alike(first, Place(layout, device, mode))
            found = found or measure(identity, form, problem, layout=layout, device=device, mode=mode)
            first = first or found
            yield from found


def judge(
    identity: Identity, problem: Problem, every: Sequence[str], *, device: str = "cpu", mode: str = "eager"
) -> Iterator[Judgement]:
    """Judges every form of an identity on one problem, in each of the layouts."""
    for form in identity.forms:
        yield from in_layouts(identity, form, problem, every, device=device, mode=mode)


def _alike(before: Sequence[Judgement], place: Place) -> list[Judgement]:
    """What was measured of a form, for another layout of the same problem that gives the same bits; else nothing."""
    measured = [m for m in before if isinstance(m, Measurement) and bool((m.own.fact == INSIDE).all())]
    if not measured or len(measured) < len(before) or place.mode != "eager":
        return []
    first = measured[0]
    try:
        plain = run(first.identity, first.form, first.problem, place, follow=None)
    except Exception:  # to be told when it is measured
        return []
    if any(m.got.tobytes() != plain.got[m.quantity].tobytes() for m in measured):
        return []
    return [replace(m, place=place) for m in measured]
