"""Gradients by one reverse sweep, and the nested lists that values and gradients come in."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from typing import Any

from flint import arb

from equivalences.oracle.exact.numbers import MINUS, ONE, ORDER, ZERO, Element, Number, as_number


def adjoints_of(seeds: Iterable[tuple[Number, Element]], first: int = 1) -> dict[int, Element]:
    """Adjoints, by `order`, of the sum of seed * number; nodes older than `first` are left out."""
    adjoints: dict[int, Element] = {}
    nodes: dict[int, Number] = {}
    queue: list[int] = []  # negated orders of the nodes whose adjoint has still to be passed on

    def pass_on(adjoint: Element, parents: Sequence[Number], partials: Sequence[Element]) -> None:
        for parent, partial in zip(parents, partials, strict=True):
            if (order := parent.order) < first:
                continue
            term = adjoint if partial is ONE else -adjoint if partial is MINUS else adjoint * partial
            if order in adjoints:
                adjoints[order] = adjoints[order] + term
                continue
            adjoints[order] = term
            if parent.parents:
                nodes[order] = parent
                heapq.heappush(queue, -order)

    for number, seed in seeds:
        pass_on(seed, (number,), (ONE,))
    while queue:
        number = nodes.pop(-heapq.heappop(queue))
        if number.partials is None:
            raise TypeError("a gradient taken inside a specification cannot be differentiated again")
        pass_on(adjoints[number.order], number.parents, number.partials)
    return adjoints


def leaf(v: Element) -> Number:
    """A new variable."""
    return Number(v, next(ORDER))


def variables(nested: Any) -> Any:
    """The same numbers (one, or a nested list), as new variables for `grad`; gradients still flow to the old ones."""

    def fresh(x: Any) -> Number:
        x = as_number(x)
        return Number(x.v, next(ORDER), (x,), (ONE,)) if x.order else leaf(x.v)

    return _map(fresh, nested)


def grad(output: Number, inputs: Any) -> Any:
    """The derivatives of one number by each of `inputs` (one, or a nested list), as values inside a specification.

    Inputs must be `variables`.  The result may be used and its value is exact; differentiating it raises TypeError.
    """
    flat, _ = flatten(inputs)
    if not all(isinstance(x, Number) and x.order for x in flat):
        raise TypeError("grad: inputs must be variables; make them with w = exact.variables(w) before they are used")
    adjoints = adjoints_of([(output, arb(1))], first=min((x.order for x in flat), default=1))
    return _map(lambda x: Number(adjoints.get(x.order, ZERO), next(ORDER), (x,), None), inputs)


def _map(f: Any, nested: Any) -> Any:
    return [_map(f, x) for x in nested] if isinstance(nested, (list, tuple)) else f(nested)


def nest(flat: list[Any], shape: tuple[int, ...]) -> Any:
    """A flat list as nested lists of a shape; the one entry itself for the shape ()."""
    if len(shape) < 2:
        return flat if shape else flat[0]
    size = math.prod(shape[1:])
    return [nest(flat[i * size : (i + 1) * size], shape[1:]) for i in range(shape[0])]


def flatten(nested: Any) -> tuple[list[Any], tuple[int, ...]]:
    """The entries of a nested list in order, and its shape.  Raises ValueError if it has none."""
    if not isinstance(nested, (list, tuple)):
        return [nested], ()
    parts = [flatten(x) for x in nested]
    shapes = {shape for _, shape in parts}
    if len(shapes) > 1:
        raise ValueError(f"a specification returned a ragged list: parts of shapes {sorted(shapes)}")
    return [x for part, _ in parts for x in part], (len(parts), *(shapes.pop() if shapes else ()))
