"""Judges an implementation number by number: by the contract, then by its own operations, then by PyTorch's defects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import torch

from equivalences.devices import threads
from equivalences.formats import FORMATS, ulp
from equivalences.judging import judge, known
from equivalences.judging.contract import contract
from equivalences.judging.facts import EXCUSED, OUTSIDE, WORDS, Verdict, check_counts
from equivalences.judging.tally import MIXED, Tally, one_region
from equivalences.judging.trial import Trial
from equivalences.model import Array, Form, Problem
from equivalences.oracle.enclosure import Enclosure
from equivalences.own import audit
from equivalences.own.conduct import Conduct, Failed
from equivalences.own.judged import Judged, focus, plainness
from equivalences.own.losses import PLAIN, Case
from equivalences.own.problems import Todo
from equivalences.own.report import Cell, Example, Incident
from equivalences.own.run import Expected, Insides, Ran, followed, insides, ran
from equivalences.own.special import Asked
from equivalences.report import failure, snippet
from equivalences.report.shrink import shrunk
from equivalences.running.execute import FOLLOW, Follow, Outcome, Place
from equivalences.running.layouts import applies

ATTEMPTS = 40  # at a smaller problem for an example
NUMBERS = 2**18  # in all of them: a batch of many rows has few attempts
SECONDS = 5.0  # for all of them: code that is compiled for every shape has few attempts
GRAVE = 1 / 2  # of the error/contract that a smaller problem must keep


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
    insides: Insides | None = None
    tallies: dict[str, Tally] = field(default_factory=dict)  # by format
    worst: dict[tuple[Verdict, str], Judged] = field(default_factory=dict)
    places: dict[tuple[str, str], bool] = field(default_factory=dict)  # quantity and layout -> whether it fails
    incidents: dict[tuple[str, str], Incident] = field(default_factory=dict)  # by kind, and by special value
    limits: dict[tuple[str, str], Incident] = field(default_factory=dict)  # what it cannot do, and need not
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)  # of the problems that the incidents show

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
            run = self._ran(problem, layout)
            known = any((kind, "") in self.incidents for kind in run.incidents if kind != "raised")
            if (run.got or not known) and (sentence := asked.differs(run)):  # else it never gives what can be judged
                entry = asked.entry
                name = entry.why if entry.rows else entry.name  # of many rows: one incident for each reason
                raised = None if run.got else run.incidents.get("raised")
                if raised and raised.at and raised.at == self._raised_at():
                    self._met(raised, problem, layout)  # as it does without a special value
                else:  # what one line raises is said once
                    failed = Failed("special value", sentence, raised.at if raised else "")
                    self._met(failed, problem, layout, failed.at or name)
        return bool(layout)

    def _raised_at(self) -> str:
        met = self.incidents.get(("raised", ""))
        return met.at if met else ""

    def _ran(self, problem: Problem, layout: str, expected: Expected | None = None) -> Ran:
        how = self.expected if expected is None else expected
        return ran(self.case.identity, self.form, problem, Place(layout, self.device), how, self.conduct)

    def _add(self, problem: Problem, layout: str) -> None:
        identity = self.case.identity
        run = self._ran(problem, layout)
        if self.insides is None and not self.conduct.hung:
            # Not before it has run as its user runs it: code that it compiles is compiled by then.
            self.insides = insides(self.conduct, identity, self.followed, problem, Place(layout, self.device))
        for failed in run.incidents.values():
            self._met(failed, problem, layout)
        for failed in run.limits.values():
            self._met(failed, problem, layout, into=self.limits)
        every = tuple(self._judged(problem, layout, run.got))
        if run.without is not None:
            self._without_gradients(next(found for found in every if found.quantity == "value"), run.without)
        tally = self.tallies.setdefault(problem.format, Tally(identity, problem.format))
        for found in every:
            tally.count(found.m, one_region)
            place, fails = (found.quantity, layout), bool((found.verdict >= Verdict.UNSTABLE).any())
            self.places[place] = self.places.get(place, False) or fails
            for verdict in Verdict:
                if verdict >= Verdict.UNSTABLE and (found.verdict == verdict).any():
                    best = self.worst.get((verdict, found.quantity))
                    if best is None or plainness(found, verdict) < plainness(best, verdict):
                        self.worst[verdict, found.quantity] = found

    def _without_gradients(self, value: Judged, got: Array) -> None:
        """Without gradients other code may run and round otherwise: met is what is worse, and not just unstable."""
        (found,) = self._judged(value.problem, value.m.layout, {"value": got})
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
    ) -> None:
        """Notes what was met, with the smallest problem that shows it."""
        into = self.incidents if into is None else into
        key = failed.kind, name
        before = into.get(key)
        size = max((np.size(item) for item in problem.items.values()), default=0)
        if before is None or size < self.sizes[key]:
            self.sizes[key] = size
            so_far = (before.formats, before.layouts, before.count) if before else ((), (), 0)
            program = self._program(problem, layout, "print(value)")
            before = Incident(
                failed.kind, failed.sentence, self.case.label, *so_far, _lines(problem), program, failed.at
            )  # fmt: skip
        into[key] = replace(
            before,
            formats=tuple(dict.fromkeys((*before.formats, problem.format))),
            layouts=tuple(dict.fromkeys((*before.layouts, layout))),
            count=before.count + 1,
        )

    def _judged(self, problem: Problem, layout: str, got: Mapping[str, Array]) -> Iterator[Judged]:
        trial = self._trial(problem, layout)
        allowed = contract(trial.identity, problem, trial.place)

        @cache
        def follow() -> Outcome | None:
            return None if self.opaque else self._followed(problem, layout, got)

        for name, numbers in got.items():
            m = judge.by_contract(trial, follow, name, numbers, allowed[name], self._excused)
            yield Judged(m, torch.get_num_threads())

    def _trial(self, problem: Problem, layout: str) -> Trial:
        return Trial(self.case.identity, self.followed, problem, Place(layout, self.device, self.mode))

    def _excused(
        self, trial: Trial, run: Outcome, quantity: str, ball: Enclosure, got: Array, beyond: Array, fact: Array
    ) -> tuple[Array, tuple[str, ...]]:
        try:
            return self.conduct.call(lambda: known.excused(trial, run, quantity, ball, got, beyond, fact))
        except Failed:  # it runs in another way each time
            return np.where(beyond, OUTSIDE, fact), ()

    def _follow(self, problem: Problem, layout: str, follow: Follow = FOLLOW) -> Outcome:
        """One run under the analysis; raises Failed."""
        trial = self._trial(problem, layout)
        return followed(self.conduct, trial.identity, trial.form, problem, trial.place, follow)

    def _followed(self, problem: Problem, layout: str, got: Mapping[str, Array]) -> Outcome | None:
        """Its own analysis of what it gave, unless it cannot be followed here, or gives another thing each time."""
        try:
            run = self._follow(problem, layout)
        except Failed:
            return None
        return run if all(run.bound[name].shape == x.shape for name, x in got.items() if name in run.bound) else None

    def cells(self) -> Iterator[Cell]:
        """What was counted, by format, quantity and region."""
        order = (*self.case.identity.domain.regions, MIXED)
        for fmt, tally in self.tallies.items():
            for (_, quantity, region), cell in sorted(tally.cells.items(), key=lambda item: order.index(item[0][2])):
                yield Cell(self.case.label, fmt, quantity, region, check_counts(cell.facts), cell.contract_ratio)

    # -- examples --

    def examples(self) -> Iterator[Example]:
        """One example for each quantity that fails, of its worst verdict, and for each verdict: shrunk, with a why."""
        shown: set[int | str] = set()
        for verdict, quantity in sorted(self.worst, key=lambda at: (-at[0], at[1] != "value", at[1])):
            if {verdict, quantity} <= shown:
                continue
            shown |= {verdict, quantity}
            with threads(self.worst[verdict, quantity].threads):
                example = self._example(self.worst[verdict, quantity], verdict)
            yield example

    def _example(self, found: Judged, verdict: Verdict) -> Example:
        found = self._smaller(found, verdict)
        quantity = found.quantity
        here = (found.verdict == verdict) & (found.region == focus(found, verdict)[0])
        ratio = np.where(here, found.ratio, -1.0)
        place = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
        m, fmt = found.m, FORMATS[found.problem.format]
        spacing = float(ulp(np.asarray(m.exact[place]), fmt))
        number = snippet.place(m.identity, m.problem, m.layout, quantity, m.got.shape, place)
        return Example(
            WORDS[verdict], self.case.label, fmt.name, m.layout, quantity, place,
            found.region_name(place), _lines(m.problem),
            float(m.got[place]), float(m.exact[place]), float(m.error[place]) / spacing,
            float(m.contract.bound[place]) / spacing,
            None if found.opaque else float(m.own.bound[place]) / spacing,
            self._why(found, verdict, place), *self._layouts(found), self._threads(found),
            self._program(m.problem, m.layout, f"print({number})  # exact {float(m.exact[place])!r}"),
        )  # fmt: skip

    def _program(self, problem: Problem, layout: str, show: str) -> str:
        identity, form = self.case.identity, self.case.spelled(problem)
        return snippet.snippet(identity, form, problem, layout=layout, device=self.device, show=show)

    def _again(self, quantity: str, problem: Problem, layout: str) -> Judged | None:
        """The same quantity of another problem, or in another layout, if it can be judged there."""
        if not applies(self.case.identity, problem, layout):
            return None
        try:
            run = self._ran(problem, layout, Expected(once=True))
            (again,) = self._judged(problem, layout, {quantity: run.got[quantity]})
        except Exception:  # a problem that the oracle refuses, say
            return None
        return again

    def _layouts(self, found: Judged) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The layouts in which the quantity fails, and those in which it never does, nor on this problem."""
        fails, spared = [], []
        for (quantity, layout), failed in self.places.items():
            if quantity == found.quantity and failed:
                fails.append(layout)
            elif quantity == found.quantity:
                again = self._again(quantity, found.problem, layout)
                spared += [layout] if again and (again.verdict < Verdict.UNSTABLE).all() else []
        return tuple(fails), tuple(spared)

    def _threads(self, found: Judged) -> int:
        """With how many threads the quantity fails on this problem, if with one it does not (0: it does)."""
        if found.threads == 1:
            return 0
        with threads(1):
            again = self._again(found.quantity, found.problem, found.m.layout)
        return found.threads if again and (again.verdict < Verdict.UNSTABLE).all() else 0

    def _smaller(self, found: Judged, verdict: Verdict) -> Judged:
        best, (region, ratio), left = found, focus(found, verdict), NUMBERS
        end = time.monotonic() + SECONDS

        def fails(problem: Problem) -> bool:
            nonlocal best, left
            left -= next(iter(problem.items.values())).size
            if left < 0 or time.monotonic() > end or self.conduct.hung:
                return False
            again = self._again(found.quantity, problem, found.m.layout)
            if again is None:
                return False
            if not (again.verdict == verdict).any() or focus(again, verdict) < (region, GRAVE * ratio):
                return False
            best = again
            return True

        if self.shrinks:
            shrunk(found.problem, {**self.case.identity.domain.axes, "g": self.case.identity.out}, fails, ATTEMPTS)
        return best

    def _why(self, found: Judged, verdict: Verdict, place: tuple[int, ...]) -> str:
        if found.opaque:
            return self._likened(found, place)
        follow = partial(self._follow, found.problem, found.m.layout)
        try:
            return self._traced(follow, found, verdict, place)
        except Exception:  # it could be followed before: it runs other operations each time
            return "its operations could not be followed again"

    def _traced(self, follow: Callable[..., Outcome], found: Judged, verdict: Verdict, place: tuple[int, ...]) -> str:
        """What is to blame for a number, by its own operations."""
        what = found.quantity
        if verdict in (Verdict.UNSTABLE, Verdict.UNBOUNDED):

            def bound(rules: audit.Rules) -> float:
                return float(follow(Follow(rules)).bound[what][place])

            operations, total = audit.follow(bound)
            lost = audit.culprit(operations, total)
            return audit.explained(lost, operations, total, f"the {what}") if lost else "no operation stands out"
        run = follow(Follow(history=True))
        if run.excess:
            return f"{run.excess.operation} is outside its own bound: PyTorch's operation, not the formula"
        ideal = float(run.exact[what][place])
        return f"without any rounding it gives {ideal:.9g}, where the identity says {found.m.exact[place]:.9g}"

    def _likened(self, found: Judged, place: tuple[int, ...]) -> str:
        """What can be said of an opaque implementation: why it is one, and whether PyTorch's function is no better."""
        said = f"opaque: {self.opaque or 'its operations could not be followed here'}"
        identity, what = self.case.identity, found.quantity
        if identity.bitwise:  # nothing excuses it
            return said
        place_ = Place(found.m.layout, self.device, self.mode)
        trial = Trial(identity, identity.reference, found.problem, place_)
        fact, _, ball = judge.decide(identity, found.problem, what, found.m.got, found.m.contract.bound)
        only = np.zeros(fact.shape, dtype=bool)
        only[place] = True
        run = judge.reference_run(identity, found.problem, place_)
        fact, names = known.excused(trial, run, what, ball, found.m.got, only, fact)
        if fact[place] == EXCUSED:
            said += f"; {identity.reference.label} may be as far off here, by its known defect {', '.join(names)}"
        return said


def _lines(problem: Problem) -> tuple[str, ...]:
    return tuple(line.strip() for line in failure.problem_lines(problem, ", in full in `program`"))
