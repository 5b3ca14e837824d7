"""Judges an implementation number by number: by the contract, then by its own operations, then by PyTorch's defects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import torch

from equivalences.devices import threads
from equivalences.formats import FORMATS
from equivalences.judging import judge, known
from equivalences.judging.contract import contract
from equivalences.judging.facts import INSIDE, OTHER, OUTSIDE, UNBOUNDED, Verdict, check_counts
from equivalences.judging.tally import MIXED, Tally, one_region
from equivalences.judging.trial import Trial
from equivalences.model import Array, Form, Identity, Problem
from equivalences.oracle.enclosure import Enclosure
from equivalences.own import formulas, mistakes, severity
from equivalences.own.conduct import Conduct, Failed
from equivalences.own.conventions import Reader, read, surviving
from equivalences.own.headline import Needed, Recognised
from equivalences.own.judged import Judged, plainness
from equivalences.own.limits import Limits
from equivalences.own.losses import PLAIN, Case
from equivalences.own.mistakes import Seen
from equivalences.own.narrow import NARROWER, Digits
from equivalences.own.problems import Todo
from equivalences.own.report import Cell, Incident
from equivalences.own.run import OWN, Expected, Insides, Ran, followed, insides, ran
from equivalences.own.severity import Beyond, Severity, together
from equivalences.own.special import Asked
from equivalences.report import failure, snippet
from equivalences.running.execute import Follow, Outcome, Place
from equivalences.running.layouts import applies

SECOND = "right in the first call and wrong in the second: something is kept from call to call"


@dataclass(eq=False)
class Judge:
    """Judges an implementation on the problems of one case, and adds up what it finds."""

    case: Case
    form: Form
    followed: Form  # the same, not compiled
    device: str
    expected: Expected
    shrinks: bool
    mode: str  # whose order of sums the bounds are for
    conduct: Conduct = field(default_factory=Conduct)
    bounds: Limits = field(default_factory=Limits)  # what its author declares
    liked: Mapping[str, Identity] = field(default_factory=dict)  # formulas that it may be as good as
    probe: Todo | None = None  # the problem on which it is seen whether it can be followed
    insides: Insides | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)  # by format
    worst: dict[tuple[Verdict, str], Judged] = field(default_factory=dict)
    places: dict[tuple[str, str], bool] = field(default_factory=dict)  # quantity and layout -> whether it fails
    incidents: dict[tuple[str, str], Incident] = field(default_factory=dict)  # by kind, and by special value
    limits: dict[tuple[str, str], Incident] = field(default_factory=dict)  # what it cannot do, and need not
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)  # of the problems that the incidents show
    met: dict[tuple[str, ...], Beyond] = field(default_factory=dict)  # what is beyond the contract, by where it is
    needs: dict[str, Needed] = field(default_factory=dict)  # formulas whose contract was needed
    readers: dict[str, Reader] = field(default_factory=dict)  # by quantity
    digits: dict[str, Digits] = field(default_factory=dict)  # by format
    seen: list[Seen] = field(default_factory=list)
    second: bool = False  # whether a second call was wrong, and the first right

    @property
    def defects(self) -> dict[str, int]:
        """Known defects that were met, each with the numbers that it explains."""
        found: dict[str, int] = {}
        for tally in self.tallies.values():
            for name, count in tally.defects.items():
                found[name] = found.get(name, 0) + count
        return found

    @property
    def opaque(self) -> str:
        return self.insides.opaque if self.insides else ""

    @property
    def failed(self) -> bool:
        """Whether anything has failed so far."""
        return bool(self.met or self.incidents)

    def refuses(self, problem: Problem) -> str:
        """Why a problem is not asked, by what is declared ("": it is)."""
        return self.bounds.refuses(problem, self.case.identity.domain.axes)

    def add(self, todo: Todo) -> None:
        """Judges one problem, run as it is to be run."""
        with threads(todo.threads or torch.get_num_threads()):
            self._add(todo.problem, todo.layout)

    def ask(self, asked: Asked) -> bool:
        """Asks for one special value; whether there was a layout for it, which is one of logits of two dimensions."""
        identity, problem = self.case.identity, asked.problem
        every = (layout for layout in judge.layouts(identity) if layout in PLAIN)
        layout = next((each for each in every if applies(identity, problem, each)), "")
        if layout:
            run = self.ran(problem, layout)
            known = any((kind, "") in self.incidents for kind in run.incidents if kind != "raised")
            if (run.got or not known) and (sentence := self._differs(asked, run, layout)):
                entry = asked.entry  # else it never gives what can be judged
                name = entry.why if entry.rows else entry.name  # of many rows: one incident for each reason
                raised = None if run.got else run.incidents.get("raised")
                if raised and raised.at and raised.at == self._raised_at():
                    self._met(raised, problem, layout)  # as it does without a special value
                else:  # what one line raises is said once
                    failed = Failed("special value", sentence, raised.at if raised else "")
                    self._met(failed, problem, layout, failed.at or name, special=entry.name)
        return bool(layout)

    def _differs(self, asked: Asked, run: Ran, layout: str) -> str:
        """How a special value differs from what is right, by every convention and formula that may be meant."""
        sentence = asked.differs(run)
        if not sentence or not run.got:
            return sentence
        place = Place(layout, self.device)
        for quantity, name in surviving(self.readers):
            reading = read(name, asked.problem)
            given = formulas.plainly(self.case.identity, reading.problem, place)
            if quantity == "value" and given:
                right = () if reading.problem is not asked.problem else asked.possible
                if not replace(asked, possible=(given, *right)).times(reading.factor).differs(run):
                    return ""
        for name, liked in self.liked.items():
            given = formulas.plainly(liked, asked.problem, place)
            if given and not asked.as_undefined(given).differs(run):
                self.needs[name] = replace(self._need(name), special=self._need(name).special + 1)
                return ""
        return sentence

    def _need(self, name: str) -> Needed:
        return self.needs.get(name, Needed(name, 0, 0.0, ""))

    def _raised_at(self) -> str:
        met = self.incidents.get(("raised", ""))
        return met.at if met else ""

    def ran(self, problem: Problem, layout: str, expected: Expected | None = None) -> Ran:
        """One run, as its user would run it."""
        how = self.expected if expected is None else replace(expected, formats=self.expected.formats)
        return ran(self.case.identity, self.form, problem, Place(layout, self.device), how, self.conduct)

    def _add(self, problem: Problem, layout: str) -> None:
        identity, place = self.case.identity, Place(layout, self.device, self.mode)
        run = self.ran(problem, layout)
        if self.insides is None and not self.conduct.hung:
            # Not before it has run as its user runs it: code that it compiles is compiled by then.
            probe = self.probe or Todo(problem, layout)
            where = Place(probe.layout, self.device)
            self.insides = insides(self.conduct, identity, self.followed, probe.problem, where)
        for failed in run.incidents.values():
            self._met(failed, problem, layout)
        for failed in run.limits.values():
            self._met(failed, problem, layout, into=self.limits)
        every = tuple(self.judged(problem, layout, run.got))
        if run.without is not None:
            self._without_gradients(next(found for found in every if found.quantity == "value"), run.without)
        if run.second and not any(found.fails for found in every):
            self.second |= any(again.fails for again in self.judged(problem, layout, run.second))
        tally = self.tallies.setdefault(problem.format, Tally(identity, problem.format))
        narrower = list(NARROWER.get(problem.format, ()))
        for found in every:
            tally.count(found.m, one_region)
            self._count(found, layout)
            self.readers.setdefault(found.quantity, Reader(identity)).see(found, place)
            self.digits.setdefault(problem.format, Digits(identity, narrower)).see(found, place)
        self.seen.append(mistakes.seen(problem, layout, any(found.fails for found in every)))

    def _count(self, found: Judged, layout: str) -> None:
        """Adds up what is beyond the contract, and which formulas were needed; keeps the worst."""
        place = found.quantity, layout
        self.places[place] = self.places.get(place, False) or found.fails
        for record in found.beyond(self.case.label):
            key = (record.format, layout, record.quantity, record.region, record.verdict, record.severity.word)
            self.met[key] = together(self.met[key], record) if key in self.met else record
        for name, which in found.needed.items():
            need, ratio = self._need(name), np.where(which, found.strict_ratio, -1.0)
            worst = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
            if ratio[worst] > need.ratio:
                need = replace(need, ratio=float(ratio[worst]), region=found.region_name(worst))
            unbounded = int((which & (found.m.contract.fact == UNBOUNDED)).sum())
            self.needs[name] = replace(
                need, numbers=need.numbers + int(which.sum()), unbounded=need.unbounded + unbounded
            )
        for verdict in Verdict:
            if verdict >= Verdict.UNSTABLE and (found.verdict == verdict).any():
                best = self.worst.get((verdict, found.quantity))
                if best is None or plainness(found, verdict) < plainness(best, verdict):
                    self.worst[verdict, found.quantity] = found

    def _without_gradients(self, value: Judged, got: Array) -> None:
        """Without gradients other code may run and round otherwise: met is what is worse, and not just unstable."""
        (found,) = self.judged(value.problem, value.m.layout, {"value": got})
        worse = np.argwhere((found.verdict > Verdict.UNSTABLE) & (found.verdict > value.verdict))
        if len(worse):
            place = tuple(worse[0])
            sentence = f"under torch.no_grad() the value is {got[place]:.9g}, with gradients {value.m.got[place]:.9g}"
            sentence += f", exact {value.m.exact[place]:.9g}: beyond the contract"
            self._met(Failed("no_grad", sentence), value.problem, value.m.layout)

    def _met(
        self,
        failed: Failed,
        problem: Problem,
        layout: str,
        name: str = "",
        into: dict[tuple[str, str], Incident] | None = None,
        special: str = "",
    ) -> None:
        """Notes what was met, with the smallest problem that shows it."""
        into = self.incidents if into is None else into
        key = failed.kind, name
        before = into.get(key)
        size = max((np.size(item) for item in problem.items.values()), default=0)
        if before is None or size < self.sizes[key]:
            self.sizes[key] = size
            so_far = (before.formats, before.layouts, before.count) if before else ((), (), 0)
            program = self.program(problem, layout, "print(value)")
            before = Incident(
                failed.kind, failed.sentence, self.case.label, *so_far, lines(problem), program, failed.at, special
            )  # fmt: skip
        into[key] = replace(
            before,
            formats=tuple(dict.fromkeys((*before.formats, problem.format))),
            layouts=tuple(dict.fromkeys((*before.layouts, layout))),
            count=before.count + 1,
        )

    # -- one run --

    def judged(self, problem: Problem, layout: str, got: Mapping[str, Array]) -> Iterator[Judged]:
        """Each quantity of what a run gave."""
        trial = self._trial(problem, layout)
        allowed = contract(trial.identity, problem, trial.place)

        @cache
        def follow() -> Outcome | None:
            return None if self.opaque else self._followed(problem, layout, got)

        for name, numbers in got.items():
            strict = self._declared(problem, name, numbers, allowed[name])
            bound, needed = self._as_liked(trial, name, numbers, strict)
            m = judge.by_contract(trial, follow, name, numbers, bound, self._excused)
            found = Judged(m, torch.get_num_threads(), None, needed, strict if needed else None)
            if severity.doubtful(m, found.verdict) and (run := follow()):
                found = self._by_function(found, run)
            yield found

    def _declared(self, problem: Problem, name: str, got: Array, bound: Array) -> Array:
        """The contract with what is declared: another format of the result, subnormal results that are 0."""
        result, own = (FORMATS[each] for each in (self.expected.format(problem.format), problem.format))
        if result.precision < own.precision:  # the value is rounded once more, and so is the gradient from above
            bound = bound + result.u * (np.abs(got) + bound) + (result.eta / 2 if name == "value" else 0.0)
        if not self.bounds.flushes_subnormals:
            return bound
        smallest = result.tiny if name == "value" else own.tiny
        return np.where(got == 0, bound + smallest, bound)  # what was within the bound, and below the smallest

    def _as_liked(self, trial: Trial, name: str, got: Array, bound: Array) -> tuple[Array, dict[str, Array]]:
        """The contract with those of formulas, where it is not kept; formula -> the numbers that need it."""
        needed: dict[str, Array] = {}
        for formula, liked in self.liked.items():
            beyond = judge.decide(trial.identity, trial.problem, name, got, bound)[0]
            beyond = (beyond != INSIDE) & (beyond != UNBOUNDED)
            if not beyond.any():
                break
            formulas.same(trial.identity, formula, liked, trial.problem)
            wider = np.fmax(bound, contract(liked, trial.problem, trial.place)[name])
            now = judge.decide(trial.identity, trial.problem, name, got, wider)[0]
            helped = beyond & ((now == INSIDE) | (now == UNBOUNDED))
            bound = np.where(helped, wider, bound)
            if helped.any():
                needed[formula] = helped
        return bound, needed

    def _by_function(self, found: Judged, run: Outcome) -> Judged:
        """Whether the code's own function, without any rounding, is surely another one there: beyond the contract.

        The analysis' value is computed in float64: its own error is far below float32's unit roundoff of the bound.
        """
        m, name = found.m, found.quantity
        doubt = FORMATS["float32"].u * np.where(np.isfinite(run.bound[name]), run.bound[name], np.inf)
        bound = np.where(np.isfinite(m.contract.bound), m.contract.bound, np.inf) + doubt
        if m.problem.format == "float64":  # the value is no better than the result
            return found
        fact, _, _ = judge.decide(m.identity, m.problem, name, run.exact[name], bound)
        other = (fact == OUTSIDE) & (found.verdict >= Verdict.UNSTABLE)
        if not other.any():
            return found
        own = np.where(other & (m.own.fact == INSIDE), OTHER, m.own.fact)
        return replace(found, m=replace(m, own=replace(m.own, fact=own)), other=other)

    def _trial(self, problem: Problem, layout: str) -> Trial:
        return Trial(self.case.identity, self.followed, problem, Place(layout, self.device, self.mode))

    def _excused(
        self, trial: Trial, run: Outcome, quantity: str, ball: Enclosure, got: Array, beyond: Array, fact: Array
    ) -> tuple[Array, tuple[str, ...]]:
        try:
            rules = tuple(OWN.as_is.items())
            return self.conduct.call(lambda: known.excused(trial, run, quantity, ball, got, beyond, fact, rules))
        except Failed:  # it runs in another way each time
            return np.where(beyond, OUTSIDE, fact), ()

    def follow(self, problem: Problem, layout: str, follow: Follow = OWN) -> Outcome:
        """One run under the analysis; raises Failed."""
        trial = self._trial(problem, layout)
        return followed(self.conduct, trial.identity, trial.form, problem, trial.place, follow)

    def _followed(self, problem: Problem, layout: str, got: Mapping[str, Array]) -> Outcome | None:
        """Its own analysis of what it gave, unless it cannot be followed here, or gives another thing each time."""
        try:
            run = self.follow(problem, layout)
        except Failed:
            return None
        return run if all(run.bound[name].shape == x.shape for name, x in got.items() if name in run.bound) else None

    def program(self, problem: Problem, layout: str, show: str) -> str:
        """A program that repeats the run."""
        identity, form = self.case.identity, self.case.spelled(problem)
        return snippet.snippet(identity, form, problem, layout=layout, device=self.device, show=show)

    # -- what it adds up to --

    def close(self) -> None:
        """Notes what only many problems show: that it computes in a narrower format."""
        for fmt, digits in self.digits.items():
            if digits.computes_in and digits.example:
                failed = Failed("narrower format", f"leave out {fmt}: it computes in {digits.computes_in}")
                self._met(failed, digits.example.problem, digits.example.m.layout, fmt)

    @property
    def conventions(self) -> tuple[Recognised, ...]:
        """The conventions that explain all that is wrong."""
        return tuple(Recognised(self.case.label, quantity, name) for quantity, name in surviving(self.readers))

    def regraded(self, found: Severity, fmt: str, quantity: str) -> Severity:
        """How grave a number is, by what many problems have shown."""
        if found != Severity.RIGHT and any(each.quantity == quantity for each in self.conventions):
            return Severity.CONVENTION
        narrow = fmt in self.digits and bool(self.digits[fmt].computes_in)
        return Severity.LESS_ACCURATE if found == Severity.WRONG and narrow else found

    def beyond(self) -> Iterator[Beyond]:
        """What is beyond the contract, by where it is and how grave."""
        for each in self.met.values():
            yield replace(each, severity=self.regraded(each.severity, each.format, each.quantity))

    def cells(self) -> Iterator[Cell]:
        """What was counted, by format, quantity and region."""
        order = (*self.case.identity.domain.regions, MIXED)
        for fmt, tally in self.tallies.items():
            for (_, quantity, region), cell in sorted(tally.cells.items(), key=lambda item: order.index(item[0][2])):
                yield Cell(self.case.label, fmt, quantity, region, check_counts(cell.facts), cell.contract_ratio)


def lines(problem: Problem) -> tuple[str, ...]:
    """A problem as a report shows it."""
    return tuple(line.strip() for line in failure.problem_lines(problem, ", in full in `program`"))
