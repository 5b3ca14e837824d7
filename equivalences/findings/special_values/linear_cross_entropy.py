"""Special values of linear_cross_entropy, at once and in chunks: x W' are the logits."""

from __future__ import annotations

from functools import partial
from math import nan

import numpy as np

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values.cross_entropy import (
    IGNORED,
    IGNORED_ROW,
    MEAN,
    NO_GRADIENT,
    REFUSED_LATER,
    SUM,
)
from equivalences.findings.special_values.softmax import DOCS, LATER
from equivalences.model import Raises

AT_ONCE = "F.linear_cross_entropy(x, W, y, reduction=reduction)"
IN_CHUNKS = "F.linear_cross_entropy(x, W, y, reduction=reduction, options=nn.LinearCrossEntropyOptions())"

_linear = partial(
    SpecialValue,
    "linear_cross_entropy",
    source=DOCS + "torch.nn.functional.linear_cross_entropy.html",
    needs="nn.functional.linear_cross_entropy",
)

HEAD = [[0.0, 0.0], [1.0, 0.0]]  # weights of a linear layer: the logits are 0 and the input's first number

TABLE = (
    *(
        entry
        for options, call, lost, refused in (
            ("", AT_ONCE, 1024, (REFUSED_LATER,)),
            (
                ", in chunks",
                IN_CHUNKS,
                nan,
                (
                    Deviation(
                        Raises(RuntimeError, "is out of bounds for dimension"), "", "another exception", seen=LATER
                    ),
                ),
            ),
        )
        for linear in (partial(_linear, call=call),)
        for entry in (
            linear(
                f"an ignored row of nan{options}",
                items={"x": [[1024.0, 0.0], [nan, nan]], "W": HEAD, "y": [0, IGNORED], **MEAN},
                outcome=Gives(1024, [[1, 0], [0, 0]]),
                why=NO_GRADIENT,
                deviations=(Deviation(Gives(lost, [[1, 0], [nan, nan]]), IGNORED_ROW, "nan times 0", seen=LATER),),
            ),
            linear(
                f"an ignored row of nan, gradient of the weights{options}",
                items={"W": HEAD, "x": [[1024.0, 0.0], [nan, nan]], "y": [0, IGNORED], **MEAN},
                outcome=Gives(1024, [[-1024, 0], [1024, 0]]),
                why=NO_GRADIENT,
                deviations=(Deviation(Gives(lost, [[nan, nan], [nan, nan]]), IGNORED_ROW, "nan times 0", seen=LATER),),
            ),
            linear(
                f"every row ignored, mean{options}",
                items={"x": [[1.0, 0.0]], "W": HEAD, "y": [IGNORED], **MEAN},
                outcome=Gives(nan),
                why="0/0",
            ),
            linear(
                f"every row ignored, sum{options}",
                items={"x": [[1.0, 0.0]], "W": HEAD, "y": [IGNORED], **SUM},
                outcome=Gives(0, [[0, 0]]),
                why="an empty sum",
            ),
            linear(
                f"no row, mean{options}",
                items={"x": np.zeros((0, 2)), "W": HEAD, "y": np.zeros(0, dtype=int), **MEAN},
                outcome=Gives(nan, np.zeros((0, 2))),
                why="0/0",
            ),
            linear(
                f"no row, sum{options}",
                items={"x": np.zeros((0, 2)), "W": HEAD, "y": np.zeros(0, dtype=int), **SUM},
                outcome=Gives(0, np.zeros((0, 2))),
                why="an empty sum",
            ),
            linear(
                f"a target too large{options}",
                items={"x": [[1.0, 0.0]], "W": HEAD, "y": [2], **MEAN},
                outcome=Raises(IndexError, "Target 2 is out of bounds", asserted=True),
                why="classes are 0 and 1",
                deviations=refused,
            ),
            linear(
                f"a negative target{options}",
                items={"x": [[1.0, 0.0]], "W": HEAD, "y": [-1], **MEAN},
                outcome=Raises(IndexError, "Target -1 is out of bounds", asserted=True),
                why="only ignore_index may be negative",
                deviations=refused,
            ),
        )
    ),
)
