"""The text of a failure: what should hold, the smallest problem found, what every form makes of it, how to redo it."""

from __future__ import annotations

import numpy as np

from equivalences.formats import FORMATS, ulp
from equivalences.judging import judge
from equivalences.judging.facts import EXCUSED, FAILS, GATE, INSIDE, OUTSIDE, UNBOUNDED, Fact
from equivalences.judging.judge import Crash, Judgement, Measurement
from equivalences.model import Identity, Problem
from equivalences.report import formula
from equivalences.report.shrink import shrunk
from equivalences.report.snippet import place, snippet
from equivalences.rounding import Step
from equivalences.running import execute
from equivalences.running.execute import Follow, Place
from equivalences.running.layouts import LAYOUTS, applies

LONG = 200  # numbers; a problem with more is summarised, and printed whole by its snippet only


def text(failure: Judgement, shrink: bool = True) -> str:
    """The report of one failing judgement, for people; `shrink` looks for a smaller problem first (eager only)."""
    before = failure.problem
    if shrink and failure.mode == "eager":
        failure = smaller(failure)
    body = _crash(failure) if isinstance(failure, Crash) else _measurement(failure)
    identity, plan = failure.identity, LAYOUTS[failure.layout]
    head = [
        f"{identity.name} in {failure.problem.format}: {_headline(failure)}",
        f"  form      {failure.form.label}",
        f"  where     layout {plan.name} ({plan.what}), device {failure.device}, {failure.mode}",
        f"  identity  {formula.text(identity.statement)}",
        f"  source    {identity.source}",
        "",
        f"problem{_shrunk_from(identity, before, failure.problem)}",
        *problem_lines(failure.problem, ", in full below"),
        "",
    ]
    return "\n".join(line.rstrip() for line in (*head, *body))


def _headline(failure: Judgement) -> str:
    if isinstance(failure, Crash):
        return f"raised {type(failure.error).__name__}: {' '.join(str(failure.error).split())[:300]}"
    verdict = np.isin(failure.own.fact, FAILS)
    outside = "outside its allowance" if (failure.own.fact == OUTSIDE).any() else "undecided at the highest precision"
    return f"{failure.quantity}: {int(verdict.sum())} of {failure.got.size} numbers {outside}"


# --- the problem -----------------------------------------------------------------------------------------------------


def _same(identity: Identity, failure: Judgement, problem: Problem) -> Judgement | None:
    """The same failure on another problem, if it has it."""
    where = {"layout": failure.layout, "device": failure.device, "mode": failure.mode}
    if not applies(identity, problem, failure.layout):
        return None
    try:
        met = judge.measure(identity, failure.form, problem, **where)
    except Exception:  # a problem that the oracle refuses is not a smaller one
        return None
    for judgement in met:
        if isinstance(failure, Crash):
            if isinstance(judgement, Crash) and type(judgement.error) is type(failure.error):
                return judgement
        elif (
            isinstance(judgement, Measurement)
            and judgement.quantity == failure.quantity
            and (judgement.own.fact == OUTSIDE).any() >= (failure.own.fact == OUTSIDE).any()
            and judgement.failed
        ):
            return judgement
    return None


def smaller(failure: Judgement) -> Judgement:
    """The same failure on the smallest problem found."""
    identity, best = failure.identity, failure

    def fails(problem: Problem) -> bool:
        nonlocal best
        found = _same(identity, failure, problem)
        best = found or best
        return found is not None

    shrunk(failure.problem, {**identity.domain.axes, "g": identity.out}, fails)
    return best


def _sizes(problem: Problem) -> str:
    shapes = {name: item.shape for name, item in problem.items.items() if getattr(item, "shape", ())}
    return ", ".join(f"{name} {'x'.join(map(str, shape))}" for name, shape in shapes.items())


def _shrunk_from(identity: Identity, before: Problem, after: Problem) -> str:
    return "" if before == after else f" (shrunk from {_sizes(before)})"


def problem_lines(problem: Problem, elsewhere: str = "") -> list[str]:
    """Every item of a problem in a line; long ones are summarised (`elsewhere`: where they are in full)."""
    lines = []
    for name, item in problem.items.items():
        if isinstance(item, np.ndarray) and item.size > LONG:
            shown = f"{item.size} numbers in [{item.min().item()!r}, {item.max().item()!r}]{elsewhere}"
        else:
            shown = repr(item.tolist() if isinstance(item, np.ndarray) else item)
        lines.append(f"  {name} = {shown}")
    return lines


# --- a measurement ---------------------------------------------------------------------------------------------------


def worst(m: Measurement) -> tuple[int, ...]:
    """The index of the number that is furthest outside its allowance."""
    with np.errstate(divide="ignore", invalid="ignore"):
        excess = np.where(m.own.bound > 0, m.error / m.own.bound, np.where(m.error > 0, np.inf, 0.0))
    excess = np.where(np.isin(m.own.fact, FAILS), np.nan_to_num(excess, nan=np.inf), -1.0)
    found = np.argwhere(excess == excess.max())
    largest = max(found, key=lambda index: float(np.nan_to_num(m.error[tuple(index)], nan=np.inf)))
    return tuple(int(i) for i in largest)


def _measurement(m: Measurement) -> list[str]:
    at = worst(m)
    fmt = FORMATS[m.problem.format]
    spacing = float(ulp(np.asarray(m.exact[at]), fmt))
    place_ = f"{m.quantity} {list(at)}" if at else m.quantity
    lines = [
        f"every form at {place_}; errors and allowances in ULP of {fmt.name} (1 ULP = {spacing:.3g} here)",
        *_table(_rows(m, at, spacing)),
        "",
        *_operations(m, at),
        "",
    ]
    show = place(m.identity, m.problem, m.layout, m.quantity, m.got.shape, at)
    own = float(m.own.bound[at])
    note = f"print({show})  # got {float(m.got[at])!r}, exact {float(m.exact[at])!r}, allowed +-{own:.3g}"
    return [*lines, *_repeat(m, note)]


def _rows(m: Measurement, at: tuple[int, ...], spacing: float) -> list[list[str]]:
    rows = [["", "form", "got", "exact", "error", "allowance", "error/allowance", "verdict"]]
    for form in judge.forms(m.identity, m.problem.format, m.layout, m.device, m.mode):
        if form is m.form:
            found: Judgement | None = m
        else:
            met = judge.measure(m.identity, form, m.problem, layout=m.layout, device=m.device, mode=m.mode)
            found = next((x for x in met if isinstance(x, Crash) or x.quantity == m.quantity), None)
        rows.append([">" if form is m.form else "", form.label, *_numbers(found, at, spacing)])
    return rows


def _numbers(found: Judgement | None, at: tuple[int, ...], spacing: float) -> list[str]:
    if found is None:
        return ["", "", "", "", "", "not judged"]
    if isinstance(found, Crash):
        return ["", "", "", "", "", f"raised {type(found.error).__name__}"]
    error, own, verdict = float(found.error[at]), float(found.own.bound[at]), Fact(int(found.own.fact[at]))
    with np.errstate(all="ignore"):
        ratio = float(np.float64(error) / np.float64(own)) if own else (0.0 if not error else np.inf)
    shown = GATE[verdict] + (f": {', '.join(found.defects)}" if verdict == EXCUSED else "")
    return [
        f"{float(found.got[at]):.9g}",
        f"{float(found.exact[at]):.9g}",
        f"{error / spacing:.3g}",
        "none" if verdict == UNBOUNDED else f"{own / spacing:.3g}",
        "" if verdict == UNBOUNDED else f"{ratio:.3g}",
        shown.upper() if verdict not in (INSIDE, UNBOUNDED, EXCUSED) else shown,
    ]


def _table(rows: list[list[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    align = [str.ljust, str.ljust, *[str.rjust] * (len(widths) - 3), str.ljust]
    return ["  ".join(a(cell, w) for a, cell, w in zip(align, row, widths, strict=True)) for row in rows]


# --- where the error came from ---------------------------------------------------------------------------------------


def _excess(step: Step) -> tuple[float, tuple[int, ...]]:
    """The largest error/bound of one operation's result, as far as float64 tells, and where."""
    computed, exact, bound = step.computed, step.v, step.e
    if not computed.size:
        return 0.0, ()
    with np.errstate(all="ignore"):
        error = np.abs(computed - exact)
        ratio = np.where(np.isinf(bound) | (error == 0), 0.0, np.nan_to_num(error / bound, nan=np.inf))
    index = np.unravel_index(int(ratio.argmax()), ratio.shape)
    return float(ratio.max()), tuple(int(i) for i in index)


def _operations(m: Measurement, at: tuple[int, ...]) -> list[str]:
    """The operations of the run, forward and backward, up to the first whose result lies outside its bound."""
    if m.identity.bitwise:
        return ["the outputs are compared bit by bit: no rounding error is allowed, and none is followed"]
    try:
        run = execute.run(m.identity, m.form, m.problem, Place(m.layout, m.device), follow=Follow(history=True))
    except Exception as error:  # it ran when it was judged; the rest of the report is worth having
        return [f"(the operations could not be followed again: {error})"]
    lines = ["operations in order, with the largest error/bound of their results, as float64 sees it"]
    if m.mode != "eager":
        lines[0] += " (of the eager run: compiled code cannot be followed)"
    for number, step in enumerate(run.steps, 1):
        ratio, where = _excess(step)
        first = step is run.excess
        lines.append(f"{'>' if first else ' '} {number:3}  {step.operation:32} {ratio:.3g}")
        if first:
            lines.append(
                f"       the first outside its bound: at {list(where)} computed {step.computed[where]:.9g}, "
                f"exact {step.v[where]:.9g}, bound {step.e[where]:.3g}"
            )
            left = len(run.steps) - number
            return [*lines, f"       ({left} more operations follow)"] if left else lines
    ideal = float(run.exact[m.quantity][at])
    if not abs(ideal - float(m.exact[at])) <= float(m.own.bound[at]):
        lines.append(
            f"  none is outside its bound: without any rounding this form gives {ideal:.9g} here, "
            f"and the identity says {float(m.exact[at]):.9g}"
        )
    else:
        lines.append("  none is outside its bound: the excess is too small for float64, or the compiler's")
    return lines


# --- a crash, and code -----------------------------------------------------------------------------------------------


def _crash(failure: Crash) -> list[str]:
    return [*_repeat(failure, "print(value)")]


def _repeat(failure: Judgement, show: str) -> list[str]:
    identity, form, problem = failure.identity, failure.form, failure.problem
    where = {"layout": failure.layout, "device": failure.device, "mode": failure.mode}
    code = snippet(identity, form, problem, **where, show=show)
    return ["repeat with torch alone:", "", *(f"    {line}" for line in code.splitlines())]
