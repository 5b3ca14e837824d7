"""Exact numbers: real functions on balls, and their gradients by one reverse sweep.

A specification is ordinary Python over `Number`s.  Each `Number` holds a ball (Arb: a midpoint and a radius that
together surely contain the exact value) and the partial derivatives of the operation that made it, so value and
gradient cost a small multiple of the value.  Every formula here keeps *relative* accuracy where the function has
any: a probability of e**-1000 comes out as sharp as one of 1/2, at 128 bits.

Where a formula depends on which entry is largest or on a sign, every choice is a correct formula for all real
numbers; the choice affects how sharp the ball is, never whether it contains the exact value.

A ball that is too wide for an answer widens the answer: to both branches at a kink, to infinite radius elsewhere.

The element that a `Number` holds is a ball or again a `Number` (a tape over a tape): second derivatives are the
gradient of a gradient, by the same code.  Elements need arithmetic and exp, log, log1p, expm1, tanh, sech, sqrt.

Sources: Johansson, *Arb* (IEEE Trans. Comput. 66, 2017); Blanchard, Higham and Higham, *Accurately computing the
log-sum-exp and softmax functions* (IMA J. Numer. Anal. 41, 2021), algorithm 3.2; Machler, *Rmpfr: log1mexp* (2012).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from typing import Any, NoReturn, TypeAlias

from flint import arb, ctx

Element = Any  # arb, or a Number of the level below
Scalar = (int, float, arb)
Real: TypeAlias = "Number | int | float"

_ONE, _MINUS = 1, -1  # partial derivatives that need no multiplication, recognised by identity
_ZERO = arb(0)
_UNDECIDED = arb(0.5, 0.5)  # the ball [0, 1]: a step function on either side, or at any point, of its step
_order = count(1)


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
            return _node(self.v + other.v, (self, other), (_ONE, _ONE))
        return _node(self.v + other, (self,), (_ONE,)) if isinstance(other, Scalar) else NotImplemented

    __radd__ = __add__

    def __sub__(self, other: Any) -> Number:
        if isinstance(other, Number):
            return _node(self.v - other.v, (self, other), (_ONE, _MINUS))
        return _node(self.v - other, (self,), (_ONE,)) if isinstance(other, Scalar) else NotImplemented

    def __rsub__(self, other: Any) -> Number:
        return _node(other - self.v, (self,), (_MINUS,)) if isinstance(other, Scalar) else NotImplemented

    def __mul__(self, other: Any) -> Number:
        if isinstance(other, Number):
            return _node(self.v * other.v, (self, other), (other.v, self.v))
        return _node(self.v * other, (self,), (other,)) if isinstance(other, Scalar) else NotImplemented

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Number:
        other = _number(other) if isinstance(other, Scalar) else other
        if not isinstance(other, Number):
            return NotImplemented
        q = self.v / other.v
        if not (self.order or other.order):
            return Number(q)
        return _node(q, (self, other), (1 / other.v, -q / other.v))

    def __rtruediv__(self, other: Any) -> Number:
        return _number(other) / self if isinstance(other, Scalar) else NotImplemented

    def __pow__(self, n: int) -> Number:
        if not isinstance(n, int):
            raise TypeError(f"only integer powers are exact here, not {n!r}: write exp(exponent * log(base))")
        return _node(self.v**n, (self,), (n * self.v ** (n - 1),)) if n else _number(1)

    def __neg__(self) -> Number:
        return _node(-self.v, (self,), (_MINUS,))

    def __abs__(self) -> Number:
        """The absolute value, with PyTorch's derivative 0 at 0."""
        if (ball := _ball(self)) > 0:
            return self
        if ball == 0:
            return _number(0)
        return -self if ball < 0 else 2 * relu(self) - self

    def _refuse(self, *_: object) -> NoReturn:
        raise TypeError(
            "an exact Number is a ball: comparing it may have no answer; use relu, abs, maximum, hardtanh or "
            "leaky_relu, or compare the problem's plain numbers"
        )

    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = __bool__ = __float__ = __int__ = _refuse

    # The functions below are methods because an element of the level above calls them so, as it does arb's.

    def exp(self) -> Number:
        e = self.v.exp()
        return _node(e, (self,), (e,))

    def log(self) -> Number:
        return _node(self.v.log(), (self,), (1 / self.v,))

    def log1p(self) -> Number:
        return _node(self.v.log1p(), (self,), (1 / (1 + self.v),))

    def expm1(self) -> Number:
        return _node(self.v.expm1(), (self,), (self.v.exp(),))

    def sqrt(self) -> Number:
        root = self.v.sqrt()
        if isinstance(self.v, arb) and not root.is_finite() and self.v.is_finite() and self.v.contains(0):
            root = arb(0).union(self.v.upper().sqrt())  # the exact argument is no negative number
        return _node(root, (self,), (1 / (2 * root),))

    def sech(self) -> Number:
        s = self.v.sech()
        return _node(s, (self,), (-s * self.v.tanh(),))

    def tanh(self) -> Number:
        s = self.v.sech()
        return _node(self.v.tanh(), (self,), (s * s,))  # sech^2, since 1 - tanh^2 cancels


def _node(v: Element, parents: Sequence[Number], partials: Sequence[Element]) -> Number:
    """The number `v` = f(parents); it remembers its parents only if one of them is a variable."""
    for parent in parents:
        if parent.order:
            return Number(v, next(_order), parents, partials)
    return Number(v)


def _number(x: Any) -> Number:
    if isinstance(x, Number):
        return x
    if isinstance(x, Scalar):
        return Number(arb(x))
    raise TypeError(f"an exact specification works on Numbers, ints and floats, not on {type(x).__name__}: {x!r}")


def numbers_of(xs: Iterable[Real]) -> list[Number]:
    return [x if type(x) is Number else _number(x) for x in xs]


def _ball(x: Element) -> arb:
    """The ball at the bottom of a tape over a tape."""
    while not isinstance(x, arb):
        x = x.v
    return x


# Elementary functions -----------------------------------------------------------------------------------------------


def _elementary(name: str) -> Callable[[Real], Number]:
    def function(x: Real) -> Number:
        result = getattr(_number(x), name)()
        assert isinstance(result, Number)
        return result

    function.__name__ = function.__qualname__ = name
    return function


exp, log, log1p, expm1, sqrt, tanh = map(_elementary, ("exp", "log", "log1p", "expm1", "sqrt", "tanh"))


def _logistic(v: Element) -> tuple[bool, Element, Element, Element]:
    """Whether v < 0 for sure, exp(-|v|), sigmoid(v) and sigmoid(-v), none by subtraction from 1."""
    negative = _ball(v) < 0
    t = (v if negative else -v).exp()
    near = 1 / (1 + t)
    far = t * near
    return (True, t, far, near) if negative else (False, t, near, far)


def sigmoid(x: Real) -> Number:
    """The logistic function; its derivative is s(x) s(-x)."""
    x = _number(x)
    _, _, s, c = _logistic(x.v)
    return _node(s, (x,), (s * c,))


def softplus(x: Real) -> Number:
    """log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|)); derivative sigmoid(x)."""
    x = _number(x)
    negative, t, s, _ = _logistic(x.v)
    tail = t.log1p()
    return _node(tail if negative else x.v + tail, (x,), (s,))


def logsigmoid(x: Real) -> Number:
    """Logarithm of sigmoid: -softplus(-x)."""
    return -softplus(-_number(x))


def xlogy(x: Real, y: Real) -> Number:
    """The product x log y, and 0 where x = 0, whatever y (as PyTorch).

    At x = 0 the derivative by x is log y (0 if y <= 0, as PyTorch) and the one by y is 0.
    """
    x, y = _number(x), _number(y)
    if _ball(x) == 0:
        return _node(x.v, (x,), (0 if _ball(y) <= 0 else y.v.log(),))
    return x * log(y)


# Functions with a kink.  The comparisons with balls are true only if they hold for every point of the ball; where
# none holds, the kink lies inside a ball that is not exact, and value and derivative cover both branches.


def relu(x: Real) -> Number:
    """max(x, 0), with PyTorch's derivative 0 at 0."""
    x = _number(x)
    if (ball := _ball(x)) > 0:
        return x
    return _number(0) if ball <= 0 else _node(x.v * _UNDECIDED, (x,), (_UNDECIDED,))


def hardtanh(x: Real, lo: Real = -1, hi: Real = 1) -> Number:
    """min(max(x, lo), hi) for lo <= hi, with PyTorch's derivative 0 at both bounds."""
    x, lo, hi = _number(x), _number(lo), _number(hi)
    ball, low, high = _ball(x), _ball(lo), _ball(hi)
    if ball <= low:
        return lo
    if ball >= high:
        return hi
    return x if ball > low and ball < high else lo + relu(x - lo) - relu(x - hi)


def leaky_relu(x: Real, slope: Real = 0.01) -> Number:
    """Gives x for x > 0 and slope * x otherwise, with PyTorch's derivative `slope` at 0."""
    x = _number(x)
    if (ball := _ball(x)) > 0:
        return x
    return slope * x if ball <= 0 else slope * x + (1 - slope) * relu(x)


def maximum(a: Real, b: Real) -> Number:
    """max(a, b), with PyTorch's derivatives 1/2 and 1/2 at a tie."""
    a, b = _number(a), _number(b)
    x, y = _ball(a), _ball(b)
    if x == y:
        return (a + b) / 2
    if x >= y:
        return a
    return b if x <= y else a + relu(b - a)


# Functions of lists -------------------------------------------------------------------------------------------------


def total(xs: Iterable[Real]) -> Number:
    """The sum (0 of nothing)."""
    numbers = numbers_of(xs)
    return _node(sum((x.v for x in numbers), _ZERO), numbers, (_ONE,) * len(numbers))


def mean(xs: Iterable[Real]) -> Number:
    """The sum divided by the number of terms, of which there must be one."""
    numbers = numbers_of(xs)
    return total(numbers) / len(numbers)


def total_of_rows(p: Any, xs: Iterable[Real]) -> Number:
    """The sum of a number for each row of a problem, as often as the row occurs (see `evaluate`)."""
    times = getattr(p, "times", None)
    return total(xs) if times is None else dot(xs, times)


def rows_of(p: Any, row: Sequence[Any]) -> int:
    """How many rows a problem has, if `row` has one entry for each that is told apart."""
    return int(sum(getattr(p, "times", [1] * len(row))))


def dot(a: Iterable[Real], b: Iterable[Real]) -> Number:
    """The sum of products of two lists of equal length."""
    pairs = list(zip(numbers_of(a), numbers_of(b), strict=True))
    v = sum((x.v * y.v for x, y in pairs), _ZERO)
    return _node(v, [n for pair in pairs for n in pair], [d for x, y in pairs for d in (y.v, x.v)])


def _shifted(numbers: Sequence[Number]) -> tuple[int, list[Element], list[Element], Element, Element]:
    """Index m of a largest x, all x - x_m, all exp(x - x_m), s = the sum of these without the m-th, and 1 / (1 + s)."""
    if not numbers:
        raise ValueError("logsumexp, softmax and log_softmax need at least one number")
    m, largest = 0, _ball(numbers[0])
    for i, x in enumerate(numbers):
        ball = v if type(v := x.v) is arb else _ball(v)
        if ball > largest:
            m, largest = i, ball
    top = numbers[m].v
    gaps = [x.v - top for x in numbers]
    exps = [_ZERO if i == m else gap.exp() for i, gap in enumerate(gaps)]
    s = sum(exps, _ZERO)
    return m, gaps, exps, s, 1 / (1 + s)


def logsumexp(xs: Iterable[Real]) -> Number:
    """Logarithm of the sum of exponentials, as x_m + log1p(sum over i != m of exp(x_i - x_m)); derivative softmax."""
    numbers = numbers_of(xs)
    m, _, exps, s, inverse = _shifted(numbers)
    partials = [e * inverse for e in exps]
    partials[m] = inverse
    return _node(numbers[m].v + s.log1p(), numbers, partials)


def positive(x: Real) -> bool:
    """Whether an exact number is greater than 0.  Raises ValueError if a ball leaves it open."""
    ball = _ball(_number(x).v)
    if not (ball > 0 or ball <= 0):
        raise ValueError("positive: the number is not known well enough to tell its sign")
    return bool(ball > 0)


def argmax(xs: Iterable[Real]) -> int:
    """The first index of the largest of exact numbers.  Raises ValueError if a ball leaves it open."""
    balls = [_ball(x.v) for x in numbers_of(xs)]
    best = 0
    for i, ball in enumerate(balls):
        if ball > balls[best]:
            best = i
        elif not ball <= balls[best]:
            raise ValueError("argmax: the numbers are not known well enough to tell which is largest")
    return best


def _log_softmax(numbers: Sequence[Number]) -> tuple[list[Number], list[Element]]:
    """Log softmax and the values of softmax, as n small nodes on one that costs n: (x_i - x_m) - log1p(s).

    Both terms have one sign, so nothing cancels; the derivative of log1p(s) by x_m is -s / (1 + s), not p_m - 1.
    """
    m, gaps, exps, s, inverse = _shifted(numbers)
    p = [e * inverse for e in exps]
    rest = _node(s.log1p(), numbers, [*p[:m], -s * inverse, *p[m + 1 :]])
    top, signs, r = numbers[m], (_ONE, _MINUS, _MINUS), rest.v
    out = [
        Number(gap - r, next(_order), (x, top, rest), signs) if rest.order else Number(gap - r)
        for x, gap in zip(numbers, gaps, strict=True)
    ]
    out[m] = -rest
    p[m] = inverse
    return out, p


def log_softmax(xs: Iterable[Real]) -> list[Number]:
    """x_i - logsumexp(x), each entry with relative accuracy, also the dominating one, which is close to 0."""
    return _log_softmax(numbers_of(xs))[0]


def softmax(xs: Iterable[Real]) -> list[Number]:
    """exp(x_i) / sum of exp(x_j); derivative p_i times that of log softmax."""
    logs, p = _log_softmax(numbers_of(xs))
    return [_node(value, (entry,), (value,)) for value, entry in zip(p, logs, strict=True)]


# Gradients ----------------------------------------------------------------------------------------------------------


def adjoints_of(seeds: Iterable[tuple[Number, Element]], first: int = 1) -> dict[int, Element]:
    """Adjoints, by `order`, of the sum of seed * number; nodes older than `first` are left out."""
    adjoints: dict[int, Element] = {}
    nodes: dict[int, Number] = {}
    queue: list[int] = []  # negated orders of the nodes whose adjoint has still to be passed on

    def pass_on(adjoint: Element, parents: Sequence[Number], partials: Sequence[Element]) -> None:
        for parent, partial in zip(parents, partials, strict=True):
            if (order := parent.order) < first:
                continue
            term = adjoint if partial is _ONE else -adjoint if partial is _MINUS else adjoint * partial
            if order in adjoints:
                adjoints[order] = adjoints[order] + term
                continue
            adjoints[order] = term
            if parent.parents:
                nodes[order] = parent
                heapq.heappush(queue, -order)

    for number, seed in seeds:
        pass_on(seed, (number,), (_ONE,))
    while queue:
        number = nodes.pop(-heapq.heappop(queue))
        if number.partials is None:
            raise TypeError("a gradient taken inside a specification cannot be differentiated again")
        pass_on(adjoints[number.order], number.parents, number.partials)
    return adjoints


def leaf(v: Element) -> Number:
    """A new variable."""
    return Number(v, next(_order))


def variables(nested: Any) -> Any:
    """The same numbers (one, or a nested list), as new variables for `grad`; gradients still flow to the old ones."""

    def fresh(x: Any) -> Number:
        x = _number(x)
        return Number(x.v, next(_order), (x,), (_ONE,)) if x.order else leaf(x.v)

    return _map(fresh, nested)


def grad(output: Number, inputs: Any) -> Any:
    """The derivatives of one number by each of `inputs` (one, or a nested list), as values inside a specification.

    Inputs must be `variables`.  The result may be used and its value is exact; differentiating it raises TypeError.
    """
    flat, _ = flatten(inputs)
    if not all(isinstance(x, Number) and x.order for x in flat):
        raise TypeError("grad: inputs must be variables; make them with w = exact.variables(w) before they are used")
    adjoints = adjoints_of([(output, arb(1))], first=min((x.order for x in flat), default=1))
    return _map(lambda x: Number(adjoints.get(x.order, _ZERO), next(_order), (x,), None), inputs)


# Nested lists -------------------------------------------------------------------------------------------------------


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
