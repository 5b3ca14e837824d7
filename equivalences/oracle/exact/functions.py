"""Functions of one number or two, smooth and with kinks."""

from __future__ import annotations

from collections.abc import Callable

from flint import arb

from equivalences.oracle.exact.numbers import Element, Number, Real, as_number, ball_of, node

_UNDECIDED = arb(0.5, 0.5)  # the ball [0, 1]: a step function on either side, or at any point, of its step


def _elementary(name: str) -> Callable[[Real], Number]:
    def function(x: Real) -> Number:
        result = getattr(as_number(x), name)()
        assert isinstance(result, Number)
        return result

    function.__name__ = function.__qualname__ = name
    return function


exp, log, log1p, expm1, sqrt, tanh = map(_elementary, ("exp", "log", "log1p", "expm1", "sqrt", "tanh"))


def _logistic(v: Element) -> tuple[bool, Element, Element, Element]:
    """Whether v < 0 for sure, exp(-|v|), sigmoid(v) and sigmoid(-v), none by subtraction from 1."""
    negative = ball_of(v) < 0
    t = (v if negative else -v).exp()
    near = 1 / (1 + t)
    far = t * near
    return (True, t, far, near) if negative else (False, t, near, far)


def sigmoid(x: Real) -> Number:
    """The logistic function; its derivative is s(x) s(-x)."""
    x = as_number(x)
    _, _, s, c = _logistic(x.v)
    return node(s, (x,), (s * c,))


def softplus(x: Real) -> Number:
    """log(1 + exp(x)), as max(x, 0) + log1p(exp(-|x|)); derivative sigmoid(x)."""
    x = as_number(x)
    negative, t, s, _ = _logistic(x.v)
    tail = t.log1p()
    return node(tail if negative else x.v + tail, (x,), (s,))


def logsigmoid(x: Real) -> Number:
    """Logarithm of sigmoid: -softplus(-x)."""
    return -softplus(-as_number(x))


def xlogy(x: Real, y: Real) -> Number:
    """The product x log y, and 0 where x = 0, whatever y (as PyTorch).

    At x = 0 the derivative by x is log y (0 if y <= 0, as PyTorch) and the one by y is 0.
    """
    x, y = as_number(x), as_number(y)
    if ball_of(x) == 0:
        return node(x.v, (x,), (0 if ball_of(y) <= 0 else y.v.log(),))
    return x * log(y)


# Functions with a kink.  The comparisons with balls are true only if they hold for every point of the ball; where
# none holds, the kink lies inside a ball that is not exact, and value and derivative cover both branches.


def relu(x: Real) -> Number:
    """max(x, 0), with PyTorch's derivative 0 at 0."""
    x = as_number(x)
    if (ball := ball_of(x)) > 0:
        return x
    return as_number(0) if ball <= 0 else node(x.v * _UNDECIDED, (x,), (_UNDECIDED,))


def hardtanh(x: Real, lo: Real = -1, hi: Real = 1) -> Number:
    """min(max(x, lo), hi) for lo <= hi, with PyTorch's derivative 0 at both bounds."""
    x, lo, hi = as_number(x), as_number(lo), as_number(hi)
    ball, low, high = ball_of(x), ball_of(lo), ball_of(hi)
    if ball <= low:
        return lo
    if ball >= high:
        return hi
    return x if ball > low and ball < high else lo + relu(x - lo) - relu(x - hi)


def leaky_relu(x: Real, slope: Real = 0.01) -> Number:
    """Gives x for x > 0 and slope * x otherwise, with PyTorch's derivative `slope` at 0."""
    x = as_number(x)
    if (ball := ball_of(x)) > 0:
        return x
    return slope * x if ball <= 0 else slope * x + (1 - slope) * relu(x)


def maximum(a: Real, b: Real) -> Number:
    """max(a, b), with PyTorch's derivatives 1/2 and 1/2 at a tie."""
    a, b = as_number(a), as_number(b)
    x, y = ball_of(a), ball_of(b)
    if x == y:
        return (a + b) / 2
    if x >= y:
        return a
    return b if x <= y else a + relu(b - a)
