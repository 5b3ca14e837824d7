"""Python floats that are followed like tensors: optimizers compute with hyperparameters before a kernel sees them.

Adam's step size is ``lr / (1 - beta1**t)``, in Python.  At t = 2 and beta = 0.999 the subtraction alone costs 500 u of
float64, more than all the kernels together.  PyTorch hands a kernel a plain number, so bounds are found by value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction
from functools import wraps
from typing import Any

_U = 2.0**-53
_SMALLEST = 2.0**-126  # below which float32 may be flushed to zero


@dataclass(frozen=True)
class Book:
    """What is known of Python's numbers in one run, by value.

    off      |number| -> the largest bound of any coefficient of that size.
    tensors  a number -> the unit roundoff of the tensor that it never leaves: a power with this exponent is computed
             there, and so are the numbers made of it (see `findings.known_defects.actual`).
    """

    off: dict[float, float] = field(default_factory=dict)
    tensors: dict[float, float] = field(default_factory=dict)

    def note(self, size: float, e: float) -> None:
        self.off[size] = max(self.off.get(size, 0.0), e)


def _of_numbers(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Arithmetic with plain numbers only: with a tensor, it is the tensor's."""

    @wraps(operation)
    def arithmetic(self: Any, other: Any) -> Any:
        return operation(self, other) if isinstance(other, (int, float)) else NotImplemented

    return arithmetic


class Coefficient(float):
    """A Python float, the real number that it stands for at most `e` away, and arithmetic that keeps `e` a bound.

    + - * / lose exactly what `Fraction` says; a power is within 1 ULP (glibc manual, errors in math functions).
    Results enter `book`.  `u` is not 0 where the number is really a tensor, of that unit roundoff.
    """

    book: Book
    e: float
    u: float

    def __new__(cls, value: float, book: Book, e: float = 0.0, u: float = 0.0) -> Coefficient:
        self = super().__new__(cls, value)
        self.book, self.e, self.u = book, e, u
        book.note(abs(float(value)), e)  # an operator may take -x as what to subtract
        return self

    def _rounded(self, value: float, e: float, u: float) -> Coefficient:
        """The result of an operation; its tensor (if `u` is not 0) rounds it."""
        if u:  # a quotient may be a reciprocal and a product, and what it is used in one operation longer for it
            e += 3 * u * (abs(value) + e) + _SMALLEST
        return Coefficient(value, self.book, e, u)

    def _made(self, other: Any, value: float, moved: float, exact: Callable[[], Fraction]) -> Coefficient:
        lost = abs(float(Fraction(value) - exact())) if math.isfinite(value) else math.inf
        u = max(self.u, other.u) if isinstance(other, Coefficient) else self.u
        return self._rounded(value, moved + lost, u)

    @_of_numbers
    def __add__(self, other: Any) -> Any:
        value = float(self) + float(other)
        return self._made(other, value, self.e + _error(other), lambda: Fraction(self) + Fraction(other))

    @_of_numbers
    def __sub__(self, other: Any) -> Any:
        value = float(self) - float(other)
        return self._made(other, value, self.e + _error(other), lambda: Fraction(self) - Fraction(other))

    @_of_numbers
    def __mul__(self, other: Any) -> Any:
        e = _error(other)
        moved = abs(self) * e + (abs(other) + e) * self.e
        return self._made(other, float(self) * float(other), moved, lambda: Fraction(self) * Fraction(other))

    @_of_numbers
    def __truediv__(self, other: Any) -> Any:
        value, e = float(self) / float(other), _error(other)
        room = abs(other) - e
        moved = (self.e + abs(value) * e) / room if room > 0 else math.inf
        return self._made(other, value, moved, lambda: Fraction(self) / Fraction(other))

    def __pow__(self, n: Any, modulus: None = None) -> Any:
        value, u = float(self) ** n, max(self.u, self.book.tensors.get(n, 0.0))
        e = self.e + u * self  # to compute with it there, it is taken in
        if self <= e or self < 0:
            return self._rounded(value, math.inf if e else 2 * _U * abs(value), u)
        ratio = e / self  # (1 + r)**n and (1 - r)**n, the further one
        moved = value * max(math.expm1(abs(n) * math.log1p(ratio)), math.expm1(-abs(n) * math.log1p(-ratio)))
        return self._rounded(value, moved + 2 * _U * value, u)

    def __neg__(self) -> Any:
        return Coefficient(-float(self), self.book, self.e, self.u)

    __radd__ = __add__
    __rmul__ = __mul__

    @_of_numbers
    def __rsub__(self, other: Any) -> Any:
        return Coefficient(float(other), self.book) - self

    @_of_numbers
    def __rtruediv__(self, other: Any) -> Any:
        return Coefficient(float(other), self.book) / self


def _error(number: Any) -> float:
    return number.e if isinstance(number, Coefficient) else 0.0
