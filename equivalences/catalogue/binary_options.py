"""Binary cross entropy with its options: reductions, weights, positive weights, many labels a row."""

from __future__ import annotations

from collections.abc import Iterable
from types import SimpleNamespace

import numpy as np

from equivalences.catalogue.binary import BCE, LAYOUTS, log_loss, log_losses
from equivalences.model import Domain, Form, Identity
from equivalences.oracle import exact
from equivalences.oracle.exact import Number
from equivalences.problems.classes import classes
from equivalences.problems.derived import derived
from equivalences.problems.scalars import scalars

REDUCTIONS = ("mean", "sum")
# One row without a bound leaves a total without one: what a naive form can still claim in every format.
MILD = ("zero", "core")


def weighted(p: SimpleNamespace) -> list[Number]:
    return [w * loss for w, loss in zip(p.weight, log_losses(p), strict=True)]


def positively_weighted(p: SimpleNamespace) -> list[Number]:
    return [log_loss(z, t, p.pos_weight) for z, t in zip(p.z, p.t, strict=True)]


def reduced(p: SimpleNamespace, losses: Iterable[Number]) -> Number:
    """The mean or the sum, as the problem asks."""
    total = exact.total_of_rows(p, losses)
    return total / exact.rows_of(p, p.z) if p.reduction == "mean" else total


def multi_hot(base: Domain) -> Domain:
    """Rows of several labels: probabilities as they are, or 1 for every one that is not 0."""
    return derived(
        base,
        f"multi_hot({base.name})",
        base.axes,
        lambda problem, pick: {**problem.items, "p": pick(problem["p"], np.ceil(problem["p"]))},
        base.layouts,
    )


binary_cross_entropy_reduced = Identity(
    name="binary_cross_entropy_reduced",
    statement=r"\frac{1}{N} \sum_i \mathrm{BCE}(z_i, t_i) \text{ or } \sum_i \mathrm{BCE}(z_i, t_i)",
    source=BCE,
    domain=scalars(target="soft", reduction=REDUCTIONS, out="", layouts=LAYOUTS),
    spec=lambda p: reduced(p, log_losses(p)),
    out="",
    wrt=("z", "t"),
    forms=(
        Form("getattr(torch, reduction)(-(t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)))"),
        Form("F.binary_cross_entropy_with_logits(z, t, reduction=reduction)"),
        Form("nn.BCEWithLogitsLoss(reduction=reduction)(z, t)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, reduction=reduction)", regions=MILD),
        Form("nn.BCELoss(reduction=reduction)(torch.sigmoid(z), t)", regions=MILD),
        Form("getattr(torch, reduction)(F.binary_cross_entropy_with_logits(z, t, reduction='none'))"),
        Form("getattr(torch, reduction)(F.softplus(z) - t * z)"),
        Form(
            "s = torch.sigmoid(z)\ngetattr(torch, reduction)(-(t * torch.log(s) + (1 - t) * torch.log(1 - s)))",
            regions=MILD,
        ),
    ),
)

soft_margin_loss_reduced = Identity(
    name="soft_margin_loss_reduced",
    statement=r"\frac{1}{N} \sum_i \log(1 + e^{-y_i z_i}) \text{ or the sum}",
    source="torch.nn.SoftMarginLoss documentation",
    domain=scalars(target="sign", reduction=REDUCTIONS, out="", layouts=LAYOUTS),
    spec=lambda p: reduced(p, [exact.softplus(-t * z) for z, t in zip(p.z, p.t, strict=True)]),
    out="",
    forms=(
        Form("getattr(torch, reduction)(-F.logsigmoid(t * z))"),
        Form("F.soft_margin_loss(z, t, reduction=reduction)", regions=MILD),
        Form("nn.SoftMarginLoss(reduction=reduction)(z, t)", regions=MILD),
        Form("F.binary_cross_entropy_with_logits(z, (t + 1) / 2, reduction=reduction)"),
    ),
)

binary_cross_entropy_weighted = Identity(
    name="binary_cross_entropy_weighted",
    statement=r"\mathrm{BCE}_w(z, t)_i = w_i\, \mathrm{BCE}(z_i, t_i)",
    source="torch.nn.BCEWithLogitsLoss documentation, weight",
    domain=scalars(target="soft", weight=True, layouts=LAYOUTS),
    spec=weighted,
    wrt=("z", "t"),
    forms=(
        Form("-weight * (t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, t, weight, reduction='none')"),
        Form("nn.BCEWithLogitsLoss(weight, reduction='none')(z, t)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, weight, reduction='none')"),
        Form("nn.BCELoss(weight, reduction='none')(torch.sigmoid(z), t)"),
        Form("weight * F.binary_cross_entropy_with_logits(z, t, reduction='none')"),
    ),
)

binary_cross_entropy_weighted_reduced = Identity(
    name="binary_cross_entropy_weighted_reduced",
    statement=r"\frac{1}{N} \sum_i w_i\, \mathrm{BCE}(z_i, t_i) \text{ (not by } \sum w_i\text{) or the sum}",
    source="torch.nn.BCEWithLogitsLoss documentation, weight and reduction",
    domain=scalars(target="soft", weight=True, reduction=REDUCTIONS, out="", layouts=LAYOUTS),
    spec=lambda p: reduced(p, weighted(p)),
    out="",
    wrt=("z", "t"),
    forms=(
        Form("getattr(torch, reduction)(-weight * (t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)))"),
        Form("F.binary_cross_entropy_with_logits(z, t, weight, reduction=reduction)"),
        Form("nn.BCEWithLogitsLoss(weight, reduction=reduction)(z, t)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, weight, reduction=reduction)", regions=MILD),
        Form(
            "getattr(torch, reduction)(weight * F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none'))",
            regions=MILD,
        ),
    ),
)

binary_cross_entropy_pos_weight = Identity(
    name="binary_cross_entropy_pos_weight",
    statement=r"\mathrm{BCE}(z, t; w) = -\left(w\, t \log\sigma(z) + (1-t) \log(1-\sigma(z))\right)",
    source="torch.nn.BCEWithLogitsLoss documentation, pos_weight",
    domain=scalars(target="soft", pos_weight=True, layouts=LAYOUTS),
    spec=positively_weighted,
    wrt=("z", "t"),
    forms=(
        Form("-(pos_weight * t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, t, pos_weight=pos_weight, reduction='none')"),
        Form("nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction='none')(z, t)"),
        Form("pos_weight * t * F.softplus(-z) + (1 - t) * F.softplus(z)"),
        Form("(1 - t) * z - (1 + (pos_weight - 1) * t) * F.logsigmoid(z)"),
    ),
)

binary_cross_entropy_pos_weight_reduced = Identity(
    name="binary_cross_entropy_pos_weight_reduced",
    statement=r"\frac{1}{N} \sum_i w^{y_i}\, \mathrm{BCE}(z_i, y_i) \text{ or the sum, for hard labels}",
    source="torch.nn.BCEWithLogitsLoss documentation, pos_weight",
    domain=scalars(target="index", pos_weight=True, reduction=REDUCTIONS, out="", layouts=LAYOUTS),
    spec=lambda p: reduced(p, positively_weighted(p)),
    out="",
    forms=(
        Form("getattr(torch, reduction)(-torch.where(t > 0, pos_weight * F.logsigmoid(z), F.logsigmoid(-z)))"),
        Form("F.binary_cross_entropy_with_logits(z, t, pos_weight=pos_weight, reduction=reduction)"),
        Form("nn.BCEWithLogitsLoss(pos_weight=pos_weight, reduction=reduction)(z, t)"),
        Form("F.binary_cross_entropy_with_logits(z, t, torch.where(t > 0, pos_weight, 1), reduction=reduction)"),
        Form(
            "w = torch.where(t > 0, pos_weight, 1)\n"
            "F.binary_cross_entropy(torch.sigmoid(z), t, w, reduction=reduction)",
            regions=MILD,
        ),
    ),
)


def weighted_both(p: SimpleNamespace) -> list[Number]:
    return [w * loss for w, loss in zip(p.weight, positively_weighted(p), strict=True)]


binary_cross_entropy_options = Identity(
    name="binary_cross_entropy_options",
    statement=r"-v_i \left(w\, t_i \log\sigma(z_i) + (1-t_i) \log(1-\sigma(z_i))\right)",
    source="torch.nn.BCEWithLogitsLoss documentation, weight and pos_weight",
    domain=scalars(target="soft", weight=True, pos_weight=True, layouts=LAYOUTS),
    spec=weighted_both,
    wrt=("z", "t"),
    forms=(
        Form("-weight * (pos_weight * t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, t, weight, pos_weight=pos_weight, reduction='none')"),
        Form("nn.BCEWithLogitsLoss(weight, pos_weight=pos_weight, reduction='none')(z, t)"),
        Form("weight * F.binary_cross_entropy_with_logits(z, t, pos_weight=pos_weight, reduction='none')"),
    ),
)

binary_cross_entropy_options_reduced = Identity(
    name="binary_cross_entropy_options_reduced",
    statement=r"\frac{1}{N} \sum_i v_i\, \mathrm{BCE}(z_i, t_i; w) \text{ or the sum}",
    source="torch.nn.BCEWithLogitsLoss documentation, weight, pos_weight and reduction",
    domain=scalars(target="soft", weight=True, pos_weight=True, reduction=REDUCTIONS, out="", layouts=LAYOUTS),
    spec=lambda p: reduced(p, weighted_both(p)),
    out="",
    wrt=("z", "t"),
    forms=(
        Form("getattr(torch, reduction)(-weight * (pos_weight * t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)))"),
        Form("F.binary_cross_entropy_with_logits(z, t, weight, pos_weight=pos_weight, reduction=reduction)"),
        Form("nn.BCEWithLogitsLoss(weight, pos_weight=pos_weight, reduction=reduction)(z, t)"),
    ),
)

pos_weight_repeats_positives = Identity(
    name="pos_weight_repeats_positives",
    statement=r"\sum_i \mathrm{BCE}(z_i, y_i; 3) = \text{the sum with every positive three times}",
    source="torch.nn.BCEWithLogitsLoss documentation, pos_weight (300 negatives, 100 positives: pos_weight 3)",
    domain=scalars(target="index", out="", layouts=("contiguous", "strided")),
    spec=lambda p: exact.total((1 + 2 * t) * log_loss(z, t) for z, t in zip(p.z, p.t, strict=True)),
    out="",
    forms=(
        Form("torch.where(t > 0, -3 * F.logsigmoid(z), -F.logsigmoid(-z)).sum()"),
        Form(
            "w = torch.tensor(3.0, dtype=z.dtype, device=z.device)\n"
            "F.binary_cross_entropy_with_logits(z, t, pos_weight=w, reduction='sum')"
        ),
        Form(
            "i = torch.arange(len(z), device=z.device).repeat_interleave(1 + 2 * t.long())\n"
            "F.binary_cross_entropy_with_logits(z[i], t[i], reduction='sum')"
        ),
        Form(
            "x, y = torch.cat((z, z[t > 0], z[t > 0])), torch.cat((t, t[t > 0], t[t > 0]))\n"
            "F.binary_cross_entropy_with_logits(x, y, reduction='sum')"
        ),
    ),
)

multilabel_soft_margin_loss = Identity(
    name="multilabel_soft_margin_loss",
    statement=r"\frac{1}{C} \sum_c \mathrm{BCE}(z_c, t_c)",
    source="torch.nn.MultiLabelSoftMarginLoss documentation",
    domain=multi_hot(classes(soft=True, layouts=("contiguous", "strided", "transposed", "unbatched"))),
    spec=lambda p: [exact.mean(map(log_loss, row, target)) for row, target in zip(p.z, p.p, strict=True)],
    wrt=("z", "p"),
    forms=(
        Form("-(p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z)).mean(dim)"),
        Form("F.multilabel_soft_margin_loss(z, p, reduction='none')"),
        Form("nn.MultiLabelSoftMarginLoss(reduction='none')(z, p)"),
        Form("F.binary_cross_entropy_with_logits(z, p, reduction='none').mean(dim)"),
        Form(
            "F.binary_cross_entropy(torch.sigmoid(z), p, reduction='none').mean(dim)",
            regions=("single", "offset", "tie", "saturated", "wide", "core"),
        ),
        Form("(F.softplus(z) - p * z).mean(dim)"),
    ),
)

multilabel_reduced = Identity(
    name="multilabel_reduced",
    statement=r"\frac{1}{N C} \sum_{ic} \mathrm{BCE}(z_{ic}, t_{ic}) \text{ (over all numbers, not rows) or the sum}",
    source="torch.nn.BCEWithLogitsLoss documentation, reduction (a multi-label batch)",
    domain=multi_hot(
        classes(soft=True, reduction=REDUCTIONS, out="", layouts=("contiguous", "strided", "transposed", "offset"))
    ),
    spec=lambda p: (
        reduced(p, [exact.total(map(log_loss, row, target)) for row, target in zip(p.z, p.p, strict=True)])
        / (len(p.z[0]) if p.reduction == "mean" else 1)
    ),
    out="",
    wrt=("z", "p"),
    forms=(
        Form("getattr(torch, reduction)(-(p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z)))"),
        Form("F.binary_cross_entropy_with_logits(z, p, reduction=reduction)"),
        Form("nn.BCEWithLogitsLoss(reduction=reduction)(z, p)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), p, reduction=reduction)", regions=("tie", "core")),
        Form(
            "getattr(F.binary_cross_entropy_with_logits(z, p, reduction='none').sum(dim), reduction)()"
            " / (z.shape[dim] if reduction == 'mean' else 1)",
            label="of rows",
        ),
    ),
)

multilabel_pos_weight = Identity(
    name="multilabel_pos_weight",
    statement=r"\mathrm{BCE}(z_{ic}, t_{ic}; w_c): \text{ one positive weight a class}",
    source="torch.nn.BCEWithLogitsLoss documentation, pos_weight (a multi-label batch)",
    domain=multi_hot(classes(soft=True, weight=True, out="RC", layouts=("contiguous", "strided", "transposed"))),
    spec=lambda p: [list(map(log_loss, row, target, p.weight)) for row, target in zip(p.z, p.p, strict=True)],
    out="RC",
    wrt=("z", "p"),
    forms=(
        Form("-(weight * p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, p, pos_weight=weight, reduction='none')"),
        Form("nn.BCEWithLogitsLoss(pos_weight=weight, reduction='none')(z, p)"),
    ),
)

multilabel_weight = Identity(
    name="multilabel_weight",
    statement=r"w_c\, \mathrm{BCE}(z_{ic}, t_{ic}): \text{ one weight a class, the same for every row}",
    source="torch.nn.BCEWithLogitsLoss documentation, weight (broadcast over the batch)",
    domain=multi_hot(classes(soft=True, weight=True, out="RC", layouts=("contiguous", "strided", "transposed"))),
    spec=lambda p: [
        [w * log_loss(z, t) for z, t, w in zip(row, target, p.weight, strict=True)]
        for row, target in zip(p.z, p.p, strict=True)
    ],
    out="RC",
    wrt=("z", "p"),
    forms=(
        Form("-weight * (p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, p, weight, reduction='none')"),
        Form("nn.BCEWithLogitsLoss(weight, reduction='none')(z, p)"),
        Form("F.binary_cross_entropy_with_logits(z, p, weight.expand_as(z), reduction='none')"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), p, weight, reduction='none')"),
    ),
)
