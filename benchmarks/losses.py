"""The formulations of the loss, by name: the expression that is timed is the one that the gate judges."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.catalogue.binary_options import binary_cross_entropy_reduced
from equivalences.catalogue.cross_entropy import cross_entropy_reduced
from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.judging.judge import Measurement
from equivalences.model import Form, Identity, Problem
from equivalences.running.forms import function

Target = Literal["binary", "index", "probability"]


@dataclass(frozen=True, eq=False)
class Loss:
    """A mean loss of logits: an expression in z and its target t (0 or 1), y (class index) or p (one-hot rows)."""

    name: str
    target: Target
    code: str
    source: str

    @property
    def columns(self) -> int:
        """Logits a row of the two-class network: one, or one for each class."""
        return 1 if self.target == "binary" else 2

    @property
    def item(self) -> str:
        return {"binary": "t", "index": "y", "probability": "p"}[self.target]

    @property
    def identity(self) -> Identity:
        """What the gate holds the expression to."""
        return binary_cross_entropy_reduced if self.target == "binary" else cross_entropy_reduced

    def function(self) -> Callable[[Tensor, Tensor], Tensor]:
        """The loss as a function of logits and target."""
        made = function(Form(self.code, label=self.name), ("z", self.item))
        item = self.item
        return lambda z, target: made(**{"z": z, item: target})

    def prepared(self, labels: Tensor, classes: int) -> Tensor:
        """Class labels in the shape and type that the expression takes, ready before any clock runs."""
        if self.target == "binary":
            return labels.float().reshape(-1, 1)
        return labels if self.target == "index" else F.one_hot(labels, classes).float()


WEEK5, CHAPTER7, NOTEBOOK = "DL2025 week 5", "chapter 7.2", "softmax and cross-entropy notebook"

LOSSES = {
    loss.name: loss
    for loss in (
        Loss("sigmoid+BCELoss", "binary", "F.binary_cross_entropy(torch.sigmoid(z), t)", f"{WEEK5}, 6.A"),
        Loss("BCEWithLogitsLoss", "binary", "F.binary_cross_entropy_with_logits(z, t)", f"{WEEK5}, 5.B"),
        Loss("logsigmoid", "binary", "-(t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)).mean()", f"{WEEK5}, 5.C"),
        Loss(
            "manual-sigmoid+BCELoss",
            "binary",
            "F.binary_cross_entropy(torch.exp(z) / (1 + torch.exp(z)), t)",
            f"{WEEK5}, 5.A",
        ),
        Loss("CrossEntropyLoss", "index", "F.cross_entropy(z, y)", f"{WEEK5}, 5.E; Adam notebook"),
        Loss("CrossEntropyLoss-one-hot", "probability", "F.cross_entropy(z, p)", f"{WEEK5}, 5.D"),
        Loss("LogSoftmax+NLLLoss", "index", "F.nll_loss(F.log_softmax(z, 1), y)", f"{CHAPTER7}.6"),
        Loss(
            "manual-softmax", "probability", "-(p * torch.log(F.softmax(z, 1))).sum(1).mean()", f"{NOTEBOOK}, In [12]"
        ),
    )
}


def judged(loss: Loss, logits: Tensor, target: Tensor) -> dict[str, float]:
    """Holds the loss, on these very rows, to the gate: value and gradient within the allowance of its arithmetic.

    Takes (n, columns) logits and the prepared target, few enough rows for exact arithmetic.  Returns the largest
    error/allowance and error/contract (the contract is the stable reference's allowance).  Raises AssertionError.
    """
    z = logits.detach().double().cpu().numpy()
    fmt = next(name for name, known in FORMATS.items() if known.dtype is logits.dtype)
    items: dict[str, Any] = {"z": z[:, 0] if loss.target == "binary" else z}
    if loss.target == "binary":
        items["t"] = target.double().cpu().numpy()[:, 0]
    else:
        y = target if loss.target == "index" else target.argmax(1)
        items["y"] = y.cpu().numpy()
    problem = Problem(fmt, items | {"reduction": "mean", "g": np.array(1.0)})
    prelude = "p = F.one_hot(y, z.shape[1]).to(z.dtype)\n" if loss.target == "probability" else ""
    form = Form(prelude + loss.code, label=loss.name)
    found = {"error/allowance": 0.0, "error/contract": 0.0}
    for met in judge.measure(loss.identity, form, problem, device=logits.device.type):
        assert isinstance(met, Measurement), f"{loss.name} raised {met.error!r}"
        assert not met.failed, f"{loss.name}: {met.quantity} is outside its allowance"
        assert bool(np.isfinite(met.own.bound).all()), f"{loss.name}: no allowance here: the logits leave its domain"
        contract = met.contract_ratio
        found["error/allowance"] = max(found["error/allowance"], float(np.nan_to_num(met.ratio).max()))
        found["error/contract"] = max(found["error/contract"], float(contract.max()))
    return found


def half_of_the_digits(dtype: torch.dtype) -> float:
    """The relative difference at which half of a format's digits are lost: what long computations are held to."""
    return float(next(known.u for known in FORMATS.values() if known.dtype is dtype) ** 0.5)


def exact_mean(logits: Tensor, labels: Tensor) -> float:
    """The mean loss in float64, by the stable formula: one column against 0, or a column a class."""
    z = logits.detach().double()
    if z.shape[1] == 1:
        return float(F.softplus((1 - 2 * labels.double()) * z[:, 0]).mean())
    return float((torch.logsumexp(z, 1) - z.gather(1, labels[:, None])[:, 0]).mean())
