"""Special values of cross_entropy: logits, ignored rows, smoothing, weights, probabilities, sizes, bad targets."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf, nan

import numpy as np

from equivalences.model import Deviation, Gives, Raises, SpecialValue
from equivalences.special_values.softmax import DOCS, LATER, OLDEST, POSITIVE, SEEN, SHIFT, UNDEFINED

CALL = "F.cross_entropy(z, y, reduction=reduction)"
WEIGHTED = "F.cross_entropy(z, y, weight=weight, reduction=reduction)"
SMOOTHED = "F.cross_entropy(z, y, label_smoothing=0.5, reduction=reduction)"
SOFT = "F.cross_entropy(z, p, reduction=reduction)"

_index = partial(SpecialValue, "cross_entropy", call=CALL, source=DOCS + "torch.nn.CrossEntropyLoss.html")
_weighted = partial(_index, call=WEIGHTED)
_smoothed = partial(_index, call=SMOOTHED)
_soft = partial(_index, call=SOFT)
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
_TOTAL = Deviation(
    Gives(inf, [[-0.5, 0.5]] * 2),
    "https://github.com/pytorch/pytorch/issues/85791",
    "the losses are added up in float16 before they are divided by their number",
    formats=("float16",),
    seen=SEEN,
)
_ONE_POSITIVE = Deviation(Gives([nan], NAN), POSITIVE, SHIFT, seen=SEEN)

TABLE = (
    # --- the target's logit, and the others ---
    _index(
        "the target's logit -inf",
        items={"z": [[0.0, -inf]], "y": [1], **NONE},
        outcome=Gives([inf], [[1, -1]]),
        why="limit",
    ),
    _index(
        "another logit -inf",
        items={"z": [[0.0, -inf]], "y": [0], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit: the class is masked",
    ),
    _index(
        "the target's logit +inf",
        items={"z": [[0.0, inf]], "y": [1], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit",
        deviations=(_ONE_POSITIVE,),
    ),
    _index(
        "another logit +inf",
        items={"z": [[0.0, inf]], "y": [0], **NONE},
        outcome=Gives([inf], [[-1, 1]]),
        why="limit",
        deviations=(_ONE_POSITIVE,),
    ),
    _index("every logit -inf", items={"z": [[-inf, -inf]], "y": [0], **NONE}, outcome=Gives([nan], NAN), why=UNDEFINED),
    _index("two logits +inf", items={"z": [[inf, inf]], "y": [0], **NONE}, outcome=Gives([nan], NAN), why=UNDEFINED),
    _index(
        "the target's logit nan",
        items={"z": [[0.0, nan]], "y": [1], **NONE},
        outcome=Gives([nan], NAN),
        why="nan is passed on",
    ),
    _index(
        "another logit nan",
        items={"z": [[0.0, nan]], "y": [0], **NONE},
        outcome=Gives([nan], NAN),
        why="nan is passed on",
    ),
    _index(
        "a row of nan beside a good one",
        items={"z": [GOOD, [0.0, nan]], "y": [0, 0], **NONE},
        outcome=Gives([1024, nan], [[-1, 1], [nan, nan]]),
        why="rows are independent",
    ),
    _index(
        "a row of loss inf, mean",
        items={"z": [GOOD, [0.0, -inf]], "y": [0, 1], **MEAN},
        outcome=Gives(inf, [[-0.5, 0.5], [0.5, -0.5]]),
        why="limit",
    ),
    # --- ignored rows ---
    _index(
        "an ignored row of -inf",
        items={"z": [GOOD, [-inf, -inf]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
        deviations=(_IGNORED_NAN,),
    ),
    _index(
        "an ignored row with +inf",
        items={"z": [GOOD, [0.0, inf]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
        deviations=(_IGNORED_NAN,),
    ),
    _index(
        "an ignored row with nan",
        items={"z": [GOOD, [0.0, nan]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
        deviations=(_IGNORED_NAN,),
    ),
    _index(
        "an ignored row with one -inf",
        items={"z": [GOOD, [0.0, -inf]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why=NO_GRADIENT,
    ),
    _index(
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
    _index(
        "every row ignored, sum",
        items={"z": [GOOD, GOOD], "y": [IGNORED, IGNORED], **SUM},
        outcome=Gives(0, [[0, 0], [0, 0]]),
        why="an empty sum",
    ),
    _index(
        "every row ignored, none",
        items={"z": [GOOD, GOOD], "y": [IGNORED, IGNORED], **NONE},
        outcome=Gives([0, 0], [[0, 0], [0, 0]]),
        why="an ignored row loses 0",
    ),
    _index(
        "the ignored index is a class",
        call="F.cross_entropy(z, y, ignore_index=1, reduction=reduction)",
        items={"z": [GOOD, GOOD], "y": [0, 1], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why="its rows are ignored, its logits are not",
    ),
    # --- losses with a total beyond float16 (each also of a few thousand rows: 6400 of 32000 equal logits) ---
    _index(
        "a total beyond float16, mean",
        items={"z": [[0.0, 32768.0]] * 2, "y": [0, 0], **MEAN},
        outcome=Gives(32768, [[-0.5, 0.5]] * 2),
        why="the mean of two equal losses",
        deviations=(_TOTAL,),
        formats=("float16",),
    ),
    _soft(
        "probabilities, a total beyond float16, mean",
        items={"z": [[0.0, 32768.0]] * 2, "p": [[1.0, 0.0]] * 2, **MEAN},
        outcome=Gives(32768, [[-0.5, 0.5]] * 2),
        why="the mean of two equal losses",
        deviations=(_TOTAL,),
        formats=("float16",),
    ),
    # --- label smoothing ---
    _smoothed(
        "smoothing, classes with a total beyond float16",
        items={"z": [[0.0, -32768.0, -32768.0, -32768.0]], "y": [0], **NONE},
        outcome=Gives([12288], [[0.375, -0.125, -0.125, -0.125]]),
        why="an eighth of 3 times 32768",
        deviations=(
            Deviation(
                Gives([inf], [[0.375, -0.125, -0.125, -0.125]]),
                "",
                "the losses of all classes are added up in float16 before they are divided by their number: inf for a "
                "row of 32000 equal logits, whose loss is 10.4",
                formats=("float16",),
                seen=SEEN,
            ),
        ),
        formats=("float16",),
    ),
    _smoothed(
        "smoothing, another logit -inf",
        items={"z": [[0.0, -inf]], "y": [0], **NONE},
        outcome=Gives([inf], [[0.25, -0.25]]),
        why="limit: a quarter of the target is on that class",
    ),
    _smoothed(
        "smoothing, an ignored row of -inf",
        items={"z": [GOOD, [-inf, -inf]], "y": [0, IGNORED], **MEAN},
        outcome=Gives(768, [[-0.75, 0.75], [0, 0]]),
        why=NO_GRADIENT,
        deviations=(Deviation(Gives(768, [[-0.75, 0.75], [nan, nan]]), IGNORED_ROW, seen=SEEN),),
    ),
    _smoothed(
        "smoothing, every row ignored, sum",
        items={"z": [GOOD, GOOD], "y": [IGNORED, IGNORED], **SUM},
        outcome=Gives(0, [[0, 0], [0, 0]]),
        why="an empty sum",
    ),
    _smoothed(
        "smoothing, every row ignored, mean",
        items={"z": [GOOD, GOOD], "y": [IGNORED, IGNORED], **MEAN},
        outcome=Gives(nan),
        why="0/0",
    ),
    _index(
        "smoothing, a masked class of weight 0",
        call="F.cross_entropy(z, y, weight=weight, label_smoothing=0.5, reduction=reduction)",
        items={"z": [[0.0, -inf]], "y": [0], "weight": [1.0, 0.0], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit: 0 times that class's loss",
        deviations=(Deviation(Gives([nan], [[0, 0]]), "", "0 * inf in the smoothing term", seen=SEEN),),
    ),
    _index(
        "smoothing above 1",
        call="F.cross_entropy(z, y, label_smoothing=1.5, reduction=reduction)",
        items={"z": [GOOD], "y": [0], **NONE},
        outcome=Raises(RuntimeError, r"label_smoothing must be between 0\.0 and 1\.0"),
        why="documented range",
    ),
    _index(
        "smoothing below 0",
        call="F.cross_entropy(z, y, label_smoothing=-0.5, reduction=reduction)",
        items={"z": [GOOD], "y": [0], **NONE},
        outcome=Raises(RuntimeError, r"label_smoothing must be between 0\.0 and 1\.0"),
        why="documented range",
        deviations=(
            Deviation(
                Gives([1024], [[-1, 1]]), "https://github.com/pytorch/pytorch/issues/134767", "taken for 0", seen=SEEN
            ),
        ),
    ),
    _index(
        "smoothing and weights, vmap of the mean",
        call="torch.func.vmap(lambda row, label: F.cross_entropy(row, label, weight, label_smoothing=0.5))(z, y)",
        items={"z": [[[0.0]], [[1.0]]], "y": [[0], [0]], "weight": [2.0]},
        outcome=Gives([0, 0], [[[0]], [[0]]]),
        why="two batches of one row: one class has no loss",
        deviations=(
            Deviation(
                Raises(RuntimeError, "vmap over `mask` in torch.masked_select"),
                "https://docs.pytorch.org/docs/stable/func.ux_limitations.html",
                "the total weight is that of masked_select(target), whose shape depends on the targets",
                modes=("eager",),
                seen=SEEN,
            ),
        ),
    ),
    # --- class weights ---
    _weighted(
        "a target of weight 0 and loss inf",
        items={"z": [[0.0, -inf]], "y": [1], "weight": [1.0, 0.0], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit: 0 times the row's loss",
        deviations=(Deviation(Gives([nan], [[0, 0]]), "", "0 * inf", seen=SEEN),),
    ),
    _weighted(
        "every target of weight 0, mean",
        items={"z": [GOOD], "y": [0], "weight": [0.0, 1.0], **MEAN},
        outcome=Gives(nan, [[nan, nan]]),
        why="0/0: no weight to divide by",
    ),
    _weighted(
        "every target of weight 0, sum",
        items={"z": [GOOD], "y": [0], "weight": [0.0, 1.0], **SUM},
        outcome=Gives(0, [[0, 0]]),
        why="0 times a finite loss",
    ),
    _weighted(
        "a target of weight 0 beside a good one, mean",
        items={"z": [GOOD, GOOD], "y": [0, 1], "weight": [1.0, 0.0], **MEAN},
        outcome=Gives(1024, [[-1, 1], [0, 0]]),
        why="divided by the total weight of the targets",
    ),
    _weighted(
        "weights of 2, mean",
        items={"z": [GOOD], "y": [0], "weight": [2.0, 2.0], **MEAN},
        outcome=Gives(1024, [[-1, 1]]),
        why="index targets: divided by the total weight (documented; issue 107680)",
    ),
    _soft(
        "probabilities, weights of 2, mean",
        call="F.cross_entropy(z, p, weight=weight, reduction=reduction)",
        items={"z": [GOOD], "p": [[1.0, 0.0]], "weight": [2.0, 2.0], **MEAN},
        outcome=Gives(2048, [[-2, 2]]),
        why="probability targets: divided by the number of rows (documented; issue 107680)",
    ),
    _weighted(
        "a weight too few",
        items={"z": [GOOD], "y": [0], "weight": [1.0], **MEAN},
        outcome=Raises(RuntimeError, "weight tensor should be defined either for all"),
        why="a weight for each class",
    ),
    # --- class probabilities ---
    _soft(
        "probabilities, 0 for a logit -inf",
        items={"z": [[0.0, -inf]], "p": [[1.0, 0.0]], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit: 0 times that class's loss; the index target gives it",
        deviations=(Deviation(Gives([nan], [[0, 0]]), "", "0 * inf", seen=SEEN),),
    ),
    _soft(
        "probabilities, 1 for a logit -inf",
        items={"z": [[0.0, -inf]], "p": [[0.0, 1.0]], **NONE},
        outcome=Gives([inf], [[1, -1]]),
        why="limit",
    ),
    _soft(
        "probabilities, all 0",
        items={"z": [GOOD], "p": [[0.0, 0.0]], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="an empty sum",
    ),
    _soft(
        "probabilities with nan",
        items={"z": [GOOD], "p": [[nan, 0.0]], **NONE},
        outcome=Gives([nan], NAN),
        why="nan is passed on",
    ),
    _soft(
        "probabilities outside [0, 1]",
        items={"z": [GOOD], "p": [[1.5, -0.5]], **NONE},
        outcome=Gives([1536], [[-1.5, 1.5]]),
        why="not validated: the formula as it stands (issue 152437)",
    ),
    _soft(
        "probabilities and an ignored index",
        call="F.cross_entropy(z, p, ignore_index=0, reduction=reduction)",
        items={"z": [GOOD], "p": [[1.0, 0.0]], **NONE},
        outcome=Raises(RuntimeError, "ignore_index is not supported for floating point target"),
        why="only index targets can be ignored",
    ),
    _soft(
        "probabilities, one class",
        items={"z": [[-5.0]], "p": [[1.0]], **NONE},
        outcome=Gives([0], [[0]]),
        why="constant 0",
    ),
    _soft(
        "probabilities, no row, mean",
        items={"z": np.zeros((0, 2)), "p": np.zeros((0, 2)), **MEAN},
        outcome=Gives(nan, np.zeros((0, 2))),
        why="0/0",
    ),
    _soft(
        "probabilities, no row, sum",
        items={"z": np.zeros((0, 2)), "p": np.zeros((0, 2)), **SUM},
        outcome=Gives(0, np.zeros((0, 2))),
        why="an empty sum",
    ),
    # --- sizes ---
    _index(
        "no row, mean",
        items={"z": np.zeros((0, 2)), "y": np.zeros(0, dtype=int), **MEAN},
        outcome=Gives(nan, np.zeros((0, 2))),
        why="0/0",
    ),
    _index(
        "no row, sum",
        items={"z": np.zeros((0, 2)), "y": np.zeros(0, dtype=int), **SUM},
        outcome=Gives(0, np.zeros((0, 2))),
        why="an empty sum",
    ),
    _index(
        "no row, none",
        items={"z": np.zeros((0, 2)), "y": np.zeros(0, dtype=int), **NONE},
        outcome=Gives([], np.zeros((0, 2))),
        why="nothing to compute",
    ),
    _index("one class", items={"z": [[-5.0]], "y": [0], **NONE}, outcome=Gives([0], [[0]]), why="constant 0"),
    _index(
        "no class",
        items={"z": [[]], "y": [0], **NONE},
        outcome=Raises(IndexError, "Target 0 is out of bounds", asserted=True),
        why="no class 0",
        deviations=(OUT_OF_BOUNDS,),
    ),
    _index(
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
    _index(
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
    _index(
        "a target too large",
        items={"z": [GOOD], "y": [2], **NONE},
        outcome=Raises(IndexError, "Target 2 is out of bounds", asserted=True),
        why="classes are 0 and 1",
        deviations=(OUT_OF_BOUNDS,),
    ),
    _index(
        "a negative target",
        items={"z": [GOOD], "y": [-1], **NONE},
        outcome=Raises(IndexError, "Target -1 is out of bounds", asserted=True),
        why="only ignore_index may be negative",
        deviations=(WRAPPED(Gives([0], [[0, 0]])), REFUSED_LATER),
    ),
    _index(
        "32-bit targets",
        call="F.cross_entropy(z, y.int(), reduction=reduction)",
        items={"z": [GOOD], "y": [0], **NONE},
        outcome=Raises(
            RuntimeError, "expected target dtype to be Long or Byte|expected scalar type Long|not implemented for 'Int'"
        ),
        why="documented: long",
        deviations=(Deviation(Gives([1024], [[-1, 1]]), "", "any index type will do", modes=("compiled",), seen=SEEN),),
    ),
    _index(
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
    _index(
        "index targets of the logits' shape",
        items={"z": [GOOD], "y": [[0, 0]], **NONE},
        outcome=Raises(RuntimeError, "Expected floating point type for target with class probabilities"),
        why="targets of that shape are probabilities",
    ),
    _index(
        "targets of another batch size",
        items={"z": [GOOD], "y": [0, 0], **NONE},
        outcome=Raises(ValueError, r"Expected input batch_size \(1\) to match target batch_size \(2\)"),
        why="a target for each row",
    ),
    _index(
        "an unknown reduction",
        items={"z": [GOOD], "y": [0], "reduction": "average"},
        outcome=Raises(ValueError, "average is not a valid value for reduction"),
        why="none, mean and sum are",
    ),
)
