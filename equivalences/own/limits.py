"""What an implementation does not claim: limits that its author declares, and that are then not asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from math import isnan
from types import MappingProxyType
from typing import Any

import numpy as np

from equivalences import choices
from equivalences.model import Array, Problem
from equivalences.own.losses import WrongCall, several
from equivalences.own.normalisers import NORMALISERS

NOTHING: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits of an implementation, for ``check(..., limits=Limits(most_classes=1024))``.

    What is outside is not asked; the report lists the limits, and counts what was left out.

    least_classes, most_classes   of a row; None: any number.
    multiple_of_classes   the number of classes is a multiple of it.
    most_rows             of a batch; None: any number.
    finite_inputs         no logit is inf or nan.
    probabilities         soft targets outside of [0, 1] are refused.
    smoothing_below_one   a label smoothing of 1 is refused.
    in_place              it may overwrite its logits.
    one_backward          it has one backward pass only.
    flushes_subnormals    a result below the smallest normal number may be 0.
    result_format         format -> that of its result; of a format that is not named, its own.
    empty, all_ignored    what a mean gives of no row, and where every row is ignored: nan, 0, or None, as PyTorch.
    normaliser            what a mean divides by: "rows", "kept rows", "numbers" (rows times classes), "weights"; "": as
                          PyTorch.
    """

    least_classes: int = 1
    most_classes: int | None = None
    multiple_of_classes: int = 1
    most_rows: int | None = None
    finite_inputs: bool = False
    probabilities: bool = False
    smoothing_below_one: bool = False
    in_place: bool = False
    one_backward: bool = False
    flushes_subnormals: bool = False
    result_format: Mapping[str, str] = field(default_factory=lambda: NOTHING)
    empty: float | None = None
    all_ignored: float | None = None
    normaliser: str = ""

    def __post_init__(self) -> None:
        for name in ("least_classes", "multiple_of_classes", "most_classes", "most_rows"):
            value = getattr(self, name)
            if not (value is None and name.startswith("most")) and not (type(value) is int and value > 0):
                raise WrongCall(f"{name} must be a number of 1, 2, ..., got {value!r}")
        if self.most_classes is not None and not self.sizes():
            raise WrongCall(
                f"no number of classes is at least {self.least_classes}, at most {self.most_classes} and a multiple of "
                f"{self.multiple_of_classes}"
            )
        for name in ("empty", "all_ignored"):
            value = getattr(self, name)
            if value is not None and not (type(value) in (int, float) and (isnan(value) or value == 0)):
                raise WrongCall(f"{name} must be None, 0 or nan, got {value!r}")
        if self.normaliser and self.normaliser not in NORMALISERS:
            raise WrongCall(f"unknown normaliser {self.normaliser!r}: choose from {', '.join(NORMALISERS)}")
        if not isinstance(self.result_format, Mapping):
            raise WrongCall(
                f"result_format takes format: format, as {{'bfloat16': 'float32'}}, got {self.result_format!r}"
            )
        named = {_format(name): _format(result) for name, result in self.result_format.items()}
        object.__setattr__(self, "result_format", MappingProxyType(named))

    def takes(self, classes: int) -> bool:
        """Whether a row may have so many classes."""
        few = self.most_classes is None or classes <= self.most_classes
        return few and classes >= self.least_classes and classes % self.multiple_of_classes == 0

    def sizes(self) -> tuple[int, ...]:
        """Numbers of classes to be tried where some are declared: the least, the most, and some between."""
        step = self.multiple_of_classes
        least = -(-self.least_classes // step) * step
        if least == 1 and self.most_classes is None:
            return ()
        most = least * 16 if self.most_classes is None else self.most_classes // step * step
        between = [least * 2**power for power in range(1, 5)]
        return tuple(dict.fromkeys(each for each in (least, most, *between) if least <= each <= most))

    def refuses(self, problem: Problem, axes: Mapping[str, str]) -> str:
        """Why a problem is not asked ("": it is)."""
        name, letters = next(iter(axes.items()), ("", ""))
        if not letters.startswith("R") or name not in problem.items:
            return ""
        z = problem[name]
        if letters == "RC" and not self.takes(z.shape[1]):
            return "another number of classes"
        if self.most_rows is not None and len(z) > self.most_rows:
            return "more rows"
        if self.finite_inputs and not np.isfinite(z).all():
            return "inputs that are not finite"
        if self.probabilities and any(_outside(problem.items.get(each)) for each in ("p", "t")):
            return "targets outside of [0, 1]"
        if self.smoothing_below_one and problem.items.get("label_smoothing") == 1:
            return "a label smoothing of 1"
        return ""

    def declared(self) -> dict[str, Any]:
        """What is declared, for the report."""
        every = {each.name: getattr(self, each.name) for each in fields(self)}
        plain = {name: dict(value) if isinstance(value, Mapping) else value for name, value in every.items()}
        return {name: value for name, value in plain.items() if value not in _UNDECLARED[name]}

    def gives(self, problem: Problem) -> float | None:
        """What is declared of a mean of nothing (None: nothing is, or it is no such mean)."""
        if problem.items.get("reduction") != "mean":
            return None
        first = next(iter(problem.items.values()))
        if not len(first):
            return self.empty
        y = problem.items.get("y")
        ignored = y is not None and bool((y == problem.items.get("ignore_index", -100)).all())
        return self.all_ignored if ignored else None


_UNDECLARED: dict[str, tuple[Any, ...]] = {
    each.name: ({},) if each.name == "result_format" else (each.default,) for each in fields(Limits)
}


def _format(name: Any) -> str:
    return choices.formats(several("result_format", (name,), "float32"))[0]


def _outside(targets: Array | None) -> bool:
    return targets is not None and bool(((targets < 0) | (targets > 1)).any())
