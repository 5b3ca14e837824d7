"""Losses of very many rows, and of very many classes: what sums, counts and divisors do to them."""

from __future__ import annotations

from functools import partial

from equivalences.catalogue.binary import log_loss
from equivalences.catalogue.binary_options import reduced
from equivalences.catalogue.cross_entropy import FLAT, SPREAD, loss
from equivalences.catalogue.cross_entropy_options import INDEX, KEPT, REDUCED, SMOOTHED, SOFT, SOFT_MEAN
from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.problems.classes import classes
from equivalences.problems.large import many
from equivalences.problems.scalars import scalars
from equivalences.problems.wide import vocabularies

SOURCE = "Higham, Accuracy and Stability, 2nd ed., 4.2: the error of a sum grows with its longest chain of additions"
REDUCTIONS = ("mean", "sum")
SMALL = (28, 56, 41, 67)
MILD = ("core",)
reduced_classes = partial(classes, weight="optional", reduction=REDUCTIONS, out="", rows=SMALL)
three_classes = partial(reduced_classes, smoothing=True, columns=3, layouts=("contiguous", "inner", "transposed"))

OF_LABELS = "weight=weight, ignore_index=ignore_index, reduction=reduction"

cross_entropy_many_rows = Identity(
    name="cross_entropy_many_rows",
    statement=r"\mathrm{sum} = \sum_n \ell_n, \quad \mathrm{mean} = \sum_n \ell_n / \sum_{n: y_n \ne i} w_{y_n}"
    r" \text{, over many rows, some ignored in a pattern}",
    source=SOURCE,
    domain=many(
        reduced_classes(labels=True, ignore=True, columns=2, layouts=("contiguous", "inner")),
        sizes=(512, 1000, 2048, 1024),
    ),
    spec=loss,
    out="",
    counts_rows=True,
    regions=MILD,
    forms=(
        Form(f"F.cross_entropy(z, y, {OF_LABELS})", label="F.cross_entropy", name="cross-entropy"),
        Form(f"F.nll_loss(F.log_softmax(z, dim), y, {OF_LABELS})", label="F.nll_loss"),
        Form(
            "kept = y != ignore_index\nF.cross_entropy(z.movedim(dim, -1)[kept], y[kept], weight, reduction=reduction)",
            label="ignored rows deleted",
        ),
        Form(
            f"{KEPT}rows = F.cross_entropy(z, y, weight, ignore_index=ignore_index, reduction='none')\n{REDUCED}",
            label="reduced by hand",
        ),
        Form(
            f"{SPREAD}F.cross_entropy(x, y.reshape(-1, d1, d2), {OF_LABELS})",
            label="(N, C, d1, d2)",
            name="nll-2d",
            layouts=FLAT,
        ),
    ),
)

cross_entropy_large_batch = Identity(
    name="cross_entropy_large_batch",
    statement=r"\mathrm{sum} = \sum_n \ell_n, \quad \mathrm{mean} = \sum_n \ell_n / \sum_{n: y_n \ne i} w_{y_n},"
    r" \quad N > 65520",
    source=SOURCE,
    domain=many(three_classes(labels=True, ignore=True)),
    spec=loss,
    out="",
    counts_rows=True,
    regions=MILD,
    forms=(
        Form(f"F.cross_entropy(z, y, {INDEX}, reduction=reduction)", label="F.cross_entropy"),
        Form(
            f"{KEPT}rows = F.cross_entropy(z, y, {INDEX}, reduction='none')\n{REDUCED}",
            label="reduced by hand: mean = sum / total weight",
        ),
        Form(
            f"{SMOOTHED}rows = F.cross_entropy(z, q, weight, reduction='none')\n{REDUCED}",
            label="smoothed targets",
        ),
        Form(
            f"{SPREAD}F.cross_entropy(x, y.reshape(-1, d1, d2), {INDEX}, reduction=reduction)",
            label="(N, C, d1, d2)",
            layouts=FLAT,
        ),
    ),
)

soft_cross_entropy_large_batch = Identity(
    name="soft_cross_entropy_large_batch",
    statement=r"\mathrm{sum} = \sum_n \ell_n, \quad \mathrm{mean} = \frac{1}{N} \sum_n \ell_n, \quad N > 65520",
    source=SOURCE,
    domain=many(three_classes(soft="weights")),
    spec=loss,
    out="",
    counts_rows=True,
    regions=MILD,
    forms=(
        Form(f"F.cross_entropy(z, p, {SOFT})", label="F.cross_entropy"),
        Form(
            f"rows = F.cross_entropy(z, p, weight, label_smoothing=label_smoothing, reduction='none')\n{SOFT_MEAN}",
            label="reduced by hand: mean = sum / N",
        ),
    ),
)

WEIGHTED = "weight=weight, pos_weight=pos_weight"

binary_cross_entropy_large_batch = Identity(
    name="binary_cross_entropy_large_batch",
    statement=r"\sum_i \mathrm{BCE}_{w_i}(z_i, t_i; w^+) \text{ or } \frac{1}{N} \text{ of it}, \quad N > 65520",
    source=SOURCE,
    domain=many(
        scalars(
            target="soft", weight=True, pos_weight=True, reduction=REDUCTIONS, out="", layouts=("contiguous", "strided")
        )
    ),
    spec=lambda p: reduced(p, [w * log_loss(z, t, p.pos_weight) for z, t, w in zip(p.z, p.t, p.weight, strict=True)]),
    out="",
    counts_rows=True,
    regions=MILD,
    forms=(
        Form(
            "rows = -weight * (pos_weight * t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z))\n"
            "getattr(torch, reduction)(rows)"
        ),
        Form(
            f"F.binary_cross_entropy_with_logits(z, t, {WEIGHTED}, reduction=reduction)",
            label="F.binary_cross_entropy_with_logits",
            name="bce-with-logits",
        ),
        Form(
            f"rows = F.binary_cross_entropy_with_logits(z, t, {WEIGHTED}, reduction='none')\n"
            "rows = rows.reshape(-1, math.gcd(len(z), 12))\n"
            "rows = torch.cat((rows, rows[:, :1]), 1)[:, :-1]\n"
            "getattr(torch, reduction)(rows)",
            label="the padding of a batch cut off",
            name="padding-cut-off",
        ),
    ),
)

WIDE = "Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021 (log-sum-exp of very many numbers)"
TWO = ("contiguous", "inner")
ALL = ("core", "wide", "extreme", "tie")  # regions that rows of many classes lie in

cross_entropy_large_vocabulary = Identity(
    name="cross_entropy_large_vocabulary",
    statement=r"\ell_n = -[y_n \ne i] \sum_k w_k q_{nk} \log \mathrm{softmax}(z_n)_k, \quad K \le 200003",
    source=WIDE,
    domain=vocabularies(
        classes(labels=True, weight="optional", ignore=True, smoothing=True, reduction=("none",), layouts=TWO)
    ),
    spec=loss,
    regions=(*ALL, "tail"),
    forms=(
        Form(f"F.cross_entropy(z, y, {INDEX}, reduction=reduction)", label="F.cross_entropy"),
        Form(
            f"{SMOOTHED}F.cross_entropy(z, q, weight, reduction='none')",
            label="smoothed targets",
        ),
    ),
)

soft_cross_entropy_large_vocabulary = Identity(
    name="soft_cross_entropy_large_vocabulary",
    statement=r"-\sum_k p_{nk} \log \mathrm{softmax}(z_n)_k, \quad K \le 200003",
    source=WIDE,
    domain=vocabularies(classes(soft=True, layouts=TWO)),
    spec=loss,
    regions=ALL,
    forms=(
        Form("F.cross_entropy(z, p, reduction='none')"),
        Form("-(p * F.log_softmax(z, dim)).sum(dim)"),
    ),
)

softmax_large_vocabulary = Identity(
    name="softmax_large_vocabulary",
    statement=r"\mathrm{softmax}(z)_i = e^{z_i} / \sum_{j \le K} e^{z_j}, \quad K \le 200003",
    source=WIDE,
    domain=vocabularies(classes(out="RC", layouts=TWO)),
    spec=lambda p: [exact.softmax(row) for row in p.z],
    out="RC",
    regions=ALL,
    forms=(
        Form("F.softmax(z, dim)"),
        Form("e = torch.exp(z - z.amax(dim, keepdim=True))\ne / e.sum(dim, keepdim=True)"),
    ),
)

log_softmax_large_vocabulary = Identity(
    name="log_softmax_large_vocabulary",
    statement=r"\log \mathrm{softmax}(z)_i = z_i - \log \sum_{j \le K} e^{z_j}, \quad K \le 200003",
    source=WIDE,
    domain=vocabularies(classes(out="RC", layouts=TWO)),
    spec=lambda p: [exact.log_softmax(row) for row in p.z],
    out="RC",
    regions=ALL,
    forms=(
        Form("F.log_softmax(z, dim)"),
        Form("z - torch.logsumexp(z, dim, keepdim=True)"),
    ),
)

logsumexp_large_vocabulary = Identity(
    name="logsumexp_large_vocabulary",
    statement=r"\mathrm{lse}(z) = \log \sum_{j \le K} e^{z_j}, \quad K \le 200003",
    source=WIDE,
    domain=vocabularies(classes(layouts=TWO)),
    spec=lambda p: [exact.logsumexp(row) for row in p.z],
    regions=ALL,
    forms=(
        Form("torch.logsumexp(z, dim)"),
        Form("m = z.amax(dim, keepdim=True).detach()\nm.squeeze(dim) + torch.log(torch.exp(z - m).sum(dim))"),
        Form(
            "a, b = z.narrow(dim, 0, z.shape[dim] // 2), z.narrow(dim, z.shape[dim] // 2, -(-z.shape[dim] // 2))\n"
            "torch.logaddexp(torch.logsumexp(a, dim), torch.logsumexp(b, dim))",
            label="two halves",
        ),
    ),
)
