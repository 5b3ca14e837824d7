"""What a mean divides by: the rows, those that are not ignored, all numbers, or the weights of the rows."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np

from equivalences.model import Array, Form, Identity, Problem
from equivalences.oracle import exact

NORMALISERS = ("rows", "kept rows", "numbers", "weights")


def _kept(items: Mapping[str, Any]) -> Array:
    """Which rows are not ignored."""
    rows = len(next(iter(items.values())))
    return items["y"] != items.get("ignore_index", -100) if "y" in items else np.ones(rows, dtype=bool)


def divisor(problem: Problem, normaliser: str) -> float:
    """What that mean of a problem divides by."""
    items = problem.items
    z, kept, weight = next(iter(items.values())), _kept(items), items.get("weight")
    if normaliser == "rows":
        return float(len(z))
    if normaliser == "numbers":
        return float(np.size(z))
    if normaliser == "kept rows" or weight is None or "p" in items:
        return float(kept.sum())
    return math.fsum(weight[items["y"][kept]] if "y" in items else weight)


def usual(problem: Problem) -> str:
    """What PyTorch divides by: the weights of class indices, else the rows."""
    return "weights" if "y" in problem.items else "rows"


def has_mean(problem: Problem) -> bool:
    """Whether a problem asks for a mean."""
    return problem.items.get("reduction") == "mean"


def _divisor_of(p: Any, normaliser: str) -> Any:
    """The same in exact numbers, for a specification."""
    if normaliser in ("rows", "numbers"):
        wide = len(p.z[0]) if normaliser == "numbers" and isinstance(p.z[0], list) else 1
        return exact.rows_of(p, p.z) * wide
    if not hasattr(p, "y"):
        weight = getattr(p, "weight", None)
        rows = [1] * len(p.z) if weight is None or normaliser == "kept rows" else weight
        return exact.total_of_rows(p, rows)
    weight = getattr(p, "weight", None) if normaliser == "weights" else None
    ignored = getattr(p, "ignore_index", -100)
    return exact.total_of_rows(p, [0 if y == ignored else 1 if weight is None else weight[y] for y in p.y])


# The same in PyTorch, for the reference: (kind of target, normaliser) -> a number.  Any other is PyTorch's own mean.
_CODE: Mapping[tuple[str, str], str] = {
    ("y", "rows"): "y.numel()",
    ("y", "kept rows"): "int((y != {ignored}).sum())",
    ("y", "numbers"): "z.numel()",
    ("p", "numbers"): "z.numel()",
    ("t", "weights"): "weight.sum()",
}


def normalised(identity: Identity, normaliser: str) -> Identity:
    """The identity of a loss with another mean, and its reference with it."""
    axes, reference = identity.domain.axes, identity.reference
    item = next(name for name in ("y", "p", "t") if name in axes)
    count = _CODE.get((item, normaliser))
    if count is None or (normaliser == "weights" and "weight" not in axes):
        return identity
    spec: Callable[..., Any] = identity.spec

    def otherwise(p: Any) -> Any:
        if p.reduction != "mean":
            return spec(p)
        total = spec(SimpleNamespace(**{**vars(p), "reduction": "sum"}))
        return total / _divisor_of(p, normaliser)

    assert isinstance(reference.code, str)
    named = "ignore_index" in identity.domain.edges("float32")[0].items
    code = (
        "mean = reduction == 'mean'\n"
        "reduction = 'sum' if mean else reduction\n"
        f"total = {reference.code}\n"
        f"total / ({count.format(ignored='ignore_index' if named else -100)}) if mean else total"
    )
    return replace(identity, spec=otherwise, forms=(Form(code, label=reference.label), *identity.forms[1:]))
