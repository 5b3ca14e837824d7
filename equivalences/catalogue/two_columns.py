"""Two classes: one sigmoid column against two softmax columns, trained."""

from __future__ import annotations

from typing import Any

from equivalences.catalogue.layers import affine
from equivalences.catalogue.training import FLAT, Rule, adam, sgd, step
from equivalences.model import Differs, Form, Identity, Pitfall
from equivalences.oracle import exact
from equivalences.problems.training import networks

TWO = networks(hidden=True, binary=True)
HEAD = 2  # the number of the first parameter of the last layer


def _of_logit(z: Any, t: Any) -> Any:
    """Mean binary cross entropy."""
    return exact.mean(exact.softplus(row) - label * row for row, label in zip(z, t, strict=True))


def followed(p: Any, rule: Rule) -> list[Any]:
    """The one-column network w = W2[1] - W2[0], a = b2[1] - b2[0] after one step of every parameter."""

    def loss(weight: Any, bias: Any, w: Any, a: Any) -> Any:
        hidden = [[exact.tanh(h) for h in affine(x, weight, bias)] for x in p.x]
        return _of_logit([exact.dot(h, w) + a for h in hidden], p.t)

    w = [u - v for u, v in zip(p.W2[1], p.W2[0], strict=True)]
    return step(p, loss, [p.W, p.b, w, p.b2[1] - p.b2[0]], rule, HEAD)


LEARNED = "V, c, w, a = (q.detach().clone().requires_grad_() for q in (W, b, W2[1] - W2[0], b2[1] - b2[0]))\n"
ONE_COLUMN = "(torch.tanh(F.linear(x, V, c)) @ w + a)"
TWO_LEARNED = "V, c, w, a = (q.detach().clone().requires_grad_() for q in (W, b, W2, b2))\n"
TWO_COLUMNS = "F.linear(torch.tanh(F.linear(x, V, c)), w, a)"
JOINED = "torch.cat([q.detach().flatten() for q in (V, c, w, a)])"
DIFFERENCE = "torch.cat([q.detach().flatten() for q in (V, c, w[1] - w[0], a[1] - a[0])])"

BINARY_LOSSES = {
    "binary_cross_entropy_with_logits": f"F.binary_cross_entropy_with_logits({ONE_COLUMN}, t)",
    "nn.BCEWithLogitsLoss": f"nn.BCEWithLogitsLoss()({ONE_COLUMN}, t)",
    "sigmoid, BCELoss": f"nn.BCELoss()(torch.sigmoid{ONE_COLUMN}, t)",
    "-logsigmoid": f"-F.logsigmoid((2 * t - 1) * {ONE_COLUMN}).mean()",
    "softplus": f"F.softplus((1 - 2 * t) * {ONE_COLUMN}).mean()",
    "-(t logsigmoid(z) + (1 - t) logsigmoid(-z))": f"z = {ONE_COLUMN}\n"
    "loss = -(t * F.logsigmoid(z) + (1 - t) * F.logsigmoid(-z)).mean()",
}


def binary_steps(optimizer: str, options: str = "") -> tuple[Form, ...]:
    """One step of the one-column network under every loss, and of the two-column network with half the head's rate."""
    forms = []
    for name, code in BINARY_LOSSES.items():
        loss = code if "loss = " in code else f"loss = {code}"
        forms.append(
            Form(
                f"{LEARNED}{loss}\n"
                "loss.backward()\n"
                f"torch.optim.{optimizer}((V, c, w, a), lr{options}).step()\n{JOINED}",
                label=f"{name}, {optimizer}",
            )
        )
    return (*forms, _two_columns(optimizer, options))


def _two_columns(optimizer: str, options: str, rate: str = "lr / 2", decay: str = "") -> Form:
    return Form(
        f"{TWO_LEARNED}F.cross_entropy({TWO_COLUMNS}, y).backward()\n"
        f"head = {{'params': (w, a), 'lr': {rate}{decay}}}\n"
        f"torch.optim.{optimizer}([{{'params': (V, c)}}, head], lr{options}).step()\n{DIFFERENCE}",
        label=f"two columns, head at {rate}{decay}, {optimizer}",
    )


binary_sgd = Identity(
    name="binary_sgd",
    statement=r"w_1 - w_0 = w: \text{ two softmax columns at half the head's rate follow one sigmoid column under SGD}",
    source="softmax([z0, z1])[1] = sigmoid(z1 - z0), and both columns' gradients are opposite; DL2025 week 5, 5.A-C, E",
    domain=TWO,
    spec=lambda p: followed(p, sgd),
    out="P",
    wrt=(),
    forms=binary_steps("SGD"),
)

binary_adam = Identity(
    name="binary_adam",
    statement=r"w_1 - w_0 = w \text{ under Adam, too, at half the head's rate: its steps are odd in the gradient}",
    source="Kingma & Ba, Adam, ICLR 2015, algorithm 1 with t = 1, applied to opposite gradients",
    domain=TWO,
    spec=lambda p: followed(p, adam),
    out="P",
    wrt=(),
    forms=binary_steps("Adam", ", (beta1, beta2), eps"),
    layouts=FLAT,
)

DECAY = ", weight_decay=0.125"


def _decayed(share: float) -> Rule:
    """SGD with weight decay 1/8, of which the head gets a share."""
    return lambda p, w, g, head: w - p.lr * (g + w * 0.125 * (share if head else 1))


binary_sgd_decay = Identity(
    name="binary_sgd_decay",
    statement=r"\text{under weight decay, the two columns follow at half the head's rate and twice its decay}",
    source="w - eta/2 (g + 2 lambda w) of both columns, subtracted",
    domain=TWO,
    spec=lambda p: followed(p, _decayed(1)),
    out="P",
    wrt=(),
    forms=(
        *binary_steps("SGD", DECAY)[:4],
        _two_columns("SGD", DECAY, decay=", 'weight_decay': 0.25"),
    ),
    layouts=FLAT,
)

half_decay = Identity(
    name="half_decay",
    statement=r"\text{at half the head's rate alone, the difference of two columns decays half as fast}",
    source="w - eta/2 (g + lambda w) of both columns, subtracted",
    domain=TWO,
    spec=lambda p: followed(p, _decayed(0.5)),
    out="P",
    wrt=(),
    forms=(_two_columns("SGD", DECAY), _two_columns("SGD", DECAY + ", foreach=True")),
    layouts=FLAT,
)

two_columns_with_weight_decay = Pitfall(
    name="two_columns_with_weight_decay",
    statement="halving the head's rate halves its weight decay as well: the columns no longer follow the one column",
    source="torch.optim.SGD documentation: the decay is multiplied by the rate",
    of=binary_sgd_decay,
    mistake=_two_columns("SGD", DECAY),
    outcome=Differs(),
    relations=(half_decay,),
)


def _twofold(rule: Rule) -> Rule:
    """The head's numbers move twice as far."""
    return lambda p, w, g, head: 2 * rule(p, w, g, head) - w if head else rule(p, w, g, head)


head_twice_as_fast = Identity(
    name="head_twice_as_fast",
    statement=r"w_1 - w_0 = w - 2 \eta \, \partial L / \partial w: \text{ both columns move, in opposite directions}",
    source="the gradients of the two columns are opposite",
    domain=TWO,
    spec=lambda p: followed(p, _twofold(sgd)),
    out="P",
    wrt=(),
    forms=(_two_columns("SGD", "", "lr"), _two_columns("SGD", ", foreach=True", "lr")),
    layouts=FLAT,
)

two_columns_at_full_rate = Pitfall(
    name="two_columns_at_full_rate",
    statement="at the same learning rate, two softmax columns learn twice as fast as one sigmoid column",
    source="DL2025 week 5, 5.E: the two models have the same expressive power (not the same training)",
    of=binary_sgd,
    mistake=_two_columns("SGD", "", "lr"),
    outcome=Differs(),
    relations=(head_twice_as_fast,),
)

adam_head_twice_as_fast = Identity(
    name="adam_head_twice_as_fast",
    statement=r"\text{under Adam at the same rate, too, the difference of the columns moves twice as far}",
    source="Adam's steps are odd in the gradient, and the columns' gradients are opposite",
    domain=TWO,
    spec=lambda p: followed(p, _twofold(adam)),
    out="P",
    wrt=(),
    forms=(
        _two_columns("Adam", ", (beta1, beta2), eps", "lr"),
        _two_columns("Adam", ", (beta1, beta2), eps, foreach=True", "lr"),
    ),
    layouts=FLAT,
)

two_columns_at_full_rate_under_adam = Pitfall(
    name="two_columns_at_full_rate_under_adam",
    statement="at the same learning rate, the two columns move twice as far under Adam, too",
    source="Kingma & Ba, Adam, ICLR 2015: invariance to rescaling of gradients, not of parameters",
    of=binary_adam,
    mistake=_two_columns("Adam", ", (beta1, beta2), eps", "lr"),
    outcome=Differs(),
    relations=(adam_head_twice_as_fast,),
)
