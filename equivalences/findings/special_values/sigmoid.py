"""Special values of sigmoid, logsigmoid and softplus."""

from __future__ import annotations

from functools import partial
from math import inf, nan

from equivalences.findings.model import Gives, SpecialValue
from equivalences.findings.special_values.softmax import DOCS

_sigmoid = partial(SpecialValue, "sigmoid", call="torch.sigmoid(z)", source=DOCS + "torch.nn.Sigmoid.html")
_logsigmoid = partial(SpecialValue, "logsigmoid", call="F.logsigmoid(z)", source=DOCS + "torch.nn.LogSigmoid.html")
_softplus = partial(SpecialValue, "softplus", call="F.softplus(z)", source=DOCS + "torch.nn.Softplus.html")

TABLE = (
    _sigmoid("+inf", items={"z": [inf]}, outcome=Gives([1], [0]), why="limit"),
    _sigmoid("-inf", items={"z": [-inf]}, outcome=Gives([0], [0]), why="limit"),
    _sigmoid("nan", items={"z": [nan]}, outcome=Gives([nan], [nan]), why="nan is passed on"),
    _sigmoid("nothing", items={"z": []}, outcome=Gives([], []), why="nothing to compute"),
    _sigmoid(
        "integers",
        items={"z": [0]},
        outcome=Gives([0.5], dtype="float32"),
        why="integers become the default format",
        formats=("float32",),
    ),
    _logsigmoid("+inf", items={"z": [inf]}, outcome=Gives([0], [0]), why="limit"),
    _logsigmoid("-inf", items={"z": [-inf]}, outcome=Gives([-inf], [1]), why="limit"),
    _logsigmoid("nan", items={"z": [nan]}, outcome=Gives([nan], [nan]), why="nan is passed on"),
    _logsigmoid("nothing", items={"z": []}, outcome=Gives([], []), why="nothing to compute"),
    _softplus("+inf", items={"z": [inf]}, outcome=Gives([inf], [1]), why="limit"),
    _softplus("-inf", items={"z": [-inf]}, outcome=Gives([0], [0]), why="limit"),
    _softplus("nan", items={"z": [nan]}, outcome=Gives([nan], [nan]), why="nan is passed on"),
    _softplus("nothing", items={"z": []}, outcome=Gives([], []), why="nothing to compute"),
)
