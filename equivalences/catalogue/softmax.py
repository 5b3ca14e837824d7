"""Softmax, log-softmax and log-sum-exp."""

from __future__ import annotations

from equivalences import exact
from equivalences.model import Form, Identity
from equivalences.problems import classes

# Where no exponential of a single logit overflows: what an unshifted formulation can claim.
FINITE = ("single", "offset", "tie", "saturated", "tail", "wide", "core")

ROWS = classes(out="RC", layouts=("contiguous", "strided", "transposed", "inner", "first"))
LABELLED = classes(labels=True, out="R")

softmax = Identity(
    name="softmax",
    statement=r"\mathrm{softmax}(z)_i = e^{z_i} / \sum_j e^{z_j}",
    source="Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021, eq. (1.2), (3.2)",
    domain=ROWS,
    spec=lambda p: [exact.softmax(row) for row in p.z],
    out="RC",
    forms=(
        Form("F.softmax(z, dim)"),
        Form("nn.Softmax(dim)(z)"),
        Form("e = torch.exp(z - z.amax(dim, keepdim=True))\ne / e.sum(dim, keepdim=True)"),
        Form("torch.exp(F.log_softmax(z, dim))"),
        Form("torch.exp(z - torch.logsumexp(z, dim, keepdim=True))"),
        Form("torch.exp(z) / torch.exp(z).sum(dim, keepdim=True)", regions=FINITE),
    ),
)

log_softmax = Identity(
    name="log_softmax",
    statement=r"\log \mathrm{softmax}(z)_i = z_i - \log \sum_j e^{z_j}",
    source="Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021",
    domain=ROWS,
    spec=lambda p: [exact.log_softmax(row) for row in p.z],
    out="RC",
    forms=(
        Form("F.log_softmax(z, dim)"),
        Form("nn.LogSoftmax(dim)(z)"),
        Form("z - torch.logsumexp(z, dim, keepdim=True)"),
        Form("torch.log(F.softmax(z, dim))"),
    ),
)

cross_entropy = Identity(
    name="cross_entropy",
    statement=r"-\log \mathrm{softmax}(z)_y = \log \sum_j e^{z_j} - z_y",
    source="torch.nn.CrossEntropyLoss documentation, class indices",
    domain=LABELLED,
    spec=lambda p: [-exact.log_softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)],
    forms=(
        Form("F.cross_entropy(z, y, reduction='none')"),
        Form("F.nll_loss(F.log_softmax(z, dim), y, reduction='none')"),
        Form("torch.logsumexp(z, dim) - z.gather(dim, y.unsqueeze(dim)).squeeze(dim)"),
        Form("-(F.one_hot(y, z.shape[dim]).movedim(-1, dim) * torch.log(F.softmax(z, dim))).sum(dim)"),
    ),
)
