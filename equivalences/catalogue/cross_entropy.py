"""Cross entropy: index and soft targets, reductions, shapes, the gradient in closed form.  Options: see next module."""

from __future__ import annotations

from typing import Any

from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.problems.classes import classes

FLAT = ("contiguous", "strided", "transposed", "offset", "expanded")  # logits of two dimensions
LAYOUTS = (*FLAT, "inner", "movedim", "unbatched")

# Where the exponential of a single logit does not overflow: what an unshifted formulation can claim.
FINITE = ("single", "offset", "tie", "tail", "saturated", "wide", "core")

LABELLED = classes(labels=True, out="R", layouts=LAYOUTS)
REDUCED = classes(labels=True, out="", reduction=("mean", "sum"), layouts=LAYOUTS)
SOFT = classes(soft="weights", out="R", layouts=LAYOUTS)

ONE_HOT = "t = F.one_hot(y, z.shape[dim]).movedim(-1, dim)\n"
# Rows spread over two more dimensions, (R, C) -> (N, C, d1, d2), as many of each as the number of rows allows.
SPREAD = """
d1 = math.gcd(len(z), 4)
d2 = math.gcd(len(z) // d1, 3)
x = z.reshape(-1, d1, d2, z.shape[1]).movedim(-1, 1)
"""


def loss(p: Any) -> Any:
    """The loss under whichever of the options the problem has: a row's is -sum_k w_k q_k log softmax(z)_k."""
    count = len(p.z[0])
    weight = getattr(p, "weight", None) or [1] * count
    smoothing = getattr(p, "label_smoothing", 0)
    alpha = exact.total([smoothing])
    rest, share = (1 - alpha, alpha / count) if smoothing else (1, 0)
    reduction = getattr(p, "reduction", "none")
    mass: Any
    if hasattr(p, "p"):
        kept, targets, mass = [True] * len(p.z), p.p, exact.rows_of(p, p.z)
    else:
        kept = [y != getattr(p, "ignore_index", -100) for y in p.y]
        targets = [[int(k == y) for k in range(count)] for y in p.y]
        mass = exact.total_of_rows(p, [weight[y] if keep else 0 for y, keep in zip(p.y, kept, strict=True)])
    rows = []
    for z, target, keep in zip(p.z, targets, kept, strict=True):
        q = [w * (rest * t + share) for w, t in zip(weight, target, strict=True)]
        rows.append(-exact.dot(q, exact.log_softmax(z)) if keep else 0)
    if reduction == "none":
        return rows
    return exact.total_of_rows(p, rows) / (mass if reduction == "mean" else 1)


cross_entropy = Identity(
    name="cross_entropy",
    statement=r"-\sum_k [k = y] \log \mathrm{softmax}(z)_k = \log \sum_j e^{z_j} - z_y",
    source="torch.nn.CrossEntropyLoss documentation, class indices",
    domain=LABELLED,
    spec=loss,
    forms=(
        Form("F.cross_entropy(z, y, reduction='none')"),
        Form("nn.CrossEntropyLoss(reduction='none')(z, y)"),
        # Bytes are refused while tracing: special_values, "8-bit targets".
        Form(
            "F.cross_entropy(z, y.to(torch.uint8) if z.shape[dim] <= 256 else y, reduction='none')",
            layouts=(*FLAT, "unbatched"),
            modes=("eager",),
        ),
        Form("torch.func.vmap(F.cross_entropy)(z, y)", layouts=FLAT),
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
    ),
)

cross_entropy_reduced = Identity(
    name="cross_entropy_reduced",
    statement=r"\mathrm{sum} = \sum_n \ell_n, \quad \mathrm{mean} = \frac{1}{N} \sum_n \ell_n",
    source="torch.nn.CrossEntropyLoss documentation, reduction",
    domain=REDUCED,
    spec=loss,
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
    spec=loss,
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

uniform_logits = Identity(
    name="uniform_logits",
    statement=r"z = (c, \dots, c) \implies -\log \mathrm{softmax}(z)_y = \log K",
    source="softmax-cross-entropy notebook (the initial loss is log K)",
    domain=LABELLED,
    spec=lambda p: [exact.log(len(row)) for row in p.z],
    forms=(
        Form("F.cross_entropy(z.narrow(dim, 0, 1).expand_as(z), y, reduction='none')"),
        Form("F.nll_loss(F.log_softmax(z.narrow(dim, 0, 1).expand_as(z), dim), y, reduction='none')"),
        Form(
            "x = z.narrow(dim, 0, 1).expand_as(z)\n"
            "F.cross_entropy(x, torch.ones_like(z), reduction='none') / z.shape[dim]"
        ),
        Form("x = z.narrow(dim, 0, 1).expand_as(z)\ntorch.logsumexp(x, dim) - x.select(dim, -1)"),
    ),
)

GRADIENTS = classes(labels=True, out="RC", layouts=LAYOUTS)

cross_entropy_gradient = Identity(
    name="cross_entropy_gradient",
    statement=r"\partial_{z_{nk}} \frac{1}{N} \sum_m \ell_m = \frac{1}{N} (\mathrm{softmax}(z_n)_k - [k = y_n])",
    source="Bishop, Pattern Recognition and Machine Learning, (4.109)",
    domain=GRADIENTS,
    spec=lambda p: [
        [(s - int(k == y)) / len(p.y) for k, s in enumerate(exact.softmax(row))]
        for row, y in zip(p.z, p.y, strict=True)
    ],
    out="RC",
    mixes_rows=True,
    forms=(
        Form(
            "s = F.softmax(z, dim).scatter(dim, y.unsqueeze(dim), 0)\n"
            "s.scatter(dim, y.unsqueeze(dim), -s.sum(dim, keepdim=True)) / y.numel()",
            label="the target's entry as minus the sum of the others",
        ),
        # The compiler has no double backward: the gradient of what autograd made of compiled code raises.
        Form("torch.autograd.grad(F.cross_entropy(z, y), z, create_graph=True)[0]", modes=("eager",)),
        Form(
            ONE_HOT + "torch.autograd.grad(F.cross_entropy(z, t.to(z.dtype)), z, create_graph=True)[0]",
            label="autograd, one-hot targets",
            modes=("eager",),
        ),
        Form("torch.func.grad(lambda x: F.cross_entropy(x, y))(z)"),
        Form("torch.func.vmap(torch.func.grad(F.cross_entropy))(z, y) / len(z)", layouts=FLAT),
        Form(ONE_HOT + "(F.softmax(z, dim) - t) / y.numel()", label="(softmax - target) / N"),
        Form(ONE_HOT + "(torch.exp(F.log_softmax(z, dim)) - t) / y.numel()", label="(exp(log_softmax) - target) / N"),
    ),
)

cross_entropy_gradient_sums_to_zero = Identity(
    name="cross_entropy_gradient_sums_to_zero",
    statement=r"\sum_k \partial_{z_{nk}} \sum_m \ell_m = 0",
    source="Bishop, Pattern Recognition and Machine Learning, (4.109): softmax and target both sum to 1",
    domain=LABELLED,
    spec=lambda p: [0 for _ in p.y],
    forms=(
        Form(
            "torch.autograd.grad(F.cross_entropy(z, y, reduction='sum'), z, create_graph=True)[0].sum(dim)",
            modes=("eager",),
        ),
        Form(ONE_HOT + "(F.softmax(z, dim) - t).sum(dim)", label="(softmax - target) summed"),
    ),
)
