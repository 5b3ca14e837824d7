"""Binary cross entropy: from logits, from probabilities, from two columns; hard and soft labels."""

from __future__ import annotations

from types import SimpleNamespace

from equivalences.model import Differs, Form, Identity, Pitfall
from equivalences.oracle import exact
from equivalences.oracle.exact import Number, Real
from equivalences.problems.classes import pairs
from equivalences.problems.distributions import certainties
from equivalences.problems.scalars import scalars

LAYOUTS = ("contiguous", "strided", "offset", "expanded", "unbatched")
BATCHED = LAYOUTS[:-1]
LOGITS = scalars(layouts=LAYOUTS)
HARD = scalars(target="index", layouts=LAYOUTS)
SOFT = scalars(target="soft", layouts=LAYOUTS)
SIGNED = scalars(target="sign", layouts=LAYOUTS)

# Where sigmoid(z) and 1 - sigmoid(z) are both far enough from zero for their logarithms.
MODERATE = ("wide", "zero", "core")

BCE = "torch.nn.BCELoss documentation; dl2025 week 5, closing example 1 (three ways)"


def log_loss(z: Real, t: Real, w: Real = 1) -> Number:
    """-(w t log sigmoid(z) + (1 - t) log(1 - sigmoid(z))), of an exact z: without cancellation, and linear in t."""
    share = 1 + (w - 1) * t
    if exact.positive(z):
        return (1 - t) * z + share * exact.softplus(-z)
    return share * exact.softplus(z) - w * t * z


def log_losses(p: SimpleNamespace) -> list[Number]:
    return [log_loss(z, t) for z, t in zip(p.z, p.t, strict=True)]


def log_losses_of_labels(p: SimpleNamespace) -> list[Number]:
    """The same for labels 0 and 1: one logarithm a row."""
    return [exact.softplus(-z if exact.positive(t) else z) for z, t in zip(p.z, p.t, strict=True)]


# --- hard labels -------------------------------------------------------------------------------------------------

binary_cross_entropy = Identity(
    name="binary_cross_entropy",
    statement=r"-(y \log\sigma(z) + (1-y)\log(1-\sigma(z))) = \mathrm{softplus}(z) - yz = -\log\sigma(\pm z)",
    source=BCE,
    domain=HARD,
    spec=log_losses_of_labels,
    forms=(
        Form("torch.where(t > 0, -F.logsigmoid(z), -F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, t, reduction='none')", name="bce-with-logits"),
        Form("nn.BCEWithLogitsLoss(reduction='none')(z, t)"),
        Form("torch.func.vmap(F.binary_cross_entropy_with_logits)(z, t)", layouts=BATCHED),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')", name="bce-of-sigmoid"),
        Form("torch.func.vmap(lambda z, t: F.binary_cross_entropy(torch.sigmoid(z), t))(z, t)", layouts=BATCHED),
        Form("nn.BCELoss(reduction='none')(nn.Sigmoid()(z), t)"),
        Form(
            "s = torch.exp(z) / (1 + torch.exp(z))\n-(t * torch.log(s) + (1 - t) * torch.log(1 - s))", regions=MODERATE
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
        Form("F.cross_entropy(torch.stack((torch.zeros_like(z), z), -1), t.long(), reduction='none')"),
        Form("F.cross_entropy(torch.stack((-z / 2, z / 2), -1), t.long(), reduction='none')"),
        Form(
            "s = torch.sigmoid(z)\nF.nll_loss(torch.log(torch.stack((1 - s, s), -1)), t.long(), reduction='none')",
            regions=MODERATE,
        ),
    ),
)

binary_cross_entropy_by_parts = Identity(
    name="binary_cross_entropy_by_parts",
    statement=r"\mathrm{BCE}(z, y) = \max(z, 0) - yz + \log(1 + e^{-|z|}) \text{ (the value alone)}",
    source="tf.nn.sigmoid_cross_entropy_with_logits documentation",
    domain=HARD,
    spec=log_losses,
    wrt=(),
    forms=(
        Form("F.relu(z) - z * t + torch.log1p(torch.exp(-z.abs()))"),
        Form("z.clamp(min=0) - z * t + torch.log1p(torch.exp(-z.abs()))"),
        Form("torch.maximum(z, torch.zeros_like(z)) - z * t + F.softplus(-z.abs())"),
    ),
)

kink_at_zero = Pitfall(
    name="kink_at_zero",
    statement="at z = 0 exactly, autograd through max(z, 0) and |z| gives the gradient -y instead of 1/2 - y",
    source="pytorch/pytorch#2195 (binary_cross_entropy_with_logits itself once had it)",
    of=binary_cross_entropy,
    mistake=Form("F.relu(z) - z * t + torch.log1p(torch.exp(-z.abs()))"),
    outcome=Differs(),
    when=lambda problem: bool(((problem["z"] == 0) & (problem["g"] != 0)).any()),
    relations=(binary_cross_entropy_by_parts,),
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
        Form("torch.func.vmap(torch.func.grad(F.binary_cross_entropy_with_logits))(z, t) * g", layouts=BATCHED),
        Form("torch.func.vjp(lambda x: F.binary_cross_entropy(torch.sigmoid(x), t, reduction='none'), z)[1](g)[0]"),
        Form("torch.func.vjp(lambda x: -F.logsigmoid((2 * t - 1) * x), z)[1](g)[0]"),
        Form("torch.func.vjp(lambda x: F.softplus(x) - t * x, z)[1](g)[0]"),
    ),
)

binary_cross_entropy_of_probabilities = Identity(
    name="binary_cross_entropy_of_probabilities",
    statement=r"-\left(t \log p + (1-t)\log(1-p)\right), \quad 0 \log 0 = 0",
    source=BCE,
    domain=certainties(),
    spec=lambda p: [-(exact.xlogy(t, q) + exact.xlogy(1 - t, 1 - q)) for q, t in zip(p.p, p.t, strict=True)],
    wrt=("p", "t"),
    forms=(
        Form("-(torch.xlogy(t, p) + torch.special.xlog1py(1 - t, -p))", regions=("extreme", "rare", "sure", "core")),
        Form("F.binary_cross_entropy(p, t, reduction='none')"),
        Form("nn.BCELoss(reduction='none')(p, t)"),
        Form("-(t * torch.log(p) + (1 - t) * torch.log1p(-p))", regions=("extreme", "rare", "sure", "core")),
        Form("-(t * torch.log(p) + (1 - t) * torch.log(1 - p))", regions=("rare", "sure", "core")),
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
        Form("F.soft_margin_loss(z, t, reduction='none')", name="soft-margin-loss"),
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
    wrt=("z", "t"),
    forms=(
        Form("-(t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z))"),
        Form("F.binary_cross_entropy_with_logits(z, t, reduction='none')", name="bce-with-logits"),
        Form("F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')", name="bce-of-sigmoid"),
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

# --- two columns ----------------------------------------------------------------------------------------

two_columns = Identity(
    name="two_columns",
    statement=(
        r"\mathrm{CE}((a, b), y) = \mathrm{BCE}(b - a, y)"
        r" = (\mathrm{BCE}(s_0, 1-y) + \mathrm{BCE}(s_1, y)) / 2, \quad s = \mathrm{softmax}((a, b))"
    ),
    source="dl2025 week 5, section 5C and closing examples (the mean of BCE over both softmax columns)",
    domain=pairs(labels=True, layouts=("contiguous", "strided", "transposed", "inner")),
    spec=lambda p: [exact.softplus(row[1 - y] - row[y]) for row, y in zip(p.z, p.y, strict=True)],
    forms=(
        Form("a, b = z.unbind(dim)\ntorch.where(y > 0, -F.logsigmoid(b - a), -F.logsigmoid(a - b))"),
        Form("F.cross_entropy(z, y, reduction='none')", name="cross-entropy"),
        Form("a, b = z.unbind(dim)\nF.binary_cross_entropy_with_logits(b - a, y.to(z.dtype), reduction='none')"),
        Form("a, b = z.unbind(dim)\nF.softplus((1 - 2 * y) * (b - a))"),
        Form(
            "a, b = z.unbind(dim)\nF.cross_entropy(torch.stack((torch.zeros_like(a), b - a), 1), y, reduction='none')"
        ),
        Form(
            "s0, s1 = F.softmax(z, dim).unbind(dim)\n"
            "L = F.binary_cross_entropy\n"
            "(L(s0, (y == 0).to(z.dtype), reduction='none') + L(s1, y.to(z.dtype), reduction='none')) / 2",
            regions=("extreme", "offset", "tie", "saturated", "core"),
        ),
        Form("F.binary_cross_entropy(F.softmax(z, dim).select(dim, 1), y.to(z.dtype), reduction='none')"),
    ),
)
