"""Cross entropy: index and soft targets, reductions, shapes, the gradient in closed form.  Options: see next module."""

from __future__ import annotations

from typing import Any

from equivalences import exact
from equivalences.model import Form, Identity
from equivalences.problems import classes

FLAT = ("contiguous", "strided", "transposed")  # logits of two dimensions
LAYOUTS = (*FLAT, "inner", "unbatched")

# Where the exponential of a single logit does not overflow: what an unshifted formulation can claim.
FINITE = ("single", "offset", "tie", "tail", "saturated", "wide", "core")

LABELLED = classes(labels=True, out="R", layouts=LAYOUTS)
REDUCED = classes(labels=True, out="", reduction=("mean", "sum"), layouts=LAYOUTS)
SOFT = classes(soft=True, out="R", layouts=LAYOUTS)

ONE_HOT = "t = F.one_hot(y, z.shape[dim]).movedim(-1, dim)\n"
# Rows spread over two more dimensions, (R, C) -> (N, C, d1, d2), as many of each as the number of rows allows.
SPREAD = """
d1 = math.gcd(len(z), 4)
d2 = math.gcd(len(z) // d1, 3)
x = z.reshape(-1, d1, d2, z.shape[1]).movedim(-1, 1)
"""


def losses(p: Any) -> list[Any]:
    """-log softmax(z)_y of every row."""
    return [-exact.log_softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)]


cross_entropy = Identity(
    name="cross_entropy",
    statement=r"-\sum_k [k = y] \log \mathrm{softmax}(z)_k = \log \sum_j e^{z_j} - z_y",
    source="torch.nn.CrossEntropyLoss documentation, class indices",
    domain=LABELLED,
    spec=losses,
    forms=(
        Form("F.cross_entropy(z, y, reduction='none')"),
        Form("nn.CrossEntropyLoss(reduction='none')(z, y)"),
        Form("F.nll_loss(F.log_softmax(z, dim), y, reduction='none')"),
        Form("nn.NLLLoss(reduction='none')(nn.LogSoftmax(dim)(z), y)"),
        Form("torch.logsumexp(z, dim) - z.gather(dim, y.unsqueeze(dim)).squeeze(dim)"),
        Form("-torch.distributions.Categorical(logits=z.movedim(dim, -1)).log_prob(y)"),
        Form(
            "t = torch.zeros_like(z).scatter_(dim, y.unsqueeze(dim), 1)\nF.cross_entropy(z, t, reduction='none')",
            label="one-hot targets by scatter_",
        ),
        Form(
            ONE_HOT + "F.cross_entropy(z, t.to(z.dtype), reduction='none')",
            label="one-hot targets by F.one_hot",
        ),
        Form(
            ONE_HOT + "F.kl_div(F.log_softmax(z, dim), t.to(z.dtype), reduction='none').sum(dim)",
            label="kl_div against one-hot",
        ),
        Form(ONE_HOT + "-(t * F.log_softmax(z, dim)).sum(dim)", label="manual, through F.log_softmax"),
        Form(ONE_HOT + "-(t * torch.log(F.softmax(z, dim))).sum(dim)", label="manual, through F.softmax"),
        Form(
            ONE_HOT + "e = torch.exp(z - z.amax(dim, keepdim=True))\n"
            "-(t * torch.log(e / e.sum(dim, keepdim=True))).sum(dim)",
            label="manual, shifted",
        ),
        Form(
            "t = torch.zeros_like(z).scatter_(dim, y.unsqueeze(dim), 1)\n"
            "e = torch.exp(z)\n-(t * torch.log(e / e.sum(dim, keepdim=True))).sum(dim)",
            label="manual, unshifted",
            regions=FINITE,
        ),
        Form(
            SPREAD + "F.cross_entropy(x, y.reshape(-1, d1, d2), reduction='none').reshape(y.shape)",
            label="(N, C, d1, d2)",
            layouts=FLAT,
        ),
        Form(
            SPREAD + "F.cross_entropy(x[:, :, None], y.reshape(-1, 1, d1, d2), reduction='none').reshape(y.shape)",
            label="(N, C, 1, d1, d2)",
            layouts=FLAT,
        ),
        Form(
            "torch.stack([F.cross_entropy(row, label, reduction='none') for row, label in zip(z, y)])",
            label="row by row, (C,)",
            layouts=("contiguous",),
        ),
    ),
)

cross_entropy_reduced = Identity(
    name="cross_entropy_reduced",
    statement=r"\mathrm{sum} = \sum_n \ell_n, \quad \mathrm{mean} = \frac{1}{N} \sum_n \ell_n",
    source="torch.nn.CrossEntropyLoss documentation, reduction",
    domain=REDUCED,
    spec=lambda p: exact.total(losses(p)) / (len(p.y) if p.reduction == "mean" else 1),
    out="",
    forms=(
        Form("F.cross_entropy(z, y, reduction=reduction)"),
        Form("nn.CrossEntropyLoss(reduction=reduction)(z, y)"),
        Form("F.nll_loss(F.log_softmax(z, dim), y, reduction=reduction)"),
        Form("getattr(torch, reduction)(F.cross_entropy(z, y, reduction='none'))"),
        Form("F.cross_entropy(z, y, reduction='sum') / (y.numel() if reduction == 'mean' else 1)"),
        Form("F.cross_entropy(z, y, reduction='mean') * (y.numel() if reduction == 'sum' else 1)"),
        Form(
            "t = torch.zeros_like(z).scatter_(dim, y.unsqueeze(dim), 1)\nF.cross_entropy(z, t, reduction=reduction)",
            label="one-hot targets by scatter_",
        ),
        Form(
            ONE_HOT + "-(t * F.log_softmax(z, dim)).sum() / (y.numel() if reduction == 'mean' else 1)",
            label="manual, through F.log_softmax",
        ),
        Form(
            ONE_HOT + "F.kl_div(F.log_softmax(z, dim).movedim(dim, -1).reshape(-1, z.shape[dim]), "
            "t.movedim(dim, -1).reshape(-1, z.shape[dim]).to(z.dtype), "
            "reduction='batchmean' if reduction == 'mean' else 'sum')",
            label="kl_div against one-hot",
        ),
        Form(
            SPREAD + "F.cross_entropy(x, y.reshape(-1, d1, d2), reduction=reduction)",
            label="(N, C, d1, d2)",
            layouts=FLAT,
        ),
    ),
)

soft_cross_entropy = Identity(
    name="soft_cross_entropy",
    statement=r"-\sum_k p_k \log \mathrm{softmax}(z)_k = \mathrm{KL}(p \| \mathrm{softmax}(z)) + H(p)",
    source="torch.nn.CrossEntropyLoss documentation, class probabilities; Cover & Thomas, 2nd ed., (2.26)",
    domain=SOFT,
    spec=lambda p: [-exact.dot(t, exact.log_softmax(row)) for row, t in zip(p.z, p.p, strict=True)],
    wrt=("z", "p"),
    forms=(
        Form("F.cross_entropy(z, p, reduction='none')"),
        Form("nn.CrossEntropyLoss(reduction='none')(z, p)"),
        Form("-(p * F.log_softmax(z, dim)).sum(dim)"),
        Form("p.sum(dim) * torch.logsumexp(z, dim) - (p * z).sum(dim)"),
        Form("-(p * torch.log(F.softmax(z, dim))).sum(dim)"),
        Form(
            "F.kl_div(F.log_softmax(z, dim), p, reduction='none').sum(dim) - torch.xlogy(p, p).sum(dim)",
            label="KL + entropy",
        ),
        Form(
            "y = torch.zeros_like(z.select(dim, 0), dtype=torch.long)\n"
            "rows = [F.cross_entropy(z, y + k, reduction='none') for k in range(z.shape[dim])]\n"
            "(p * torch.stack(rows, dim)).sum(dim)",
            label="linear in the target",
        ),
        Form(
            SPREAD + "t = p.reshape(-1, d1, d2, z.shape[1]).movedim(-1, 1)\n"
            "F.cross_entropy(x, t, reduction='none').reshape(len(z))",
            label="(N, C, d1, d2)",
            layouts=FLAT,
        ),
    ),
)
