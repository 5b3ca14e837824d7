"""Right kernels: softmax, its logarithm and the logarithm of sums, row by row."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel


class Softmax(Function):
    """p (g - sum(p g)), of probabilities that are kept in float32."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int) -> Tensor:
        x = wide(z)
        e = torch.exp(x - x.amax(dim, keepdim=True))
        p = e / e.sum(dim, keepdim=True)
        ctx.save_for_backward(p)
        ctx.dim, ctx.dtype = dim, z.dtype
        return p.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        product = p * upstream[0].to(p.dtype)
        return (product - p * product.sum(ctx.dim, keepdim=True)).to(ctx.dtype), None


class OnlineSoftmax(Function):
    """Blocks of classes: once for the maximum and the sum, once to write the result."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int) -> Tensor:
        x = wide(z).movedim(dim, -1)
        top, total = x.new_full(x.shape[:-1], -torch.inf), x.new_zeros(x.shape[:-1])
        for part in x.split(512, dim=-1):
            new = torch.maximum(top, part.amax(-1))
            fixed = torch.where(new == -torch.inf, 0.0, new)
            total = total * torch.exp(top - fixed) + torch.exp(part - fixed[..., None]).sum(-1)
            top = new
        parts = [torch.exp(part - top[..., None]) / total[..., None] for part in x.split(512, dim=-1)]
        p = torch.cat(parts, -1).movedim(-1, dim)
        ctx.save_for_backward(p)
        ctx.dim, ctx.dtype = dim, z.dtype
        return p.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        g = upstream[0].to(p.dtype)
        return (p * (g - (g * p).sum(ctx.dim, keepdim=True))).to(ctx.dtype), None


class LogSoftmax(Function):
    """g - softmax sum(g), of log-probabilities that are kept in float32."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int) -> Tensor:
        x = wide(z)
        x = x - x.amax(dim, keepdim=True)
        logp = x - torch.log(torch.exp(x).sum(dim, keepdim=True))
        ctx.save_for_backward(logp)
        ctx.dim, ctx.dtype = dim, z.dtype
        return logp.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (logp,) = ctx.saved_tensors
        g = upstream[0].to(logp.dtype)
        return (g - torch.exp(logp) * g.sum(ctx.dim, keepdim=True)).to(ctx.dtype), None


def softmax(z: Tensor, dim: int) -> Any:
    return applied(Softmax)(z, dim)


def online_softmax(z: Tensor, dim: int) -> Any:
    return applied(OnlineSoftmax)(z, dim)


def log_softmax(z: Tensor, dim: int) -> Any:
    return applied(LogSoftmax)(z, dim)


def by_logsumexp(z: Tensor, dim: int) -> Tensor:
    """x - logsumexp(x), of logits that have their maximum taken off."""
    x = wide(z)
    x = x - x.detach().amax(dim, keepdim=True)
    return (x - torch.logsumexp(x, dim, keepdim=True)).to(z.dtype)


def softmax_by_autograd(z: Tensor, dim: int) -> Tensor:
    x = wide(z)
    e = (x - x.max(dim, keepdim=True).values.detach()).exp()
    return (e / e.sum(dim, keepdim=True)).to(z.dtype)


def softmax_by_reciprocal(z: Tensor, dim: int) -> Tensor:
    """One division a row."""
    x = wide(z)
    e = torch.exp(x - x.detach().amax(dim, keepdim=True))
    return (e * e.sum(dim, keepdim=True).reciprocal()).to(z.dtype)


def softmax_of_logarithm(z: Tensor, dim: int) -> Tensor:
    x = wide(z)
    x = x - x.detach().amax(dim, keepdim=True)
    return torch.exp(x - x.exp().sum(dim, keepdim=True).log()).to(z.dtype)


def logsumexp(z: Tensor, dim: int) -> Tensor:
    x = wide(z)
    top = x.detach().amax(dim, keepdim=True)
    top = torch.where(top.abs() == torch.inf, 0.0, top)
    return (top + torch.exp(x - top).sum(dim, keepdim=True).log()).squeeze(dim).to(z.dtype)


class ChunkedLogsumexp(Function):
    """The logarithms of chunks of 4096 classes are merged by another one; the gradient is exp(z - lse)."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int) -> Tensor:
        x = wide(z)
        lse = torch.logsumexp(torch.stack([torch.logsumexp(part, dim) for part in x.split(4096, dim)]), 0)
        ctx.save_for_backward(z, lse)
        ctx.dim = dim
        return lse.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        z, lse = ctx.saved_tensors
        g = upstream[0].to(lse.dtype).unsqueeze(ctx.dim)
        return (g * torch.exp(wide(z) - lse.unsqueeze(ctx.dim))).to(z.dtype), None


def chunked_logsumexp(z: Tensor, dim: int) -> Any:
    return applied(ChunkedLogsumexp)(z, dim)


FLASH = "flash-attention"

# But for the last, they would need a declaration that says: there is a class.
ROWS: tuple[Kernel, ...] = (
    Kernel("softmax, backward by hand", lambda: softmax, "softmax", seen_in="Apex, Megatron-LM's fused softmax"),
    Kernel("softmax, online", lambda: online_softmax, "softmax", seen_in=FLASH),
    Kernel("softmax by autograd", lambda: softmax_by_autograd, "softmax", seen_in="KernelBench submissions"),
    Kernel("softmax by a reciprocal", lambda: softmax_by_reciprocal, "softmax", seen_in="CUDA kernels, QuACK"),
    Kernel("softmax of a logarithm", lambda: softmax_of_logarithm, "softmax", seen_in="Keras backends"),
    Kernel("log_softmax, backward by hand", lambda: log_softmax, "log_softmax", seen_in="KernelBench submissions"),
    Kernel("log_softmax by a shifted logsumexp", lambda: by_logsumexp, "log_softmax", seen_in="JAX, by torch"),
    Kernel("logsumexp by autograd", lambda: logsumexp, "logsumexp", seen_in="PyTorch/XLA"),
    Kernel("logsumexp in chunks of 4096", lambda: chunked_logsumexp, "logsumexp", seen_in="unsloth, ring attention"),
)
