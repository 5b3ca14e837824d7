"""A number of a specification: a ball that remembers how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NoReturn, TypeAlias

from flint import arb, ctx

Element = Any  # arb, or a Number of the level below
Scalar = (int, float, arb)
Real: TypeAlias = "Number | int | float"

ONE, MINUS = 1, -1  # partial derivatives that need no multiplication, recognised by identity
ZERO = arb(0)
_EITHER = arb(0, 1)  # the ball [-1, 1]: a sign, or any slope between
ORDER = count(1)


@contextmanager
def working_precision(bits: int) -> Iterator[None]:
    """Balls are computed with `bits` significant bits inside the block; the former precision comes back after it."""
    former = ctx.prec
    ctx.prec = bits
    try:
        yield
    finally:
        ctx.prec = former


class Number:
    """One real number of a specification, known as a ball, that remembers how it was made.

    `order` is 0 for a constant and otherwise grows with creation, so that a reverse sweep visits nodes by falling
    order.  Python ints and floats take part as exactly the numbers that they are.
    """

    __slots__ = ("order", "parents", "partials", "v")
    __array_ufunc__ = None  # numpy scalars on the left leave the operation to us
    __hash__ = None  # type: ignore[assignment]  # follows from refusing ==

    def __init__(
        self, v: Element, order: int = 0, parents: Sequence[Number] = (), partials: Sequence[Element] | None = ()
    ) -> None:
        self.v, self.order, self.parents, self.partials = v, order, parents, partials

    def __repr__(self) -> str:
        return f"Number({self.v})"

    def __add__(self, other: Any) -> Number:
        if isinstance(other, Number):
            return node(self.v + other.v, (self, other), (ONE, ONE))
        return node(self.v + other, (self,), (ONE,)) if isinstance(other, Scalar) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Any) -> Number:
        if isinstance(other, Number):
            return node(self.v - other.v, (self, other), (ONE, MINUS))
        return node(self.v - other, (self,), (ONE,)) if isinstance(other, Scalar) else NotImplemented

    def __rsub__(self, other: Any) -> Number:
        return node(other - self.v, (self,), (MINUS,)) if isinstance(other, Scalar) else NotImplemented

    def __mul__(self, other: Any) -> Number:
        if isinstance(other, Number):
            return node(self.v * other.v, (self, other), (other.v, self.v))
        return node(self.v * other, (self,), (other,)) if isinstance(other, Scalar) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Number:
        other = as_number(other) if isinstance(other, Scalar) else other
        if not isinstance(other, Number):
            return NotImplemented
        q = self.v / other.v
        if not (self.order or other.order):
            return Number(q)
        return node(q, (self, other), (1 / other.v, -q / other.v))

    def __rtruediv__(self, other: Any) -> Number:
        return as_number(other) / self if isinstance(other, Scalar) else NotImplemented

    def __pow__(self, n: int) -> Number:
        if not isinstance(n, int):
            raise TypeError(f"only integer powers are exact here, not {n!r}: write exp(exponent * log(base))")
        return node(self.v**n, (self,), (n * self.v ** (n - 1),)) if n else as_number(1)

    def __neg__(self) -> Number:
        return node(-self.v, (self,), (MINUS,))

    def __abs__(self) -> Number:
        """The absolute value, with PyTorch's derivative 0 at 0."""
        if (ball := ball_of(self)) > 0:
            return self
        if ball == 0:
            return as_number(0)
        return -self if ball < 0 else node(self.v * _EITHER, (self,), (_EITHER,))

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            "an exact Number is a ball: comparing it may have no answer; use relu, abs, maximum, hardtanh or "
            "leaky_relu, or compare the problem's plain numbers"
        )

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = __int__ = _refuse

    # The functions below are methods because an element of the level above calls them so, as it does arb's.

    def exp(self) -> Number:
        e = self.v.exp()
        return node(e, (self,), (e,))

    def log(self) -> Number:
        return node(self.v.log(), (self,), (1 / self.v,))

    def log1p(self) -> Number:
        return node(self.v.log1p(), (self,), (1 / (1 + self.v),))

    def expm1(self) -> Number:
        return node(self.v.expm1(), (self,), (self.v.exp(),))

    def sqrt(self) -> Number:
        root = self.v.sqrt()
        if isinstance(self.v, arb) and not root.is_finite() and self.v.is_finite() and self.v.contains(0):
            root = arb(0).union(self.v.upper().sqrt())  # the exact argument is no negative number
        return node(root, (self,), (1 / (2 * root),))

    def sech(self) -> Number:
        s = self.v.sech()
        return node(s, (self,), (-s * self.v.tanh(),))

    def tanh(self) -> Number:
        s = self.v.sech()
        return node(self.v.tanh(), (self,), (s * s,))  # sech^2, since 1 - tanh^2 cancels


def node(v: Element, parents: Sequence[Number], partials: Sequence[Element]) -> Number:
    """The number `v` = f(parents); it remembers its parents only if one of them is a variable."""
    for parent in parents:
        if parent.order:
            return Number(v, next(ORDER), parents, partials)
    return Number(v)


def as_number(x: Any) -> Number:
    if isinstance(x, Number):
        return x
    if isinstance(x, Scalar):
        return Number(arb(x))
    raise TypeError(f"an exact specification works on Numbers, ints and floats, not on {type(x).__name__}: {x!r}")


def numbers_of(xs: Iterable[Real]) -> list[Number]:
    return [x if type(x) is Number else as_number(x) for x in xs]


def ball_of(x: Element) -> arb:
    """The ball at the bottom of a tape over a tape."""
    while not isinstance(x, arb):
        x = x.v
    return x
