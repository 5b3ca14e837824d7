"""Whole training steps: forward, backward and optimizer, judged one step at a time from common parameters.

Parameters come back flattened and joined, in the order of `parameters`.  They are exact functions of the problem, so
that a step of `loss.backward()` and `torch.optim` is held to the same standard as a step by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from equivalences.catalogue.layers import affine
from equivalences.catalogue.optimizers import adam_rows, modes
from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.problems.training import networks

Rule = Callable[[Any, Any, Any, bool], Any]  # problem, number, its gradient, whether the last layer's -> new number

# --- the exact step --------------------------------------------------------------------------------------------------


def flat(nested: Any) -> list[Any]:
    """The entries of nested lists, in order."""
    return [x for part in nested for x in flat(part)] if isinstance(nested, list) else [nested]


def _shaped(entries: Iterator[Any], like: Any) -> Any:
    return [_shaped(entries, part) for part in like] if isinstance(like, list) else next(entries)


def gradients(loss: Callable[..., Any], parameters: list[Any]) -> list[Any]:
    """The exact gradient of `loss` of the parameters, flattened and joined."""
    variables = exact.variables(flat(parameters))
    found: list[Any] = exact.grad(loss(*_shaped(iter(variables), parameters)), variables)
    return found


def step(p: Any, loss: Callable[..., Any], parameters: list[Any], rule: Rule, head: int | None = None) -> list[Any]:
    """All parameters, flattened, after one step of `rule`; the ones from number `head` on are the last layer's."""
    first = len(flat(parameters[:head])) if head is not None else len(flat(parameters))
    moved = zip(flat(parameters), gradients(loss, parameters), strict=True)
    return [rule(p, w, g, i >= first) for i, (w, g) in enumerate(moved)]


def sgd(p: Any, w: Any, g: Any, head: bool) -> Any:
    """One number's step under plain SGD."""
    return w - p.lr * g


def adam(p: Any, w: Any, g: Any, head: bool) -> Any:
    """One number's first step under Adam, where both bias corrections cancel the decay."""
    return w - p.lr * g / (abs(g) + p.eps)


def _of_logits(z: Any, y: Any) -> Any:
    """Mean cross entropy."""
    return exact.mean(exact.logsumexp(row) - row[label] for row, label in zip(z, y, strict=True))


def _mean_loss(p: Any) -> Callable[..., Any]:
    return lambda w, b: _of_logits([affine(x, w, b) for x in p.x], p.y)


# --- forms -----------------------------------------------------------------------------------------------------------

LEAVES = "W, b = W.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()\n"
TARGET = "F.one_hot(y, W.shape[0]).to(x)"
RESULT = "torch.cat((W.detach().flatten(), b.detach()))"
GRADIENTS = "torch.cat((W.grad.flatten(), b.grad))"

# The loss of a layer, from the high level to the low level.
LOSSES = {
    "F.cross_entropy": "F.cross_entropy(F.linear(x, W, b), y)",
    "one-hot": f"F.cross_entropy(F.linear(x, W, b), {TARGET})",
    "nll_loss": "F.nll_loss(F.log_softmax(F.linear(x, W, b), dim=1), y)",
    "log_softmax": f"-({TARGET} * F.log_softmax(x @ W.T + b, dim=1)).sum(1).mean()",
    "by hand": f"-({TARGET} * torch.log(F.softmax(x @ W.T + b, dim=1))).sum(1).mean()",
}
MODULE = (
    "m = nn.Linear(W.shape[1], W.shape[0]).to(x)\n"
    "m.load_state_dict({'weight': W, 'bias': b})\n"
    "nn.CrossEntropyLoss()(m(x), y).backward()\n"
    "W, b = m.weight, m.bias\n"
)
# The gradient without automatic differentiation: (softmax - one-hot) / N, times the input.
BY_HAND = f"d = (F.softmax(x @ W.T + b, dim=1) - {TARGET}) / len(x)\n"
GROUPED = ", foreach=True", ", fused=True"


def updates(optimizer: str, by_hand: str, options: str = "", losses: Iterable[str] = LOSSES) -> tuple[Form, ...]:
    """A step of the layer (W, b): losses with the optimizer, the optimizer's kinds, and all of it by hand."""
    stepping = f"torch.optim.{optimizer}((W, b), lr{options}%s).step()\n"
    return (
        *(
            Form(f"{LEAVES}({LOSSES[name]}).backward()\n{stepping % ''}{RESULT}", label=f"{name}, {optimizer}")
            for name in losses
        ),
        Form(f"{MODULE}{stepping % ''}{RESULT}", label=f"nn.Linear, CrossEntropyLoss, {optimizer}"),
        *(
            Form(
                f"{LEAVES}F.cross_entropy(F.linear(x, W, b), y).backward()\n{stepping % kind}{RESULT}",
                label=f"F.cross_entropy, {optimizer}({kind.removeprefix(', ')})",
                modes=modes(kind),
            )
            for kind in GROUPED
        ),
        Form(
            f"{LEAVES}g, c = torch.autograd.grad({LOSSES['F.cross_entropy']}, (W, b))\n{by_hand}",
            label=f"F.cross_entropy, {optimizer} by hand",
        ),
        Form(f"{BY_HAND}g, c = d.T @ x, d.sum(0)\n{by_hand}", label=f"all by hand, {optimizer}"),
    )


ONE = networks()
FLAT = ("contiguous",)  # a strided batch is judged where there is no state

cross_entropy_sgd = Identity(
    name="cross_entropy_sgd",
    statement=r"\theta' = \theta - \eta \nabla_\theta \tfrac1N \sum_i -\log \mathrm{softmax}(x_i W^T + b)_{y_i}",
    source="notebook and post on softmax and cross entropy: low-level and high-level training of the 8 x 4 set",
    domain=ONE,
    spec=lambda p: step(p, _mean_loss(p), [p.W, p.b], sgd),
    out="P",
    wrt=(),
    forms=updates("SGD", "torch.cat(((W - lr * g).detach().flatten(), (b - lr * c).detach()))"),
)

cross_entropy_adam = Identity(
    name="cross_entropy_adam",
    statement=r"\theta' = \theta - \eta \, g / (|g| + \epsilon), \text{ Adam's first step on the mean cross entropy}",
    source="Kingma & Ba, Adam, ICLR 2015, algorithm 1 with t = 1",
    domain=ONE,
    spec=lambda p: step(p, _mean_loss(p), [p.W, p.b], adam),
    out="P",
    wrt=(),
    forms=updates(
        "Adam",
        "torch.cat(((W - lr * g / (g.abs() + eps)).detach().flatten(), (b - lr * c / (c.abs() + eps)).detach()))",
        ", (beta1, beta2), eps",
        ("F.cross_entropy", "by hand"),
    ),
    layouts=FLAT,
)


def _two_steps_of_sgd(p: Any) -> list[Any]:
    once = step(p, _mean_loss(p), [p.W, p.b], sgd)
    return step(p, _mean_loss(p), _shaped(iter(once), [p.W, p.b]), sgd)


def _two_steps_of_adam(p: Any) -> list[Any]:
    w, m, v = flat([p.W, p.b]), *([0] * len(flat([p.W, p.b])) for _ in "mv")
    for done in range(2):
        d = gradients(_mean_loss(p), _shaped(iter(w), [p.W, p.b]))
        options = {"lr": p.lr, "beta1": p.beta1, "beta2": p.beta2, "eps": p.eps, "weight_decay": 0, "maximize": False}
        rows = adam_rows(SimpleNamespace(w=w, d=d, m=m, v=v, top=v, step=done, **options))
        w, m, v = ([row[i] for row in rows] for i in range(3))
    return w


def _twice(optimizer: str, options: str, kind: str, loss: str) -> Form:
    return Form(
        f"{LEAVES}a = torch.optim.{optimizer}((W, b), lr{options}{kind})\n"
        f"for _ in range(2):\n    a.zero_grad()\n    ({LOSSES[loss]}).backward()\n    a.step()\n{RESULT}",
        label=f"{loss}, {optimizer}({kind.removeprefix(', ')}) twice",
        modes=modes(kind),
    )


def _both(optimizer: str, options: str = "") -> tuple[Form, ...]:
    return (
        *(_twice(optimizer, options, "", loss) for loss in ("F.cross_entropy", "log_softmax", "by hand")),
        *(_twice(optimizer, options, kind, "F.cross_entropy") for kind in GROUPED),
    )


two_steps_of_sgd = Identity(
    name="two_steps_of_sgd",
    statement=r"\theta'' = \theta' - \eta \nabla L(\theta'), \quad \theta' = \theta - \eta \nabla L(\theta)",
    source="torch.optim documentation: zero_grad, backward, step",
    domain=ONE,
    spec=_two_steps_of_sgd,
    out="P",
    wrt=(),
    forms=(
        *_both("SGD"),
        Form(
            f"{LEAVES}for _ in range(2):\n"
            f"    g, c = torch.autograd.grad({LOSSES['log_softmax']}, (W, b))\n"
            f"    W, b = (W - lr * g).detach().requires_grad_(), (b - lr * c).detach().requires_grad_()\n{RESULT}",
            label="log_softmax, SGD by hand, twice",
        ),
    ),
    layouts=FLAT,
)

two_steps_of_adam = Identity(
    name="two_steps_of_adam",
    statement=r"\text{two steps of Adam on the mean cross entropy, from a fresh state}",
    source="Kingma & Ba, Adam, ICLR 2015, algorithm 1",
    domain=ONE,
    spec=_two_steps_of_adam,
    out="P",
    wrt=(),
    forms=_both("Adam", ", (beta1, beta2), eps"),
    layouts=FLAT,
)

_MEAN = "F.cross_entropy(F.linear(x, W, b), y)"
_PART = "F.cross_entropy(F.linear(x[i : i + batch], W, b), y[i : i + batch], reduction={!r})"

full_batch_gradient = Identity(
    name="full_batch_gradient",
    statement=r"\nabla L = \tfrac1N \sum_i \nabla \ell_i = \sum_B \tfrac{|B|}{N} \nabla L_B",
    source="linearity of the gradient; DL2025 week 5, 6.D (12,665 = 791 * 16 + 9: the last batch is smaller)",
    domain=ONE,
    spec=lambda p: gradients(_mean_loss(p), [p.W, p.b]),
    out="P",
    wrt=(),
    forms=(
        Form(f"{LEAVES}{_MEAN}.backward()\n{GRADIENTS}", label="full batch"),
        Form(f"{BY_HAND}torch.cat(((d.T @ x).flatten(), d.sum(0)))", label="by hand"),
        Form(
            f"{LEAVES}g = [torch.autograd.grad(F.cross_entropy(F.linear(u, W, b), v), (W, b)) for u, v in zip(x, y)]\n"
            "torch.stack([torch.cat((a.flatten(), c)) for a, c in g]).mean(0)",
            label="mean of per-sample gradients",
        ),
        Form(
            f"{LEAVES}for i in range(len(x)):\n    F.cross_entropy(F.linear(x[i], W, b), y[i]).backward()\n"
            "torch.cat((W.grad.flatten(), b.grad)) / len(x)",
            label="per-sample gradients, accumulated",
        ),
        Form(
            f"{LEAVES}for i in range(0, len(x), batch):\n"
            f"    ({_PART.format('mean')} * (len(y[i : i + batch]) / len(x))).backward()\n{GRADIENTS}",
            label="mini-batches weighted by size, accumulated",
        ),
        Form(
            f"{LEAVES}for i in range(0, len(x), batch):\n    ({_PART.format('sum')} / len(x)).backward()\n{GRADIENTS}",
            label="sums of mini-batches over N, accumulated",
        ),
        Form(
            f"{LEAVES}g = [(len(y[i : i + batch]), torch.autograd.grad({_PART.format('mean')}, (W, b)))"
            " for i in range(0, len(x), batch)]\n"
            "sum(n * torch.cat((a.flatten(), c)) for n, (a, c) in g) / len(x)",
            label="weighted mean of mini-batch gradients",
        ),
        Form(f"{LEAVES}{_MEAN}.backward()\n(2 * {_MEAN}).backward()\n{GRADIENTS} / 3", label="accumulated twice"),
    ),
)

# --- mini-batches ----------------------------------------------------------------------------------------------------

_LOADER = "torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=batch"
_SLICES = "[(x[i : i + batch], y[i : i + batch]) for i in range(0, len(x), batch)]"
_COPIES = "[(x[i : i + batch].clone(), y[i : i + batch]) for i in range(0, len(x), batch)]"
_BATCHES = {
    "DataLoader(shuffle=False)": f"{_LOADER}, shuffle=False)",
    "DataLoader()": f"{_LOADER})",
    "DataLoader(list)": "torch.utils.data.DataLoader(list(zip(x, y)), batch_size=batch)",
    "slices": _SLICES,
    "split": "zip(x.split(batch), y.split(batch))",
}

data_loader = Identity(
    name="data_loader",
    statement=r"\text{the k-th batch of an unshuffled DataLoader is } (x, y)[kB : (k + 1)B], \text{ bitwise}",
    source="torch.utils.data.DataLoader documentation; DL2025 week 5, 6.D",
    domain=ONE,
    spec=lambda p: [[i // p.batch, y, *x] for i, (x, y) in enumerate(zip(p.x, p.y, strict=True))],
    out="RX",
    mixes_rows=True,
    wrt=(),
    bitwise=True,
    forms=tuple(
        Form(
            f"batches = enumerate({batches})\n"
            "torch.cat([torch.cat((torch.full_like(u[:, :1], k), v[:, None].to(u), u), 1) for k, (u, v) in batches])",
            label=name,
        )
        for name, batches in _BATCHES.items()
    ),
)

data_loader_epoch = Identity(
    name="data_loader_epoch",
    # Copies, since a slice begins anywhere in memory: on some processors MKL rounds its products otherwise then.
    statement=r"\text{an epoch over an unshuffled DataLoader gives the parameters of one over copied slices, bitwise}",
    source="torch.utils.data.DataLoader documentation; oneMKL, Conditional Numerical Reproducibility (alignment)",
    domain=ONE,
    spec=lambda p: [1 for _ in flat([p.W, p.b])],
    out="P",
    wrt=(),
    bitwise=True,
    forms=tuple(
        Form(
            "def epoch(batches):\n"
            "    w, c = W.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()\n"
            f"    a = torch.optim.{optimizer}((w, c), lr)\n"
            "    for u, v in batches:\n"
            "        a.zero_grad()\n"
            "        F.cross_entropy(F.linear(u, w, c), v).backward()\n"
            "        a.step()\n"
            "    return torch.cat((w.detach().flatten(), c.detach()))\n"
            f"one, other = epoch({_BATCHES['DataLoader(shuffle=False)']}), epoch({_COPIES})\n"
            "(one == other) | (one.isnan() & other.isnan())",
            label=f"{optimizer}: DataLoader = copied slices",
        )
        for optimizer in ("SGD", "Adam", "AdamW")
    ),
    layouts=FLAT,
)
