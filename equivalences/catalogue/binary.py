"""Binary cross entropy: from logits, from probabilities, from two columns; weights, soft labels, reductions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import SimpleNamespace
from typing import Any

from equivalences import exact
from equivalences.exact import Number
from equivalences.model import Differs, Form, Identity, Pitfall, Problem
from equivalences.problems import classes, pairs, scalars

LAYOUTS = ("contiguous", "strided", "unbatched")
LOGITS = scalars(layouts=LAYOUTS)
HARD = scalars(target="index", layouts=LAYOUTS)
SOFT = scalars(target="soft", layouts=LAYOUTS)
SIGNED = scalars(target="sign", layouts=LAYOUTS)
REDUCTIONS = ("mean", "sum")

# Where sigmoid(z) and 1 - sigmoid(z) are both far enough from zero for their logarithms.
MODERATE = ("wide", "zero", "core")
# Where no exponential of a logit overflows.
FINITE = ("tail", "saturated", "wide", "zero", "core")

BCE = "torch.nn.BCELoss documentation; dl2025 week 5, closing example 1 (three ways)"


def log_loss(z: Number, t: Any) -> Number:
    """-(t log sigmoid(z) + (1 - t) log(1 - sigmoid(z)))."""
    return -(t * exact.logsigmoid(z) + (1 - t) * exact.logsigmoid(-z))


def log_losses(p: SimpleNamespace) -> list[Number]:
    return [log_loss(z, t) for z, t in zip(p.z, p.t, strict=True)]


def weighted(p: SimpleNamespace) -> list[Number]:
    return [w * loss for w, loss in zip(p.weight, log_losses(p), strict=True)]


def positively_weighted(p: SimpleNamespace) -> list[Number]:
    return [
        -(p.pos_weight * t * exact.logsigmoid(z) + (1 - t) * exact.logsigmoid(-z))
        for z, t in zip(p.z, p.t, strict=True)
    ]


def reduced(p: SimpleNamespace, losses: Iterable[Number]) -> Number:
    """The mean or the sum, as the problem asks."""
    return exact.mean(losses) if p.reduction == "mean" else exact.total(losses)


# --- hard labels -------------------------------------------------------------------------------------------------

binary_cross_entropy = Identity(
    name="binary_cross_entropy",
    statement=r"-\left(y \log\sigma(z) + (1-y)\log(1-\sigma(z))\right) = \mathrm{softplus}(z) - yz = -\log\sigma(\pm z)",
    source=BCE,
    domain=HARD,
    spec=log_losses,
    forms=(
        Form("torch.where(t > 0, -F.logsigmoid(z), -F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, t, reduction='none')"),
        Form("nn.BCEWithLogitsLoss(reduction='none')(z, t)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')"),
        Form("nn.BCELoss(reduction='none')(nn.Sigmoid()(z), t)"),
        Form(
            "F.binary_cross_entropy(torch.exp(z) / (1 + torch.exp(z)), t, reduction='none')",
            regions=FINITE,
        ),
        Form("s = torch.sigmoid(z)\n-(t * torch.log(s) + (1 - t) * torch.log(1 - s))", regions=MODERATE),
        Form("s = torch.sigmoid(z)\n-torch.log(torch.where(t > 0, s, 1 - s))", regions=("saturated", *MODERATE)),
        Form("-torch.log(torch.sigmoid((2 * t - 1) * z))"),
        Form("F.softplus(z) - t * z"),
        Form("F.softplus((1 - 2 * t) * z)"),
        Form("torch.logaddexp(torch.zeros_like(z), z) - t * z"),
        Form("-F.logsigmoid((2 * t - 1) * z)"),
        Form("z - t * z - F.logsigmoid(z)"),
        Form("F.soft_margin_loss(z, 2 * t - 1, reduction='none')"),
        Form("-torch.distributions.Bernoulli(logits=z).log_prob(t)"),
        Form("-torch.distributions.Bernoulli(probs=torch.sigmoid(z)).log_prob(t)", regions=MODERATE),
        Form("F.cross_entropy(torch.stack((torch.zeros_like(z), z), -1), t.long(), reduction='none')"),
        Form("F.cross_entropy(torch.stack((-z / 2, z / 2), -1), t.long(), reduction='none')"),
        Form(
            "s = torch.sigmoid(z)\n"
            "F.nll_loss(torch.log(torch.stack((1 - s, s), -1)), t.long(), reduction='none')",
            regions=MODERATE,
        ),
    ),
)

binary_cross_entropy_symmetry = Identity(
    name="binary_cross_entropy_symmetry",
    statement=r"L(z, 1) = L(-z, 0) = -\log\sigma(z)",
    source="pytorch/pytorch#195529",
    domain=LOGITS,
    spec=lambda p: [-exact.logsigmoid(z) for z in p.z],
    forms=(
        Form("-F.logsigmoid(z)"),
        Form("F.binary_cross_entropy_with_logits(z, torch.ones_like(z), reduction='none')"),
        Form("F.binary_cross_entropy_with_logits(-z, torch.zeros_like(z), reduction='none')"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), torch.ones_like(z), reduction='none')"),
        Form("F.binary_cross_entropy(torch.sigmoid(-z), torch.zeros_like(z), reduction='none')"),
        Form("F.soft_margin_loss(z, torch.ones_like(z), reduction='none')"),
        Form("F.soft_margin_loss(-z, -torch.ones_like(z), reduction='none')"),
        Form("F.softplus(-z)"),
    ),
)

binary_cross_entropy_gradient = Identity(
    name="binary_cross_entropy_gradient",
    statement=r"\partial L / \partial z = \sigma(z) - y = (1 - 2y)\,\sigma((1 - 2y) z)",
    source="Goodfellow, Bengio & Courville, Deep Learning, 6.2.2.2",
    domain=HARD,
    spec=lambda p: [g * (exact.sigmoid(z) - t) for z, t, g in zip(p.z, p.t, p.g, strict=True)],
    wrt=(),
    forms=(
        Form("torch.where(t > 0, -torch.sigmoid(-z), torch.sigmoid(z)) * g"),
        Form("(torch.sigmoid(z) - t) * g"),
        Form("(1 - 2 * t) * torch.sigmoid((1 - 2 * t) * z) * g"),
        Form(
            "z = z.detach().requires_grad_()\n"
            "torch.autograd.grad(F.binary_cross_entropy_with_logits(z, t, reduction='none'), z, g)[0]"
        ),
        Form("torch.func.vjp(lambda x: F.binary_cross_entropy(torch.sigmoid(x), t, reduction='none'), z)[1](g)[0]"),
        Form("torch.func.vjp(lambda x: -F.logsigmoid((2 * t - 1) * x), z)[1](g)[0]"),
        Form("torch.func.vjp(lambda x: F.softplus(x) - t * x, z)[1](g)[0]"),
    ),
)

soft_margin_loss = Identity(
    name="soft_margin_loss",
    statement=r"\log(1 + e^{-yz}) = \mathrm{BCE}(z, (y + 1) / 2), \quad y \in \{-1, 1\}",
    source="torch.nn.SoftMarginLoss documentation",
    domain=SIGNED,
    spec=lambda p: [exact.softplus(-t * z) for z, t in zip(p.z, p.t, strict=True)],
    forms=(
        Form("-F.logsigmoid(t * z)"),
        Form("F.soft_margin_loss(z, t, reduction='none')"),
        Form("nn.SoftMarginLoss(reduction='none')(z, t)"),
        Form("F.softplus(-t * z)"),
        Form("torch.log1p(torch.exp(-t * z))"),
        Form("torch.log(1 + torch.exp(-t * z))"),
        Form("F.binary_cross_entropy_with_logits(z, (t + 1) / 2, reduction='none')"),
    ),
)

# --- soft labels -------------------------------------------------------------------------------------------------

binary_cross_entropy_soft = Identity(
    name="binary_cross_entropy_soft",
    statement=r"\mathrm{BCE}(z, t) = t L(z, 1) + (1-t) L(z, 0), \quad t \in [0, 1]",
    source=BCE,
    domain=SOFT,
    spec=log_losses,
    forms=(
        Form("-(t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, t, reduction='none')"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')"),
        Form("s = torch.sigmoid(z)\n-(t * torch.log(s) + (1 - t) * torch.log(1 - s))", regions=MODERATE),
        Form("F.softplus(z) - t * z"),
        Form(
            "L = F.binary_cross_entropy_with_logits\n"
            "t * L(z, torch.ones_like(z), reduction='none') + (1 - t) * L(z, torch.zeros_like(z), reduction='none')"
        ),
        Form("-torch.distributions.Bernoulli(logits=z, validate_args=False).log_prob(t)"),
        Form(
            "x, p = torch.stack((torch.zeros_like(z), z), -1), torch.stack((1 - t, t), -1)\n"
            "F.cross_entropy(x, p, reduction='none')"
        ),
        Form("F.multilabel_soft_margin_loss(z.unsqueeze(-1), t.unsqueeze(-1), reduction='none')"),
    ),
)

# --- reductions and weights --------------------------------------------------------------------------------------

binary_cross_entropy_reduced = Identity(
    name="binary_cross_entropy_reduced",
    statement=r"\frac{1}{N} \sum_i \mathrm{BCE}(z_i, t_i) \text{ or } \sum_i \mathrm{BCE}(z_i, t_i)",
    source=BCE,
    domain=scalars(target="soft", reduction=REDUCTIONS, out="", layouts=LAYOUTS),
    spec=lambda p: reduced(p, log_losses(p)),
    out="",
    forms=(
        Form("getattr(torch, reduction)(-(t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)))"),
        Form("F.binary_cross_entropy_with_logits(z, t, reduction=reduction)"),
        Form("nn.BCEWithLogitsLoss(reduction=reduction)(z, t)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, reduction=reduction)"),
        Form("nn.BCELoss(reduction=reduction)(torch.sigmoid(z), t)"),
        Form("getattr(torch, reduction)(F.binary_cross_entropy_with_logits(z, t, reduction='none'))"),
        Form("getattr(torch, reduction)(F.softplus(z) - t * z)"),
        Form(
            "s = torch.sigmoid(z)\ngetattr(torch, reduction)(-(t * torch.log(s) + (1 - t) * torch.log(1 - s)))",
            regions=MODERATE,
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
        Form("F.soft_margin_loss(z, t, reduction=reduction)"),
        Form("nn.SoftMarginLoss(reduction=reduction)(z, t)"),
        Form("F.binary_cross_entropy_with_logits(z, (t + 1) / 2, reduction=reduction)"),
    ),
)

binary_cross_entropy_weighted = Identity(
    name="binary_cross_entropy_weighted",
    statement=r"\mathrm{BCE}_w(z, t)_i = w_i\, \mathrm{BCE}(z_i, t_i)",
    source="torch.nn.BCEWithLogitsLoss documentation, weight",
    domain=scalars(target="soft", weight=True, layouts=LAYOUTS),
    spec=weighted,
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
    statement=r"\frac{1}{N} \sum_i w_i\, \mathrm{BCE}(z_i, t_i) \text{ (by } N \text{, not by } \sum w_i\text{) or the sum}",
    source="torch.nn.BCEWithLogitsLoss documentation, weight and reduction",
    domain=scalars(target="soft", weight=True, reduction=REDUCTIONS, out="", layouts=LAYOUTS),
    spec=lambda p: reduced(p, weighted(p)),
    out="",
    forms=(
        Form("getattr(torch, reduction)(-weight * (t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)))"),
        Form("F.binary_cross_entropy_with_logits(z, t, weight, reduction=reduction)"),
        Form("nn.BCEWithLogitsLoss(weight, reduction=reduction)(z, t)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, weight, reduction=reduction)"),
        Form("getattr(torch, reduction)(weight * F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none'))"),
    ),
)

binary_cross_entropy_pos_weight = Identity(
    name="binary_cross_entropy_pos_weight",
    statement=r"\mathrm{BCE}(z, t; w) = -\left(w\, t \log\sigma(z) + (1-t) \log(1-\sigma(z))\right)",
    source="torch.nn.BCEWithLogitsLoss documentation, pos_weight",
    domain=scalars(target="soft", pos_weight=True, layouts=LAYOUTS),
    spec=positively_weighted,
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
    statement=r"\frac{1}{N} \sum_i \mathrm{BCE}(z_i, y_i; w) \text{ or the sum; for hard labels } w^y \text{ is a weight}",
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
            "w = torch.where(t > 0, pos_weight, 1)\nF.binary_cross_entropy(torch.sigmoid(z), t, w, reduction=reduction)"
        ),
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

# --- two columns and many ----------------------------------------------------------------------------------------

two_columns = Identity(
    name="two_columns",
    statement=r"\mathrm{CE}((a, b), y) = \mathrm{BCE}(b - a, y) = \tfrac12\left[\mathrm{BCE}(s_0, 1-y) + \mathrm{BCE}(s_1, y)\right]",
    source="dl2025 week 5, section 5C and closing examples (the mean of BCE over both softmax columns; overparametrised)",
    domain=pairs(labels=True, layouts=("contiguous", "strided", "transposed", "inner")),
    spec=lambda p: [exact.softplus(row[1 - y] - row[y]) for row, y in zip(p.z, p.y, strict=True)],
    forms=(
        Form("a, b = z.unbind(dim)\ntorch.where(y > 0, -F.logsigmoid(b - a), -F.logsigmoid(a - b))"),
        Form("F.cross_entropy(z, y, reduction='none')"),
        Form(
            "a, b = z.unbind(dim)\nF.binary_cross_entropy_with_logits(b - a, y.to(z.dtype), reduction='none')"
        ),
        Form("a, b = z.unbind(dim)\nF.softplus((1 - 2 * y) * (b - a))"),
        Form("a, b = z.unbind(dim)\nF.cross_entropy(torch.stack((torch.zeros_like(a), b - a), 1), y, reduction='none')"),
        Form(
            "s0, s1 = F.softmax(z, dim).unbind(dim)\n"
            "L, t = F.binary_cross_entropy, y.to(z.dtype)\n"
            "(L(s0, (t == 0) * 1.0, reduction='none') + L(s1, t, reduction='none')) / 2",
            formats=("float32",),
        ),
        Form(
            "s0, s1 = F.softmax(z, dim).unbind(dim)\n"
            "L, t = F.binary_cross_entropy, y.to(z.dtype)\n"
            "(L(s0, 1 - t, reduction='none') + L(s1, t, reduction='none')) / 2"
        ),
        Form("F.binary_cross_entropy(F.softmax(z, dim).select(dim, 1), y.to(z.dtype), reduction='none')"),
    ),
)

multilabel_soft_margin_loss = Identity(
    name="multilabel_soft_margin_loss",
    statement=r"\frac{1}{C} \sum_c \mathrm{BCE}(z_c, t_c)",
    source="torch.nn.MultiLabelSoftMarginLoss documentation",
    domain=classes(soft=True, layouts=("contiguous", "strided", "transposed", "unbatched")),
    spec=lambda p: [exact.mean(map(log_loss, row, target)) for row, target in zip(p.z, p.p, strict=True)],
    forms=(
        Form("-(p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z)).mean(dim)"),
        Form("F.multilabel_soft_margin_loss(z, p, reduction='none')"),
        Form("nn.MultiLabelSoftMarginLoss(reduction='none')(z, p)"),
        Form("F.binary_cross_entropy_with_logits(z, p, reduction='none').mean(dim)"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), p, reduction='none').mean(dim)"),
        Form("(F.softplus(z) - p * z).mean(dim)"),
    ),
)

multilabel_pos_weight = Identity(
    name="multilabel_pos_weight",
    statement=r"\mathrm{BCE}(z_{ic}, t_{ic}; w_c): \text{ one positive weight a class}",
    source="torch.nn.BCEWithLogitsLoss documentation, pos_weight (a multi-label batch)",
    domain=classes(soft=True, weight=True, out="RC", layouts=("contiguous", "strided", "transposed")),
    spec=lambda p: [
        [
            -(w * t * exact.logsigmoid(z) + (1 - t) * exact.logsigmoid(-z))
            for z, t, w in zip(row, target, p.weight, strict=True)
        ]
        for row, target in zip(p.z, p.p, strict=True)
    ],
    out="RC",
    forms=(
        Form("-(weight * p * F.logsigmoid(z) + (1 - p) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, p, pos_weight=weight, reduction='none')"),
        Form("nn.BCEWithLogitsLoss(pos_weight=weight, reduction='none')(z, p)"),
    ),
)
