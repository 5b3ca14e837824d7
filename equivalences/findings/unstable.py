"""What PyTorch computes accurately only in absolute terms: data.  An entry names a form, and witnesses in its formats.

Near 1 and near 0 these kernels subtract what is nearly equal, and of a small result no digit is left; the reference of
the same identity shows that it can be had.  The gate passes them, since their own arithmetic allows no more.
An entry whose witness keeps its digits is to be deleted (tests/gate/test_unstable.py says so).

In 16 bits `log_softmax` and what is made of it are a known defect at such rows (`log_softmax-16bit-sum`), not an entry.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from equivalences.findings.model import Unstable, Witness
from equivalences.model import Problem

PYTORCH = "https://github.com/pytorch/pytorch/issues/"


def _logit(format: str, z: float, **target: float) -> Problem:
    items = {name: np.array([number]) for name, number in {"z": z, **target, "g": 1.0}.items()}
    return Problem(format, items)


def _pair(format: str, margin: float, **rest: Any) -> Problem:
    """The logits [margin, 0], of which the first dominates."""
    return Problem(format, {"z": np.array([[margin, 0.0]]), **{name: np.array(item) for name, item in rest.items()}})


FIRST = {"g": [[1.0, 0.0]]}  # the upstream gradient of the first class's output alone
LABELLED = {"y": [0], "g": [1.0]}

UNSTABLE = (
    Unstable(
        name="binary_cross_entropy_with_logits-value",
        identity="binary_cross_entropy",
        form="bce-with-logits",
        quantity="value",
        at=(0,),
        witnesses=(
            Witness(_logit("float32", -10.0, t=0.0), got=4.58e-05, exact=4.54e-05),
            Witness(_logit("float32", -15.0, t=0.0), got=0.0, exact=3.06e-07),
            Witness(_logit("float64", -40.0, t=0.0), got=0.0, exact=4.25e-18),
            Witness(_logit("bfloat16", -9.0, t=0.0), got=0.0, exact=1.23e-04),
            Witness(_logit("float16", -9.0, t=0.0), got=0.0, exact=1.23e-04),
        ),
        why="target 0: z - log_sigmoid(z) cancels for negative logits; L(-z, 1), the same number, is right",
        who="losses of confident negatives: 0, where those of equally confident positives are not",
        instead="F.softplus(z)",
        link=PYTORCH + "195529",
    ),
    Unstable(
        name="binary_cross_entropy_with_logits-gradient",
        identity="binary_cross_entropy",
        form="bce-with-logits",
        quantity="gradient z",
        at=(0,),
        witnesses=(
            Witness(_logit("float32", 16.0, t=1.0), got=-1.19e-07, exact=-1.13e-07),
            Witness(_logit("float32", 17.0, t=1.0), got=0.0, exact=-4.14e-08),
            Witness(_logit("float64", 40.0, t=1.0), got=0.0, exact=-4.25e-18),
            Witness(_logit("bfloat16", 9.0, t=1.0), got=0.0, exact=-1.23e-04),
            Witness(_logit("float16", 9.0, t=1.0), got=0.0, exact=-1.23e-04),
        ),
        why="target 1: sigmoid(z) - 1 cancels for positive logits; the gradient at (-z, 0), its negative, is right",
        who="confident positives: no gradient, where equally confident negatives still have one",
        instead="F.softplus(-z)",
        link=PYTORCH + "195677",
    ),
    Unstable(
        name="sigmoid-gradient",
        identity="sigmoid_derivative",
        form="sigmoid-vjp",
        quantity="value",
        at=(0,),
        witnesses=(
            Witness(_logit("float32", 16.0), got=1.19e-07, exact=1.13e-07),
            Witness(_logit("float32", 17.0), got=0.0, exact=4.14e-08),
            Witness(_logit("float64", 40.0), got=0.0, exact=4.25e-18),
            Witness(_logit("bfloat16", 9.0), got=0.0, exact=1.23e-04),
            Witness(_logit("float16", 9.0), got=0.0, exact=1.23e-04),
        ),
        why="the gradient is s (1 - s) of the rounded s, which is 1 for large logits",
        who="saturated gates and outputs: no gradient on one side, the right one on the other",
        instead="F.logsigmoid(z).exp()",
        link=PYTORCH + "195681",
    ),
    Unstable(
        name="log_softmax-value",
        identity="log_softmax_tail",
        form="log-softmax",
        quantity="value",
        at=(0, 0),
        witnesses=(
            Witness(_pair("float32", 15.0, **FIRST), got=-3.58e-07, exact=-3.06e-07),
            Witness(_pair("float32", 17.0, **FIRST), got=0.0, exact=-4.14e-08),
            Witness(_pair("float64", 40.0, **FIRST), got=0.0, exact=-4.25e-18),
        ),
        why="the dominating class: 0 - log(1 + a little), with log for log1p",
        who="log-probabilities of near certainties: sequences scored token by token, entropies",
        instead="F.log_softmax(z.double(), dim)",
        link=PYTORCH + "113708",
    ),
    Unstable(
        name="log_softmax-gradient",
        identity="log_softmax_tail",
        form="log-softmax",
        quantity="gradient z",
        at=(0, 0),
        witnesses=(
            Witness(_pair("float32", 16.0, **FIRST), got=1.19e-07, exact=1.13e-07),
            Witness(_pair("float32", 17.0, **FIRST), got=0.0, exact=4.14e-08),
            Witness(_pair("float64", 40.0, **FIRST), got=0.0, exact=4.25e-18),
        ),
        why="the dominating class: 1 - exp(log-probability) cancels; the other class's gradient is right",
        who="whoever relies on the gradients of a row adding up to 0",
        instead="F.log_softmax(z.double(), dim)",
        link=PYTORCH + "195680",
    ),
    Unstable(
        name="softmax-gradient",
        identity="softmax_vjp_tail",
        form="softmax-vjp",
        quantity="value",
        at=(0, 0),
        witnesses=(
            Witness(_pair("float32", 16.0, **FIRST), got=1.19e-07, exact=1.13e-07),
            Witness(_pair("float32", 17.0, **FIRST), got=0.0, exact=4.14e-08),
            Witness(_pair("float64", 40.0, **FIRST), got=0.0, exact=4.25e-18),
            Witness(_pair("bfloat16", 9.0, **FIRST), got=0.0, exact=1.23e-04),
            Witness(_pair("float16", 9.0, **FIRST), got=0.0, exact=1.23e-04),
        ),
        why="the dominating class: s (g - sum of g s) cancels where that s is nearly 1",
        who="attention on one token, gates that choose one expert: no gradient to the logit that dominates",
        instead="F.softmax(z.double(), dim)",
        link=PYTORCH + "195684",
    ),
    Unstable(
        name="cross_entropy-value",
        identity="two_columns",
        form="cross-entropy",
        quantity="value",
        at=(0,),
        witnesses=(
            Witness(_pair("float32", 15.0, **LABELLED), got=3.58e-07, exact=3.06e-07),
            Witness(_pair("float32", 17.0, **LABELLED), got=0.0, exact=4.14e-08),
            Witness(_pair("float64", 40.0, **LABELLED), got=0.0, exact=4.25e-18),
        ),
        why="confidently right rows: log_softmax of the dominating class, negated",
        who="losses of learnt rows, where they are compared or ranked: 0 from a margin of 17 on in float32",
        instead="F.cross_entropy(z.double(), y)",
        link=PYTORCH + "113708",
    ),
    Unstable(
        name="cross_entropy-gradient",
        identity="two_columns",
        form="cross-entropy",
        quantity="gradient z",
        at=(0, 0),
        witnesses=(
            Witness(_pair("float32", 16.0, **LABELLED), got=-1.19e-07, exact=-1.13e-07),
            Witness(_pair("float32", 17.0, **LABELLED), got=0.0, exact=-4.14e-08),
            Witness(_pair("float64", 40.0, **LABELLED), got=0.0, exact=-4.25e-18),
        ),
        why="confidently right rows: softmax - 1 cancels for the labelled class; the other class's gradient is right",
        who="whoever relies on the gradients of a row adding up to 0",
        instead="F.cross_entropy(z.double(), y)",
        link=PYTORCH + "195678",
    ),
    Unstable(
        name="logsigmoid-second-derivative",
        identity="binary_cross_entropy_second_derivative",
        form="-F.logsigmoid twice",
        quantity="value",
        at=(0,),
        witnesses=(
            Witness(_logit("float32", 16.0, t=1.0), got=1.19e-07, exact=1.13e-07),
            Witness(_logit("float32", 17.0, t=1.0), got=0.0, exact=4.14e-08),
            Witness(_logit("float64", 40.0, t=1.0), got=0.0, exact=4.25e-18),
            Witness(_logit("bfloat16", 9.0, t=1.0), got=0.0, exact=1.23e-04),
            Witness(_logit("float16", 9.0, t=1.0), got=0.0, exact=1.23e-04),
        ),
        why="the curvature is s (1 - s) of the rounded s, although the first derivative is right",
        who="Hessian-vector products, Newton's method and gradient penalties on confident rows",
        instead="F.softplus(-z)",
        link=PYTORCH + "195530",
    ),
)
