"""Cross entropy with options: class weights x label smoothing x ignore_index x reduction x kind of target.

The domains draw every combination that PyTorch accepts, "no weights" among them; the specification is one function,
`cross_entropy.loss`, and the forms take the reduction as they find it.
"""

from __future__ import annotations

from equivalences.catalogue.cross_entropy import FLAT, LAYOUTS, SPREAD, loss
from equivalences.model import Form, Identity
from equivalences.problems.classes import classes

SOURCE = "torch.nn.CrossEntropyLoss documentation; Szegedy et al., arXiv:1512.00567, sec. 7 (label smoothing)"

INDEX = "weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing"
KEPT = "kept = y != ignore_index\nlabel = torch.where(kept, y, 0)\n"
# Smoothed targets; an ignored row has none at all.
SMOOTHED = KEPT + (
    "t = F.one_hot(label, z.shape[dim]).movedim(-1, dim).to(z.dtype)\n"
    "q = (t * (1 - label_smoothing) + label_smoothing / z.shape[dim]) * kept.unsqueeze(dim)\n"
)
REDUCED = (
    "mass = kept if weight is None else weight[label] * kept\n"
    "rows if reduction == 'none' else rows.sum() / (mass.sum() if reduction == 'mean' else 1)"
)

INDEX_FORMS = (
    Form(f"F.cross_entropy(z, y, {INDEX}, reduction=reduction)", label="F.cross_entropy", name="cross-entropy"),
    Form(f"nn.CrossEntropyLoss({INDEX}, reduction=reduction)(z, y)", label="nn.CrossEntropyLoss"),
    Form(
        f"{KEPT}rows = F.cross_entropy(z, y, {INDEX}, reduction='none')\n{REDUCED}",
        label="reduced by hand: mean = sum / total weight",
    ),
    Form(
        "kept = y != ignore_index\n"
        "rows = F.cross_entropy(z.movedim(dim, -1)[kept], y[kept], weight, label_smoothing=label_smoothing, "
        "reduction=reduction)\n"
        "torch.zeros_like(z.select(dim, 0)).masked_scatter(kept, rows) if reduction == 'none' else rows",
        label="ignored rows deleted",
    ),
    Form(
        f"{SMOOTHED}rows = F.cross_entropy(z, q, weight, reduction='none')\n{REDUCED}",
        label="smoothed targets",
    ),
    Form(
        f"{KEPT}uniform = F.cross_entropy(z, torch.ones_like(z), weight, reduction='none')\n"
        f"uniform = uniform.masked_fill(~kept, 0) * (label_smoothing / z.shape[dim])\n"
        f"rows = F.cross_entropy(z, y, weight, ignore_index=ignore_index, reduction='none')\n"
        f"rows = (1 - label_smoothing) * rows + uniform\n{REDUCED}",
        label="mixture with the uniform target",
    ),
    Form(
        f"{SMOOTHED}q = q.movedim(dim, -1) if weight is None else q.movedim(dim, -1) * weight\n"
        f"rows = -(q * F.log_softmax(z, dim).movedim(dim, -1)).sum(-1)\n{REDUCED}",
        label="manual",
    ),
    Form(
        f"rows = torch.func.vmap(lambda row, label: F.cross_entropy(row, label, {INDEX}, reduction='none'))(z, y)\n"
        f"{KEPT}{REDUCED}",
        label="vmap",
        layouts=FLAT,
    ),
    Form(
        f"{SPREAD}rows = F.cross_entropy(x, y.reshape(-1, d1, d2), {INDEX}, reduction=reduction)\n"
        f"rows.reshape(y.shape) if reduction == 'none' else rows",
        label="(N, C, d1, d2)",
        layouts=FLAT,
    ),
)

cross_entropy_options = Identity(
    name="cross_entropy_options",
    statement=r"\ell_n = -[y_n \ne i] \sum_k w_k q_{nk} \log \mathrm{softmax}(z_n)_k, \quad"
    r" q_{nk} = (1 - \alpha) [k = y_n] + \alpha / K",
    source=SOURCE,
    domain=classes(
        labels=True, weight="optional", ignore=True, smoothing=True, reduction=("none",), out="R", layouts=LAYOUTS
    ),
    spec=loss,
    forms=INDEX_FORMS,
)

cross_entropy_options_reduced = Identity(
    name="cross_entropy_options_reduced",
    statement=r"\mathrm{sum} = \sum_n \ell_n, \quad \mathrm{mean} = \sum_n \ell_n / \sum_{n: y_n \ne i} w_{y_n}",
    source=SOURCE,
    domain=classes(
        labels=True, weight="optional", ignore=True, smoothing=True, reduction=("mean", "sum"), out="", layouts=LAYOUTS
    ),
    spec=loss,
    out="",
    forms=INDEX_FORMS,
)

SOFT = "weight=weight, label_smoothing=label_smoothing, reduction=reduction"
SOFT_MEAN = "rows if reduction == 'none' else getattr(torch, reduction)(rows)"

SOFT_FORMS = (
    Form(f"F.cross_entropy(z, p, {SOFT})", label="F.cross_entropy"),
    Form(f"nn.CrossEntropyLoss({SOFT}, ignore_index=-1)(z, p)", label="nn.CrossEntropyLoss"),
    Form(
        f"rows = F.cross_entropy(z, p, weight, label_smoothing=label_smoothing, reduction='none')\n{SOFT_MEAN}",
        label="reduced by hand: mean = sum / N",
    ),
    Form(
        "q = p * (1 - label_smoothing) + label_smoothing / z.shape[dim]\n"
        "F.cross_entropy(z, q, weight, reduction=reduction)",
        label="smoothed targets",
    ),
    Form(
        "uniform = F.cross_entropy(z, torch.ones_like(z), weight, reduction=reduction)\n"
        "uniform = uniform * (label_smoothing / z.shape[dim])\n"
        "(1 - label_smoothing) * F.cross_entropy(z, p, weight, reduction=reduction) + uniform",
        label="mixture with the uniform target",
    ),
    Form(
        "q = p.movedim(dim, -1) * (1 - label_smoothing) + label_smoothing / z.shape[dim]\n"
        "q = (q if weight is None else q * weight).movedim(-1, dim)\n"
        "F.cross_entropy(z, q, reduction=reduction)",
        label="weights within the targets",
    ),
    Form(
        "q = p.movedim(dim, -1) * (1 - label_smoothing) + label_smoothing / z.shape[dim]\n"
        "q = q if weight is None else q * weight\n"
        f"rows = -(q * F.log_softmax(z, dim).movedim(dim, -1)).sum(-1)\n{SOFT_MEAN}",
        label="manual",
    ),
    Form(
        f"{SPREAD}t = p.reshape(-1, d1, d2, z.shape[1]).movedim(-1, 1)\n"
        f"rows = F.cross_entropy(x, t, {SOFT})\n"
        f"rows.reshape(len(z)) if reduction == 'none' else rows",
        label="(N, C, d1, d2)",
        layouts=FLAT,
    ),
)

soft_cross_entropy_options = Identity(
    name="soft_cross_entropy_options",
    statement=r"\ell_n = -\sum_k w_k q_{nk} \log \mathrm{softmax}(z_n)_k, \quad"
    r" q_{nk} = (1 - \alpha) p_{nk} + \alpha / K",
    source=SOURCE,
    domain=classes(soft="weights", weight="optional", smoothing=True, reduction=("none",), out="R", layouts=LAYOUTS),
    spec=loss,
    wrt=("z", "p"),
    forms=SOFT_FORMS,
)

soft_cross_entropy_options_reduced = Identity(
    name="soft_cross_entropy_options_reduced",
    statement=r"\mathrm{sum} = \sum_n \ell_n, \quad \mathrm{mean} = \frac{1}{N} \sum_n \ell_n",
    source=SOURCE,
    domain=classes(
        soft="weights", weight="optional", smoothing=True, reduction=("mean", "sum"), out="", layouts=LAYOUTS
    ),
    spec=loss,
    out="",
    wrt=("z", "p"),
    forms=SOFT_FORMS,
)
