"""The logistic sigmoid, its logarithm, and softplus."""

from __future__ import annotations

from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.problems.scalars import scalars

LOGITS = scalars(layouts=("contiguous", "strided", "offset", "expanded", "unbatched"))
# Where the exponential of a logit does not overflow.
FINITE = ("saturated", "wide", "zero", "core")

sigmoid = Identity(
    name="sigmoid",
    statement=r"\sigma(z) = \frac{1}{1 + e^{-z}} = \frac{e^z}{1 + e^z} = e^{\log\sigma(z)} = 1 - \sigma(-z)",
    source="torch.nn.Sigmoid documentation; dl2025 week 5, section 5A (exp(z) / (1 + exp(z)) by hand)",
    domain=LOGITS,
    spec=lambda p: [exact.sigmoid(z) for z in p.z],
    forms=(
        Form("torch.sigmoid(z)", name="sigmoid"),
        Form("nn.Sigmoid()(z)"),
        Form("torch.special.expit(z)"),
        Form("1 / (1 + torch.exp(-z))"),
        Form("torch.exp(z) / (1 + torch.exp(z))", regions=FINITE),
        Form("torch.exp(F.logsigmoid(z))"),
        Form("1 - torch.sigmoid(-z)"),
        Form("(1 + torch.tanh(z / 2)) / 2"),
        Form("torch.exp(z - F.softplus(z))"),
    ),
)

sigmoid_complement = Identity(
    name="sigmoid_complement",
    statement=r"\sigma(-z) = 1 - \sigma(z) = e^{-\mathrm{softplus}(z)}",
    source="dl2025 week 5, closing examples (the columns sigma(z) and 1 - sigma(z))",
    domain=LOGITS,
    spec=lambda p: [exact.sigmoid(-z) for z in p.z],
    forms=(
        Form("torch.sigmoid(-z)"),
        Form("1 - torch.sigmoid(z)"),
        Form("torch.exp(-F.softplus(z))"),
        Form("1 / (1 + torch.exp(z))"),
    ),
)

tanh_of_sigmoid = Identity(
    name="tanh_of_sigmoid",
    statement=r"\tanh z = 2\sigma(2z) - 1",
    source="Goodfellow, Bengio & Courville, Deep Learning, 6.3.2",
    domain=LOGITS,
    spec=lambda p: [exact.tanh(z) for z in p.z],
    forms=(
        Form("torch.tanh(z)"),
        Form("2 * torch.sigmoid(2 * z) - 1"),
        Form("1 - 2 * torch.sigmoid(-2 * z)"),
        Form("torch.sigmoid(2 * z) - torch.sigmoid(-2 * z)"),
    ),
)

logsigmoid = Identity(
    name="logsigmoid",
    statement=r"\log\sigma(z) = -\mathrm{softplus}(-z) = z - \mathrm{softplus}(z)",
    source="torch.nn.LogSigmoid documentation; dl2025 week 5, section 5C",
    domain=LOGITS,
    spec=lambda p: [exact.logsigmoid(z) for z in p.z],
    forms=(
        Form("F.logsigmoid(z)"),
        Form("nn.LogSigmoid()(z)"),
        Form("-F.softplus(-z)"),
        Form("z - F.softplus(z)"),
        Form("-torch.logaddexp(-z, torch.zeros_like(z))"),
        Form("-torch.log1p(torch.exp(-z))"),
        Form("torch.log(torch.sigmoid(z))"),
        Form("F.log_softmax(torch.stack((torch.zeros_like(z), z), -1), -1)[..., 1]"),
    ),
)

softplus = Identity(
    name="softplus",
    statement=r"\mathrm{softplus}(z) = \log(1 + e^z) = -\log\sigma(-z) = \mathrm{lse}(0, z)",
    source="torch.nn.Softplus documentation (the identity function beyond the threshold 20)",
    domain=LOGITS,
    spec=lambda p: [exact.softplus(z) for z in p.z],
    forms=(
        Form("-F.logsigmoid(-z)"),
        Form("F.softplus(z)"),
        Form("nn.Softplus()(z)"),
        Form("F.softplus(z, threshold=50)"),
        Form("torch.logaddexp(z, torch.zeros_like(z))"),
        Form("torch.log1p(torch.exp(z))"),
        Form("torch.logsumexp(torch.stack((z, torch.zeros_like(z)), -1), -1)"),
    ),
)

sigmoid_derivative = Identity(
    name="sigmoid_derivative",
    statement=r"\sigma'(z) = \sigma(z)\,\sigma(-z) = (1 - \tanh^2(z/2)) / 4",
    source="Goodfellow, Bengio & Courville, Deep Learning, 3.10",
    domain=LOGITS,
    spec=lambda p: [g * exact.sigmoid(z) * exact.sigmoid(-z) for z, g in zip(p.z, p.g, strict=True)],
    wrt=(),
    forms=(
        Form("g * (torch.sigmoid(z) * torch.sigmoid(-z))"),
        Form("z = z.detach().requires_grad_()\ntorch.autograd.grad(torch.sigmoid(z), z, g)[0]", name="sigmoid-vjp"),
        Form("torch.func.vjp(torch.sigmoid, z)[1](g)[0]"),
        Form("s = torch.sigmoid(z)\ng * (s * (1 - s))"),
        Form("g * torch.exp(F.logsigmoid(z) + F.logsigmoid(-z))"),
        Form("g * (1 - torch.tanh(z / 2) ** 2) / 4"),
    ),
)

sigmoid_within_unit_interval = Identity(
    name="sigmoid_within_unit_interval",
    statement=r"0 \le \sigma(z) \le 1 \text{ and } \sigma(z) > 1/2 \Rightarrow z > 0",
    source="torch.nn.Sigmoid documentation",
    domain=LOGITS,
    spec=lambda p: [True for z in p.z],
    wrt=(),
    bitwise=True,
    forms=(
        Form("(torch.sigmoid(z) >= 0) & (torch.sigmoid(z) <= 1)"),
        Form("F.logsigmoid(z) <= 0"),
        Form("F.softplus(z) >= 0"),
        Form("(torch.sigmoid(z) <= 0.5) | (z > 0)"),
    ),
)

sigmoid_threshold = Identity(
    name="sigmoid_threshold",
    statement=r"\sigma(z) > 1/2 \iff z > 0 \text{ (but for logits that rounding makes 1/2)}",
    source="dl2025 week 5, sections 4 and 5A (net(XX) > 0.5 after the sigmoid, net(XX) > 0 before it)",
    domain=LOGITS,
    spec=lambda p: [int(exact.positive(z)) for z in p.z],
    wrt=(),
    forms=(
        Form("z > 0"),
        Form("torch.sigmoid(z) > 0.5", regions=("extreme", "saturated", "wide", "core")),
        Form("torch.sigmoid(z) > torch.sigmoid(-z)", regions=("extreme", "saturated", "wide", "core")),
        Form("F.logsigmoid(z) > F.logsigmoid(-z)", regions=("extreme", "saturated", "wide", "core")),
        Form(
            "torch.softmax(torch.stack((torch.zeros_like(z), z), -1), -1).argmax(-1)",
            regions=("extreme", "saturated", "wide", "core"),
        ),
    ),
)
