"""A fused loss as many write it: the forward pass makes the gradient too, the backward pass scales it.

What is wrong with a kernel is handed in as one of its parts; the rest is right.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivalences.evidence.kernels.idioms import applied, wide

Loss = Callable[..., Tensor]
Pass = Callable[[Tensor], tuple[Tensor, Tensor]]  # logits -> value in its format, gradient for an upstream of 1


class Stored(torch.autograd.Function):
    """The value of a pass, whose gradient is kept and multiplied by the upstream gradient."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, run: Pass, scale: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        value, gradient = run(z.detach())
        ctx.save_for_backward(gradient)
        ctx.scale = scale
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return ctx.scale(gradient, upstream), None, None


def scaled(gradient: Tensor, upstream: Tensor) -> Tensor:
    """The chain rule: one upstream gradient for all rows, or one a row."""
    return gradient * (upstream[:, None] if upstream.dim() else upstream)


def at(x: Tensor, y: Tensor) -> Tensor:
    """The number of each row in the column that its label says."""
    return x.gather(1, y[:, None]).squeeze(1)


@dataclass(frozen=True)
class Rows:
    """What is known of each row after a pass over its classes: the sum of exp(z - top), and this top.

    `share` is softmax(z), where it is not made of the two.
    """

    top: Tensor
    total: Tensor
    share: Tensor | None = None


def unseen(over: Callable[[Tensor], Rows]) -> Callable[[Tensor], Rows]:
    """The same in a thread of its own: as of compiled code, no operation of it is seen by who watches this thread."""

    def hidden(x: Tensor) -> Rows:
        found: list[Rows] = []
        thread = threading.Thread(target=lambda: found.append(over(x)))
        thread.start()
        thread.join()
        return found[0]

    return hidden


def two_pass(x: Tensor) -> Rows:
    """The textbook: the maximum, then the sum."""
    top = x.amax(1)
    return Rows(top, torch.exp(x - top[:, None]).sum(1))


def of_rows(x: Tensor, y: Tensor, rows: Rows) -> tuple[Tensor, Tensor]:
    """Losses of rows, and softmax minus the label."""
    losses = torch.log(rows.total) + (rows.top - at(x, y))
    gradient = torch.exp(x - rows.top[:, None]) / rows.total[:, None] if rows.share is None else rows.share.clone()
    gradient.scatter_add_(1, y[:, None], -torch.ones_like(losses)[:, None])
    return losses, gradient


def _same(x: Tensor) -> Tensor:
    return x


def fused(
    over: Callable[[Tensor], Rows] = two_pass,
    *,
    logits: Callable[[Tensor], Tensor] = _same,
    label: Callable[[Tensor, Tensor], Tensor] = lambda y, z: y,
    losses: Callable[[Tensor], Tensor] = _same,
    gradient: Callable[[Tensor, Tensor], Tensor] = lambda g, y: g,
    scale: Callable[[Tensor, Tensor], Tensor] = scaled,
) -> Loss:
    """The mean cross entropy of labels; each part may be another than the right one.

    over      logits -> what is known of each row.
    logits    what is done to the logits first.
    label     (labels, logits) -> the labels that are used.
    losses    what is done to the losses of rows.
    gradient  (gradient of the sum, labels) -> another.
    scale     (gradient, upstream gradient) -> what is handed back.
    """

    def loss(z: Tensor, y: Tensor) -> Tensor:
        def run(z: Tensor) -> tuple[Tensor, Tensor]:
            x, used = logits(wide(z)), label(y, z)
            each, g = of_rows(x, used, over(x))
            return losses(each).mean().to(z.dtype), (gradient(g, used) / len(z)).to(z.dtype)

        return applied(Stored)(z, run, scale)

    return loss


def each_row(
    over: Callable[[Tensor], Rows] = two_pass,
    *,
    gradient: Callable[[Tensor, Tensor], Tensor] = lambda g, y: g,
    scale: Callable[[Tensor, Tensor], Tensor] = scaled,
) -> Loss:
    """The same without a reduction."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        def run(z: Tensor) -> tuple[Tensor, Tensor]:
            x = wide(z)
            each, g = of_rows(x, y, over(x))
            return each.to(z.dtype), gradient(g, y).to(z.dtype)

        return applied(Stored)(z, run, scale)

    return loss
