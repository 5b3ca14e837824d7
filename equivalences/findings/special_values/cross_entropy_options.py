"""Special values of cross_entropy with label smoothing, class weights and class probabilities."""

from __future__ import annotations

from functools import partial
from math import inf, nan

import numpy as np

from equivalences.findings.model import Deviation, Gives
from equivalences.findings.special_values.cross_entropy import (
    GOOD,
    IGNORED,
    IGNORED_ROW,
    MEAN,
    NAN,
    NO_GRADIENT,
    NONE,
    SUM,
    TOTAL,
    of_labels,
)
from equivalences.findings.special_values.softmax import SEEN
from equivalences.model import Raises

WEIGHTED = "F.cross_entropy(z, y, weight=weight, reduction=reduction)"
SMOOTHED = "F.cross_entropy(z, y, label_smoothing=0.5, reduction=reduction)"
SOFT = "F.cross_entropy(z, p, reduction=reduction)"

_weighted, _smoothed, _soft = (partial(of_labels, call=call) for call in (WEIGHTED, SMOOTHED, SOFT))

TABLE = (
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
    of_labels(
        "smoothing, a masked class of weight 0",
        call="F.cross_entropy(z, y, weight=weight, label_smoothing=0.5, reduction=reduction)",
        items={"z": [[0.0, -inf]], "y": [0], "weight": [1.0, 0.0], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit: 0 times that class's loss",
        deviations=(Deviation(Gives([nan], [[0, 0]]), "", "0 * inf in the smoothing term", seen=SEEN),),
    ),
    of_labels(
        "smoothing above 1",
        call="F.cross_entropy(z, y, label_smoothing=1.5, reduction=reduction)",
        items={"z": [GOOD], "y": [0], **NONE},
        outcome=Raises(RuntimeError, r"label_smoothing must be between 0\.0 and 1\.0"),
        why="documented range",
    ),
    of_labels(
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
    of_labels(
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
    _weighted(
        "weights, both totals beyond float16, mean",
        items={"z": [[0.0, 12.0]] * 16, "y": [0] * 16, "weight": [4096.0, 4096.0], **MEAN},
        outcome=Gives(12, [[-0.0625, 0.0625]] * 16),
        why="the mean of equal losses",
        deviations=(
            Deviation(
                Gives(nan, [[0, 0]] * 16),
                "https://github.com/pytorch/pytorch/issues/85791",
                "inf/inf: losses and weights are added up in float16 before one total is divided by the other, and the "
                "gradient is divided by inf: so 2049 rows of weight 40 are neither a loss nor a step",
                formats=("float16",),
                seen=SEEN,
            ),
        ),
        formats=("float16",),
    ),
    _weighted(
        "a weight that 1 over it is beyond float16, mean",
        items={"z": [[0.0, 12.0]], "y": [0], "weight": [2.0**-17, 2.0**-17], **MEAN},
        outcome=Gives(12, [[-1, 1]]),
        why="one row: its weight is divided by itself",
        deviations=(
            Deviation(
                Gives(12, [[nan, inf]]),
                "",
                "the gradient from above is divided by the total weight, in float16, before it is multiplied by the "
                "row's: inf where it is more than 65,504 times as large",
                modes=("eager",),
                formats=("float16",),
                seen=SEEN,
            ),
        ),
        formats=("float16",),
    ),
    # --- class probabilities ---
    _soft(
        "probabilities, a total beyond float16, mean",
        items={"z": [[0.0, 32768.0]] * 2, "p": [[1.0, 0.0]] * 2, **MEAN},
        outcome=Gives(32768, [[-0.5, 0.5]] * 2),
        why="the mean of two equal losses",
        deviations=(TOTAL,),
        formats=("float16",),
    ),
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
)
