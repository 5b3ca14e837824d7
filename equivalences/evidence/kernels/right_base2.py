"""Right kernels: exponentials and logarithms to base 2, whose instructions GPUs have."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

LOG2E, LN2 = 1.4426950408889634, 0.6931471805599453


def by_exp2(logits: Tensor, target: Tensor) -> Tensor:
    """exp2 of the shifted logits times log2(e); the maximum is a constant of autograd."""
    x = wide(logits)
    x = x - x.detach().amax(1, keepdim=True)
    total = torch.exp2(x * LOG2E).sum(1)
    return (torch.log(total) - x.gather(1, target[:, None])[:, 0]).mean().to(logits.dtype)


def by_exp2_and_log2(logits: Tensor, target: Tensor) -> Tensor:
    """Everything in units of log 2, and one multiplication at the end."""
    x = wide(logits)
    x = (x - x.detach().amax(1, keepdim=True)) * LOG2E
    bits = torch.log2(torch.exp2(x).sum(1)) - x.gather(1, target[:, None])[:, 0]
    return (bits.mean() * LN2).to(logits.dtype)


class InBits(Function):
    """An online softmax in bits, with the gradient written by hand."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x = wide(logits)
        top, total = x.new_full((len(x),), -math.inf), x.new_zeros(len(x))
        for part in x.split(1024, dim=1):
            new = torch.maximum(top, part.amax(1))
            fixed = torch.where(new == -math.inf, 0.0, new)
            rescale = torch.exp2((top - fixed) * LOG2E)
            total = total * rescale + torch.exp2((part - fixed[:, None]) * LOG2E).sum(1)
            top = new
        ctx.save_for_backward(logits, target, top, total)
        picked = x.gather(1, target[:, None])[:, 0]
        return (torch.log2(total) * LN2 + (top - picked)).mean().to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        logits, target, top, total = ctx.saved_tensors
        p = torch.exp2((wide(logits) - top[:, None]) * LOG2E) / total[:, None]
        p = p.scatter_add(1, target[:, None], -torch.ones_like(p[:, :1]))
        return (p * (upstream[0].to(p.dtype) / len(p))).to(logits.dtype), None


class SoftmaxInBits(Function):
    """A softmax with its backward pass, as an attention kernel has it."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int) -> Tensor:
        x = wide(z)
        e = torch.exp2((x - x.amax(dim, keepdim=True)) * LOG2E)
        p = e / e.sum(dim, keepdim=True)
        ctx.save_for_backward(p)
        ctx.dim, ctx.dtype = dim, z.dtype
        return p.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        g = upstream[0].to(p.dtype)
        return (p * (g - (p * g).sum(ctx.dim, keepdim=True))).to(ctx.dtype), None


def softmax_in_bits(z: Tensor, dim: int) -> Any:
    return applied(SoftmaxInBits)(z, dim)


def with_tensor_constant() -> Any:
    """log2(e) is a tensor that the closure holds, so that a compiler does not make a new kernel of it."""
    log2e = torch.tensor(LOG2E, dtype=torch.float64)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        x = wide(logits)
        x = x - x.amax(1, keepdim=True).detach()
        total = torch.exp2(x * log2e.to(x.dtype)).sum(1)
        return (total.log() - x.gather(1, target.unsqueeze(1)).squeeze(1)).mean().to(logits.dtype)

    return loss


BASE2: tuple[Kernel, ...] = (
    Kernel("exp2, maximum detached", lambda: by_exp2, seen_in="Triton kernels"),
    Kernel("exp2 and log2, scaled at the end", lambda: by_exp2_and_log2, seen_in="CUTLASS, bits per byte"),
    Kernel("online in bits, by hand", lambda: applied(InBits), seen_in="flash-attention, QuACK"),
    Kernel("softmax in bits", lambda: softmax_in_bits, "softmax", seen_in="flash-attention"),
    Kernel("exp2 with a constant in a tensor", with_tensor_constant, seen_in="ports from JAX"),
)
