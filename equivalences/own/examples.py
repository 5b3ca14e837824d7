"""Examples of what fails: for each verdict and quantity the smallest problem found, what came out, and why."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np

from equivalences.devices import threads
from equivalences.formats import FORMATS, ulp
from equivalences.judging import judge as judging
from equivalences.judging import known
from equivalences.judging.facts import EXCUSED, WORDS, Verdict
from equivalences.judging.trial import Trial
from equivalences.model import Problem
from equivalences.own import audit
from equivalences.own.judged import Judged, focus
from equivalences.own.report import Example
from equivalences.own.run import Expected
from equivalences.own.severity import Severity, relative
from equivalences.own.verdict import Judge, lines
from equivalences.report import snippet
from equivalences.report.shrink import shrunk
from equivalences.running.execute import Follow, Outcome, Place
from equivalences.running.layouts import applies

ATTEMPTS = 40  # at a smaller problem for an example
NUMBERS = 2**18  # in all of them: a batch of many rows has few attempts
SECONDS = 5.0  # for all of them: code that is compiled for every shape has few attempts
GRAVE = 1 / 2  # of the error/contract that a smaller problem must keep


def examples(judge: Judge) -> Iterator[Example]:
    """One example for each quantity that fails, of its worst verdict, and for each verdict: shrunk, with a why."""
    shown: set[int | str] = set()
    for verdict, quantity in sorted(judge.worst, key=lambda at: (-at[0], at[1] != "value", at[1])):
        if {verdict, quantity} <= shown:
            continue
        shown |= {verdict, quantity}
        with threads(judge.worst[verdict, quantity].threads):
            example = _example(judge, judge.worst[verdict, quantity], verdict)
        yield example


def _example(judge: Judge, found: Judged, verdict: Verdict) -> Example:
    found = _smaller(judge, found, verdict)
    quantity = found.quantity
    here = (found.verdict == verdict) & (found.region == focus(found, verdict)[0])
    ratio = np.where(here, found.ratio, -1.0)
    place = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
    m, fmt = found.m, FORMATS[found.problem.format]
    spacing = float(ulp(np.asarray(m.exact[place]), fmt))
    number = snippet.place(m.identity, m.problem, m.layout, quantity, m.got.shape, place)
    with np.errstate(divide="ignore"):
        digits = max(0.0, float(-np.log10(relative(m)[place])))
    return Example(
        WORDS[verdict], judge.case.label, fmt.name, m.layout, quantity, place,
        found.region_name(place), lines(m.problem),
        float(m.got[place]), float(m.exact[place]), float(m.error[place]) / spacing,
        float(m.contract.bound[place]) / spacing,
        None if found.opaque else float(m.own.bound[place]) / spacing,
        _why(judge, found, verdict, place), *_layouts(judge, found), _threads(judge, found),
        judge.program(m.problem, m.layout, f"print({number})  # exact {float(m.exact[place])!r}"),
        judge.regraded(Severity(int(found.severity[place])), fmt.name, quantity), digits,
    )  # fmt: skip


def _again(judge: Judge, quantity: str, problem: Problem, layout: str) -> Judged | None:
    """The same quantity of another problem, or in another layout, if it can be judged there."""
    if not applies(judge.case.identity, problem, layout):
        return None
    try:
        run = judge.ran(problem, layout, Expected(once=True))
        (again,) = judge.judged(problem, layout, {quantity: run.got[quantity]})
    except Exception:  # a problem that the oracle refuses, say
        return None
    return again


def _layouts(judge: Judge, found: Judged) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The layouts in which the quantity fails, and those in which it never does, nor on this problem."""
    fails, spared = [], []
    for (quantity, layout), failed in judge.places.items():
        if quantity == found.quantity and failed:
            fails.append(layout)
        elif quantity == found.quantity:
            again = _again(judge, quantity, found.problem, layout)
            spared += [layout] if again and not again.fails else []
    return tuple(fails), tuple(spared)


def _threads(judge: Judge, found: Judged) -> int:
    """With how many threads the quantity fails on this problem, if with one it does not (0: it does)."""
    if found.threads == 1:
        return 0
    with threads(1):
        again = _again(judge, found.quantity, found.problem, found.m.layout)
    return found.threads if again and not again.fails else 0


def _smaller(judge: Judge, found: Judged, verdict: Verdict) -> Judged:
    best, (region, ratio), left = found, focus(found, verdict), NUMBERS
    end = time.monotonic() + SECONDS

    def fails(problem: Problem) -> bool:
        nonlocal best, left
        left -= next(iter(problem.items.values())).size
        if left < 0 or time.monotonic() > end or judge.conduct.hung or judge.refuses(problem):
            return False
        again = _again(judge, found.quantity, problem, found.m.layout)
        if again is None:
            return False
        if not (again.verdict == verdict).any() or focus(again, verdict) < (region, GRAVE * ratio):
            return False
        best = again
        return True

    if judge.shrinks:
        shrunk(found.problem, {**judge.case.identity.domain.axes, "g": judge.case.identity.out}, fails, ATTEMPTS)
    return best


def _why(judge: Judge, found: Judged, verdict: Verdict, place: tuple[int, ...]) -> str:
    if found.opaque:
        return _likened(judge, found, place)
    follow = partial(judge.follow, found.problem, found.m.layout)
    try:
        return _traced(follow, found, verdict, place)
    except Exception:  # it could be followed before: it runs other operations each time
        return "its operations could not be followed again"


def _traced(follow: Callable[..., Outcome], found: Judged, verdict: Verdict, place: tuple[int, ...]) -> str:
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


def _likened(judge: Judge, found: Judged, place: tuple[int, ...]) -> str:
    """What can be said of an opaque implementation: why it is one, and whether PyTorch's function is no better."""
    said = f"opaque: {judge.opaque or 'its operations could not be followed here'}"
    identity, what = judge.case.identity, found.quantity
    if identity.bitwise:  # nothing excuses it
        return said
    place_ = Place(found.m.layout, judge.device, judge.mode)
    trial = Trial(identity, identity.reference, found.problem, place_)
    fact, _, ball = judging.decide(identity, found.problem, what, found.m.got, found.m.contract.bound)
    only = np.zeros(fact.shape, dtype=bool)
    only[place] = True
    run = judging.reference_run(identity, found.problem, place_)
    fact, names = known.excused(trial, run, what, ball, found.m.got, only, fact)
    if fact[place] == EXCUSED:
        said += f"; {identity.reference.label} may be as far off here, by its known defect {', '.join(names)}"
    return said
