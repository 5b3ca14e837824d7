"""The exact oracle: what a specification says of a problem, value and gradients, as enclosures in float64."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
from flint import arb

from equivalences.model import Identity, Problem
from equivalences.oracle.enclosure import Enclosure, enclose
from equivalences.oracle.exact import Number, adjoints_of, flatten, leaf, nest, numbers_of, working_precision


@dataclass(frozen=True, eq=False)
class Exact:
    """What an identity's specification says of one problem: the value, and the gradient by each item of `wrt`."""

    value: Enclosure
    gradients: Mapping[str, Enclosure]


@lru_cache(maxsize=64)
def evaluate(identity: Identity, problem: Problem, precision: int = 128, upstream: bool = True) -> Exact:
    """The exact value of `identity.spec` and, under the upstream gradient ``g``, its exact gradients.

    The specification gets the problem's items by attribute: arrays of floats as nested lists of `Number`, arrays of
    int and bool as nested lists of Python's, everything else as it is.  Without ``g`` or `upstream`: no gradients.
    `precision` is in bits; the last 64 results are kept.

    Of rows that are equal the specification gets one, where every row is its own affair; or where it counts them, with
    ``times``: how often each occurs.
    """
    if not (identity.counts_rows or identity.by_row):
        return _evaluate(identity, problem, precision, upstream)
    once, order = _distinct(identity, problem)
    if once is problem:
        return _evaluate(identity, problem, precision, upstream)
    found, axes = _evaluate(identity, once, precision, upstream), identity.domain.axes
    return Exact(
        found.value.take(order) if identity.by_row else found.value,
        MappingProxyType({n: e.take(order) if axes[n][0] == "R" else e for n, e in found.gradients.items()}),
    )


@lru_cache(maxsize=16)
def _distinct(identity: Identity, problem: Problem) -> tuple[Problem, npt.NDArray[np.int64]]:
    """The problem with one row of each (if they are counted, ``times`` beside them), and which of these each row is."""
    rows = {n: item for n, item in problem.items.items() if identity.domain.axes.get(n, "").startswith("R")}
    table = np.concatenate([item.reshape(len(item), -1).astype(np.float64) for item in rows.values()], axis=1)
    mixed = np.ldexp(table, -60) @ np.random.default_rng(0).random(table.shape[1])  # far from overflow
    _, first, order, times = np.unique(mixed, return_index=True, return_inverse=True, return_counts=True)
    if not np.array_equal(table[first][order], table):  # two rows met by chance
        _, first, order, times = np.unique(table, axis=0, return_index=True, return_inverse=True, return_counts=True)
    items = {n: item[first] if n in rows else item for n, item in problem.items.items()}
    if identity.counts_rows:
        items |= {"times": times}
    elif len(first) == len(table):  # as they are: no problem to ask the specification about beside this one
        return problem, np.arange(len(table))
    return Problem(problem.format, items), order.reshape(-1)


def _evaluate(identity: Identity, problem: Problem, precision: int, upstream: bool) -> Exact:
    wrt = identity.wrt if upstream and "g" in problem.items else ()
    with working_precision(precision):
        items: dict[str, Any] = {}
        leaves: dict[str, list[Number]] = {}
        for name in problem:
            item = problem[name]
            if not isinstance(item, np.ndarray):
                items[name] = item
            elif item.dtype.kind == "f":
                balls = map(arb, item.ravel().tolist())
                leaves[name] = list(map(leaf if name in wrt else Number, balls))
                items[name] = nest(leaves[name], item.shape)
            else:
                items[name] = item.tolist()
        for name in wrt:
            if name not in leaves:
                raise TypeError(f"{identity.name}: wrt names {name!r}, which is no array of floats in the problem")
        out, shape = flatten(identity.spec(SimpleNamespace(**items)))
        out = numbers_of(out)
        value = enclose([x.v for x in out], shape)
        if not wrt:
            return Exact(value, MappingProxyType({}))
        g = problem["g"]
        if np.shape(g) != shape:
            raise ValueError(f"{identity.name}: the output has shape {shape}, but g has {np.shape(g)}")
        adjoints = adjoints_of(zip(out, map(arb, np.ravel(g).tolist()), strict=True))

        def gradient(name: str) -> Iterator[Any]:
            found = (adjoints.get(x.order, arb(0)) for x in leaves[name])
            if "times" not in problem.items or identity.domain.axes[name][0] != "R":
                return found
            times = np.repeat(problem["times"], len(leaves[name]) // len(problem["times"]))
            return (x / n for x, n in zip(found, times.tolist(), strict=True))

        gradients = {name: enclose(gradient(name), problem[name].shape) for name in wrt}
        return Exact(value, MappingProxyType(gradients))
