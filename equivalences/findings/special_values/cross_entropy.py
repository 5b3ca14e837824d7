"""Special values of cross_entropy of labels: logits, ignored rows, sizes, targets that are none."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf, nan

import numpy as np

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values.softmax import DOCS, LATER, MASK, OLDEST, POSITIVE, SEEN, SHIFT, UNDEFINED
from equivalences.model import Raises

CALL = "F.cross_entropy(z, y, reduction=reduction)"

of_labels = partial(SpecialValue, "cross_entropy", call=CALL, source=DOCS + "torch.nn.CrossEntropyLoss.html")
NONE, SUM, MEAN = ({"reduction": reduction} for reduction in ("none", "sum", "mean"))
OUT_OF_BOUNDS = Deviation(
    Raises(RuntimeError, "index out of bounds"), "", "another exception", modes=("compiled",), seen=SEEN
)
REFUSED_LATER = replace(OUT_OF_BOUNDS, seen=LATER)
WRAPPED = partial(
    Deviation,
    link="https://github.com/pytorch/pytorch/issues/135546",
    why="the loss of the last class, and no gradient",
    modes=("compiled",),
    seen=OLDEST,
)
GOOD, IGNORED = [0.0, 1024.0], -100  # labelled 0, a good row loses 1024
NAN = [[nan, nan]]
NO_GRADIENT = "an ignored target does not contribute to the gradient"

IGNORED_ROW = "https://github.com/pytorch/pytorch/issues/11551"
_IGNORED_NAN = Deviation(
    Gives(1024, [[-1, 1], [nan, nan]]), IGNORED_ROW, "the backward pass multiplies nan by the row's 0", seen=SEEN
)
TOTAL = Deviation(
    Gives(inf, [[-0.5, 0.5]] * 2),
    "https://github.com/pytorch/pytorch/issues/85791",
    "the losses are added up in float16 before they are divided by their number",
    formats=("float16",),
    seen=SEEN,
)
_ONE_POSITIVE = Deviation(Gives([nan], NAN), POSITIVE, SHIFT, seen=SEEN)

TABLE = (
    # --- the target's logit, and the others ---
    of_labels(
        "the target's logit -inf",
        items={"z": [[0.0, -inf]], "y": [1], **NONE},
        outcome=Gives([inf], [[1, -1]]),
        why="limit",
    ),
    of_labels(
        "another logit -inf",
        items={"z": [[0.0, -inf]], "y": [0], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit: the class is masked",
    ),
    of_labels(
        "the target masked",
        items={"z": [[0.0, MASK]], "y": [1], **NONE},
        outcome=Gives([-MASK], [[1, -1]]),
        why="far from the largest number",
    ),
    of_labels(
        "another class masked", items={"z": [[0.0, MASK]], "y": [0], **NONE}, outcome=Gives([0], [[0, 0]]), why="limit"
    ),
    of_labels(
        "the target's logit +inf",
        items={"z": [[0.0, inf]], "y": [1], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit",
        deviations=(_ONE_POSITIVE,),
    ),
    of_labels(
        "another logit +inf",
        items={"z": [[0.0, inf]], "y": [0], **NONE},
        outcome=Gives([inf], [[-1, 1]]),
        why="limit",
        deviations=(_ONE_POSITIVE,),
    ),
    of_labels(
        "every logit -inf", items={"z": [[-inf, -inf]], "y": [0], **NONE}, outcome=Gives([nan], NAN), why=UNDEFINED
    ),
    of_labels("two logits +inf", items={"z": [[inf, inf]], "y": [0], **NONE}, outcome=Gives([nan], NAN), why=UNDEFINED),
    of_labels(
        "the target's logit nan",
        items={"z": [[0.0, nan]], "y": [1], **NONE},
        outcome=Gives([nan], NAN),
        why="nan is passed on",
    ),
    of_labels(
        "another logit nan",
        items={"z": [[0.0, nan]], "y": [0], **NONE},
        outcome=Gives([nan], NAN),
        why="nan is passed on",
    ),
    of_labels(
        "a row of nan beside a good one",
        items={"z": [GOOD, [0.0, nan]], "y": [0, 0], **NONE},
        outcome=Gives([1024, nan], [[-1, 1], [nan, nan]]),
        why="rows are independent",
    ),
    of_labels(
        "a row of loss inf, mean",
        items={"z": [GOOD, [0.0, -inf]], "y": [0, 1], **MEAN},
        outcome=Gives(inf, [[-0.5, 0.5], [0.5, -0.5]]),
        why="limit",
    ),
    # --- ignored rows ---
    of_labels(
        "an ignored row of -inf",
        items={"z": [GOOD, [-inf, -inf]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
        deviations=(_IGNORED_NAN,),
    ),
    of_labels(
        "an ignored row with +inf",
        items={"z": [GOOD, [0.0, inf]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
        deviations=(_IGNORED_NAN,),
    ),
    of_labels(
        "an ignored row with nan",
        items={"z": [GOOD, [0.0, nan]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
        deviations=(_IGNORED_NAN,),
    ),
    of_labels(
        "an ignored row with one -inf",
        items={"z": [GOOD, [0.0, -inf]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
    ),
    of_labels(
        "every row ignored, mean",
        items={"z": [GOOD, GOOD], "y": [IGNORED, IGNORED], **MEAN},
        outcome=Gives(nan, [[nan, nan], [nan, nan]]),
        why="0/0, by design since 1.11 (issue 70348)",
        deviations=(
            Deviation(
                Gives(nan, [[0, 0], [0, 0]]),
                "",
                "the gradient of an ignored row is 0 before it is divided by 0",
                seen=SEEN,
            ),
        ),
    ),
    of_labels(
        "every row ignored, sum",
        items={"z": [GOOD, GOOD], "y": [IGNORED, IGNORED], **SUM},
        outcome=Gives(0, [[0, 0], [0, 0]]),
        why="an empty sum",
    ),
    of_labels(
        "every row ignored, none",
        items={"z": [GOOD, GOOD], "y": [IGNORED, IGNORED], **NONE},
        outcome=Gives([0, 0], [[0, 0], [0, 0]]),
        why="an ignored row loses 0",
    ),
    of_labels(
        "the ignored index is a class",
        call="F.cross_entropy(z, y, ignore_index=1, reduction=reduction)",
        items={"z": [GOOD, GOOD], "y": [0, 1], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why="its rows are ignored, its logits are not",
    ),
    # --- losses with a total beyond float16 (each also of a few thousand rows: 6400 of 32000 equal logits) ---
    of_labels(
        "a total beyond float16, mean",
        items={"z": [[0.0, 32768.0]] * 2, "y": [0, 0], **MEAN},
        outcome=Gives(32768, [[-0.5, 0.5]] * 2),
        why="the mean of two equal losses",
        deviations=(TOTAL,),
        formats=("float16",),
    ),
    # --- sizes ---
    of_labels(
        "no row, mean",
        items={"z": np.zeros((0, 2)), "y": np.zeros(0, dtype=int), **MEAN},
        outcome=Gives(nan, np.zeros((0, 2))),
        why="0/0",
    ),
    of_labels(
        "no row, sum",
        items={"z": np.zeros((0, 2)), "y": np.zeros(0, dtype=int), **SUM},
        outcome=Gives(0, np.zeros((0, 2))),
        why="an empty sum",
    ),
    of_labels(
        "no row, none",
        items={"z": np.zeros((0, 2)), "y": np.zeros(0, dtype=int), **NONE},
        outcome=Gives([], np.zeros((0, 2))),
        why="nothing to compute",
    ),
    of_labels("one class", items={"z": [[-5.0]], "y": [0], **NONE}, outcome=Gives([0], [[0]]), why="constant 0"),
    of_labels(
        "no class",
        items={"z": [[]], "y": [0], **NONE},
        outcome=Raises(IndexError, "Target 0 is out of bounds", asserted=True),
        why="no class 0",
        deviations=(OUT_OF_BOUNDS,),
    ),
    of_labels(
        "no class, every row ignored",
        items={"z": [[]], "y": [IGNORED], **SUM},
        outcome=Gives(0, [[]]),
        why="an empty sum",
        deviations=(
            Deviation(
                Raises(RuntimeError, "index out of bounds"),
                "",
                "class 0 stands in for the ignored one",
                modes=("compiled",),
                seen=SEEN,
            ),
        ),
    ),
    of_labels(
        "65520 rows, mean",
        call="F.cross_entropy(z.expand(65520, 2), y.expand(65520), reduction=reduction)",
        items={"z": [[0.0, 0.0]], "y": [0], **MEAN},
        outcome=Gives(0.693359375),
        why="the logarithm of 2, in float16",
        deviations=(
            Deviation(
                Gives(0),
                "https://github.com/pytorch/pytorch/issues/85791",
                "the number of rows is inf in float16",
                seen=SEEN,
            ),
        ),
        formats=("float16",),
    ),
    # --- targets that are none ---
    of_labels(
        "a target too large",
        items={"z": [GOOD], "y": [2], **NONE},
        outcome=Raises(IndexError, "Target 2 is out of bounds", asserted=True),
        why="classes are 0 and 1",
        deviations=(OUT_OF_BOUNDS,),
    ),
    of_labels(
        "a negative target",
        items={"z": [GOOD], "y": [-1], **NONE},
        outcome=Raises(IndexError, "Target -1 is out of bounds", asserted=True),
        why="only ignore_index may be negative",
        deviations=(WRAPPED(Gives([0], [[0, 0]])), REFUSED_LATER),
    ),
    of_labels(
        "32-bit targets",
        call="F.cross_entropy(z, y.int(), reduction=reduction)",
        items={"z": [GOOD], "y": [0], **NONE},
        outcome=Raises(
            RuntimeError, "expected target dtype to be Long or Byte|expected scalar type Long|not implemented for 'Int'"
        ),
        why="documented: long",
        deviations=(Deviation(Gives([1024], [[-1, 1]]), "", "any index type will do", modes=("compiled",), seen=SEEN),),
    ),
    of_labels(
        "8-bit targets",
        call="F.cross_entropy(z, y.to(torch.uint8), reduction=reduction)",
        items={"z": [GOOD], "y": [0], **NONE},
        outcome=Gives([1024], [[-1, 1]]),
        why="nll_loss takes bytes as well",
        deviations=(
            Deviation(
                Raises(RuntimeError, "Expected dtype int32/int64 for index"),
                "",
                "refused while tracing",
                modes=("compiled",),
                seen=SEEN,
            ),
        ),
    ),
    of_labels(
        "index targets of the logits' shape",
        items={"z": [GOOD], "y": [[0, 0]], **NONE},
        outcome=Raises(RuntimeError, "Expected floating point type for target with class probabilities"),
        why="targets of that shape are probabilities",
    ),
    of_labels(
        "targets of another batch size",
        items={"z": [GOOD], "y": [0, 0], **NONE},
        outcome=Raises(ValueError, r"Expected input batch_size \(1\) to match target batch_size \(2\)"),
        why="a target for each row",
    ),
    of_labels(
        "an unknown reduction",
        items={"z": [GOOD], "y": [0], "reduction": "average"},
        outcome=Raises(ValueError, "average is not a valid value for reduction"),
        why="none, mean and sum are",
    ),
)
