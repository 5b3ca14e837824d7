"""Right kernels: cross entropy against probabilities (distillation, mixup, label distributions)."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

REDUCTIONS = ("none", "mean", "sum")
SOFT = "soft_cross_entropy"


def by_product(logits: Tensor, target: Tensor) -> Tensor:
    """For finite logits, as PyTorch's own."""
    return torch.sum(-target * F.log_softmax(logits, dim=-1), dim=-1).mean()


def by_where(logits: Tensor, target: Tensor, reduction: str) -> Tensor:
    """A class of probability 0 adds 0, whatever its logit is."""
    logp = F.log_softmax(wide(logits), 1)
    loss = -torch.where(target == 0, 0.0, wide(target) * logp).sum(1)
    return (loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()).to(logits.dtype)


def by_matrix_product(logits: Tensor, target: Tensor) -> Tensor:
    """A batched inner product of both."""
    logp = F.log_softmax(wide(logits), 1)
    return -torch.bmm(wide(target)[:, None], logp[:, :, None]).mean().to(logits.dtype)


def by_divergence(logits: Tensor, target: Tensor) -> Tensor:
    """The divergence from the targets, and their entropy, which has no gradient."""
    p = wide(target)
    divergence = F.kl_div(F.log_softmax(wide(logits), 1), p, reduction="sum")
    return ((divergence - torch.xlogy(p, p).sum()) / len(logits)).to(logits.dtype)


def by_expected_shift(logits: Tensor, target: Tensor) -> Tensor:
    """log sum exp times the total of the targets, minus their mean logit: both shifted by the maximum."""
    x, p = wide(logits), wide(target)
    x = x - x.detach().amax(1, keepdim=True)
    return (x.exp().sum(1).log() * p.sum(1) - (p * x).sum(1)).mean().to(logits.dtype)


class ByHand(Function):
    """The gradient is softmax times the total of the targets, minus the targets; made forward, stored in float32."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x, p = wide(logits), wide(target)
        x = x - x.amax(1, keepdim=True)
        e = torch.exp(x)
        total = e.sum(1, keepdim=True)
        loss = (torch.where(p == 0, 0.0, p * (torch.log(total) - x))).sum(1)
        ctx.save_for_backward(e / total * p.sum(1, keepdim=True) - p)
        ctx.dtype = logits.dtype
        return loss.mean().to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * (upstream[0].to(gradient.dtype) / len(gradient))).to(ctx.dtype), None


class SoftTarget(nn.Module):
    """A module with class weights and smoothing, all in float32."""

    def forward(
        self, logits: Tensor, target: Tensor, weight: Tensor | None, label_smoothing: float, reduction: str
    ) -> Tensor:
        logp = F.log_softmax(wide(logits), 1)
        q = wide(target) * (1 - label_smoothing) + label_smoothing / logits.shape[1]
        q = q if weight is None else q * wide(weight)
        loss = -torch.where(q == 0, 0.0, q * logp).sum(1)
        loss = loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()
        return loss.to(logits.dtype)


def rows_by_name(z: Tensor, p: Tensor, weight: Tensor | None, label_smoothing: float, dim: int) -> Tensor:
    """A function of any layout, with gradients for both arguments."""
    q = wide(p) * (1 - label_smoothing) + label_smoothing / z.shape[dim]
    if weight is not None:
        q = q * wide(weight).view([-1 if axis == dim else 1 for axis in range(z.dim())])
    return -(q * F.log_softmax(wide(z), dim)).sum(dim).to(z.dtype)


def both_kinds(logits: Tensor, target: Tensor) -> Tensor:
    """Labels or probabilities, told apart by their format."""
    if not target.is_floating_point():
        return F.nll_loss(F.log_softmax(wide(logits), 1), target).to(logits.dtype)
    logp = F.log_softmax(wide(logits), 1)
    return -torch.where(target == 0, 0.0, wide(target) * logp).sum(1).mean().to(logits.dtype)


SOFTS: tuple[Kernel, ...] = (
    Kernel("soft targets, product", lambda: by_product, SOFT, seen_in="timm, SoftTargetCrossEntropy"),
    Kernel("soft targets, where", lambda: by_where, SOFT, said={"reduction": REDUCTIONS}, seen_in="age estimation"),
    Kernel("soft targets, bmm", lambda: by_matrix_product, SOFT, seen_in="KernelBench submissions"),
    # It would need a declaration that says: targets lie in [0, 1].
    Kernel("soft targets, divergence and entropy", lambda: by_divergence, SOFT, seen_in="distillation"),
    Kernel("soft targets, mean logit", lambda: by_expected_shift, SOFT, seen_in="optax, by torch"),
    Kernel("soft targets, by hand", lambda: applied(ByHand), SOFT, seen_in="Liger-Kernel's distillation losses"),
    Kernel(
        "soft targets, weights and smoothing", SoftTarget, SOFT,
        said={"supports": ("weight", "label_smoothing"), "reduction": REDUCTIONS}, seen_in="torchvision references",
    ),
    Kernel("soft targets, by name", lambda: rows_by_name, "soft_cross_entropy_options", seen_in="distillation"),
    Kernel("labels or probabilities", lambda: both_kinds, said={"supports": ("soft_targets",)}, seen_in="mixup"),
)  # fmt: skip
