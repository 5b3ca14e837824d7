"""One line for a third party: is this implementation right, wrong, or right but unstable?

`check` runs it, as its user would, on the edge problems and on drawn problems of every case, format and layout that
the caller declares, and judges each number against the *contract*: what rounding may do to PyTorch's own function of
that name, followed operation by operation (see `run.contract`).  What is beyond the contract is judged again by the
implementation's own operations, if they can be followed.  See docs/check.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from equivalences import choices, execute, judge, problems, sweep
from equivalences.enclosure import Enclosure
from equivalences.formats import FORMATS, ulp
from equivalences.known_defects import KNOWN_DEFECTS
from equivalences.model import Array, Form, Identity, Problem
from equivalences.own import audit
from equivalences.own.losses import Case, WrongCall, cases
from equivalences.own.report import (
    FREE,
    KNOWN,
    OUTSIDE,
    RIGHT,
    UNSTABLE,
    VERDICTS,
    WRONG,
    Cell,
    Defect,
    Example,
    Incident,
    Report,
)
from equivalences.own.run import Expected, Insides, contract, insides, ran
from equivalences.report import failure, plain
from equivalences.report.environment import environment
from equivalences.report.shrink import shrunk

EXAMPLES = 20  # drawn problems of a case in a format
ATTEMPTS = 40  # at a smaller problem for an example
GRAVE = 1 / 2  # of the error/contract that a smaller problem must keep
VARIANTS = 512  # of compiled code: formats x layouts x options


def check(
    fn: Callable[..., Any],
    of: str = "cross_entropy",
    *,
    supports: Collection[str] = (),
    reduction: str | Sequence[str] = "mean",
    formats: Sequence[str] = (),
    layouts: Sequence[str] = (),
    gradient: bool = True,
    result_format: str = "",
    deterministic: bool = True,
    shape: tuple[int, int] | None = None,
    device: str = "cpu",
    examples: int = EXAMPLES,
    seed: int = 0,
    progress: bool = False,
) -> Report:
    """Judges an implementation of a loss.  Never raises for what the implementation does: that is in the report.

    fn             called as ``fn(logits, target)``, with the options declared in `supports` as keywords.
    of             a loss ("cross_entropy", "soft_cross_entropy", "binary_cross_entropy_with_logits"), or an identity of
                   the catalogue, whose items fn then takes by name (``lambda z, dim: ...``).
    supports       the options that fn takes, by the names of PyTorch's function ("weight", "ignore_index",
                   "label_smoothing", "pos_weight"), and "soft_targets".
    reduction      the one that fn does ("mean"), or several, ("none", "mean", "sum"), of which it takes one by keyword.
    formats        those that fn supports (default: all four).
    layouts        default: contiguous, strided and transposed; "inner" is (N, C, d), "unbatched" (C,).
    gradient       whether fn has a gradient with respect to the logits.
    result_format  the format of the result ("": that of the logits).
    deterministic  whether two runs must agree bit for bit.
    shape          (rows, classes) of every problem, for code that is compiled for one shape.
    examples       drawn problems of each case in each format, beside the edge problems.

    Raises `WrongCall` or `choices.Unknown`, both ValueErrors of one line, if what is asked for does not exist.
    """
    begun = time.monotonic()
    if isinstance(formats, str):
        raise WrongCall(f"formats takes several names: formats=({formats!r},)")
    if isinstance(examples, bool) or not isinstance(examples, int) or examples < 0:
        raise WrongCall(f"examples must be a number of 0, 1, 2, ..., got {examples!r}")
    wanted, device = choices.formats(formats), choices.device(device)
    result_format = choices.named("format", [result_format], tuple(FORMATS))[0] if result_format else ""
    name = str(getattr(fn, "__name__", "") or type(fn).__name__)
    judges = [
        _Judge(case, case.form(fn, name), device, Expected(result_format, deterministic), shape is None)
        for case in cases(fn, of, supports, reduction, layouts)
    ]
    if not gradient:
        for each in judges:
            each.case = replace(each.case, identity=replace(each.case.identity, wrt=()))
    work = [
        (each, *todo)
        for each in judges
        for fmt in wanted
        if fmt in each.case.identity.formats
        for todo in _problems(each.case.identity, fmt, examples, seed, shape)
    ]
    if not work:
        raise WrongCall(f"there is no problem to judge {of!r} on: give more examples, or another shape")
    with _compilable(fn):
        for each in judges:
            first = next((todo for todo in work if todo[0] is each), None)
            if first:
                each.insides = insides(each.case.identity, each.form, *first[1:], device)
        for each, problem, layout in plain.followed(work, f"checking {name}", progress):
            each.add(problem, layout)
        shown = tuple(example for each in judges for example in each.examples())
    declared = {
        "supports": sorted(supports), "reduction": reduction, "formats": list(wanted),
        "layouts": list(judges[0].case.identity.layouts or ()), "gradient": gradient,
        **({"shape": shape} if shape else {}), **({"result_format": result_format} if result_format else {}),
        "examples": examples, "seed": seed,
    }  # fmt: skip
    return Report(
        name, of, judges[0].case.identity.statement, declared, next((each.insides.opaque for each in judges if each.insides.opaque), ""),
        tuple(cell for each in judges for cell in each.cells()), shown,
        tuple(incident for each in judges for incident in each.incidents.values()), _defects(judges),
        len({problem for _, problem, _ in work}), time.monotonic() - begun, environment(device),
    )  # fmt: skip


@contextmanager
def _compilable(fn: Any) -> Iterator[None]:
    """Lets compiled code be built for every shape: past its limit torch would silently run it eagerly."""
    if not hasattr(fn, "_torchdynamo_orig_callable"):
        yield
        return
    with torch._dynamo.config.patch(cache_size_limit=VARIANTS, accumulated_cache_size_limit=VARIANTS):
        yield


# --- problems --------------------------------------------------------------------------------------------------------


def _problems(
    identity: Identity, fmt: str, examples: int, seed: int, shape: tuple[int, int] | None
) -> Iterator[tuple[Problem, str]]:
    """Every problem with each of its layouts."""
    edges = 0
    for problem, wanted in sweep.edges(identity, fmt, "eager"):
        if shape in (None, next(iter(problem.items.values())).shape):
            edges += 1
            for layout in wanted:
                yield problem, layout
            if shape is None and identity.out == "":
                yield from ((part, wanted[-1]) for part in _by_region(identity, problem))
    for turn, problem in enumerate(problems.sample(identity.domain, fmt, examples, seed, shape)[edges:]):
        for layout in sweep.in_turn(sweep.layouts(identity, problem, "eager"), turn):
            yield problem, layout


def _by_region(identity: Identity, problem: Problem) -> Iterator[Problem]:
    """The rows of each region as a problem of their own: a total says nothing about a region if it mixes several."""
    where = np.atleast_1d(identity.domain.locate(problem))
    if len(where) != execute.rows_of(identity, problem) or len(set(where.tolist())) < 2:
        return
    y, weight = problem.items.get("y"), problem.items.get("weight")
    kept = np.ones(len(where)) if y is None else (y != problem.items.get("ignore_index", -100)).astype(float)
    if y is not None and weight is not None:
        kept = kept * np.asarray(weight)[np.where(kept > 0, y, 0)]
    for region in np.unique(where):
        rows = np.flatnonzero(where == region)
        if kept[rows].any():  # else the mean is 0 / 0
            yield Problem(
                problem.format,
                {
                    name: item[rows] if identity.domain.axes.get(name, "").startswith("R") else item
                    for name, item in problem.items.items()
                },
            )


# --- judging ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Judged:
    """One quantity of one problem: everything that an example needs."""

    problem: Problem
    layout: str
    quantity: str
    got: Array
    error: Array
    exact: Array
    contract: Array
    own: Array | None
    verdict: Array
    region: Array  # indices, -1: several
    defects: tuple[str, ...] = ()

    @property
    def ratio(self) -> Array:
        with np.errstate(all="ignore"):
            ratio = self.error / self.contract
        return np.where(self.error == 0, 0.0, np.where(np.isfinite(self.contract), np.nan_to_num(ratio, nan=np.inf), 0.0))


@dataclass(eq=False)
class _Judge:
    """Judges an implementation on the problems of one case, and adds up what it finds."""

    case: Case
    form: Form
    device: str
    expected: Expected
    shrinks: bool
    insides: Insides = Insides()
    counts: dict[tuple[str, str, int], Array] = field(default_factory=dict)
    ratios: dict[tuple[str, str, int], float] = field(default_factory=dict)
    worst: dict[tuple[int, str], _Judged] = field(default_factory=dict)
    incidents: dict[str, Incident] = field(default_factory=dict)
    defects: dict[str, int] = field(default_factory=dict)

    def add(self, problem: Problem, layout: str) -> None:
        identity = self.case.identity
        run = ran(identity, self.form, problem, layout, self.device, self.expected)
        for kind, sentence in run.incidents.items():
            self._met(kind, sentence, problem, layout)
        for found in self._judged(problem, layout, run.got):
            quantity = found.quantity
            for region in np.unique(found.region):
                here = found.region == region
                key = problem.format, quantity, int(region)
                counted = np.bincount(found.verdict[here], minlength=len(VERDICTS))
                self.counts[key] = self.counts.get(key, 0) + counted
                self.ratios[key] = max(self.ratios.get(key, 0.0), float(found.ratio[here].max(initial=0.0)))
            for name in found.defects:
                self.defects[name] = self.defects.get(name, 0) + int((found.verdict == KNOWN).sum())
            for verdict in (UNSTABLE, OUTSIDE, WRONG):
                if (found.verdict == verdict).any():
                    best = self.worst.get((verdict, quantity))
                    if best is None or _plainness(found, verdict) < _plainness(best, verdict):
                        self.worst[verdict, quantity] = found

    def _met(self, kind: str, sentence: str, problem: Problem, layout: str) -> None:
        before = self.incidents.get(kind)
        if before is None:
            lines = tuple(line.strip() for line in failure.problem_lines(problem))
            before = Incident(kind, sentence, self.case.label, (), (), 0, lines)
        self.incidents[kind] = replace(
            before,
            formats=tuple(dict.fromkeys((*before.formats, problem.format))),
            layouts=tuple(dict.fromkeys((*before.layouts, layout))),
            count=before.count + 1,
        )

    def _judged(self, problem: Problem, layout: str, got: Mapping[str, Array]) -> Iterator[_Judged]:
        identity = self.case.identity
        allowed = contract(identity, problem, layout, self.device)
        met = {name: judge.decide(identity, problem, name, numbers, allowed[name]) for name, numbers in got.items()}
        own: Mapping[str, Array] = {}
        if not self.insides.opaque and any((verdict != judge.INSIDE).any() for verdict, _, _ in met.values()):
            own = self._own(problem, layout)
        for name, (first, error, ball) in met.items():
            verdict = np.select([first == judge.INSIDE, first == judge.UNBOUNDED], [RIGHT, FREE], OUTSIDE)
            defects: tuple[str, ...] = ()
            if name in own and (verdict != RIGHT).any():
                verdict, ball, defects = self._by_itself(problem, layout, name, got[name], own[name], verdict)
            axes = identity.out if name == "value" else identity.domain.axes[name.removeprefix("gradient ")]
            bits = judge.region_bits(identity, problem, axes, got[name].shape)
            region = np.where(bits & (bits - 1), -1, np.log2(np.maximum(bits, 1)).astype(int))
            exactly = np.where(np.abs(ball.hi) > ball.radius, ball.nearest, 0.0)
            yield _Judged(
                problem, layout, name, got[name], error, exactly, allowed[name], own.get(name), verdict, region, defects
            )

    def _by_itself(
        self, problem: Problem, layout: str, quantity: str, got: Array, own: Array, verdict: Array
    ) -> tuple[Array, Enclosure, tuple[str, ...]]:
        """Judges what is not within the contract by the implementation's own operations, and by PyTorch's defects."""
        mine, _, ball = judge.decide(self.case.identity, problem, quantity, got, own)
        beyond = (mine == judge.OUTSIDE) | ((mine == judge.UNDECIDED) & (verdict == OUTSIDE))
        left = np.where(beyond & (verdict != RIGHT), judge.OUTSIDE, judge.INSIDE)
        defects: tuple[str, ...] = ()
        if (left == judge.OUTSIDE).any() and any(d.operation in self.insides.operations for d in KNOWN_DEFECTS):
            where = {"layout": layout, "device": self.device, "mode": "eager"}
            left, defects = judge.excused(self.case.identity, self.form, problem, where, quantity, ball, got, left)
        within = np.where(verdict == OUTSIDE, UNSTABLE, np.where(mine == judge.INSIDE, RIGHT, verdict))
        found = np.select([left == judge.KNOWN, left == judge.OUTSIDE], [KNOWN, WRONG], within)
        return np.where(verdict == RIGHT, RIGHT, found), ball, defects

    def _own(self, problem: Problem, layout: str) -> Mapping[str, Array]:
        try:
            return execute.run(self.case.identity, self.form, problem, layout=layout, device=self.device).bound
        except Exception:  # it cannot be followed here
            return {}

    def cells(self) -> Iterator[Cell]:
        names = (*self.case.identity.domain.regions, "mixed")
        for (fmt, quantity, region), counted in sorted(self.counts.items(), key=lambda item: item[0][2] % len(names)):
            counts = {name: int(n) for name, n in zip(VERDICTS, counted, strict=True) if n}
            yield Cell(self.case.label, fmt, quantity, names[region], counts, self.ratios[fmt, quantity, region])

    # -- examples --

    def examples(self) -> Iterator[Example]:
        """One example for each quantity that fails, of its worst verdict, shrunk, with the reason that can be found."""
        worst = {quantity: max(v for v, q in self.worst if q == quantity) for _, quantity in self.worst}
        for quantity, verdict in sorted(worst.items(), key=lambda item: (-item[1], item[0] != "value", item[0])):
            found = self._smaller(self.worst[verdict, quantity], verdict)
            ratio = np.where(found.verdict == verdict, found.ratio, -1.0)
            place = tuple(int(i) for i in np.unravel_index(int(ratio.argmax()), ratio.shape))
            fmt = FORMATS[found.problem.format]
            spacing = float(ulp(np.asarray(found.exact[place]), fmt))
            names = (*self.case.identity.domain.regions, "mixed")
            yield Example(
                VERDICTS[verdict], self.case.label, fmt.name, found.layout, quantity, place,
                names[int(found.region[place])], tuple(line.strip() for line in failure.problem_lines(found.problem)),
                float(found.got[place]), float(found.exact[place]), float(found.error[place]) / spacing,
                float(found.contract[place]) / spacing, None if found.own is None else float(found.own[place]) / spacing,
                self._why(found, verdict, place),
            )  # fmt: skip

    def _smaller(self, found: _Judged, verdict: int) -> _Judged:
        best, enough = found, found.ratio[found.verdict == verdict].max() * GRAVE

        def fails(problem: Problem) -> bool:
            nonlocal best
            if not execute.applies(self.case.identity, problem, found.layout):
                return False
            try:
                run = ran(self.case.identity, self.form, problem, found.layout, self.device, Expected("", False))
                numbers = {found.quantity: run.got[found.quantity]}
                (again,) = self._judged(problem, found.layout, numbers)
            except Exception:  # a problem that the oracle refuses is not a smaller one
                return False
            if not (again.ratio[again.verdict == verdict] >= enough).any():
                return False
            best = again
            return True

        if self.shrinks:
            shrunk(found.problem, {**self.case.identity.domain.axes, "g": self.case.identity.out}, fails, ATTEMPTS)
        return best

    def _why(self, found: _Judged, verdict: int, place: tuple[int, ...]) -> str:
        if found.own is None:
            return f"opaque: {self.insides.opaque or 'its operations could not be followed here'}"
        identity, what = self.case.identity, found.quantity
        where = {"layout": found.layout, "device": self.device}
        if verdict == UNSTABLE:

            def bound(rules: audit.Rules) -> float:
                return float(execute.run(identity, self.form, found.problem, **where, as_is=rules).bound[what][place])

            operations, total = audit.follow(bound)
            lost = audit.culprit(operations, total)
            return audit.explained(lost, operations, total, f"the {what}") if lost else "no operation stands out"
        run = execute.run(identity, self.form, found.problem, **where, history=True)
        if run.excess:
            return f"{run.excess.operation} is outside its own bound: PyTorch's operation, not the formula"
        ideal = float(run.exact[what][place])
        return f"without any rounding it gives {ideal:.9g}, where the identity says {found.exact[place]:.9g}"


def _plainness(found: _Judged, verdict: int) -> tuple[int, bool, int, float]:
    """What makes a better example: a usual format, a usual region, a large error."""
    order = ("float32", "float64", "bfloat16", "float16")
    here = found.verdict == verdict
    usual = int(found.region[here].max())  # regions are listed from strange to usual; -1: several
    return order.index(found.problem.format), usual < 0, -usual, -float(found.ratio[here].max())


def _defects(judges: Sequence[_Judge]) -> tuple[Defect, ...]:
    total: dict[str, int] = {}
    for each in judges:
        for name, count in each.defects.items():
            total[name] = total.get(name, 0) + count
    return tuple(Defect(d.name, total[d.name], d.why, d.link) for d in KNOWN_DEFECTS if d.name in total)
