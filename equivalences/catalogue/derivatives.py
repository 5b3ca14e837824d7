"""Second derivatives: a gradient, differentiated once more along the direction `g`."""

from __future__ import annotations

from types import SimpleNamespace

from equivalences.catalogue.binary import MODERATE
from equivalences.model import Differs, Form, Identity, Pitfall
from equivalences.oracle import exact
from equivalences.oracle.exact import Number
from equivalences.problems.classes import classes
from equivalences.problems.scalars import scalars

LAYOUTS = ("contiguous", "strided", "offset")


def twice(
    loss: str,
    what: str,
    first: str = "",
    formats: tuple[str, ...] | None = None,
    regions: tuple[str, ...] | None = None,
) -> Form:
    """A form that differentiates the total of `loss`, an expression in z, and then its gradient along g.

    Of eager code alone: the compiler has no double backward, and raises.
    """
    return Form(
        f"{first}z = z.detach().requires_grad_()\n"
        f"(once,) = torch.autograd.grad(({loss}).sum(), z, create_graph=True)\n"
        "torch.autograd.grad(once, z, g)[0]",
        label=f"{what}, backward twice",
        name=f"{what} twice",
        modes=("eager",),
        formats=formats,
        regions=regions,
    )


def forward_over_reverse(loss: str) -> str:
    """The same, forward-mode over reverse-mode."""
    return f"torch.func.jvp(torch.func.grad(lambda x: ({loss}).sum()), (z,), (g,))[1]"


def slope(z: Number) -> Number:
    """sigmoid(z) (1 - sigmoid(z))."""
    return exact.sigmoid(z) * exact.sigmoid(-z)


BCE_WITH_LOGITS = "F.binary_cross_entropy_with_logits({}, t, reduction='none')"

binary_cross_entropy_second_derivative = Identity(
    name="binary_cross_entropy_second_derivative",
    statement=r"\partial_z^2 \mathrm{BCE}(z, t) = \partial_z^2 \mathrm{softplus}(z) = \sigma(z)\,\sigma(-z)",
    source="Bishop, Pattern Recognition and Machine Learning, (4.97)",
    domain=scalars(target="soft", layouts=LAYOUTS),
    spec=lambda p: [g * slope(z) for z, g in zip(p.z, p.g, strict=True)],
    wrt=(),
    forms=(
        Form("g * (torch.sigmoid(z) * torch.sigmoid(-z))"),
        twice(BCE_WITH_LOGITS.format("z"), "F.binary_cross_entropy_with_logits"),
        twice("F.softplus(z, threshold=math.inf)", "F.softplus without its threshold"),
        twice("-F.logsigmoid(z)", "-F.logsigmoid"),
        Form(
            forward_over_reverse(BCE_WITH_LOGITS.format("x")),
            label="F.binary_cross_entropy_with_logits, forward over reverse",
        ),
        Form(
            f"torch.func.vmap(torch.func.grad(torch.func.grad(lambda z, t: {BCE_WITH_LOGITS.format('z')})))(z, t) * g",
            label="F.binary_cross_entropy_with_logits, vmap of grad of grad",
        ),
    ),
)

binary_cross_entropy_twice = Pitfall(
    name="binary_cross_entropy_twice",
    statement="binary_cross_entropy after sigmoid has 1e-12 in its second derivative, where much cancels: 8e-12 off"
    " at a logit of 0, 0.1 % at -10 with a target of 1 (float64), and of the wrong sign at -14 (float32)",
    source="torch/csrc/autograd/FunctionsManual.cpp, binary_cross_entropy_double_backward; pytorch/pytorch#26983",
    of=binary_cross_entropy_second_derivative,
    mistake=twice(
        "F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')",
        "F.binary_cross_entropy of torch.sigmoid",
        formats=("float64", "float32", "bfloat16"),
    ),
    outcome=Differs(),
)

sigmoid_second_derivative = Identity(
    name="sigmoid_second_derivative",
    statement=r"\sigma''(z) = \sigma(z)\,\sigma(-z)\,(\sigma(-z) - \sigma(z))",
    source="Goodfellow, Bengio & Courville, Deep Learning, 3.10, differentiated",
    domain=scalars(layouts=LAYOUTS),
    spec=lambda p: [g * slope(z) * -exact.tanh(z / 2) for z, g in zip(p.z, p.g, strict=True)],
    wrt=(),
    forms=(
        Form("-g * (torch.sigmoid(z) * torch.sigmoid(-z)) * torch.tanh(z / 2)"),
        twice("torch.sigmoid(z)", "torch.sigmoid", regions=MODERATE),
        Form(forward_over_reverse("torch.sigmoid(x)"), label="torch.sigmoid, forward over reverse", regions=MODERATE),
    ),
)


binary_options_second_derivative = Identity(
    name="binary_options_second_derivative",
    statement=r"\partial_z^2\, v\, \mathrm{BCE}(z, t; w) = v\, (1 + (w - 1)\, t)\, \sigma(z)\,\sigma(-z)",
    source="torch.nn.BCEWithLogitsLoss documentation, weight and pos_weight, differentiated twice",
    domain=scalars(target="soft", weight=True, pos_weight=True, layouts=LAYOUTS),
    spec=lambda p: [
        g * v * (1 + (p.pos_weight - 1) * t) * slope(z) for z, t, v, g in zip(p.z, p.t, p.weight, p.g, strict=True)
    ],
    wrt=(),
    forms=(
        Form("g * (weight * (1 + (pos_weight - 1) * t) * (torch.sigmoid(z) * torch.sigmoid(-z)))"),
        twice(
            "F.binary_cross_entropy_with_logits(z, t, weight, pos_weight=pos_weight, reduction='none')",
            "F.binary_cross_entropy_with_logits",
        ),
        Form(
            forward_over_reverse("F.binary_cross_entropy_with_logits(x, t, weight, pos_weight=pos_weight)")
            + " * len(z)",
            label="its mean, forward over reverse",
        ),
    ),
)

soft_margin_loss_second_derivative = Identity(
    name="soft_margin_loss_second_derivative",
    statement=r"\partial_z^2 \log(1 + e^{-y z}) = \sigma(z)\,\sigma(-z), \quad y = \pm 1",
    source="torch.nn.SoftMarginLoss documentation, differentiated twice",
    domain=scalars(target="sign", layouts=LAYOUTS),
    spec=lambda p: [g * slope(z) for z, g in zip(p.z, p.g, strict=True)],
    wrt=(),
    forms=(
        Form("g * (torch.sigmoid(z) * torch.sigmoid(-z))"),
        twice(
            "F.soft_margin_loss(z, t, reduction='none')",
            "F.soft_margin_loss",
            regions=MODERATE,
        ),
    ),
)


def hessian_products(p: SimpleNamespace) -> list[list[Number]]:
    """(diag(s) - s s') g of every row, s its softmax."""
    rows = []
    for z, g in zip(p.z, p.g, strict=True):
        s = exact.softmax(z)
        # s_k sum_j s_j (g_k - g_j): nothing cancels but differences of exact numbers
        rows.append([s[k] * exact.total(s[j] * (g[k] - g[j]) for j in range(len(s)) if j != k) for k in range(len(s))])
    return rows


cross_entropy_hessian = Identity(
    name="cross_entropy_hessian",
    statement=r"\nabla^2 \ell(z)\, g = (\mathrm{diag}(s) - s s^\top)\, g, \quad s = \mathrm{softmax}(z)",
    source="Bishop, Pattern Recognition and Machine Learning, (4.110)",
    domain=classes(labels=True, out="RC", layouts=("contiguous", "strided", "inner", "movedim")),
    spec=hessian_products,
    out="RC",
    wrt=(),
    forms=(
        Form("s = F.softmax(z, dim)\ns * (g - (s * g).sum(dim, keepdim=True))"),
        twice("F.cross_entropy(z, y, reduction='none')", "F.cross_entropy"),
        twice(
            "F.cross_entropy(z, t, reduction='none')",
            "F.cross_entropy of one-hot targets",
            "t = torch.zeros_like(z).scatter_(dim, y.unsqueeze(dim), 1)\n",
        ),
        twice("torch.logsumexp(z, dim)", "torch.logsumexp"),
        Form(
            forward_over_reverse("F.cross_entropy(x, y, reduction='none')"),
            label="F.cross_entropy, forward over reverse",
        ),
        Form(
            "def product(x, y, g):\n"
            "    row = torch.func.grad(lambda r: F.cross_entropy(r[None], y[None], reduction='sum'))\n"
            "    return torch.func.vjp(row, x)[1](g)[0]\n"
            "torch.func.vmap(product)(z, y, g)",
            label="F.cross_entropy, vmap of vjp of grad",
        ),
    ),
)

soft_cross_entropy_hessian = Identity(
    name="soft_cross_entropy_hessian",
    statement=r"\nabla^2 \ell(z)\, g = \left(\textstyle\sum_k p_k\right) (\mathrm{diag}(s) - s s^\top)\, g",
    source="Bishop, Pattern Recognition and Machine Learning, (4.110), for probability targets",
    domain=classes(soft="weights", out="RC", layouts=("contiguous", "strided", "inner")),
    spec=lambda p: [
        [exact.total(target) * x for x in row] for row, target in zip(hessian_products(p), p.p, strict=True)
    ],
    out="RC",
    wrt=(),
    forms=(
        Form("s = F.softmax(z, dim)\np.sum(dim, keepdim=True) * (s * (g - (s * g).sum(dim, keepdim=True)))"),
        twice("F.cross_entropy(z, p, reduction='none')", "F.cross_entropy"),
        twice(
            "F.cross_entropy(z, p, label_smoothing=0.0, reduction='sum')",
            "F.cross_entropy, its sum",
        ),
    ),
)
