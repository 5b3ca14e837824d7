"""Python floats that are followed like tensors: what optimizers do to their hyperparameters before a kernel sees them.

Adam's step size is ``lr / (1 - beta1**t)``, in Python.  At t = 2 and beta = 0.999 the subtraction alone costs 500 u of
float64, more than all the kernels together.  PyTorch hands a kernel a plain number, so bounds are found by value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from typing import Any

_U = 2.0**-53


def _of_numbers(operation: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Arithmetic with plain numbers only: with a tensor, it is the tensor's."""

    @wraps(operation)
    def arithmetic(self: Any, other: Any) -> Any:
        return operation(self, other) if isinstance(other, (int, float)) else NotImplemented

    return arithmetic


class Coefficient(float):
    """A Python float, the real number that it stands for at most `e` away, and arithmetic that keeps `e` a bound.

    + - * / lose exactly what `Fraction` says; a power is within 1 ULP (glibc manual, errors in math functions).
    Results enter `book`: |number| -> largest bound of any coefficient of that size.
    """

    book: dict[float, float]
    e: float

    def __new__(cls, value: float, book: dict[float, float], e: float = 0.0) -> Coefficient:
        self = super().__new__(cls, value)
        self.book, self.e = book, e
        size = abs(float(value))  # an operator may take -x as what to subtract
        book[size] = max(book.get(size, 0.0), e)
        return self

    def _made(self, value: float, moved: float, exact: Callable[[], Fraction]) -> Coefficient:
        lost = abs(float(Fraction(value) - exact())) if math.isfinite(value) else math.inf
        return Coefficient(value, self.book, moved + lost)

    @_of_numbers
    def __add__(self, other: Any) -> Any:
        return self._made(float(self) + float(other), self.e + _error(other), lambda: Fraction(self) + Fraction(other))

    @_of_numbers
    def __sub__(self, other: Any) -> Any:
        return self._made(float(self) - float(other), self.e + _error(other), lambda: Fraction(self) - Fraction(other))

    @_of_numbers
    def __mul__(self, other: Any) -> Any:
        e = _error(other)
        moved = abs(self) * e + (abs(other) + e) * self.e
        return self._made(float(self) * float(other), moved, lambda: Fraction(self) * Fraction(other))

    @_of_numbers
    def __truediv__(self, other: Any) -> Any:
        value, e = float(self) / float(other), _error(other)
        room = abs(other) - e
        moved = (self.e + abs(value) * e) / room if room > 0 else math.inf
        return self._made(value, moved, lambda: Fraction(self) / Fraction(other))

    def __pow__(self, n: Any, modulus: None = None) -> Any:
        value = float(self) ** n
        if self <= self.e or self < 0:
            return Coefficient(value, self.book, math.inf if self.e else 2 * _U * abs(value))
        ratio = self.e / self  # (1 + r)**n and (1 - r)**n, the further one
        moved = value * max(math.expm1(abs(n) * math.log1p(ratio)), math.expm1(-abs(n) * math.log1p(-ratio)))
        return Coefficient(value, self.book, moved + 2 * _U * value)

    def __neg__(self) -> Any:
        return Coefficient(-float(self), self.book, self.e)

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
