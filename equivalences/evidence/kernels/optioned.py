"""Cross entropy with all its options, written out; each part may be another than the right one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.stored import Loss, at


class Factor(torch.autograd.Function):
    """A tensor as it is, whose gradient is multiplied by a factor."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(factor)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (factor,) = ctx.saved_tensors
        return upstream * factor, None


def regraded(x: Tensor, factor: Tensor | float) -> Tensor:
    """The same value with another gradient."""
    return applied(Factor)(x, torch.as_tensor(factor, dtype=x.dtype))


@dataclass(frozen=True, eq=False)
class Batch:
    """One call: N rows of K classes.

    x       N x K, the logits in the format of the arithmetic.
    logs    N x K, log softmax(x).
    y       N, the labels as they came.
    index   the ignored label.
    weight  K, or None.
    kept    N, which rows count.
    label   N, the labels, 0 in rows that do not count.
    own     N, the weight of each row's label (1 without weights).
    """

    x: Tensor
    logs: Tensor
    y: Tensor
    index: int
    weight: Tensor | None
    kept: Tensor
    label: Tensor
    own: Tensor

    @property
    def ones(self) -> Tensor:
        return self.x.new_ones(self.x.shape[1])


def kept(y: Tensor, index: int, classes: int) -> Tensor:
    """Rows that count."""
    return y != index


def weights(weight: Tensor | None, label: Tensor, logs: Tensor) -> Tensor:
    """The weight of each row's label."""
    return logs.new_ones(len(logs)) if weight is None or not len(weight) else weight[label]


def hard(b: Batch) -> Tensor:
    """The loss of each label."""
    if not b.x.shape[1]:  # then no row counts
        return b.logs.sum(1)
    return -b.own * at(b.logs, b.label)


def smooth(b: Batch) -> Tensor:
    """The mean loss of all classes, weighted."""
    return -(b.logs if b.weight is None else b.logs * b.weight).sum(1) / b.x.shape[1]


def mixed(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    """Both, the smoothing only where it is asked for: a masked class makes it inf."""
    return (1 - share) * hard + share * smooth() if share else hard


def divisor(b: Batch) -> Tensor:
    """The total weight of the rows that count."""
    return torch.where(b.kept, b.own, 0.0).sum()


def dropped(b: Batch, each: Tensor) -> Tensor:
    """Losses of rows, 0 for those that do not count."""
    return torch.where(b.kept, each, 0.0)


def reduced(b: Batch, each: Tensor, reduction: str, divisor: Callable[[Batch], Tensor]) -> Tensor:
    """One reduction, each row's loss or their total."""
    if reduction == "none":
        return each
    return each.sum() / divisor(b) if reduction == "mean" else each.sum()


def optioned(
    *,
    kept: Callable[[Tensor, int, int], Tensor] = kept,
    weights: Callable[[Tensor | None, Tensor, Tensor], Tensor] = weights,
    hard: Callable[[Batch], Tensor] = hard,
    smooth: Callable[[Batch], Tensor] = smooth,
    mixed: Callable[[Tensor, Callable[[], Tensor], float, int], Tensor] = mixed,
    divisor: Callable[[Batch], Tensor] = divisor,
    dropped: Callable[[Batch, Tensor], Tensor] = dropped,
    reduced: Callable[[Batch, Tensor, str, Callable[[Batch], Tensor]], Tensor] = reduced,
) -> Loss:
    """Cross entropy of labels; `kept` is told the labels, the ignored one and the number of classes."""

    def loss(
        z: Tensor,
        y: Tensor,
        *,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        x = wide(z)
        logs = torch.log_softmax(x, 1)
        count = kept(y, ignore_index, z.shape[1])
        label = torch.where(count & (y >= 0) & (y < z.shape[1]), y, 0)
        w = None if weight is None else wide(weight)
        b = Batch(x, logs, y, ignore_index, w, count, label, weights(w, label, logs))
        each = dropped(b, mixed(hard(b), lambda: smooth(b), label_smoothing, z.shape[1]))
        return reduced(b, each, reduction, divisor).to(z.dtype)

    return loss


def of_probabilities(
    *,
    target: Callable[[Tensor], Tensor] = lambda p: p,
    smoothed: Callable[[Tensor, float], Tensor] = lambda p, share: (1 - share) * p + share / p.shape[1],
    weighted: Callable[[Tensor, Tensor], Tensor] = lambda q, weight: q * weight,
    rows: Callable[[Tensor, Tensor], Tensor] = lambda q, logs: -(q * logs).sum(1),
    divisor: Callable[[Tensor, Tensor | None], Tensor | int] = lambda p, weight: len(p),
) -> Loss:
    """Cross entropy of class probabilities."""

    def loss(
        z: Tensor,
        p: Tensor,
        *,
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> Tensor:
        t, w = target(wide(p)), None if weight is None else wide(weight)
        q = smoothed(t, label_smoothing) if label_smoothing else t
        each = rows(q if w is None else weighted(q, w), torch.log_softmax(wide(z), 1))
        if reduction == "none":
            return each.to(z.dtype)
        return (each.sum() / divisor(t, w) if reduction == "mean" else each.sum()).to(z.dtype)

    return loss
