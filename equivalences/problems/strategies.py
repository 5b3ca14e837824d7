"""Drawn problems for tests: the choices made by Hypothesis, which targets and shrinks them.

The only module of the package that knows Hypothesis, but for the pytest plugin; commands import neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from hypothesis import strategies as st

from equivalences.model import Domain, Problem

T = TypeVar("T")
_ENTROPY = st.integers(0, 2**32 - 1)
_CODE = st.integers(0, 2**36 - 1)  # Hypothesis shrinks by dropping high bits: the kind stays, the entropy goes


@dataclass(frozen=True)
class _Shrinking:
    """`draw.Choose`: each is one choice of Hypothesis's, but for a code each."""

    draw: st.DrawFn

    def of(self, options: Sequence[T]) -> T:
        return options[self.draw(st.integers(0, len(options) - 1))]

    def number(self, low: float, high: float) -> float:
        return self.draw(st.floats(low, high))

    def entropy(self) -> int:
        return self.draw(_ENTROPY)

    def codes(self, most: int) -> tuple[int, ...]:
        return tuple(self.draw(st.lists(_CODE, min_size=1, max_size=most)))


@st.composite
def problems(draw: st.DrawFn, domain: Domain, format: str, shape: tuple[int, ...] | None = None) -> Problem:
    """Problems of the domain in a format, of one shape if it is given."""
    return domain.draw(_Shrinking(draw), format, shape)
