"""`assert_close` on random inputs, and what comparing two forms takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.evidence.faults.fault import Fault
from equivalences.formats import FORMATS, truncate
from equivalences.model import Array, Form, Identity, Problem
from equivalences.running import execute
from equivalences.running.execute import Place

ROWS, COLUMNS = 64, 10

# Options as a tutorial sets them.
_OPTIONS: dict[str, Any] = {
    "reduction": "mean", "label_smoothing": 0.1, "ignore_index": -100, "slope": 0.01, "drop": 0.5, "seed": 0,
    "lr": 0.1, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "first": False, "weight_decay": 0.01,
    "maximize": False, "step": 1, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "batch": 10, "d": 784, "h": 32, "k": 2,
}  # fmt: skip


@lru_cache(maxsize=256)
def patterns(identity: Identity) -> tuple[Problem, ...]:
    return tuple(identity.domain.edges("float32"))


def _sizes(identity: Identity) -> dict[str, int]:
    """The size of each axis: 64 rows, 10 of everything else, or what every edge problem has."""
    seen: dict[str, set[int]] = {}
    for problem in patterns(identity):
        for name, axes in identity.domain.axes.items():
            if isinstance(problem.items.get(name), np.ndarray):
                for axis, size in zip(axes, problem[name].shape, strict=True):
                    seen.setdefault(axis, set()).add(size)
    return {
        axis: ROWS if axis == "R" else next(iter(found)) if len(found) == 1 else COLUMNS for axis, found in seen.items()
    }


@lru_cache(maxsize=512)
def practice(identity: Identity, fmt: str) -> Problem:
    """The inputs of a hand-written test: `randn` and the like, the same for every fault of an identity."""
    torch.manual_seed(0)
    sizes, domain = _sizes(identity), identity.domain
    edges = patterns(identity)
    items: dict[str, Any] = {}
    for name, example in edges[0].items.items():
        axes = domain.axes.get(name, "")
        if name == "weight" and any(isinstance(p["weight"], np.ndarray) for p in edges):
            axes = domain.axes["weight"]
        elif not isinstance(example, np.ndarray):
            items[name] = option(name, edges)
            continue
        shape = tuple(sizes[axis] for axis in axes)
        everything = np.concatenate([np.ravel(p[name]) for p in edges if isinstance(p[name], np.ndarray)])
        items[name] = _numbers(name, axes, shape, everything, sizes)
    if "t" in items and "y" in items:
        items["t"] = items["y"].astype(float)
    if "ignore_index" in items:
        items["y"][::10] = items["ignore_index"]
    return Problem(fmt, {name: in_format(item, fmt) for name, item in items.items()})


def option(name: str, patterns: tuple[Problem, ...]) -> Any:
    """An option as a tutorial sets it, if the identity allows that (a loss of each row has no reduction)."""
    allowed = {problem[name] for problem in patterns if isinstance(problem[name], str)}
    return _OPTIONS[name] if not allowed or _OPTIONS[name] in allowed else min(allowed)


def _numbers(name: str, axes: str, shape: tuple[int, ...], seen: Array, sizes: Mapping[str, int]) -> Array:
    if seen.dtype.kind != "f":
        classes = next(sizes[axis] for axis in "MKC" if axis in sizes)
        return torch.randint(classes, shape).numpy()
    if name == "p":
        return (F.softmax(torch.randn(shape), 1) if len(axes) == 2 else torch.rand(shape)).double().numpy()
    if name == "g":
        return (torch.randn(shape) if axes else torch.ones(())).double().numpy()
    if name == "t" and set(seen) <= {-1.0, 0.0, 1.0}:
        signs = torch.randint(2, shape).double().numpy()
        return signs if 0.0 in seen else 2 * signs - 1
    if seen.min() >= 0:  # probabilities, weights, second moments
        return (torch.rand(shape) + 0.5 * (name == "top")).double().numpy()
    return torch.randn(shape).double().numpy()


def in_format(item: Any, fmt: str) -> Any:
    return truncate(item, FORMATS[fmt]) if isinstance(item, np.ndarray) and item.dtype.kind == "f" else item


@lru_cache(maxsize=2048)
def reference(identity: Identity, problem: Problem) -> dict[str, Tensor]:
    return run(identity, identity.reference, problem)


def run(identity: Identity, form: Form, problem: Problem, layout: str = "contiguous") -> dict[str, Tensor]:
    dtype = FORMATS[problem.format].dtype
    got = execute.run(identity, form, problem, Place(layout), follow=None).got
    return {name: torch.tensor(numbers).to(dtype) for name, numbers in got.items()}


def differs(compare: Callable[[Tensor, Tensor], None], one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    try:
        for name, expected in other.items():
            compare(one[name], expected)
    except AssertionError:
        return True
    return False


def assert_close(fault: Fault, fmt: str) -> bool | None:
    """Whether `torch.testing.assert_close` notices the fault on random inputs (a fault that raises is noticed).

    None where the reference gives nan, as Adam does once float16 has rounded its epsilon to zero.
    """
    problem = practice(fault.of, fmt)
    expected = reference(fault.of, problem)
    if any(bool(numbers.isnan().any()) for numbers in expected.values()):
        return None
    try:
        got = run(fault.of, fault.broken, problem)
    except Exception:
        return True
    return differs(torch.testing.assert_close, got, expected)
