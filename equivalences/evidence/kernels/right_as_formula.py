"""Kernels that production uses, and that are right as their formula is: it has another condition number than PyTorch's.

Each loses digits somewhere, and is within what rounding can do to its formula: where a common offset dominates the
logits (the logarithm of a sum is as large as the offset), or where a difference is small beside its terms.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

LOG2E = 1.4426950408889634


def selective(logits: Tensor, target: Tensor) -> Tensor:
    """logsumexp(z) - z_y: both are as large as a common offset; so is what the gradient, exp(z - lse), is made of."""
    x = wide(logits)
    picked = torch.gather(x, dim=-1, index=target.unsqueeze(-1)).squeeze(-1)
    return (torch.logsumexp(x, dim=-1) - picked).mean().to(logits.dtype)


class StoredGradient(Function):
    """The same value; the gradient, from the maximum and the sum, does not suffer."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x = wide(logits)
        m, d = x.new_full((len(x),), -math.inf), x.new_zeros(len(x))
        for part in x.split(4096, dim=1):
            new = torch.maximum(m, part.amax(1))
            fixed = torch.where(new == -math.inf, 0.0, new)
            d = d * torch.exp(m - fixed) + torch.exp(part - fixed[:, None]).sum(1)
            m = new
        p = torch.exp(x - m[:, None]) / d[:, None]
        p = p.scatter_add(1, target[:, None], -torch.ones_like(p[:, :1])) / len(x)
        ctx.save_for_backward(p.to(logits.dtype))
        lse = m + torch.log(d)
        return (lse - x.gather(1, target[:, None])[:, 0]).mean().to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * upstream[0], None


def through_the_maximum(predictions: Tensor, targets: Tensor) -> Tensor:
    """The maximum is not detached: its gradient, 0 but for rounding, is the sum of the errors of all others."""
    x = wide(predictions)
    x = x - x.amax(dim=1, keepdim=True)
    losses = torch.log(torch.exp(x).sum(dim=1)) - x[torch.arange(len(x)), targets]
    return losses.mean().to(predictions.dtype)


class FoldedScale(Function):
    """exp2(z log2(e) - m log2(e)), one multiplication and subtraction: the product is rounded before the difference."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int) -> Tensor:
        x = wide(z)
        e = torch.exp2(x * LOG2E - x.amax(dim, keepdim=True) * LOG2E)
        p = e / e.sum(dim, keepdim=True)
        ctx.save_for_backward(p)
        ctx.dim, ctx.dtype = dim, z.dtype
        return p.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        g = upstream[0].to(p.dtype)
        return (p * (g - (p * g).sum(ctx.dim, keepdim=True))).to(ctx.dtype), None


def folded_scale(z: Tensor, dim: int) -> Any:
    return applied(FoldedScale)(z, dim)


def log_softmax(z: Tensor, dim: int) -> Tensor:
    """z - logsumexp(z)."""
    x = wide(z)
    return (x - torch.logsumexp(x, dim, keepdim=True)).to(z.dtype)


def softplus_minus_product(z: Tensor, t: Tensor) -> Tensor:
    """softplus(z) - t z: the difference is small where a positive is sure, as PyTorch's is where a negative is."""
    x = wide(z)
    return (F.softplus(x, threshold=50) - wide(t) * x).mean().to(z.dtype)


def sigmoid_by_tanh(z: Tensor) -> Tensor:
    """(1 + tanh(z / 2)) / 2: one rounding of 1, where a small probability is asked for."""
    return (0.5 + 0.5 * torch.tanh(0.5 * wide(z))).to(z.dtype)


def two_columns(z: Tensor, t: Tensor) -> Tensor:
    """A softmax of 0 and the logit: log(1 + e) of a small e, without log1p."""
    x, q = wide(z), wide(t)
    logp = F.log_softmax(torch.stack((torch.zeros_like(x), x), 1), 1)
    return -((1 - q) * logp[:, 0] + q * logp[:, 1]).mean().to(z.dtype)


BINARY, SOFT = "binary_cross_entropy_with_logits", {"supports": ("soft_targets",)}

AS_FORMULA: tuple[Kernel, ...] = (
    Kernel(
        "as formula: logsumexp minus the label", lambda: selective, seen_in="TRL, transformers; flash-attention, Apex"
    ),
    Kernel("as formula: the same, gradient stored", lambda: applied(StoredGradient), seen_in="Liger-Kernel, unsloth"),
    Kernel("as formula: gradient through the maximum", lambda: through_the_maximum, seen_in="KernelBench submissions"),
    Kernel("as formula: exp2 with a folded scale", lambda: folded_scale, "softmax", seen_in="flash-attention"),
    Kernel("as formula: z - logsumexp(z)", lambda: log_softmax, "log_softmax", seen_in="T5X, Categorical"),
    Kernel(
        "as formula: softplus minus the product", lambda: softplus_minus_product, BINARY, said=SOFT, seen_in="Keras"
    ),
    Kernel("as formula: sigmoid by tanh", lambda: sigmoid_by_tanh, "sigmoid", seen_in="XLA"),
    Kernel("as formula: softmax of two columns", lambda: two_columns, BINARY, said=SOFT, seen_in="courses"),
)  # fmt: skip
