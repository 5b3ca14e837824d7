"""The one registry of cases: pytest and the A/B driver time the same work, under the same names."""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence

from benchmarks import accuracy, gate_cost, loading, loss_cases, training
from benchmarks.work import Case, Unsupported, Work

DATA = "digits28"
SUITES = (training, loss_cases, loading, accuracy, gate_cost)


def grid(data: str = DATA, full: bool = False) -> tuple[Case, ...]:
    """Every case on a data set: a sensible cross of the axes, or (`full`) their product as far as it makes sense."""
    found = tuple(case for suite in SUITES for case in suite.cases(data, full))
    ids = [case.id for case in found]
    if len(set(ids)) < len(ids):
        raise ValueError(f"two cases are named {next(i for i in ids if ids.count(i) > 1)!r}")
    return found


CASES = grid()


def smoke_cases() -> tuple[Case, ...]:
    """The few that run everywhere in under two minutes."""
    return tuple(case for case in CASES if case.smoke)


def select(cases: Sequence[Case], expression: str) -> tuple[Case, ...]:
    """The cases whose ids fit an expression as pytest's -k takes it: parts of names, and, or, not, parentheses.

    Upper and lower case are one; an empty expression takes all.  Raises ValueError, in one line, if the expression
    is none or fits no case.
    """
    if not expression.strip():
        return tuple(cases)
    tokens = re.findall(r"[()]|[^\s()]+", expression)
    parts = [token.lower() for token in tokens if token not in ("(", ")", "and", "or", "not")]
    names = iter(range(len(parts)))
    text = " ".join(f"_{next(names)}" if token not in ("(", ")", "and", "or", "not") else token for token in tokens)
    try:
        code = compile(ast.parse(text, "<expression>", "eval"), "<expression>", "eval")
    except SyntaxError:
        raise ValueError(f"{expression!r} is no expression of names, 'and', 'or', 'not' and parentheses") from None
    found = tuple(
        case for case in cases if eval(code, {f"_{i}": part in case.id.lower() for i, part in enumerate(parts)})
    )
    if not found:
        raise ValueError(f"no case fits {expression!r}: `pytest --benchmark-only --collect-only -q` lists them all")
    return found


__all__ = ["CASES", "Case", "Unsupported", "Work", "grid", "select", "smoke_cases"]
