"""Domains made of others: their problems with other items, and options that follow from the numbers.

Options (learning rate, momentum, dropout probability ...) are picked from short tables by the entropy of what is no
row's own, so that they are no choice to draw.  Python floats among them are exact: they are the doubles they are.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from equivalences.model import Array, Domain, Problem
from equivalences.problems.draw import Choose


class Pick:
    """Picks options: each call takes the next of a stream of numbers in [0, 1)."""

    def __init__(self, stream: Array) -> None:
        self._next = iter(stream.tolist())

    def __call__(self, *options: Any) -> Any:
        return options[int(next(self._next) * len(options))]


def of_problem(problem: Problem) -> Pick:
    """Options that follow from the numbers of a problem, reproducibly."""
    digest = zlib.crc32(b"".join(item.tobytes() for item in problem.items.values() if isinstance(item, np.ndarray)))
    # As `default_rng(digest).random(16)` has it, whose method may change; the raw words may not (NEP 19).
    return Pick((np.random.PCG64(digest).random_raw(16) >> np.uint64(11)) * 2.0**-53)


def derived(
    base: Domain,
    name: str,
    axes: Mapping[str, str],
    make: Callable[[Problem, Pick], dict[str, Any]],
    layouts: tuple[str, ...] = ("contiguous", "strided"),
) -> Domain:
    """The problems of `base` with other items; where they lie is decided by `base`, from items that must remain."""

    def remade(problem: Problem) -> Problem:
        return Problem(problem.format, make(problem, of_problem(problem)), problem.role)

    def draw(choose: Choose, format: str, shape: tuple[int, ...] | None = None) -> Problem:
        return remade(base.draw(choose, format, shape))

    def edges(format: str) -> list[Problem]:
        return [remade(problem) for problem in base.edges(format)]

    def exhaustive(format: str) -> list[Problem]:
        return [remade(problem) for problem in base.exhaustive(format)]

    return Domain(name, axes, draw, edges, base.regions, base.locate, layouts, exhaustive)


def labelled(conditions: Mapping[str, Array], rest: str = "core") -> Array:
    """The index of the first condition that holds in each row; the one after the last is `rest`."""
    return np.select(list(conditions.values()), list(range(len(conditions))), len(conditions))
