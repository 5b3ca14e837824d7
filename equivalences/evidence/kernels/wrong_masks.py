"""Masks of -inf, whose rules a kernel gets for nothing only if it never computes -inf - (-inf), or 0 * -inf."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, Rows, each_row, fused, two_pass, unseen


def unguarded(block: int) -> Callable[[Tensor], Rows]:
    """An online softmax that is right for finite logits: while all is masked, old and new maximum are -inf."""

    def over(x: Tensor) -> Rows:
        top, total = x.new_full((len(x),), -math.inf), x.new_zeros(len(x))
        for part in x.split(block, 1):
            new = torch.maximum(top, part.amax(1))
            total = total * torch.exp(top - new) + torch.exp(part - new[:, None]).sum(1)
            top = new
        return Rows(top, total)

    return over if block >= 1024 else unseen(over)


def by_blocks(block: int) -> Callable[[Tensor], Rows]:
    """Each block by itself, then all of them: a block without a class has no maximum."""

    def over(x: Tensor) -> Rows:
        tops = torch.stack([part.amax(1) for part in x.split(block, 1)])
        totals = torch.stack([torch.exp(p - t[:, None]).sum(1) for p, t in zip(x.split(block, 1), tops, strict=True)])
        top = tops.amax(0)
        return Rows(top, (totals * torch.exp(tops - top)).sum(0))

    return over if block >= 1024 else unseen(over)


def _first_class(x: Tensor) -> Rows:
    """Starts from the first class, and adds the others one block after the other."""
    first = x[:, 0]
    top = x.amax(1)
    scaled = torch.exp(first - first)  # 1, unless it is -inf
    total = torch.exp(x - top[:, None]).sum(1) + 0 * scaled
    return Rows(top, total)


def _two_largest(x: Tensor) -> Rows:
    """The margin is looked at as well, and added with a factor that is 0: it is inf where one class is left."""
    pair = x.topk(min(2, x.shape[1]), 1).values
    rows = two_pass(x)
    return Rows(rows.top, rows.total + 0 * (pair[:, 0] - pair[:, -1]))


def _filled(value: float) -> Loss:
    """Masks become a finite number."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        x = wide(z)
        return F.cross_entropy(torch.where(x == -math.inf, value, x), y).to(z.dtype)

    return loss


def _masked_by_product(x: Tensor) -> Rows:
    """exp of masked classes is multiplied by 0, in place of being left out."""
    top = x.amax(1)
    e = torch.exp(x - top[:, None])
    return Rows(top, (e + 0 * x).sum(1))


def _dropped_if_masked(z: Tensor, y: Tensor) -> Tensor:
    """Rows with a mask are taken for padding."""
    each = F.cross_entropy(wide(z), y, reduction="none")
    return torch.where(torch.isinf(z).any(1), 0.0, each).mean().to(z.dtype)


def _dropped_if_last_is(z: Tensor, y: Tensor) -> Tensor:
    """Rows whose last class is masked are taken for padding."""
    each = F.cross_entropy(wide(z), y, reduction="none")
    return torch.where(torch.isinf(z[:, -1]), 0.0, each).mean().to(z.dtype)


def _centred(x: Tensor) -> Rows:
    """Logits are centred for accuracy; the mean of a masked row is -inf."""
    mean = x.mean(1)
    top = (x - mean[:, None]).amax(1)
    return Rows(top + mean, torch.exp(x - mean[:, None] - top[:, None]).sum(1))


def _gradient_by_product(g: Tensor, y: Tensor) -> Tensor:
    """p log p, of which 0 * -inf is made."""
    share = g.scatter_add(1, y[:, None], torch.ones_like(g[:, :1]))
    return g + 0 * torch.log(share)


def _no_gradient_of_inf(z: Tensor, y: Tensor) -> Tensor:
    """Losses of inf are let through, their rows learn nothing."""
    each = F.cross_entropy(wide(z), y, reduction="none")
    return torch.where(torch.isinf(each), each.detach(), each).mean().to(z.dtype)


def _masked_mean(z: Tensor, y: Tensor) -> Tensor:
    """The mean over rows of finite loss."""
    each = F.cross_entropy(wide(z), y, reduction="none")
    keep = torch.isfinite(each)
    return (torch.where(keep, each, 0.0).sum() / keep.sum()).to(z.dtype)


def _log_of_share(z: Tensor, y: Tensor) -> Tensor:
    """log softmax times a one-hot label: 0 * -inf is nan for each masked class."""
    return -(F.one_hot(y, z.shape[1]) * torch.log_softmax(wide(z), 1)).sum(1).mean().to(z.dtype)


def _nan(name: str, over: Callable[[Tensor], Rows], wrong: str) -> Kernel:
    return Kernel(name, lambda: fused(over), wrong=wrong, seen_in="flash-attention #1930 and its kind")


KERNELS = (
    *(_nan(f"masks, online softmax of blocks of {block}", unguarded(block),
           f"nan where the first {block} classes are masked") for block in (1, 16, 64, 1024, 4096, 32_768)),
    *(_nan(f"masks, blocks of {block}", by_blocks(block), f"nan where a block of {block} classes is masked")
      for block in (16, 128, 2048, 16_384)),
    Kernel("masks, online softmax of rows", lambda: each_row(unguarded(1024)),
           wrong="nan where the first 1024 classes are masked", said={"reduction": "none"}),
    _nan("masks, from the first class on", _first_class, "nan where the first class is masked"),
    _nan("masks, two largest", _two_largest, "nan where all classes but one are masked"),
    _nan("masks by a product", _masked_by_product, "nan where any class is masked: 0 * -inf"),
    _nan("masks, centred", _centred, "nan where any class is masked: the mean is -inf"),
    Kernel("masks of one-hot products", lambda: _log_of_share, wrong="nan where any class is masked: 0 * -inf"),
    Kernel("masks in the gradient", lambda: fused(gradient=_gradient_by_product),
           wrong="the gradient is nan where p is 0: 0 * log 0"),
    Kernel("masks of -100", lambda: _filled(-100.0),
           wrong="-inf becomes -100, which counts beside logits of that size"),
    Kernel("masks of -10000", lambda: _filled(-1e4),
           wrong="-inf becomes -10,000, and so does the loss of a masked label"),
    Kernel("masks of -1e30", lambda: _filled(-1e30), wrong="-inf becomes -1e30, and so does the loss of a masked label",
           formats=("float64", "float32", "bfloat16")),
    Kernel("masks of 0", lambda: _filled(0.0), wrong="-inf becomes 0"),
    Kernel("masked rows dropped", lambda: _dropped_if_masked, wrong="rows with any mask lose nothing"),
    Kernel("rows of a masked last class dropped", lambda: _dropped_if_last_is,
           wrong="rows whose last class is masked lose nothing"),
    Kernel("masked labels without gradient", lambda: _no_gradient_of_inf, wrong="rows of loss inf have no gradient"),
    Kernel("masked labels left out", lambda: _masked_mean, wrong="rows of loss inf are left out of the mean"),
)  # fmt: skip
