"""Losses as negative log-likelihoods: Bernoulli, categorical and normal (the closing table of the lecture)."""

from __future__ import annotations

from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.problems.classes import classes
from equivalences.problems.distributions import outcomes, probabilities, regression

WIDE = ("float64", "float32")
# torch.distributions moves probabilities into [eps, 1 - eps]
PROPER = ("rare", "sure", "core")

bernoulli_nll = Identity(
    name="bernoulli_nll",
    statement=r"\mathrm{BCE}(p, t) = -\log p^t (1 - p)^{1 - t}, \quad t \in \{0, 1\}",
    source="torch.nn.BCELoss documentation; torch.distributions.Bernoulli",
    domain=probabilities(),
    spec=lambda p: [-exact.xlogy(t, q) - exact.xlogy(1 - t, 1 - q) for q, t in zip(p.p, p.t, strict=True)],
    wrt=("p",),
    forms=(
        Form("F.binary_cross_entropy(p, t, reduction='none')"),
        Form("nn.BCELoss(reduction='none')(p, t)"),
        Form("-(t * torch.log(p) + (1 - t) * torch.log1p(-p))"),
        Form("-(t * torch.log(p) + (1 - t) * torch.log(1 - p))"),
        Form("-(torch.xlogy(t, p) + torch.xlogy(1 - t, 1 - p))"),
        Form("-torch.log(torch.where(t > 0.5, p, 1 - p))"),
        Form("-torch.distributions.Bernoulli(p).log_prob(t)", regions=PROPER, name="bernoulli-log-prob"),
        Form("-torch.distributions.Binomial(1, p).log_prob(t)", regions=PROPER),
        Form(
            "-torch.distributions.Categorical(torch.stack((1 - p, p), 1), validate_args=False).log_prob(t.long())",
            regions=("core",),
        ),
    ),
)

categorical_nll = Identity(
    name="categorical_nll",
    statement=r"-\log P(y), \quad P(k) = p_k / \sum_j p_j",
    source="torch.distributions.Categorical documentation (probs are normalised)",
    domain=outcomes(),
    spec=lambda p: [exact.log(exact.total(row)) - exact.log(row[y]) for row, y in zip(p.p, p.y, strict=True)],
    wrt=("p",),
    forms=(
        Form("-torch.log(p.gather(1, y[:, None])[:, 0] / p.sum(1))"),
        Form("torch.log(p.sum(1)) - torch.log(p.gather(1, y[:, None])[:, 0])"),
        Form("F.nll_loss(torch.log(p / p.sum(1, keepdim=True)), y, reduction='none')"),
        Form("F.cross_entropy(torch.log(p), y, reduction='none')"),
        Form("-torch.distributions.Categorical(p).log_prob(y)", regions=("rare", "core"), formats=WIDE),
        Form("-torch.distributions.Categorical(p, validate_args=False).log_prob(y)", regions=("rare", "core")),
        Form(
            "d = torch.distributions.OneHotCategorical(p)\n-d.log_prob(F.one_hot(y, p.shape[1]).to(p))",
            regions=("rare", "core"),
            formats=WIDE,
        ),
    ),
)


multinomial_nll = Identity(
    name="multinomial_nll",
    statement=r"\mathrm{CE}(z, y) = -\log \mathrm{Multinomial}(e_y; n = 1, \mathrm{softmax}(z))",
    source="DL2025 week 5, 5.F: multinomial with n = 1, softmax, cross entropy",
    domain=classes(labels=True, layouts=("contiguous", "strided", "transposed")),
    spec=lambda p: [-exact.log_softmax(row)[y] for row, y in zip(p.z, p.y, strict=True)],
    forms=(
        Form("F.cross_entropy(z, y, reduction='none')"),
        # Validation demands that probabilities sum to 1 within 1e-6: in 16 bits they do not.
        Form(
            "d = torch.distributions.OneHotCategorical(logits=z, validate_args=False)\n"
            "-d.log_prob(F.one_hot(y, z.shape[1]).to(z))"
        ),
        Form(
            "d = torch.distributions.Multinomial(1, logits=z, validate_args=False)\n"
            "-d.log_prob(F.one_hot(y, z.shape[1]).to(z))"
        ),
    ),
)

# The constant is the same Python float on both sides, so that it cancels exactly: what is left is the identity.
normal_nll = Identity(
    name="normal_nll",
    statement=r"(z - t)^2 / 2 = -\log \mathcal{N}(t; z, 1) - \tfrac12 \log 2\pi",
    source="torch.nn.GaussianNLLLoss documentation; torch.distributions.Normal",
    domain=regression(),
    spec=lambda p: [(z - t) ** 2 / 2 for z, t in zip(p.z, p.t, strict=True)],
    wrt=("z", "t"),
    forms=(
        Form("0.5 * F.mse_loss(z, t, reduction='none')"),
        Form("0.5 * (z - t) ** 2"),
        Form("F.gaussian_nll_loss(z, t, torch.ones_like(z), reduction='none')"),
        Form("F.gaussian_nll_loss(z, t, z * 0 + 1, full=True, reduction='none') - 0.5 * math.log(2 * math.pi)"),
        Form("-torch.distributions.Normal(z, 1.0).log_prob(t) - math.log(math.sqrt(2 * math.pi))"),
        Form("-torch.distributions.Normal(z, torch.ones_like(z)).log_prob(t) - math.log(math.sqrt(2 * math.pi))"),
    ),
)

_REDUCTIONS = ("mean", "sum")

mean_squared_error = Identity(
    name="mean_squared_error",
    statement=r"\mathrm{MSE} = \tfrac1N \sum_i (z_i - t_i)^2, a mean of 2 (-\log \mathcal{N}(t_i; z_i, 1)) - \log 2\pi",
    source="torch.nn.MSELoss documentation",
    domain=regression(reduction=_REDUCTIONS, out=""),
    spec=lambda p: getattr(exact, {"mean": "mean", "sum": "total"}[p.reduction])(
        (z - t) ** 2 for z, t in zip(p.z, p.t, strict=True)
    ),
    out="",
    wrt=("z", "t"),
    forms=(
        Form("F.mse_loss(z, t, reduction=reduction)"),
        Form("nn.MSELoss(reduction=reduction)(z, t)"),
        Form("getattr((z - t) ** 2, reduction)()"),
        Form("getattr(torch, reduction)(torch.square(z - t))"),
        Form("getattr(F.gaussian_nll_loss(z, t, torch.ones_like(z), reduction='none') * 2, reduction)()"),
    ),
)
