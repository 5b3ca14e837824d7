"""Special values of the binary losses."""

from __future__ import annotations

from functools import partial
from math import inf, nan

import numpy as np

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values.softmax import DOCS, LATER, OLDEST, SEEN
from equivalences.model import Raises

_bce = partial(
    SpecialValue,
    "binary_cross_entropy",
    call="F.binary_cross_entropy(p, t, reduction=reduction)",
    source=DOCS + "torch.nn.BCELoss.html",
)
_logits = partial(
    SpecialValue,
    "binary_cross_entropy_with_logits",
    call="F.binary_cross_entropy_with_logits(z, t, reduction=reduction)",
    source=DOCS + "torch.nn.BCEWithLogitsLoss.html",
)
_margin = partial(
    SpecialValue,
    "soft_margin_loss",
    call="F.soft_margin_loss(z, t, reduction=reduction)",
    source=DOCS + "torch.nn.SoftMarginLoss.html",
)
_multi = partial(
    SpecialValue,
    "multilabel_soft_margin_loss",
    call="F.multilabel_soft_margin_loss(z, t, reduction=reduction)",
    source=DOCS + "torch.nn.MultiLabelSoftMarginLoss.html",
)

NONE, SUM, MEAN = ({"reduction": reduction} for reduction in ("none", "sum", "mean"))

FLOOR = "https://github.com/pytorch/pytorch/issues/103316"
INFINITE = "https://github.com/pytorch/pytorch/issues/135359"
COMPILED = "https://github.com/pytorch/pytorch/issues/193757"
OVERFLOW = "https://github.com/pytorch/pytorch/issues/77529"
LOGITS_TARGET = "https://github.com/pytorch/pytorch/issues/110865"
OUTSIDE = Raises(RuntimeError, "all elements of target should be between 0 and 1", asserted=True)

_half = partial(Deviation, formats=("float16",))

FLOORED = (
    Deviation(
        Gives([0], [0]),
        FLOOR,
        "(p - t) / max(p (1 - p), 1e-12)",
        formats=("float64", "float32", "bfloat16"),
        seen=SEEN,
    ),
    _half(Gives([0], [nan]), "", "the floor 1e-12 is 0 in float16: 0/0", modes=("eager",), seen=SEEN),
    _half(Gives([0], [0]), FLOOR, "the floor 1e-12, in float32", modes=("compiled",), seen=SEEN),
)

TABLE = (
    # --- binary_cross_entropy: probabilities ---
    _bce(
        "0 for target 1",
        items={"p": [0.0], "t": [1.0], **NONE},
        outcome=Gives([100]),
        why="documented: logarithms are clamped at -100",
    ),
    _bce(
        "1 for target 0",
        items={"p": [1.0], "t": [0.0], **NONE},
        outcome=Gives([100]),
        why="documented: logarithms are clamped at -100",
    ),
    _bce(
        "1 for target 1",
        items={"p": [1.0], "t": [1.0], **NONE},
        outcome=Gives([0], [-1]),
        why="-1/p",
        deviations=FLOORED,
    ),
    _bce(
        "0 for target 0",
        items={"p": [0.0], "t": [0.0], **NONE},
        outcome=Gives([0], [1]),
        why="1/(1 - p)",
        deviations=FLOORED,
    ),
    _bce(
        "a probability above 1",
        items={"p": [1.5], "t": [1.0], **NONE},
        outcome=Raises(RuntimeError, "all elements of input should be between 0 and 1", asserted=True),
        why="no probability",
        deviations=(Deviation(Gives([nan]), COMPILED, "not validated", modes=("compiled",), seen=SEEN),),
    ),
    _bce(
        "a probability below 0",
        items={"p": [-0.5], "t": [1.0], **NONE},
        outcome=Raises(RuntimeError, "all elements of input should be between 0 and 1", asserted=True),
        why="no probability",
        deviations=(Deviation(Gives([nan]), COMPILED, "not validated", modes=("compiled",), seen=SEEN),),
    ),
    _bce(
        "a probability nan",
        items={"p": [nan], "t": [1.0], **NONE},
        outcome=Raises(RuntimeError, "all elements of input should be between 0 and 1", asserted=True),
        why="no probability",
        deviations=(Deviation(Gives([nan], [nan]), COMPILED, "not validated", modes=("compiled",), seen=SEEN),),
    ),
    _bce(
        "a target above 1",
        items={"p": [1.0], "t": [1.5], **NONE},
        outcome=OUTSIDE,
        why="no probability",
        deviations=(Deviation(Gives([-50]), COMPILED, "not validated", modes=("compiled",), seen=SEEN),),
    ),
    _bce(
        "a target below 0",
        items={"p": [1.0], "t": [-0.5], **NONE},
        outcome=OUTSIDE,
        why="no probability",
        deviations=(Deviation(Gives([150]), COMPILED, "not validated", modes=("compiled",), seen=SEEN),),
    ),
    _bce(
        "a target nan",
        items={"p": [1.0], "t": [nan], **NONE},
        outcome=OUTSIDE,
        why="no probability",
        deviations=(Deviation(Gives([nan], [nan]), COMPILED, "not validated", modes=("compiled",), seen=SEEN),),
    ),
    _bce(
        "weight 0",
        call="F.binary_cross_entropy(p, t, weight=weight, reduction=reduction)",
        items={"p": [0.0], "t": [1.0], "weight": [0.0], **NONE},
        outcome=Gives([0], [0]),
        why="0 times a finite loss",
        deviations=(_half(Gives([0], [nan]), "", "0 * inf", modes=("eager",), seen=SEEN),),
    ),
    _bce(
        "all weights 0, mean",
        call="F.binary_cross_entropy(p, t, weight=weight, reduction=reduction)",
        items={"p": [0.0], "t": [1.0], "weight": [0.0], **MEAN},
        outcome=Gives(0),
        why="divided by the number of elements, not by the weights",
    ),
    _bce(
        "32-bit weights",
        call="F.binary_cross_entropy(p, t, weight=weight.float(), reduction=reduction)",
        items={"p": [1.0], "t": [1.0], "weight": [2.0], **NONE},
        outcome=Gives([0]),
        why="the result stays in the format of the probabilities",
        formats=("float32", "bfloat16", "float16"),
        deviations=(
            Deviation(
                Gives([0], dtype="float32"),
                "https://github.com/pytorch/pytorch/issues/197098",
                "promoted",
                formats=("bfloat16", "float16"),
                modes=("compiled",),
                seen=SEEN,
            ),
        ),
    ),
    _bce("nothing, mean", items={"p": [], "t": [], **MEAN}, outcome=Gives(nan, []), why="0/0"),
    _bce("nothing, sum", items={"p": [], "t": [], **SUM}, outcome=Gives(0, []), why="an empty sum"),
    _bce("nothing, none", items={"p": [], "t": [], **NONE}, outcome=Gives([], []), why="nothing to compute"),
    _bce(
        "targets of another size",
        items={"p": [1.0], "t": [1.0, 1.0], **NONE},
        outcome=Raises(ValueError, "Using a target size .* that is different to the input size"),
        why="nothing is broadcast",
    ),
    _bce(
        "integer targets",
        items={"p": [1.0], "t": [1], **NONE},
        outcome=Raises(RuntimeError, "Found dtype Long but expected|found.*Long"),
        why="targets are in the format of the input",
        deviations=(
            Deviation(
                Gives([0], [0]),
                "https://github.com/pytorch/pytorch/issues/198155",
                "promoted",
                modes=("compiled",),
                seen=SEEN,
            ),
        ),
    ),
    # --- binary_cross_entropy_with_logits ---
    _logits(
        "+inf for target 1",
        items={"z": [inf], "t": [1.0], **NONE},
        outcome=Gives([0], [0]),
        why="limit",
        deviations=(Deviation(Gives([nan], [0]), INFINITE, "(1 - t) z = 0 * inf", seen=SEEN),),
    ),
    _logits("+inf for target 0", items={"z": [inf], "t": [0.0], **NONE}, outcome=Gives([inf], [1]), why="limit"),
    _logits(
        "-inf for target 0",
        items={"z": [-inf], "t": [0.0], **NONE},
        outcome=Gives([0], [0]),
        why="limit",
        deviations=(Deviation(Gives([nan], [0]), INFINITE, "z - logsigmoid(z) = -inf + inf", seen=SEEN),),
    ),
    _logits(
        "-inf for target 1",
        items={"z": [-inf], "t": [1.0], **NONE},
        outcome=Gives([inf], [-1]),
        why="limit",
        deviations=(Deviation(Gives([nan], [-1]), INFINITE, "(1 - t) z = 0 * inf", seen=SEEN),),
    ),
    _logits(
        "-inf for target 0.5",
        items={"z": [-inf], "t": [0.5], **NONE},
        outcome=Gives([inf], [-0.5]),
        why="limit",
        deviations=(Deviation(Gives([nan], [-0.5]), INFINITE, "(1 - t) z - logsigmoid(z) = -inf + inf", seen=SEEN),),
    ),
    _logits("-32768 for target 0", items={"z": [-32768.0], "t": [0.0], **NONE}, outcome=Gives([0], [0]), why="limit"),
    _logits(
        "-32768 for target 1",
        items={"z": [-32768.0], "t": [1.0], **NONE},
        outcome=Gives([32768], [-1]),
        why="far from the largest number",
    ),
    _logits("a logit nan", items={"z": [nan], "t": [1.0], **NONE}, outcome=Gives([nan], [nan]), why="nan is passed on"),
    _logits(
        "a target nan", items={"z": [0.0], "t": [nan], **NONE}, outcome=Gives([nan], [nan]), why="nan is passed on"
    ),
    _logits(
        "a nan beside a good one",
        items={"z": [nan, 1000.0], "t": [1.0, 0.0], **NONE},
        outcome=Gives([nan, 1000], [nan, 1]),
        why="elements are independent",
    ),
    _logits(
        "a target above 1",
        items={"z": [1000.0], "t": [1.5], **NONE},
        outcome=Raises(OUTSIDE.error, OUTSIDE.match),
        why="documented: between 0 and 1; binary_cross_entropy refuses it",
        deviations=(Deviation(Gives([-500], [-0.5]), LOGITS_TARGET, "a negative loss, without a word", seen=SEEN),),
    ),
    _logits(
        "integer targets",
        items={"z": [1000.0], "t": [0], **NONE},
        outcome=Raises(RuntimeError, "can't be cast to the desired output type Long"),
        why="targets are in the format of the input",
        deviations=(
            Deviation(Gives([1000], [1]), "", "promoted", modes=("compiled",), seen=OLDEST),
            Deviation(
                Raises(RuntimeError, "Autograd not support dtype: Long"),
                "",
                "another message",
                modes=("compiled",),
                seen=LATER,
            ),
        ),
    ),
    _logits(
        "integer targets, no gradient asked for",
        call="F.binary_cross_entropy_with_logits(z.detach(), t, reduction=reduction)",
        items={"z": [100.5], "t": [0], **NONE},
        outcome=Raises(RuntimeError, "can't be cast to the desired output type Long"),
        why="targets are in the format of the input",
        deviations=(
            Deviation(Gives([100.5]), "", "promoted", modes=("compiled",), seen=OLDEST),
            Deviation(
                Gives([100], dtype="int64"),
                "https://github.com/pytorch/pytorch/issues/198155",
                "the loss is cut to an integer",
                modes=("compiled",),
                seen=LATER,
            ),
        ),
    ),
    _logits(
        "weight 0",
        call="F.binary_cross_entropy_with_logits(z, t, weight=weight, reduction=reduction)",
        items={"z": [-1000.0], "t": [1.0], "weight": [0.0], **NONE},
        outcome=Gives([0], [0]),
        why="0 times a finite loss",
    ),
    _logits(
        "weight 0, a logit +inf for target 0",
        call="F.binary_cross_entropy_with_logits(z, t, weight=weight, reduction=reduction)",
        items={"z": [inf], "t": [0.0], "weight": [0.0], **NONE},
        outcome=Gives([0], [0]),
        why="limit: 0 times the loss",
        deviations=(Deviation(Gives([nan], [0]), "", "0 * inf", seen=SEEN),),
    ),
    _logits(
        "32-bit weights",
        call="F.binary_cross_entropy_with_logits(z, t, weight=weight.float(), reduction=reduction)",
        items={"z": [-1000.0], "t": [1.0], "weight": [2.0], **NONE},
        outcome=Gives([2000], [-2]),
        why="the result stays in the format of the logits",
        formats=("float32", "bfloat16", "float16"),
        deviations=(
            Deviation(
                Gives([2000], [-2], dtype="float32"),
                "https://github.com/pytorch/pytorch/issues/171282",
                "promoted",
                formats=("bfloat16", "float16"),
                modes=("compiled",),
                seen=OLDEST,
            ),
        ),
    ),
    _logits(
        "pos_weight 0",
        call="F.binary_cross_entropy_with_logits(z, t, pos_weight=w, reduction=reduction)",
        items={"z": [-1000.0], "t": [1.0], "w": [0.0], **NONE},
        outcome=Gives([0], [0]),
        why="positives do not count",
    ),
    _logits(
        "pos_weight inf, a negative",
        call="F.binary_cross_entropy_with_logits(z, t, pos_weight=w, reduction=reduction)",
        items={"z": [1000.0], "t": [0.0], "w": [inf], **NONE},
        outcome=Gives([1000], [1]),
        why="the weight of positives does not matter",
        deviations=(Deviation(Gives([nan], [nan]), "", "(pos_weight - 1) t = inf * 0", seen=SEEN),),
    ),
    _logits("nothing, mean", items={"z": [], "t": [], **MEAN}, outcome=Gives(nan, []), why="0/0"),
    _logits("nothing, sum", items={"z": [], "t": [], **SUM}, outcome=Gives(0, []), why="an empty sum"),
    _logits(
        "targets of another size",
        items={"z": [1.0], "t": [1.0, 1.0], **NONE},
        outcome=Raises(ValueError, "Target size .* must be the same as input size"),
        why="nothing is broadcast",
    ),
    # --- soft margins ---
    _margin("+inf for 1", items={"z": [inf], "t": [1.0], **NONE}, outcome=Gives([0], [0]), why="limit"),
    _margin(
        "-inf for 1",
        items={"z": [-inf], "t": [1.0], **NONE},
        outcome=Gives([inf], [-1]),
        why="limit",
        deviations=(
            Deviation(
                Gives([inf], [nan]), OVERFLOW, "exp(-t z) / (1 + exp(-t z)) = inf / inf", modes=("eager",), seen=SEEN
            ),
        ),
    ),
    _margin(
        "-1000 for 1",
        items={"z": [-1000.0], "t": [1.0], **NONE},
        outcome=Gives([1000], [-1]),
        why="log(1 + exp(1000)), to the last digit",
        deviations=(
            Deviation(Gives([inf], [-1]), OVERFLOW, "exp(-t z) overflows in the value", modes=("compiled",), seen=SEEN),
            Deviation(
                Gives([inf], [nan]),
                OVERFLOW,
                "exp(-t z) overflows, from -89 on in float32",
                modes=("eager",),
                seen=SEEN,
            ),
        ),
    ),
    _margin("nan", items={"z": [nan], "t": [1.0], **NONE}, outcome=Gives([nan], [nan]), why="nan is passed on"),
    _margin("nothing, mean", items={"z": [], "t": [], **MEAN}, outcome=Gives(nan, []), why="0/0"),
    _margin("nothing, sum", items={"z": [], "t": [], **SUM}, outcome=Gives(0, []), why="an empty sum"),
    _multi(
        "+inf for 1, -inf for 0",
        items={"z": [[inf, -inf]], "t": [[1.0, 0.0]], **NONE},
        outcome=Gives([0], [[0, 0]]),
        why="limit",
        deviations=(Deviation(Gives([nan], [[0, 0]]), "", "(1 - t) logsigmoid(-z) = 0 * -inf", seen=SEEN),),
    ),
    _multi(
        "one class -inf for 1",
        items={"z": [[-1000.0]], "t": [[1.0]], **NONE},
        outcome=Gives([1000], [[-1]]),
        why="a class is a binary problem",
    ),
    _multi(
        "no class",
        items={"z": [[], []], "t": [[], []], **NONE},
        outcome=Gives([nan, nan], [[], []]),
        why="0/0: the mean over no class",
    ),
    _multi(
        "no row, sum",
        items={"z": np.zeros((0, 2)), "t": np.zeros((0, 2)), **SUM},
        outcome=Gives(0, np.zeros((0, 2))),
        why="an empty sum",
    ),
)
