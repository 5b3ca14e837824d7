"""The special values that an implementation is asked for: entries of the table, as problems with what may come out.

An entry is one of PyTorch's function.  It is asked if its call passes numbers as they are, and only options,
reductions and targets that the implementation declares; not if PyTorch refuses it.  Where all problems have one
shape, masks of that shape are asked.  What PyTorch is known to do
instead of what is right is not held against anybody else.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch.nn.functional as F

from equivalences.findings import outcomes
from equivalences.findings.model import Gives, SpecialValue
from equivalences.findings.special_values import SPECIAL_VALUES, masks
from equivalences.formats import FORMATS
from equivalences.model import Array, Problem
from equivalences.own.limits import Limits
from equivalences.own.losses import Case
from equivalences.own.normalisers import divisor, has_mean, usual
from equivalences.own.run import Ran
from equivalences.rounding.arrays import as_array, as_tensor

NO_LIMITS = Limits()

TARGETS: dict[str, Callable[[Array], bool]] = {
    "index_targets": lambda t: t.dtype.kind == "i",
    "hard_targets": lambda t: t.dtype.kind == "f" and bool(np.isin(t, (0, 1)).all()),
    "soft_targets": lambda t: t.dtype.kind == "f",
}


@dataclass(frozen=True, eq=False)
class Asked:
    """An entry as a problem, and its possible outcomes: what is right, then what PyTorch does instead."""

    entry: SpecialValue
    problem: Problem
    possible: tuple[Gives, ...]

    def differs(self, run: Ran) -> str:
        """How a run differs from all that is possible, in a sentence ("": it does not)."""
        fmt = self.problem.format
        said = next((failed.sentence for failed in run.incidents.values()), "it gave nothing")
        if run.got:
            value, gradient = run.got["value"], run.got.get("gradient z")
            said = self._other(Gives(value, gradient, fmt))
            if not said and run.without is not None:
                said = self._other(Gives(run.without, None, fmt))
                said = said and f"under torch.no_grad() it {said}"
        if not said:
            return ""
        right = outcomes.shown(replace(self.possible[0], dtype=fmt))
        return f"{self.entry.name}: {said}, expected {right} ({self.entry.why})"

    def times(self, factor: float) -> Asked:
        """The same by a convention that multiplies the value and its gradient."""
        fmt = self.problem.format
        return replace(self, possible=tuple(_stored(_scaled(each, factor), fmt) for each in self.possible))

    def as_undefined(self, given: Gives) -> Asked:
        """The same by a formula: what it gives is right too wherever that is nan or infinite."""
        return replace(self, possible=tuple(_undefined(each, given) for each in self.possible))

    def _other(self, got: Gives) -> str:
        possible = [each if got.gradient is not None else replace(each, gradient=None) for each in self.possible]
        found = [outcomes.differs(got, each, self.problem.format, self.entry.rows) for each in possible]
        return found[0] if all(found) else ""


def _scaled(outcome: Gives, factor: float) -> Gives:
    gradient = None if outcome.gradient is None else np.multiply(outcome.gradient, factor, dtype=float)
    return replace(outcome, value=np.multiply(outcome.value, factor, dtype=float), gradient=gradient)


def _stored(outcome: Gives, fmt: str) -> Gives:
    """The outcome as a format holds it."""

    def part(numbers: Any) -> Any:
        return (
            None if numbers is None else as_array(as_tensor(np.asarray(numbers, float)).to(FORMATS[fmt].dtype).double())
        )

    return replace(outcome, value=part(outcome.value), gradient=part(outcome.gradient))


def _same(a: Gives, b: Gives) -> bool:
    return all(
        np.array_equal(np.asarray(x, float), np.asarray(y, float), equal_nan=True)
        for x, y in ((a.value, b.value), (a.gradient, b.gradient))
    )


def _undefined(outcome: Gives, given: Gives) -> Gives:
    def part(right: Any, mine: Any) -> Any:
        right, mine = (None if each is None else np.asarray(each, float) for each in (right, mine))
        if right is None or mine is None or right.shape != mine.shape:
            return right
        return np.where(np.isfinite(mine), right, mine)

    return replace(outcome, value=part(outcome.value, given.value), gradient=part(outcome.gradient, given.gradient))


def asked(
    case: Case,
    fmt: str,
    mode: str,
    shape: tuple[int, ...] | None = None,
    many_classes: bool = True,
    limits: Limits = NO_LIMITS,
) -> Iterator[Asked]:
    """What a case is asked for in a format; in code that is compiled PyTorch may do something else.

    Without `many_classes` no entry has more of them than the edge problems.  Of `limits`, what is declared of a mean.
    """
    for each in _asked(case, fmt, mode, shape, many_classes):
        possible = _declared_mean(each, limits)
        if possible:
            yield replace(each, possible=possible)


def _declared_mean(each: Asked, limits: Limits) -> tuple[Gives, ...]:
    """The possible outcomes of an entry with another mean than PyTorch's (none where no format holds them)."""
    problem, possible = each.problem, each.possible
    if limits.normaliser and has_mean(problem):
        right, taken = divisor(problem, usual(problem)), divisor(problem, limits.normaliser)
        zero = Gives(0.0 if taken else np.nan, None if taken == 0 else np.zeros_like(problem["z"]))
        possible = tuple(_scaled(one, right / taken) for one in possible) if right and taken else (zero,)
        stored = [_stored(one, problem.format) for one in possible]
        possible = tuple(one for one, held in zip(possible, stored, strict=True) if _same(one, held))
    if (value := limits.gives(problem)) is not None:
        gradients = [np.zeros_like(problem["z"]), *(one.gradient for one in possible)]
        possible = tuple(Gives(value, gradient) for gradient in gradients[: 1 if value == 0 else None])
    return possible


def _asked(case: Case, fmt: str, mode: str, shape: tuple[int, ...] | None, many_classes: bool) -> Iterator[Asked]:
    name, axes = next(iter(case.identity.domain.axes.items()), ("", ""))
    if axes not in ("R", "RC"):  # no row of logits: no entry is about it
        return
    most = max(np.shape(problem[name])[-1] for problem in case.identity.domain.edges(fmt)) if axes == "RC" else 1
    for entry in _entries(shape):
        z = next(iter(entry.items.values()))
        if np.ndim(z) > 1 and np.shape(z)[-1] > most and not many_classes and shape is None:
            continue
        accepted = outcomes.accepted(entry, fmt, mode)
        possible = [each for each in accepted if isinstance(each, Gives)]
        if len(possible) == len(accepted) and fmt in entry.formats:
            yield from _of_loss(case, entry, possible, fmt) if case.positional else _of_rows(case, entry, possible, fmt)


def _entries(shape: tuple[int, ...] | None) -> Iterable[SpecialValue]:
    if shape is None:
        return SPECIAL_VALUES
    return masks.entries(*shape) if len(shape) == 2 else ()


def _of_loss(case: Case, entry: SpecialValue, possible: Sequence[Gives], fmt: str) -> Iterator[Asked]:
    operation = case.identity.reference.label.removeprefix("F.")
    if entry.operation == operation and (call := _call(entry, operation)):
        for reduction in case.reductions:
            given = {name: _numbers(item) for name, item in call.items()}
            outcome = [_reduced(each, given, reduction) for each in possible]
            if _declared(case, given) and None not in outcome:
                problem = _problem(case, fmt, given | {"reduction": reduction})
                yield Asked(entry, problem, tuple(filter(None, outcome)))


def _of_rows(case: Case, entry: SpecialValue, possible: Sequence[Gives], fmt: str) -> Iterator[Asked]:
    """An entry of a function over the classes of each row, for the identity that is this very function."""
    items = {name: np.asarray(item) for name, item in entry.items.items()}
    same = case.identity.reference.code == entry.call.replace("z, 1)", "z, dim)")
    if same and {*items} <= {"z", "g"} and items["z"].dtype.kind == "f":
        g = np.broadcast_to(items.get("g", 1.0), np.shape(possible[0].value))
        yield Asked(entry, Problem(fmt, {"z": items["z"].astype(float), "g": g.astype(float)}), tuple(possible))


def _call(entry: SpecialValue, operation: str) -> dict[str, Any]:
    """What the entry's call passes, by the names of PyTorch's function; nothing if it makes other tensors first."""
    bind = inspect.signature(getattr(F, operation)).bind
    try:
        known = {"F": SimpleNamespace(**{operation: bind}), "torch": SimpleNamespace()}  # which has nothing, either
        bound = eval(entry.call, known, dict(entry.items))
    except AttributeError:  # the items are lists: these have no methods of tensors
        return {}
    arguments: dict[str, Any] = bound.arguments
    return arguments


def _numbers(item: Any) -> Any:
    return np.asarray(item) if isinstance(item, list) else item


def _declared(case: Case, given: Mapping[str, Any]) -> bool:
    """Whether the implementation takes such targets, and all the options that are given or that labels stand for."""
    target, options = given["target"], {*given} - {"input", "target", "reduction"}
    if target.dtype.kind == "i" and (target == given.get("ignore_index", -100)).any():
        options.add("ignore_index")
    return options <= {*case.keywords} and TARGETS[case.kind](target)


def _reduced(outcome: Gives, given: Mapping[str, Any], reduction: str) -> Gives | None:
    """The outcome with another reduction, where it follows: the sum of any rows, the mean of one without a weight."""
    if given["reduction"] == reduction:
        return outcome
    alone = len(given["input"]) == 1 and "weight" not in given
    if given["reduction"] != "none" or not (reduction == "sum" or alone):
        return None
    return replace(outcome, value=np.sum(outcome.value, dtype=float))


def _problem(case: Case, fmt: str, given: Mapping[str, Any]) -> Problem:
    """The problem in the words of the case, with options that change nothing where it has some that are not given."""
    z, axes = np.asarray(given["input"], float), case.identity.domain.axes
    items = dict(zip(case.positional, (z, given["target"]), strict=True))
    defaults = inspect.signature(getattr(F, case.identity.reference.label.removeprefix("F."))).parameters
    for name in (*(each for each in case.keywords if each != "reduction"), "reduction"):
        item = given.get(name, defaults[name].default)
        if name in axes and axes[name] != "C":  # an array or a number, never None
            item = np.resize(1.0 if item is None else item, len(z) if axes[name] else ())
        items[name] = item
    items["g"] = np.ones(len(z) if case.identity.out else ())
    return Problem(fmt, items)
