"""Optimizer steps by hand and by torch.optim, from given parameters, gradients and state (default, foreach, fused)."""

from __future__ import annotations

import textwrap
from typing import Any

from equivalences.model import Form, Identity
from equivalences.oracle import exact
from equivalences.problems.training import steps

SGD = steps(adam=False)
ADAM = steps(adam=True)
KINDS = ("", ", foreach=True", ", fused=True")


def modes(kind: str) -> tuple[str, ...] | None:
    """A fused step is of eager code alone: the compiler does not look into it, and leaves it to eager code.

    It also skips `Adam.step` from then on, in the whole process, and raises in Adam(foreach=True) (torch 2.8.0 to
    2.15.0; pytorch/pytorch#121178 is that error at another occasion).
    """
    return ("eager",) if "fused" in kind else None


def stepped(optimizer: str, options: str, state: str, result: str, buffers: str = "") -> tuple[Form, ...]:
    """One step of ``torch.optim.<optimizer>`` in its three implementations: of one tensor, of several in two groups.

    `state` and `result` are about a tensor ``w`` and its `buffers`, names of items.
    """
    alone = "w.requires_grad_().grad = d\na = torch.optim.{0}([w], lr, {1}{2})\n{3}a.step()\n{4}"
    several = (
        "parts = zip(*(x.split(max(1, len(w) // 3)) for x in (w, d{5})))\n"
        "parts = [[x.clone() for x in part] for part in parts]\n"
        "for w, d{5} in parts:\n    w.requires_grad_().grad = d\n"
        "groups = [{{'params': [w for w, *_ in some]}} for some in (parts[:1], parts[1:])]\n"
        "a = torch.optim.{0}(groups, lr, {1}{2})\n"
        "for w, d{5} in parts:\n{6}    pass\n"
        "a.step()\ntorch.cat([{4} for w, d{5} in parts])"
    )
    return tuple(
        Form(
            code.format(optimizer, options, kind, state, result, buffers, textwrap.indent(state, "    ")),
            label=f"{optimizer}({', '.join(filter(None, (kind.removeprefix(', '), label)))})",
            name=kind.removeprefix(", ").removesuffix("=True") + (f" {label}" if label else "") or "plain",
            dense_on=("cuda",) if "fused" in kind else (),
            modes=modes(kind) if code is alone else ("eager",),
        )
        for code, label in ((alone, ""), (several, "several tensors"))
        for kind in KINDS
    )


def _rising(p: Any, g: Any) -> Any:
    return -g if p.maximize else g


def _sgd(p: Any) -> list[Any]:
    return [w - p.lr * (_rising(p, g) + p.weight_decay * w) for w, g in zip(p.w, p.d, strict=True)]


sgd_step = Identity(
    name="sgd_step",
    statement=r"w' = w - \eta (g + \lambda w)",
    source="torch.optim.SGD documentation",
    domain=SGD,
    spec=_sgd,
    wrt=(),
    forms=(
        *stepped("SGD", "weight_decay=weight_decay, maximize=maximize", "", "w.detach()"),
        Form("g = -d if maximize else d\nw - lr * (g + weight_decay * w)"),
        Form("g = -d if maximize else d\nw.sub_(g.add(w, alpha=weight_decay), alpha=lr)"),
        Form(  # the compiler refuses to give an argument other data ("a set_ on a graph input")
            "g = -d if maximize else d\nw.data -= lr * (g + weight_decay * w)\nw.data", modes=("eager",)
        ),
    ),
)


def _sgd_momentum(p: Any) -> list[list[Any]]:
    rows = []
    for w, g, m in zip(p.w, p.d, p.m, strict=True):
        g = _rising(p, g) + p.weight_decay * w
        m = g if p.first else p.momentum * m + g - p.dampening * g
        rows.append([w - p.lr * (g + p.momentum * m if p.nesterov else m), m])
    return rows


sgd_momentum_step = Identity(
    name="sgd_momentum_step",
    statement=r"m' = \mu m + (1 - \tau) g, \quad w' = w - \eta m' \text{ or (Nesterov) } w - \eta (g + \mu m')",
    source="torch.optim.SGD documentation; the first step sets m' = g",
    domain=SGD,
    spec=_sgd_momentum,
    out="RS",
    wrt=(),
    forms=(
        *stepped(
            "SGD",
            "momentum, dampening, weight_decay, nesterov, maximize=maximize",
            "if not first:\n    a.state[w]['momentum_buffer'] = m\n",
            "torch.stack((w.detach(), a.state[w]['momentum_buffer']), 1)",
            ", m",
        ),
        Form(
            "g = (-d if maximize else d) + weight_decay * w\n"
            "b = g if first else momentum * m + (1 - dampening) * g\n"
            "torch.stack((w - lr * (g + momentum * b if nesterov else b), b), 1)",
            label="by hand",
        ),
    ),
)


def adam_rows(p: Any, decoupled: bool = False, amsgrad: bool = False) -> list[list[Any]]:
    """Kingma & Ba, algorithm 1, of every parameter: [w', m', v'] and with amsgrad the largest v."""
    rows = []
    one, beta1, beta2 = (exact.total([x]) for x in (1, p.beta1, p.beta2))
    bias1, bias2 = one - beta1 ** (p.step + 1), one - beta2 ** (p.step + 1)
    for w, g, m, v, top in zip(p.w, p.d, p.m, p.v, p.top, strict=True):
        g = _rising(p, g)
        if decoupled:
            w = w - w * p.lr * p.weight_decay
        else:
            g = g + p.weight_decay * w
        m = beta1 * m + (one - beta1) * g
        v = beta2 * v + (one - beta2) * g * g
        top = exact.maximum(top, v) if amsgrad else v
        w = w - p.lr * (m / bias1) / (exact.sqrt(top / bias2) + p.eps)
        rows.append([w, m, v, top] if amsgrad else [w, m, v])
    return rows


def _adam_identity(name: str, optimizer: str, source: str, decoupled: bool = False, amsgrad: bool = False) -> Identity:
    tops = ", a.state[w]['max_exp_avg_sq']" if amsgrad else ""
    top = ", 'max_exp_avg_sq': top" if amsgrad else ""
    decay = (
        "w = w * (1 - lr * weight_decay)\ng = -d if maximize else d\n"
        if decoupled
        else "g = (-d if maximize else d) + weight_decay * w\n"
    )
    by_hand = (
        f"{decay}m = beta1 * m + (1 - beta1) * g\nv = beta2 * v + (1 - beta2) * g * g\n"
        f"{'top = torch.maximum(top, v)' if amsgrad else 'top = v'}\n"
        "mean = m / (1 - beta1 ** (step + 1))\nsquare = top / (1 - beta2 ** (step + 1))\n"
        f"torch.stack((w - lr * mean / (torch.sqrt(square) + eps), m, v{', top' if amsgrad else ''}), 1)"
    )
    in_place = (
        f"{decay}m.mul_(beta1).add_(g, alpha=1 - beta1)\nv.mul_(beta2).addcmul_(g, g, value=1 - beta2)\n"
        f"{'top.copy_(torch.maximum(top, v))' if amsgrad else 'top = v'}\n"
        "below = (top.sqrt() / (1 - beta2 ** (step + 1)) ** 0.5).add_(eps)\n"
        "w.addcdiv_(m, below, value=-lr / (1 - beta1 ** (step + 1)))\n"
        f"torch.stack((w, m, v{', top' if amsgrad else ''}), 1)"
    )
    return Identity(
        name=name,
        statement=r"w' = w - \eta \frac{m' / (1 - \beta_1^t)}{\sqrt{v' / (1 - \beta_2^t)} + \epsilon}, \quad "
        r"m' = \beta_1 m + (1 - \beta_1) g, \quad v' = \beta_2 v + (1 - \beta_2) g^2",
        source=source,
        domain=ADAM,
        spec=lambda p: adam_rows(p, decoupled, amsgrad),
        out="RS",
        wrt=(),
        forms=(
            *stepped(
                optimizer,
                f"(beta1, beta2), eps, weight_decay, {amsgrad}, maximize=maximize",
                "if step:\n"
                "    a.state[w] = {'step': torch.tensor(float(step), device=w.device), 'exp_avg': m, 'exp_avg_sq': v"
                + top
                + "}\n",
                f"torch.stack((w.detach(), a.state[w]['exp_avg'], a.state[w]['exp_avg_sq']{tops}), 1)",
                ", m, v, top",
            ),
            Form(by_hand, label="by hand"),
            Form(in_place, label="by hand, in place"),
        ),
    )


adam_step = _adam_identity("adam_step", "Adam", "Kingma & Ba, ICLR 2015, algorithm 1; torch.optim.Adam documentation")
adamw_step = _adam_identity(
    "adamw_step", "AdamW", "Loshchilov & Hutter, ICLR 2019, algorithm 2; torch.optim.AdamW documentation", True
)
amsgrad_step = _adam_identity(
    "amsgrad_step", "Adam", "Reddi, Kale & Kumar, ICLR 2018; torch.optim.Adam(amsgrad=True) documentation", False, True
)
