"""Right kernels: binary cross entropy with logits, and sigmoids."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

REDUCTIONS = ("none", "mean", "sum")
BINARY, SOFT = "binary_cross_entropy_with_logits", ("soft_targets",)


def by_softplus(z: Tensor, t: Tensor) -> Tensor:
    """For labels 0 and 1: softplus of the logit of the wrong answer."""
    return F.softplus((1 - 2 * t) * z, threshold=50).mean()


def by_two_softplus(z: Tensor, t: Tensor) -> Tensor:
    x, q = wide(z), wide(t)
    return (q * F.softplus(-x, threshold=50) + (1 - q) * F.softplus(x, threshold=50)).mean().to(z.dtype)


def by_logsigmoid(z: Tensor, t: Tensor, reduction: str) -> Tensor:
    """optax's formula, in float32."""
    x, q = wide(z), wide(t)
    loss = -(q * F.logsigmoid(x) + (1 - q) * F.logsigmoid(-x))
    return (loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()).to(z.dtype)


def by_logsigmoid_rows(z: Tensor, t: Tensor) -> Tensor:
    return by_logsigmoid(z, t, "none")


def by_parts(z: Tensor, t: Tensor) -> Tensor:
    """max(z, 0) - z t + log1p(exp(-|z|)), for finite logits and certain labels: a difference of equals is exact.

    torch.maximum shares the gradient at 0, where |z| has none.
    """
    x, q = wide(z), wide(t)
    loss = torch.maximum(x, torch.zeros_like(x)) - x * q + torch.log1p(torch.exp(-x.abs()))
    return loss.mean().to(z.dtype)


class ByHand(Function):
    """The value by parts, each of which is positive; the gradient by sigmoid."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor) -> Tensor:
        ctx.save_for_backward(z, t)
        x, q = wide(z), wide(t)
        loss = (1 - q) * x.clamp(min=0) + q * (-x).clamp(min=0) + torch.log1p(torch.exp(-x.abs()))
        return loss.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        z, t = ctx.saved_tensors
        return (wide(upstream[0]) * (torch.sigmoid(wide(z)) - wide(t))).to(z.dtype), None


class Stored(Function):
    """The mean of certain labels and finite logits, with the gradient stored in the logits' format."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor) -> Tensor:
        x, q = wide(z), wide(t)
        e = torch.exp(-x.abs())
        sigmoid = torch.where(x >= 0, 1 / (1 + e), e / (1 + e))
        ctx.save_for_backward(((sigmoid - q) / len(x)).to(z.dtype))
        return (torch.relu(x) - x * q + torch.log1p(e)).mean().to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * upstream[0], None


def with_pos_weight(z: Tensor, t: Tensor, pos_weight: Tensor) -> Tensor:
    """Positives weigh more."""
    x, q = wide(z), wide(t)
    positive, negative = F.softplus(-x, threshold=50), F.softplus(x, threshold=50)
    return (wide(pos_weight) * q * positive + (1 - q) * negative).mean().to(z.dtype)


def weighted(z: Tensor, t: Tensor, weight: Tensor, pos_weight: Tensor) -> Tensor:
    x, q = wide(z), wide(t)
    loss = -(wide(pos_weight) * q * F.logsigmoid(x) + (1 - q) * F.logsigmoid(-x))
    return (loss * wide(weight)).mean().to(z.dtype)


def focal(gamma: float = 2.0, alpha: float = -1.0) -> Any:
    """The focal loss; with gamma = 0 and no alpha it is binary cross entropy."""

    def loss(z: Tensor, t: Tensor) -> Tensor:
        ce = F.binary_cross_entropy_with_logits(z, t, reduction="none")
        p = torch.sigmoid(z)
        found = ce * (1 - (p * t + (1 - p) * (1 - t))) ** gamma
        if alpha >= 0:
            found = (alpha * t + (1 - alpha) * (1 - t)) * found
        return found.mean()

    return loss


def many_labels(z: Tensor, p: Tensor, reduction: str) -> Tensor:
    """Rows of labels: the mean is over all numbers."""
    x, q = wide(z), wide(p)
    loss = -(q * F.logsigmoid(x) + (1 - q) * F.logsigmoid(-x))
    return (loss.mean() if reduction == "mean" else loss.sum()).to(z.dtype)


def many_labels_by_pytorch(z: Tensor, p: Tensor, reduction: str) -> Tensor:
    return F.binary_cross_entropy_with_logits(z, p, reduction=reduction)


class Sigmoid(Function):
    """1 / (1 + exp(-z)), of the side that does not overflow; s (1 - s) for the gradient, of the same side."""

    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        x = wide(z)
        e = torch.exp(-x.abs())
        ctx.save_for_backward(e)
        ctx.dtype = z.dtype
        return torch.where(x >= 0, 1 / (1 + e), e / (1 + e)).to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        (e,) = ctx.saved_tensors
        s = 1 / (1 + e)
        return (wide(upstream[0]) * (s * (e * s))).to(ctx.dtype)


def sigmoid(z: Tensor) -> Any:
    return applied(Sigmoid)(z)


def soft_margin(z: Tensor, t: Tensor) -> Tensor:
    return F.softplus(-wide(t) * wide(z), threshold=50).to(z.dtype)


DETECTORS = "torchvision, detectron2"

BINARIES: tuple[Kernel, ...] = (
    Kernel("BCE, softplus of the wrong answer", lambda: by_softplus, BINARY, seen_in="GANs, reward models"),
    Kernel("BCE, two softplus", lambda: by_two_softplus, BINARY, said={"supports": SOFT}, seen_in="mixup"),
    Kernel(
        "BCE, two logsigmoid", lambda: by_logsigmoid, BINARY, said={"supports": SOFT, "reduction": REDUCTIONS},
        seen_in="optax, by torch",
    ),
    Kernel("BCE, two logsigmoid, by name", lambda: by_logsigmoid_rows, "binary_cross_entropy_soft", seen_in="optax"),
    # It would need a declaration that says: the logits are finite; so would the stored gradient.
    Kernel("BCE by parts, torch.maximum", lambda: by_parts, BINARY, seen_in="TensorFlow"),
    Kernel(
        "BCE by parts, gradient by hand", lambda: applied(ByHand), BINARY, said={"supports": SOFT, "reduction": "none"},
        seen_in="Triton kernels",
    ),
    Kernel("BCE, gradient stored", lambda: applied(Stored), BINARY, seen_in="fused kernels"),
    Kernel("BCE with pos_weight, two softplus", lambda: with_pos_weight, BINARY, said={"supports": ("pos_weight",)},
           seen_in="recommenders"),
    Kernel("BCE with both weights", lambda: weighted, BINARY, said={"supports": ("weight", "pos_weight", *SOFT)},
           seen_in="recommenders"),
    Kernel("focal loss of gamma 0", lambda: focal(0.0), BINARY, seen_in=DETECTORS),
    Kernel("many labels, logsigmoid", lambda: many_labels, "multilabel_reduced", seen_in="asymmetric losses"),
    Kernel("many labels, by PyTorch", lambda: many_labels_by_pytorch, "multilabel_reduced", seen_in=DETECTORS),
    Kernel("sigmoid by hand", lambda: sigmoid, "sigmoid", seen_in="KernelBench submissions"),
    Kernel("soft margin by softplus", lambda: soft_margin, "soft_margin_loss", seen_in="XGBoost objectives"),
)  # fmt: skip
