"""Right kernels: the sum of a row's exponentials by blocks of classes, with a running maximum or without."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

LOWEST = torch.finfo(torch.float32).min
Sums = Callable[[Tensor], tuple[Tensor, Tensor]]  # rows of logits -> their maximum, their sum of exponentials


class FromSums(Function):
    """The mean cross entropy of the sums that a kernel makes; the backward pass reads the logits again."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, sums: Sums) -> Tensor:
        x = wide(logits)
        top, total = sums(x)
        picked = x.gather(1, target[:, None])[:, 0]
        ctx.save_for_backward(logits, target, top, total)
        return (torch.log(total) + (top - picked)).mean().to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        logits, target, top, total = ctx.saved_tensors
        p = torch.exp(wide(logits) - top[:, None]) / total[:, None]
        p = torch.where(torch.arange(p.shape[1]) == target[:, None], p - 1, p)
        return (p * (upstream[0].to(p.dtype) / len(p))).to(logits.dtype), None, None


def cross_entropy_from(sums: Sums) -> Callable[[], Callable[..., Any]]:
    def build() -> Callable[..., Any]:
        def loss(logits: Tensor, target: Tensor) -> Any:
            return applied(FromSums)(logits, target, sums)

        return loss

    return build


# --- a running maximum -----------------------------------------------------------------------------------------------


def one_by_one(x: Tensor) -> tuple[Tensor, Tensor]:
    """Each class is a block: Milakov and Gimelshein 2018, algorithm 3."""
    top = torch.full_like(x[:, 0], -math.inf)
    total = torch.zeros_like(top)
    for column in x.unbind(1):
        new = torch.maximum(top, column)
        fixed = torch.where(new == -math.inf, torch.zeros_like(new), new)  # else -inf - -inf
        total = total * torch.exp(top - fixed) + torch.exp(column - fixed)
        top = new
    return top, total


def from_minus_infinity(block: int) -> Sums:
    """The running maximum starts at -inf; where it still is, nothing is subtracted."""

    def sums(x: Tensor) -> tuple[Tensor, Tensor]:
        top = x.new_full((len(x),), -math.inf)
        total = x.new_zeros(len(x))
        for first in range(0, x.shape[1], block):
            part = x[:, first : first + block]
            new = torch.maximum(top, part.amax(1))
            fixed = new.masked_fill(new == -math.inf, 0.0)
            total = total * torch.exp(top - fixed) + torch.exp(part - fixed[:, None]).sum(1)
            top = new
        return top, total

    return sums


def from_lowest(block: int) -> Sums:
    """The running maximum starts at float32's lowest number: a block of -inf alone adds nothing."""

    def sums(x: Tensor) -> tuple[Tensor, Tensor]:
        top = x.new_full((len(x),), LOWEST)
        total = x.new_zeros(len(x))
        for part in x.split(block, dim=1):
            new = torch.maximum(top, part.max(dim=1).values)
            total = total * (top - new).exp() + (part - new.unsqueeze(1)).exp().sum(dim=1)
            top = new
        return top, total

    return sums


def seldom_rescaled(block: int, slack: float = 8.0) -> Sums:
    """The sum is rescaled only where the maximum rises by more than `slack`, and once at the end."""

    def sums(x: Tensor) -> tuple[Tensor, Tensor]:
        top = x.new_full((len(x),), LOWEST)
        used, total = top, x.new_zeros(len(x))
        for part in x.split(block, dim=1):
            top = torch.maximum(top, part.amax(1))
            new = torch.where(top - used > slack, top, used)
            total = total * torch.exp(used - new) + torch.exp(part - new[:, None]).sum(1)
            used = new
        return top, total * torch.exp(used - top)

    return sums


# --- maxima first, or pairs of maximum and sum -----------------------------------------------------------------------


def two_passes(block: int) -> Sums:
    """The maximum of all blocks, then the sum of all blocks."""

    def sums(x: Tensor) -> tuple[Tensor, Tensor]:
        parts = x.split(block, dim=1)
        top = torch.stack([part.amax(1) for part in parts]).amax(0)
        return top, torch.stack([torch.exp(part - top[:, None]).sum(1) for part in parts]).sum(0)

    return sums


def merged(a: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """One pair of maximum and sum from two; it is associative."""
    (top_a, total_a), (top_b, total_b) = a, b
    top = torch.maximum(top_a, top_b)
    fixed = torch.where(top.isneginf(), 0.0, top)
    return top, total_a * torch.exp(top_a - fixed) + total_b * torch.exp(top_b - fixed)


def pair(part: Tensor) -> tuple[Tensor, Tensor]:
    top = part.amax(1)
    return top, torch.exp(part - torch.where(top.isneginf(), 0.0, top)[:, None]).sum(1)


def tree(block: int) -> Sums:
    """Pairs of neighbours are merged, level by level, as warps do."""

    def sums(x: Tensor) -> tuple[Tensor, Tensor]:
        pairs = [pair(part) for part in x.split(block, dim=1)]
        while len(pairs) > 1:
            odd = pairs[-1:] if len(pairs) % 2 else []
            pairs = [merged(a, b) for a, b in zip(pairs[::2], pairs[1::2], strict=False)] + odd
        return pairs[0]

    return sums


def splits(block: int) -> Sums:
    """All blocks at once, padded with -inf; then their sums are weighted by how far their maxima are from the top."""

    def sums(x: Tensor) -> tuple[Tensor, Tensor]:
        size = max(min(block, x.shape[1]), 1)
        x = F.pad(x, (0, -x.shape[1] % size), value=-math.inf).unflatten(1, (-1, size))
        tops = x.amax(2)
        fixed = torch.where(tops.isneginf(), 0.0, tops)
        totals = torch.exp(x - fixed[:, :, None]).sum(2)
        top = tops.amax(1)
        return top, (totals * torch.exp(tops - torch.where(top.isneginf(), 0.0, top)[:, None])).sum(1)

    return sums


# --- by autograd -----------------------------------------------------------------------------------------------------


def by_autograd(logits: Tensor, target: Tensor) -> Tensor:
    """The loop itself is differentiated; the maxima are constants of it, for they cancel out."""
    x = wide(logits)
    top, total = x.detach()[:, 0], torch.zeros_like(x[:, 0])
    for part in x.split(1024, dim=1):
        new = torch.maximum(top, part.detach().amax(1))
        fixed = torch.where(new == -math.inf, 0.0, new)
        total = total * torch.exp(top - fixed) + torch.exp(part - fixed[:, None]).sum(1)
        top = new
    picked = x.gather(1, target[:, None]).squeeze(1)
    return (total.log() + (top - picked)).mean().to(logits.dtype)


class OfLogarithms(Function):
    """Blocks are merged as logarithms, by logaddexp, after the maximum of the row is taken off."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x = wide(logits)
        x = x - x.amax(1, keepdim=True)
        parts = [torch.logsumexp(part, 1) for part in x.split(4096, dim=1)]
        lse = parts[0]
        for part in parts[1:]:
            lse = torch.logaddexp(lse, part)
        ctx.save_for_backward(x, lse, target)
        ctx.dtype = logits.dtype
        return (lse - x.gather(1, target[:, None])[:, 0]).mean().to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        x, lse, target = ctx.saved_tensors
        p = torch.exp(x - lse[:, None])
        p[torch.arange(len(p)), target] -= 1
        return (p / len(p) * upstream[0]).to(ctx.dtype), None


PAPER = "Milakov and Gimelshein 2018"
FLASH = "flash-attention and what follows it"

ONLINE: tuple[Kernel, ...] = (
    Kernel("online, class by class", cross_entropy_from(one_by_one), said={"many_classes": False}, seen_in=PAPER),
    Kernel(
        "online, blocks of 16 from -inf", cross_entropy_from(from_minus_infinity(16)), said={"many_classes": False},
        seen_in="tests of tiled kernels",
    ),
    Kernel("online, blocks of 128 from -inf", cross_entropy_from(from_minus_infinity(128)), seen_in=FLASH),
    Kernel("online, blocks of 4096 from -inf", cross_entropy_from(from_minus_infinity(4096)), seen_in="Liger, QuACK"),
    Kernel("online, blocks of 512 from the lowest", cross_entropy_from(from_lowest(512)), seen_in="xformers, Triton"),
    Kernel("online, blocks of 8192 from the lowest", cross_entropy_from(from_lowest(8192)), seen_in="Pallas on TPU"),
    Kernel("online, blocks of 256, seldom rescaled", cross_entropy_from(seldom_rescaled(256)), seen_in=FLASH),
    Kernel("two passes, blocks of 1024", cross_entropy_from(two_passes(1024)), seen_in="Inductor's split reductions"),
    Kernel("tree of pairs, blocks of 512", cross_entropy_from(tree(512)), seen_in="warp shuffles in CUDA kernels"),
    Kernel("splits of 8192, weighted", cross_entropy_from(splits(8192)), seen_in="unsloth's chunked cross entropy"),
    Kernel("splits of 64, weighted", cross_entropy_from(splits(64)), seen_in="split-K decoding"),
    Kernel("online by autograd, maxima detached", lambda: by_autograd, seen_in="KernelBench submissions"),
    Kernel("blocks of 4096 merged by logaddexp", lambda: applied(OfLogarithms), seen_in="sequence-parallel losses"),
)  # fmt: skip
