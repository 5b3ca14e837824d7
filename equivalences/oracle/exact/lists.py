"""Functions of lists: totals, log-sum-exp, softmax, and what can be decided of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from flint import arb

from equivalences.oracle.exact.numbers import (
    MINUS,
    ONE,
    ORDER,
    ZERO,
    Element,
    Number,
    Real,
    as_number,
    ball_of,
    node,
    numbers_of,
)


def total(xs: Iterable[Real]) -> Number:
    """The sum (0 of nothing)."""
    numbers = numbers_of(xs)
    return node(sum((x.v for x in numbers), ZERO), numbers, (ONE,) * len(numbers))


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
    """The sum of products of two lists of equal length; zeros of Python, as one-hot targets have them, cost nothing."""
    pairs = [(as_number(x), as_number(y)) for x, y in zip(a, b, strict=True) if type(x) is not int or x]
    v = sum((x.v * y.v for x, y in pairs), ZERO)
    return node(v, [n for pair in pairs for n in pair], [d for x, y in pairs for d in (y.v, x.v)])


def _shifted(numbers: Sequence[Number]) -> tuple[int, list[Element], list[Element], Element, Element]:
    """Index m of a largest x, all x - x_m, all exp(x - x_m), s = the sum of these without the m-th, and 1 / (1 + s)."""
    if not numbers:
        raise ValueError("logsumexp, softmax and log_softmax need at least one number")
    m, largest = 0, ball_of(numbers[0])
    for i, x in enumerate(numbers):
        ball = v if type(v := x.v) is arb else ball_of(v)
        if ball > largest:
            m, largest = i, ball
    top = numbers[m].v
    gaps = [x.v - top for x in numbers]
    exps = [ZERO if i == m else gap.exp() for i, gap in enumerate(gaps)]
    s = sum(exps, ZERO)
    return m, gaps, exps, s, 1 / (1 + s)


def logsumexp(xs: Iterable[Real]) -> Number:
    """Logarithm of the sum of exponentials, as x_m + log1p(sum over i != m of exp(x_i - x_m)); derivative softmax."""
    numbers = numbers_of(xs)
    m, _, exps, s, inverse = _shifted(numbers)
    partials = [e * inverse for e in exps]
    partials[m] = inverse
    return node(numbers[m].v + s.log1p(), numbers, partials)


def positive(x: Real) -> bool:
    """Whether an exact number is greater than 0.  Raises ValueError if a ball leaves it open."""
    ball = ball_of(as_number(x).v)
    if not (ball > 0 or ball <= 0):
        raise ValueError("positive: the number is not known well enough to tell its sign")
    return bool(ball > 0)


def argmax(xs: Iterable[Real]) -> int:
    """The first index of the largest of exact numbers.  Raises ValueError if a ball leaves it open."""
    balls = [ball_of(x.v) for x in numbers_of(xs)]
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
    rest = node(s.log1p(), numbers, [*p[:m], -s * inverse, *p[m + 1 :]])
    top, signs, r = numbers[m], (ONE, MINUS, MINUS), rest.v
    out = [
        Number(gap - r, next(ORDER), (x, top, rest), signs) if rest.order else Number(gap - r)
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
    return [node(value, (entry,), (value,)) for value, entry in zip(p, logs, strict=True)]
