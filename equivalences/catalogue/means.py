"""Means that are not the mean: over weights, over pairs that broadcasting makes, over batches of unequal size."""

from __future__ import annotations

from typing import Any

import numpy as np

from equivalences.catalogue.cross_entropy import loss
from equivalences.catalogue.pitfalls import BINARY, FLAT, bce, hinges
from equivalences.model import Differs, Form, Identity, Pitfall, Problem, Raises
from equivalences.oracle import exact
from equivalences.problems.classes import classes

MEAN = classes(labels=True, out="", reduction=("mean",), layouts=FLAT)
WEIGHTED = classes(labels=True, weight=True, out="", reduction=("mean",), layouts=FLAT)

# --- weights -----------------------------------------------------------------------------------------------------

weighted_mean_by_index = Identity(
    name="weighted_mean_by_index",
    statement=r"\sum_n w_{y_n} \ell_n / \sum_n w_{y_n}",
    source="torch.nn.CrossEntropyLoss documentation, class indices, reduction mean",
    domain=WEIGHTED,
    spec=loss,
    out="",
    forms=(Form("F.cross_entropy(z, y, weight)"), Form("nn.CrossEntropyLoss(weight)(z, y)")),
)

weighted_mean_by_one_hot = Identity(
    name="weighted_mean_by_one_hot",
    statement=r"\sum_n w_{y_n} \ell_n / N",
    source="torch.nn.CrossEntropyLoss documentation, class probabilities, reduction mean; #107680",
    domain=WEIGHTED,
    spec=lambda p: exact.mean([-p.weight[y] * exact.log_softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)]),
    out="",
    forms=(
        Form("F.cross_entropy(z, F.one_hot(y, z.shape[1]).to(z.dtype), weight)"),
        Form("F.cross_entropy(z, y, weight, reduction='sum') / len(z)"),
        Form("F.cross_entropy(z, y, weight, reduction='none').mean()"),
    ),
)

weighted_mean_of_one_hot_targets = Pitfall(
    name="weighted_mean_of_one_hot_targets",
    statement="with class weights, the mean divides by the total weight for index targets and by N for one-hot ones",
    source="#107680",
    of=weighted_mean_by_index,
    mistake=weighted_mean_by_one_hot.forms[0],
    outcome=Differs(),
    when=lambda problem: float(problem["weight"][problem["y"]].sum()) != len(problem["y"]),
    relations=(weighted_mean_by_one_hot,),
)

# --- pairs -------------------------------------------------------------------------------------------------------

broadcast_loss = Identity(
    name="broadcast_loss",
    statement=r"\frac{1}{N^2} \sum_{n,m} \mathrm{softplus}(z_n) - t_m z_n = \mathrm{bce}(z, \bar t)",
    source="broadcasting semantics of torch: (n, 1) with (n,) is (n, n)",
    domain=BINARY,
    spec=lambda p: exact.mean([h - exact.mean(p.t) * z for h, z in zip(hinges(p)[0], p.z, strict=True)]),
    out="",
    forms=(
        Form("(F.softplus(z) - t.mean() * z).mean()"),
        Form("F.binary_cross_entropy_with_logits(z, t.mean().expand(z.shape))"),
        Form(
            "s = torch.sigmoid(z)[:, None]\n-(t * torch.log(s) + (1 - t) * torch.log(1 - s)).mean()",
            regions=("core", "wide"),
        ),
    ),
)


loss_of_column_and_row = Pitfall(
    name="loss_of_column_and_row",
    statement="a manual loss of (n, 1) outputs and (n,) targets broadcasts to (n, n): all rows get the mean label",
    source="dl2025 week 5, section 6 (targets are reshaped to (n, 1) there)",
    of=bce,
    mistake=broadcast_loss.forms[2],
    outcome=Differs(),
    when=lambda problem: len(set(problem["t"].tolist())) > 1,
    relations=(broadcast_loss,),
)

loss_function_of_column_and_row = Pitfall(
    name="loss_function_of_column_and_row",
    statement="BCEWithLogitsLoss refuses (n, 1) outputs with (n,) targets, where a manual loss broadcasts",
    source="torch.nn.BCEWithLogitsLoss documentation (target: same shape as the input)",
    of=bce,
    mistake=Form("F.binary_cross_entropy_with_logits(z[:, None], t)"),
    outcome=Raises(ValueError, "must be the same (size )?as (the )?input"),
)


def _positive(p: Any) -> list[int]:
    return [exact.argmax([0, z]) for z in p.z]


def _labels(p: Any) -> list[int]:
    return [exact.argmax([0, t]) for t in p.t]


accuracy = Identity(
    name="accuracy",
    statement=r"\frac{1}{N} \sum_n [\,[z_n > 0] = t_n]",
    source="dl2025 week 5, section 6A",
    domain=BINARY,
    spec=lambda p: exact.mean([int(s == int(t)) for s, t in zip(_positive(p), _labels(p), strict=True)]),
    out="",
    wrt=(),
    forms=(
        Form("((z > 0) == t).to(z.dtype).mean()"),
        Form("((torch.sigmoid(z) > 0.5) == t).to(z.dtype).mean()", regions=("core", "wide")),
    ),
)

broadcast_accuracy = Identity(
    name="broadcast_accuracy",
    statement=r"p q + (1 - p)(1 - q), \quad p = \text{share predicted positive}, q = \text{share labelled positive}",
    source="broadcasting semantics of torch: (n, 1) with (n,) is (n, n)",
    domain=BINARY,
    spec=lambda p: (lambda a, b: (a * b + (len(p.t) - a) * (len(p.t) - b)) / (exact.total([1]) * len(p.t) ** 2))(
        sum(_positive(p)), sum(_labels(p))
    ),
    out="",
    wrt=(),
    forms=(Form("((z > 0)[:, None] == t).to(z.dtype).mean()"),),
)


def _hits(problem: Problem) -> tuple[float, float]:
    """The accuracy, and what broadcasting makes of it."""
    said, true = problem["z"] > 0, problem["t"] > 0
    return float((said == true).mean()), float((said[:, None] == true).mean())


accuracy_of_column_and_row = Pitfall(
    name="accuracy_of_column_and_row",
    statement="comparing (n, 1) predictions with (n,) labels counts all n^2 pairs: the accuracy of independent guesses",
    source="dl2025 week 5, In [182] (argmax of shape (n,) against yy of shape (n, 1))",
    of=accuracy,
    mistake=broadcast_accuracy.forms[0],
    outcome=Differs(),
    when=lambda problem: np.subtract(*_hits(problem)) != 0,
    relations=(broadcast_accuracy,),
)

# --- batches -----------------------------------------------------------------------------------------------------

mean_of_batch_means = Identity(
    name="mean_of_batch_means",
    statement=r"\frac{1}{B} \sum_b \frac{1}{n_b} \sum_{n \in b} \ell_n",
    source="adam notebook, cell 114 (running_loss / len(train_loader))",
    domain=MEAN,
    spec=lambda p: (lambda rows: exact.mean([exact.mean(rows[i : i + 4]) for i in range(0, len(rows), 4)]))(
        [-exact.log_softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)]
    ),
    out="",
    forms=(
        Form("torch.stack([F.cross_entropy(a, b) for a, b in zip(z.split(4), y.split(4))]).mean()"),
        Form("sum(F.cross_entropy(a, b) for a, b in zip(z.split(4), y.split(4))) / -(-len(z) // 4)"),
    ),
)

mean_of_rows = Identity(
    name="mean_of_rows",
    statement=r"\frac{1}{N} \sum_b n_b \bar\ell_b = \frac{1}{N} \sum_n \ell_n",
    source="torch.nn.CrossEntropyLoss documentation, reduction mean",
    domain=MEAN,
    spec=loss,
    out="",
    forms=(
        Form("F.cross_entropy(z, y)"),
        Form("sum(F.cross_entropy(a, b) * len(b) for a, b in zip(z.split(4), y.split(4))) / len(z)"),
        Form("sum(F.cross_entropy(a, b, reduction='sum') for a, b in zip(z.split(4), y.split(4))) / len(z)"),
    ),
)

uneven_last_batch = Pitfall(
    name="uneven_last_batch",
    statement="the mean of batch means is not the mean where the last batch is smaller (12,665 = 791 x 16 + 9 rows)",
    source="adam notebook, cell 114; dl2025 week 5, section 6D (12,665 rows in batches of 16)",
    of=mean_of_rows,
    mistake=mean_of_batch_means.forms[0],
    outcome=Differs(),
    when=lambda problem: len(problem["y"]) > 4 and len(problem["y"]) % 4 != 0 and problem["z"].shape[1] > 1,
    relations=(mean_of_batch_means, mean_of_rows),
)
