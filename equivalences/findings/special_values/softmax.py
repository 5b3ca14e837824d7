"""Special values of softmax, log_softmax and logsumexp."""

from __future__ import annotations

from functools import partial
from math import inf, nan

import numpy as np

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.model import Raises

DOCS = "https://docs.pytorch.org/docs/stable/generated/"
SEEN = ("2.8.0", "2.13.0", "2.14.1", "2.15.0")
OLDEST, LATER = SEEN[:1], SEEN[1:]  # for what changed between the two

of_softmax = partial(SpecialValue, "softmax", call="F.softmax(z, 1)", source=DOCS + "torch.nn.Softmax.html")
of_log_softmax = partial(
    SpecialValue, "log_softmax", call="F.log_softmax(z, 1)", source=DOCS + "torch.nn.LogSoftmax.html"
)
of_logsumexp = partial(SpecialValue, "logsumexp", call="torch.logsumexp(z, 1)", source=DOCS + "torch.logsumexp.html")

MASK = -32768.0  # what stands for -inf where that is no number, in every format
UNDEFINED = "inf - inf: the limit depends on the way"
POSITIVE = "https://github.com/pytorch/pytorch/issues/6864"  # one +inf among finite logits
SHIFT = "the largest logit is subtracted: inf - inf"


def _nan(rows: int, columns: int) -> list[list[float]]:
    return [[nan] * columns] * rows


TABLE = (
    of_softmax(
        "a logit -inf", items={"z": [[0.0, -inf]], "g": [[1.0, 2.0]]}, outcome=Gives([[1, 0]], [[0, 0]]), why="limit"
    ),
    of_softmax("a mask", items={"z": [[0.0, MASK]], "g": [[1.0, 2.0]]}, outcome=Gives([[1, 0]], [[0, 0]]), why="limit"),
    of_softmax(
        "a logit +inf",
        items={"z": [[0.0, inf]], "g": [[1.0, 2.0]]},
        outcome=Gives([[0, 1]], [[0, 0]]),
        why="limit",
        deviations=(Deviation(Gives(_nan(1, 2), _nan(1, 2)), POSITIVE, SHIFT, seen=SEEN),),
    ),
    of_softmax("two logits +inf", items={"z": [[inf, inf]]}, outcome=Gives(_nan(1, 2), _nan(1, 2)), why=UNDEFINED),
    of_softmax("every logit -inf", items={"z": [[-inf, -inf]]}, outcome=Gives(_nan(1, 2), _nan(1, 2)), why=UNDEFINED),
    of_softmax("a logit nan", items={"z": [[0.0, nan]]}, outcome=Gives(_nan(1, 2), _nan(1, 2)), why="nan is passed on"),
    of_softmax(
        "a row of nan beside a good one",
        items={"z": [[0.0, nan], [0.0, -inf]]},
        outcome=Gives([[nan, nan], [1, 0]], [[nan, nan], [0, 0]]),
        why="rows are independent",
    ),
    of_softmax("one class", items={"z": [[-5.0]]}, outcome=Gives([[1]], [[0]]), why="constant 1"),
    of_softmax(
        "one class, -inf",
        items={"z": [[-inf]]},
        outcome=Gives([[1]], [[0]]),
        why="constant 1",
        deviations=(
            Deviation(Gives([[nan]], [[nan]]), "https://github.com/pytorch/pytorch/issues/49724", SHIFT, seen=SEEN),
        ),
    ),
    of_softmax("no class", items={"z": [[], []]}, outcome=Gives([[], []], [[], []]), why="nothing to compute"),
    of_softmax(
        "no row",
        items={"z": np.zeros((0, 2))},
        outcome=Gives(np.zeros((0, 2)), np.zeros((0, 2))),
        why="nothing to compute",
    ),
    of_softmax(
        "integer logits",
        items={"z": [[0, 1]]},
        outcome=Raises(NotImplementedError, "not implemented for 'Long'"),
        why="only floating-point formats",
        formats=("float32",),
        deviations=(
            Deviation(
                Gives([[0, 0]], dtype="int64"),
                "https://github.com/pytorch/pytorch/issues/198155",
                "probabilities cut to integers",
                modes=("compiled",),
                seen=SEEN,
            ),
        ),
    ),
    of_softmax(
        "a dimension that is not there",
        call="F.softmax(z, 2)",
        items={"z": [[0.0, 1.0]]},
        outcome=Raises(IndexError, "Dimension out of range"),
        why="-2 to 1 are",
    ),
    of_log_softmax("a logit -inf", items={"z": [[0.0, -inf]]}, outcome=Gives([[0, -inf]], [[-1, 1]]), why="limit"),
    of_log_softmax(
        "a mask", items={"z": [[0.0, MASK]]}, outcome=Gives([[0, MASK]], [[-1, 1]]), why="far from the largest number"
    ),
    of_log_softmax(
        "a logit +inf",
        items={"z": [[0.0, inf]]},
        outcome=Gives([[-inf, 0]], [[1, -1]]),
        why="limit",
        deviations=(Deviation(Gives(_nan(1, 2), _nan(1, 2)), POSITIVE, SHIFT, seen=SEEN),),
    ),
    of_log_softmax("two logits +inf", items={"z": [[inf, inf]]}, outcome=Gives(_nan(1, 2), _nan(1, 2)), why=UNDEFINED),
    of_log_softmax(
        "every logit -inf", items={"z": [[-inf, -inf]]}, outcome=Gives(_nan(1, 2), _nan(1, 2)), why=UNDEFINED
    ),
    of_log_softmax(
        "a logit nan", items={"z": [[0.0, nan]]}, outcome=Gives(_nan(1, 2), _nan(1, 2)), why="nan is passed on"
    ),
    of_log_softmax(
        "a row of nan beside a good one",
        items={"z": [[0.0, nan], [0.0, -inf]]},
        outcome=Gives([[nan, nan], [0, -inf]], [[nan, nan], [-1, 1]]),
        why="rows are independent",
    ),
    of_log_softmax("one class", items={"z": [[-5.0]]}, outcome=Gives([[0]], [[0]]), why="constant 0"),
    of_log_softmax("no class", items={"z": [[], []]}, outcome=Gives([[], []], [[], []]), why="nothing to compute"),
    of_log_softmax(
        "no row",
        items={"z": np.zeros((0, 2))},
        outcome=Gives(np.zeros((0, 2)), np.zeros((0, 2))),
        why="nothing to compute",
    ),
    of_logsumexp("a logit -inf", items={"z": [[0.0, -inf]]}, outcome=Gives([0], [[1, 0]]), why="limit"),
    of_logsumexp(
        "masks alone", items={"z": [[MASK, 2 * MASK + 32]]}, outcome=Gives([MASK], [[1, 0]]), why="one is the largest"
    ),
    of_logsumexp(
        "a logit +inf",
        items={"z": [[0.0, inf]]},
        outcome=Gives([inf], [[0, 1]]),
        why="limit; logaddexp gives it",
        deviations=(
            Deviation(
                Gives([inf], [[0, nan]]), "https://github.com/pytorch/pytorch/issues/49724", "exp(z - lse)", seen=SEEN
            ),
        ),
    ),
    of_logsumexp(
        "every logit -inf",
        items={"z": [[-inf, -inf]]},
        outcome=Gives([-inf], _nan(1, 2)),
        why="the limit of the value; the gradient's depends on the way",
    ),
    of_logsumexp("a logit nan", items={"z": [[0.0, nan]]}, outcome=Gives([nan], _nan(1, 2)), why="nan is passed on"),
    of_logsumexp("nan and +inf", items={"z": [[inf, nan]]}, outcome=Gives([nan], _nan(1, 2)), why="nan is passed on"),
    of_logsumexp("one class", items={"z": [[-5.0]]}, outcome=Gives([-5], [[1]]), why="the identity"),
    of_logsumexp(
        "one class, -inf",
        items={"z": [[-inf]]},
        outcome=Gives([-inf], [[1]]),
        why="the identity",
        deviations=(
            Deviation(
                Gives([-inf], [[nan]]), "https://github.com/pytorch/pytorch/issues/49724", "exp(z - lse)", seen=SEEN
            ),
        ),
    ),
    of_logsumexp(
        "no class", items={"z": [[], []]}, outcome=Gives([-inf, -inf], [[], []]), why="the logarithm of an empty sum"
    ),
    of_logsumexp(
        "no row", items={"z": np.zeros((0, 2))}, outcome=Gives([], np.zeros((0, 2))), why="nothing to compute"
    ),
    of_logsumexp(
        "integer logits",
        items={"z": [[-3]]},
        outcome=Gives([-3], dtype="float32"),
        why="integers become the default format",
        formats=("float32",),
    ),
)
