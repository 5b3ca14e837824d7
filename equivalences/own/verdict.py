"""Judges an implementation number by number: by the contract, then by its own operations, then by PyTorch's defects."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from equivalences import execute, judge
from equivalences.enclosure import Enclosure
from equivalences.execute import Outcome
from equivalences.formats import FORMATS, ulp
from equivalences.model import Array, Form, Problem
from equivalences.own import audit
from equivalences.own.conduct import Conduct, Failed
from equivalences.own.judged import Judged, focus, plainness
from equivalences.own.losses import PLAIN, Case
from equivalences.own.problems import Todo
from equivalences.own.report import (
    FREE,
    KNOWN,
    OUTSIDE,
    RIGHT,
    UNBOUNDED,
    UNSTABLE,
    VERDICTS,
    WRONG,
    Cell,
    Example,
    Incident,
)
from equivalences.own.run import Expected, Insides, Ran, contract, followed, insides, ran, threads
from equivalences.own.special import Asked
from equivalences.report import failure, snippet
from equivalences.report.shrink import shrunk

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
    counts: dict[tuple[str, str, int], Array] = field(default_factory=dict)
    ratios: dict[tuple[str, str, int], float] = field(default_factory=dict)
    worst: dict[tuple[int, str], Judged] = field(default_factory=dict)
    places: dict[tuple[str, str], Array] = field(default_factory=dict)  # quantity and layout -> verdicts
    incidents: dict[tuple[str, str], Incident] = field(default_factory=dict)  # by kind, and by special value
    limits: dict[tuple[str, str], Incident] = field(default_factory=dict)  # what it cannot do, and need not
    sizes: dict[tuple[str, str], int] = field(default_factory=dict)  # of the problems that the incidents show
    defects: dict[str, int] = field(default_factory=dict)

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
        layout = next((each for each in every if execute.applies(identity, problem, each)), "")
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
        return ran(self.case.identity, self.form, problem, layout, self.device, how, self.conduct)

    def _add(self, problem: Problem, layout: str) -> None:
        identity = self.case.identity
        run = self._ran(problem, layout)
        if self.insides is None and not self.conduct.hung:
            # Not before it has run as its user runs it: code that it compiles is compiled by then.
            self.insides = insides(self.conduct, identity, self.followed, problem, layout, self.device)
        for failed in run.incidents.values():
            self._met(failed, problem, layout)
        for failed in run.limits.values():
            self._met(failed, problem, layout, into=self.limits)
        every = tuple(self._judged(problem, layout, run.got))
        if run.without is not None:
            self._without_gradients(next(found for found in every if found.quantity == "value"), run.without)
        for found in every:
            quantity = found.quantity
            place, met = (quantity, layout), np.bincount(found.verdict.ravel(), minlength=len(VERDICTS))
            self.places[place] = self.places.get(place, 0) + met
            for region in np.unique(found.region):
                here = found.region == region
                key = problem.format, quantity, int(region)
                counted = np.bincount(found.verdict[here], minlength=len(VERDICTS))
                self.counts[key] = self.counts.get(key, 0) + counted
                self.ratios[key] = max(self.ratios.get(key, 0.0), float(found.ratio[here].max(initial=0.0)))
            for name in found.defects:
                self.defects[name] = self.defects.get(name, 0) + int((found.verdict == KNOWN).sum())
            for verdict in range(UNSTABLE, len(VERDICTS)):
                if (found.verdict == verdict).any():
                    best = self.worst.get((verdict, quantity))
                    if best is None or plainness(found, verdict) < plainness(best, verdict):
                        self.worst[verdict, quantity] = found

    def _without_gradients(self, value: Judged, got: Array) -> None:
        """Without gradients other code may run and round otherwise: met is what is worse, and not just unstable."""
        (found,) = self._judged(value.problem, value.layout, {"value": got})
        worse = np.argwhere((found.verdict > UNSTABLE) & (found.verdict > value.verdict))
        if len(worse):
            place = tuple(worse[0])
            sentence = f"under torch.no_grad() the value is {got[place]:.9g}, with gradients {value.got[place]:.9g}"
            sentence += f", exact {value.exact[place]:.9g}: beyond the contract"
            self._met(Failed("no_grad", sentence), value.problem, value.layout)

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
        identity = self.case.identity
        allowed = contract(identity, problem, layout, self.device, self.mode)
        met = {name: judge.decide(identity, problem, name, numbers, allowed[name]) for name, numbers in got.items()}
        run = None
        if not self.opaque and any((verdict != judge.INSIDE).any() for verdict, _, _ in met.values()):
            run = self._followed(problem, layout, got)
        own: Mapping[str, Array] = run.bound if run else {}
        for name, (first, error, ball) in met.items():
            verdict = np.select([first == judge.INSIDE, first == judge.UNBOUNDED], [RIGHT, FREE], OUTSIDE)
            defects: tuple[str, ...] = ()
            if run and name in own and (verdict != RIGHT).any():
                verdict, ball, defects = self._by_itself(problem, layout, name, got[name], run, verdict)
            axes = identity.out if name == "value" else identity.domain.axes[name.removeprefix("gradient ")]
            bits = judge.region_bits(identity, problem, axes, got[name].shape)
            region = np.where(bits & (bits - 1), -1, np.log2(np.maximum(bits, 1)).astype(int))
            exactly = np.where(np.abs(ball.hi) > ball.radius, ball.nearest, 0.0)
            yield Judged(
                problem, layout, name, got[name], error, exactly, allowed[name], own.get(name), verdict, region,
                torch.get_num_threads(), defects,
            )  # fmt: skip

    def _by_itself(
        self, problem: Problem, layout: str, quantity: str, got: Array, run: Outcome, verdict: Array
    ) -> tuple[Array, Enclosure, tuple[str, ...]]:
        """Judges what is not within the contract by the implementation's own operations, and by PyTorch's defects."""
        mine, _, ball = judge.decide(self.case.identity, problem, quantity, got, run.bound[quantity])
        beyond = (mine == judge.OUTSIDE) | ((mine == judge.UNDECIDED) & (verdict == OUTSIDE))
        left: Array = np.where(beyond & (verdict != RIGHT), judge.OUTSIDE, judge.INSIDE)
        defects: tuple[str, ...]
        trial = judge.Trial(self.case.identity, self.followed, problem, layout, self.device, self.mode)
        try:
            left, defects = self.conduct.call(lambda: judge.excused(trial, run, quantity, ball, got, left))
        except Failed:  # it runs in another way each time
            defects = ()
        excess = np.where(mine == judge.UNBOUNDED, UNBOUNDED, UNSTABLE)  # where nothing speaks for it or against it
        within = np.where(verdict == OUTSIDE, excess, np.where(mine == judge.INSIDE, RIGHT, verdict))
        found = np.select([left == judge.KNOWN, left == judge.OUTSIDE], [KNOWN, WRONG], within)
        return np.where(verdict == RIGHT, RIGHT, found), ball, defects

    def _follow(self, problem: Problem, layout: str, **how: Any) -> Outcome:
        """One run under the analysis; raises Failed."""
        where = {"layout": layout, "device": self.device, "held": self.mode}
        return followed(self.conduct, self.case.identity, self.followed, problem, **where, **how)

    def _followed(self, problem: Problem, layout: str, got: Mapping[str, Array]) -> Outcome | None:
        """Its own analysis of what it gave, unless it cannot be followed here, or gives another thing each time."""
        try:
            run = self._follow(problem, layout)
        except Failed:
            return None
        return run if all(run.bound[name].shape == x.shape for name, x in got.items() if name in run.bound) else None

    def cells(self) -> Iterator[Cell]:
        names = (*self.case.identity.domain.regions, "mixed")
        for (fmt, quantity, region), counted in sorted(self.counts.items(), key=lambda item: item[0][2] % len(names)):
            counts = {name: int(n) for name, n in zip(VERDICTS, counted, strict=True) if n}
            yield Cell(self.case.label, fmt, quantity, names[region], counts, self.ratios[fmt, quantity, region])

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

    def _example(self, found: Judged, verdict: int) -> Example:
        found = self._smaller(found, verdict)
        quantity = found.quantity
        here = (found.verdict == verdict) & (found.region == focus(found, verdict)[0])
        ratio = np.where(here, found.ratio, -1.0)
        place = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
        fmt = FORMATS[found.problem.format]
        spacing = float(ulp(np.asarray(found.exact[place]), fmt))
        names = (*self.case.identity.domain.regions, "mixed")
        at = found.problem, found.layout, found.quantity, found.got.shape, place
        number = snippet.place(self.case.identity, *at)
        return Example(
            VERDICTS[verdict], self.case.label, fmt.name, found.layout, quantity, place,
            names[int(found.region[place])], _lines(found.problem),
            float(found.got[place]), float(found.exact[place]), float(found.error[place]) / spacing,
            float(found.contract[place]) / spacing,
            None if found.own is None else float(found.own[place]) / spacing,
            self._why(found, verdict, place), *self._layouts(found), self._threads(found),
            self._program(found.problem, found.layout, f"print({number})  # exact {float(found.exact[place])!r}"),
        )  # fmt: skip

    def _program(self, problem: Problem, layout: str, show: str) -> str:
        identity, form = self.case.identity, self.case.spelled(problem)
        return snippet.snippet(identity, form, problem, layout=layout, device=self.device, show=show)

    def _again(self, quantity: str, problem: Problem, layout: str) -> Judged | None:
        """The same quantity of another problem, or in another layout, if it can be judged there."""
        if not execute.applies(self.case.identity, problem, layout):
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
        for (quantity, layout), counts in self.places.items():
            if quantity == found.quantity and counts[UNSTABLE:].any():
                fails.append(layout)
            elif quantity == found.quantity:
                again = self._again(quantity, found.problem, layout)
                spared += [layout] if again and (again.verdict < UNSTABLE).all() else []
        return tuple(fails), tuple(spared)

    def _threads(self, found: Judged) -> int:
        """With how many threads the quantity fails on this problem, if with one it does not (0: it does)."""
        if found.threads == 1:
            return 0
        with threads(1):
            again = self._again(found.quantity, found.problem, found.layout)
        return found.threads if again and (again.verdict < UNSTABLE).all() else 0

    def _smaller(self, found: Judged, verdict: int) -> Judged:
        best, (region, ratio), left = found, focus(found, verdict), NUMBERS
        end = time.monotonic() + SECONDS

        def fails(problem: Problem) -> bool:
            nonlocal best, left
            left -= next(iter(problem.items.values())).size
            if left < 0 or time.monotonic() > end or self.conduct.hung:
                return False
            again = self._again(found.quantity, problem, found.layout)
            if again is None:
                return False
            if not (again.verdict == verdict).any() or focus(again, verdict) < (region, GRAVE * ratio):
                return False
            best = again
            return True

        if self.shrinks:
            shrunk(found.problem, {**self.case.identity.domain.axes, "g": self.case.identity.out}, fails, ATTEMPTS)
        return best

    def _why(self, found: Judged, verdict: int, place: tuple[int, ...]) -> str:
        if found.own is None:
            return self._likened(found, place)
        follow = partial(self._follow, found.problem, found.layout)
        try:
            return self._traced(follow, found, verdict, place)
        except Exception:  # it could be followed before: it runs other operations each time
            return "its operations could not be followed again"

    def _traced(self, follow: Callable[..., Outcome], found: Judged, verdict: int, place: tuple[int, ...]) -> str:
        """What is to blame for a number, by its own operations."""
        what = found.quantity
        if verdict in (UNSTABLE, UNBOUNDED):

            def bound(rules: audit.Rules) -> float:
                return float(follow(as_is=rules).bound[what][place])

            operations, total = audit.follow(bound)
            lost = audit.culprit(operations, total)
            return audit.explained(lost, operations, total, f"the {what}") if lost else "no operation stands out"
        run = follow(history=True)
        if run.excess:
            return f"{run.excess.operation} is outside its own bound: PyTorch's operation, not the formula"
        ideal = float(run.exact[what][place])
        return f"without any rounding it gives {ideal:.9g}, where the identity says {found.exact[place]:.9g}"

    def _likened(self, found: Judged, place: tuple[int, ...]) -> str:
        """What can be said of an opaque implementation: why it is one, and whether PyTorch's function is no better."""
        said = f"opaque: {self.opaque or 'its operations could not be followed here'}"
        identity, what = self.case.identity, found.quantity
        if identity.bitwise:  # nothing excuses it
            return said
        trial = judge.Trial(identity, identity.reference, found.problem, found.layout, self.device, self.mode)
        _, _, ball = judge.decide(identity, found.problem, what, found.got, found.contract)
        only = np.full(found.verdict.shape, judge.INSIDE)
        only[place] = judge.OUTSIDE
        run = judge.reference_run(identity, found.problem, found.layout, self.device, self.mode)
        only, names = judge.excused(trial, run, what, ball, found.got, only)
        if only[place] == judge.KNOWN:
            said += f"; {identity.reference.label} may be as far off here, by its known defect {', '.join(names)}"
        return said


def _lines(problem: Problem) -> tuple[str, ...]:
    return tuple(line.strip() for line in failure.problem_lines(problem, ", in full in `program`"))
