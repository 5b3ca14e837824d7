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

from equivalences.oracle.exact.functions import (
    exp,
    expm1,
    hardtanh,
    leaky_relu,
    log,
    log1p,
    logsigmoid,
    maximum,
    relu,
    sigmoid,
    softplus,
    sqrt,
    tanh,
    xlogy,
)
from equivalences.oracle.exact.gradients import adjoints_of, flatten, grad, leaf, nest, variables
from equivalences.oracle.exact.lists import (
    argmax,
    dot,
    log_softmax,
    logsumexp,
    mean,
    positive,
    rows_of,
    softmax,
    total,
    total_of_rows,
)
from equivalences.oracle.exact.numbers import Number, Real, numbers_of, working_precision

__all__ = [
    "Number",
    "Real",
    "adjoints_of",
    "argmax",
    "dot",
    "exp",
    "expm1",
    "flatten",
    "grad",
    "hardtanh",
    "leaf",
    "leaky_relu",
    "log",
    "log1p",
    "log_softmax",
    "logsigmoid",
    "logsumexp",
    "maximum",
    "mean",
    "nest",
    "numbers_of",
    "positive",
    "relu",
    "rows_of",
    "sigmoid",
    "softmax",
    "softplus",
    "sqrt",
    "tanh",
    "total",
    "total_of_rows",
    "variables",
    "working_precision",
    "xlogy",
]
