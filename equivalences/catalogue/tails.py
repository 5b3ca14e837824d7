"""Confident rows, to relative accuracy: references in which nothing cancels, beside the forms in which something does.

A softmax kernel takes the dominating class's log-probability for 0 - log(1 + a little), and its gradient from 1 - s:
what is left has the rounding errors of 1.  Such a kernel's own allowance has that cancellation in it, and so has a
contract that is the same kernel's; here the contract is relative (`equivalences.unstable` says who breaks it), but for
gradients whose upstream gradients cancel among themselves.
For one logit a row `sigmoid_derivative`, `binary_cross_entropy` and its kin have such references, for two columns
`two_columns`.
"""

from __future__ import annotations

from types import SimpleNamespace

from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.oracle.exact import Number
from equivalences.problems.classes import classes

ROWS = classes(out="RC", layouts=("contiguous", "strided", "inner", "first"))

log_softmax_tail = Identity(
    name="log_softmax_tail",
    statement=(
        r"\log \mathrm{softmax}(z)_i = (z_i - z_m) - \mathrm{log1p} \textstyle\sum_{j \ne m} e^{z_j - z_m},"
        r" \quad z_m = \max_j z_j"
    ),
    source="Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021, algorithm 3.2; pytorch/pytorch#113708",
    domain=ROWS,
    spec=lambda p: [exact.log_softmax(row) for row in p.z],
    out="RC",
    forms=(
        # The gap of z_m is the constant 0: no gradient through it that would cancel.
        Form(
            "m = z.argmax(dim, keepdim=True)\n"
            "gap = (z - z.gather(dim, m)).scatter(dim, m, 0)\n"
            "gap - torch.log1p(torch.exp(gap).scatter(dim, m, 0).sum(dim, keepdim=True))",
            label="log1p of the sum without the largest",
        ),
        Form("F.log_softmax(z, dim)", name="log-softmax"),
        Form("nn.LogSoftmax(dim)(z)"),
        Form("z - torch.logsumexp(z, dim, keepdim=True)"),
        Form("torch.log(F.softmax(z, dim))"),
    ),
)


def _products(p: SimpleNamespace) -> list[list[Number]]:
    """s_i sum_j s_j (g_i - g_j) of every row, s its softmax."""
    rows = []
    for z, g in zip(p.z, p.g, strict=True):
        s = exact.softmax(z)
        rows.append([s[i] * exact.total(s[j] * (g[i] - g[j]) for j in range(len(s)) if j != i) for i in range(len(s))])
    return rows


softmax_vjp_tail = Identity(
    name="softmax_vjp_tail",
    statement=r"J^T g = s_i \textstyle\sum_j s_j (g_i - g_j), \quad s = \mathrm{softmax}(z)",
    source="g_i - sum_j s_j g_j, where the s_j add up to 1; pytorch/pytorch#195684",
    domain=ROWS,
    spec=_products,
    out="RC",
    wrt=(),
    forms=(
        Form(
            "s = F.softmax(z, dim)\ns * (s.unsqueeze(dim + 1) * (g.unsqueeze(dim) - g.unsqueeze(dim + 1))).sum(dim)",
            label="softmax of the differences of g",
        ),
        Form("z = z.detach().requires_grad_()\ntorch.autograd.grad(F.softmax(z, dim), z, g)[0]", name="softmax-vjp"),
        Form("s = F.softmax(z, dim)\ns * (g - (g * s).sum(dim, keepdim=True))"),
        Form("torch.func.vjp(lambda x: F.softmax(x, dim), z)[1](g)[0]"),
    ),
)
