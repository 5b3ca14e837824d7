"""Special values of nll_loss, which takes log-probabilities."""

from __future__ import annotations

from functools import partial
from math import inf, nan

import numpy as np

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values.cross_entropy import (
    GOOD,
    IGNORED,
    MEAN,
    NO_GRADIENT,
    NONE,
    OUT_OF_BOUNDS,
    REFUSED_LATER,
    SUM,
    WRAPPED,
)
from equivalences.findings.special_values.softmax import DOCS, SEEN
from equivalences.model import Raises

_nll = partial(
    SpecialValue,
    "nll_loss",
    call="F.nll_loss(x, y, weight=weight, reduction=reduction)",
    source=DOCS + "torch.nn.NLLLoss.html",
)

TABLE = (
    _nll(
        "the target's log-probability -inf",
        items={"x": [[0.0, -inf]], "y": [1], "weight": None, **NONE},
        outcome=Gives([inf], [[0, -1]]),
        why="the definition",
    ),
    _nll(
        "another log-probability nan",
        items={"x": [[0.0, nan]], "y": [0], "weight": None, **NONE},
        outcome=Gives([0], [[-1, 0]]),
        why="only the target's is read",
    ),
    _nll(
        "an ignored row of nan",
        items={"x": [[-8.0, 0.0], [nan, nan]], "y": [0, IGNORED], "weight": None, **MEAN},
        outcome=Gives(8, [[-1, 0], [0, 0]]),
        why=NO_GRADIENT,
    ),
    _nll(
        "a target of weight 0 and log-probability -inf",
        items={"x": [[0.0, -inf]], "y": [1], "weight": [1.0, 0.0], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit: 0 times the row's loss",
        deviations=(Deviation(Gives([nan], [[0, 0]]), "", "0 * inf", seen=SEEN),),
    ),
    _nll(
        "every row ignored, mean",
        items={"x": [GOOD], "y": [IGNORED], "weight": None, **MEAN},
        outcome=Gives(nan, [[0, 0]]),
        why="0/0; the gradient of an ignored row is 0",
    ),
    _nll(
        "every row ignored, sum",
        items={"x": [GOOD], "y": [IGNORED], "weight": None, **SUM},
        outcome=Gives(0, [[0, 0]]),
        why="an empty sum",
    ),
    _nll(
        "every target of weight 0, mean",
        items={"x": [[-8.0, 0.0]], "y": [0], "weight": [0.0, 1.0], **MEAN},
        outcome=Gives(nan),
        why="0/0",
    ),
    _nll(
        "no row, mean",
        items={"x": np.zeros((0, 2)), "y": np.zeros(0, dtype=int), "weight": None, **MEAN},
        outcome=Gives(nan, np.zeros((0, 2))),
        why="0/0",
    ),
    _nll(
        "a target too large",
        items={"x": [GOOD], "y": [2], "weight": None, **NONE},
        outcome=Raises(IndexError, "Target 2 is out of bounds", asserted=True),
        why="classes are 0 and 1",
        deviations=(OUT_OF_BOUNDS,),
    ),
    _nll(
        "a negative target",
        items={"x": [GOOD], "y": [-1], "weight": None, **NONE},
        outcome=Raises(IndexError, "Target -1 is out of bounds", asserted=True),
        why="only ignore_index may be negative",
        deviations=(WRAPPED(Gives([-1024], [[0, 0]])), REFUSED_LATER),
    ),
    _nll(
        "a target too large, (N, C, d1, d2)",
        call="F.nll_loss(x[:, :, None, None], y[:, None, None], weight=weight, reduction=reduction)",
        items={"x": [GOOD], "y": [2], "weight": None, **NONE},
        outcome=Raises(IndexError, "Target 2 is out of bounds", asserted=True),
        why="classes are 0 and 1",
        deviations=(OUT_OF_BOUNDS,),
    ),
    _nll(
        "probability targets",
        call="F.nll_loss(x, p, weight=weight, reduction=reduction)",
        items={"x": [GOOD], "p": [[1.0, 0.0]], "weight": None, **NONE},
        outcome=Raises(RuntimeError, "0D or 1D target tensor expected"),
        why="nll_loss takes indices alone",
    ),
)
