"""Drawn problems: what is chosen (`Choose`), and the choices that commands make, with NumPy.

A domain says once how a problem is drawn, in terms of a few choices; who makes them is another matter.  Here they
follow from a seed and the number of the problem, and from nothing else: not from the process, from what it has
imported, or from how many problems are asked for.  In the tests Hypothesis makes them (`strategies`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np

from equivalences.model import Domain, Problem

T = TypeVar("T")


class Choose(Protocol):
    """The choices of which a drawn problem is made.

    Options are listed from plain to strange: Hypothesis shrinks towards the first, towards few codes, and towards 0.
    """

    def of(self, options: Sequence[T]) -> T:
        """One of the options."""

    def number(self, low: float, high: float) -> float:
        """A number from `low` to `high`, at times a plain one or one close to zero."""

    def entropy(self) -> int:
        """From 0 to 2**32 - 1; at times below 8, from which plain numbers follow (`rows`)."""

    def codes(self, most: int) -> tuple[int, ...]:
        """The codes of rows (`rows`), from 1 to `most` of them."""


class Seeded:
    """Choices that follow from a seed and the number of a problem.

    They are made of the raw words of Philox 4x64-10 (Salmon et al., SC 2011) with the two as its key.  These are a
    published function of key and counter: no release of NumPy gives others.  The methods of `numpy.random.Generator`
    may change (NEP 19), so none is used: the arithmetic below is all there is.
    """

    def __init__(self, seed: int, number: int) -> None:
        self._words = np.random.Philox(key=number % 2**64 << 64 | seed % 2**64)

    def _below(self, count: int) -> int:
        return int(self._words.random_raw()) * count >> 64

    def of(self, options: Sequence[T]) -> T:
        return options[self._below(len(options))]

    def number(self, low: float, high: float) -> float:
        """An integer, a multiple of 1/8, any number, or any number times a power of two down to 2**-63."""
        x = low + (high - low) * (self._below(2**53) * 2.0**-53)
        kind = self._below(4)
        if kind == 3:
            return x * 2.0 ** -self._below(64)
        return (float(round(x)), round(8 * x) / 8, x)[kind]

    def entropy(self) -> int:
        return self._below(8) if self._below(8) == 0 else self._below(2**32)

    def codes(self, most: int) -> tuple[int, ...]:
        # Often all of them: a kind of rows that a problem lacks is one that it does not test.
        count = min(most, 1 + self._below(most + 2))
        return tuple(16 * self.entropy() + self._below(16) for _ in range(count))


def sample(
    domain: Domain, format: str, examples: int, seed: int, shape: tuple[int, ...] | None = None
) -> list[Problem]:
    """`examples` drawn problems of the domain, of one shape if it is given; the first of them are those of fewer."""
    return [domain.draw(Seeded(seed, number), format, shape) for number in range(examples)]
