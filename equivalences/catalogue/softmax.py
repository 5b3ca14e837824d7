"""Softmax, log-softmax and log-sum-exp."""

from __future__ import annotations

from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.problems.classes import classes
from equivalences.problems.scalars import scalars

# Where the exponential of a single logit does not overflow: what an unshifted formulation can claim.
FINITE = ("single", "offset", "tie", "saturated", "wide", "core")

SOFTMAX = "Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021, eq. (1.2)"
ROWS = classes(
    out="RC", layouts=("contiguous", "strided", "transposed", "inner", "movedim", "offset", "expanded", "first")
)
ROW_SUMS = classes(out="R", layouts=ROWS.layouts)

softmax = Identity(
    name="softmax",
    statement=r"\mathrm{softmax}(z)_i = e^{z_i} / \sum_j e^{z_j}",
    source=SOFTMAX,
    domain=ROWS,
    spec=lambda p: [exact.softmax(row) for row in p.z],
    out="RC",
    forms=(
        Form("F.softmax(z, dim)", name="softmax"),
        Form("nn.Softmax(dim)(z)"),
        Form("torch.softmax(z, dim)"),
        Form("e = torch.exp(z - z.amax(dim, keepdim=True))\ne / e.sum(dim, keepdim=True)"),
        Form("torch.exp(F.log_softmax(z, dim))"),
        Form("torch.exp(z - torch.logsumexp(z, dim, keepdim=True))"),
        Form("torch.exp(z) / torch.exp(z).sum(dim, keepdim=True)", regions=FINITE),
    ),
)

log_softmax = Identity(
    name="log_softmax",
    statement=r"\log \mathrm{softmax}(z)_i = z_i - \log \sum_j e^{z_j}",
    source="Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021, sec. 1",
    domain=ROWS,
    spec=lambda p: [exact.log_softmax(row) for row in p.z],
    out="RC",
    forms=(
        Form("F.log_softmax(z, dim)", name="log-softmax"),
        Form("nn.LogSoftmax(dim)(z)"),
        Form("z - torch.logsumexp(z, dim, keepdim=True)"),
        Form("torch.log(F.softmax(z, dim))"),
    ),
)

logsumexp = Identity(
    name="logsumexp",
    statement=r"\mathrm{lse}(z) = \log \sum_j e^{z_j} = m + \log \sum_j e^{z_j - m}",
    source="Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021, eq. (1.1), (3.1)",
    domain=ROW_SUMS,
    spec=lambda p: [exact.logsumexp(row) for row in p.z],
    forms=(
        Form("torch.logsumexp(z, dim)"),
        Form("m = z.amax(dim, keepdim=True).detach()\nm.squeeze(dim) + torch.log(torch.exp(z - m).sum(dim))"),
        Form("torch.log(torch.exp(z).sum(dim))", regions=FINITE),
    ),
)

softmax_rows_sum_to_one = Identity(
    name="softmax_rows_sum_to_one",
    statement=r"\sum_i \mathrm{softmax}(z)_i = 1",
    source=SOFTMAX,
    domain=ROW_SUMS,
    spec=lambda p: [1 for row in p.z],
    forms=(
        Form("F.softmax(z, dim).sum(dim)"),
        Form("torch.exp(F.log_softmax(z, dim)).sum(dim)"),
        Form("F.softmin(z, dim).sum(dim)"),
    ),
)

softmax_within_unit_interval = Identity(
    name="softmax_within_unit_interval",
    statement=r"0 \le \mathrm{softmax}(z)_i \le 1",
    source="torch.nn.Softmax documentation",
    domain=ROW_SUMS,
    spec=lambda p: [True for row in p.z],
    wrt=(),
    bitwise=True,
    forms=(
        Form("s = F.softmax(z, dim)\n((s >= 0) & (s <= 1)).all(dim)"),
        Form("(F.log_softmax(z, dim) <= 0).all(dim)"),
    ),
)

softmax_shift_invariance = Identity(
    name="softmax_shift_invariance",
    statement=r"\mathrm{softmax}(z + c) = \mathrm{softmax}(z)",
    source="Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021, sec. 3",
    domain=ROWS,
    spec=lambda p: [exact.softmax(row) for row in p.z],
    out="RC",
    forms=(
        Form("F.softmax(z, dim)"),
        Form("F.softmax(z - z.amax(dim, keepdim=True), dim)"),
        Form("F.softmax(z + 4.0, dim)"),
        Form("F.softmax(z - z.narrow(dim, 0, 1), dim)"),
    ),
)

logsumexp_shift = Identity(
    name="logsumexp_shift",
    statement=r"\mathrm{lse}(z + c) = \mathrm{lse}(z) + c",
    source="Blanchard, Higham & Higham, IMA J. Numer. Anal. 2021, eq. (3.1)",
    domain=ROW_SUMS,
    spec=lambda p: [exact.logsumexp(row) for row in p.z],
    forms=(
        Form("torch.logsumexp(z, dim)"),
        Form("torch.logsumexp(z + 4.0, dim) - 4.0"),
        Form("m = z.amax(dim, keepdim=True)\ntorch.logsumexp(z - m, dim) + m.squeeze(dim)"),
    ),
)

softmin = Identity(
    name="softmin",
    statement=r"\mathrm{softmin}(z) = \mathrm{softmax}(-z)",
    source="torch.nn.Softmin documentation",
    domain=ROWS,
    spec=lambda p: [exact.softmax([-x for x in row]) for row in p.z],
    out="RC",
    forms=(
        Form("F.softmax(-z, dim)"),
        Form("F.softmin(z, dim)"),
        Form("nn.Softmin(dim)(z)"),
    ),
)

softmax_of_two_is_sigmoid = Identity(
    name="softmax_of_two_is_sigmoid",
    statement=r"\mathrm{softmax}([0, z])_1 = \sigma(z)",
    source="dl2025 week 5, section E (a two-column softmax and a sigmoid are the same model)",
    domain=scalars(),
    spec=lambda p: [exact.sigmoid(z) for z in p.z],
    forms=(
        Form("torch.sigmoid(z)"),
        Form("F.softmax(torch.stack((torch.zeros_like(z), z), -1), -1)[..., 1]"),
        Form("1 - F.softmax(torch.stack((torch.zeros_like(z), z), 0), 0)[0]"),
        Form("torch.exp(F.log_softmax(torch.stack((torch.zeros_like(z), z), -1), -1))[..., 1]"),
    ),
)

softmax_permutation = Identity(
    name="softmax_permutation",
    statement=r"\mathrm{softmax}(Pz) = P\,\mathrm{softmax}(z)",
    source=SOFTMAX,
    domain=ROWS,
    spec=lambda p: [exact.softmax(row) for row in p.z],
    out="RC",
    forms=(
        Form("F.softmax(z, dim)"),
        Form("F.softmax(z.flip(dim), dim).flip(dim)"),
        Form("F.softmax(z.roll(1, dim), dim).roll(-1, dim)"),
        Form("o = z.argsort(dim)\nF.softmax(z.gather(dim, o), dim).gather(dim, o.argsort(dim))"),
    ),
)

softmax_keeps_argmax = Identity(
    name="softmax_keeps_argmax",
    statement=r"\arg\max \mathrm{softmax}(z) = \arg\max z \text{ (but for ties that rounding makes)}",
    source="adam notebook, cell 115 (the predicted class is the argmax, with or without softmax)",
    domain=ROW_SUMS,
    # the first of equal maxima, as torch.argmax documents
    spec=lambda p: [exact.argmax(row) for row in p.z],
    wrt=(),
    forms=(
        Form("z.argmax(dim)"),
        Form("F.softmax(z, dim).argmax(dim)", regions=("single", "offset", "saturated", "wide", "core")),
        Form("F.log_softmax(z, dim).argmax(dim)", regions=("single", "offset", "saturated", "wide", "core")),
        Form("torch.max(F.softmax(z, dim), dim).indices", regions=("single", "offset", "saturated", "wide", "core")),
    ),
)


def _product(s: list[exact.Number], g: list[exact.Number]) -> list[exact.Number]:
    mean = exact.dot(g, s)
    return [s_i * (g_i - mean) for s_i, g_i in zip(s, g, strict=True)]


softmax_vjp = Identity(
    name="softmax_vjp",
    statement=r"J^T g = s \odot (g - \textstyle\sum_i g_i s_i), \quad s = \mathrm{softmax}(z)",
    source="aten/src/ATen/native/cpu/SoftMaxKernel.cpp, softmax backward",
    domain=ROWS,
    spec=lambda p: [_product(exact.softmax(row), g) for row, g in zip(p.z, p.g, strict=True)],
    out="RC",
    wrt=(),
    forms=(
        Form("z = z.detach().requires_grad_()\ntorch.autograd.grad(F.softmax(z, dim), z, g)[0]"),
        Form("s = F.softmax(z, dim)\ns * (g - (g * s).sum(dim, keepdim=True))"),
        Form("torch.func.vjp(lambda x: F.softmax(x, dim), z)[1](g)[0]"),
    ),
)
