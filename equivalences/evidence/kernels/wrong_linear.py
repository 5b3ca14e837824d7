"""Cross entropy of an affine layer in chunks of rows, or of classes, that do not add up."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.optioned import regraded
from equivalences.evidence.kernels.stored import Loss

WIDE_FORMATS = ("float64", "float32")


def _same(x: Tensor, turn: int, turns: int) -> Tensor:
    return x


# a tensor in chunk number `turn` of `turns` -> what is used of it
Part = Callable[[Tensor, int, int], Tensor]


def last_alone(x: Tensor, turn: int, turns: int) -> Tensor:
    """Only the last chunk gets to the gradient: each overwrites the one before."""
    return x if turn == turns - 1 else x.detach()


def first_alone(x: Tensor, turn: int, turns: int) -> Tensor:
    return x if turn == 0 else x.detach()


def all_but_the_last(x: Tensor, turn: int, turns: int) -> Tensor:
    return x.detach() if turn == turns - 1 and turns > 1 else x


def detached(x: Tensor, turn: int, turns: int) -> Tensor:
    return x.detach()


def chunked(
    rows: int,
    *,
    x_of: Part = _same,
    w_of: Part = _same,
    b_of: Part = _same,
    logits: Callable[[Tensor], Tensor] = lambda z: z,
    loses_last: bool = False,
    label: Callable[[Tensor, int], Tensor] = lambda y, start: y,
    mean_of_means: bool = False,
    divisor: Callable[[Tensor, Tensor | None, int], Tensor] | None = None,
    each: Callable[[Tensor], Tensor] = lambda value: value,
) -> Loss:
    """The total over chunks of so many rows, divided by the total weight of the kept ones; each part may be wrong."""

    def loss(
        x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
    ) -> Tensor:
        xs, matrix, bias = wide(x), wide(W), wide(b)
        w = None if weight is None else wide(weight)
        total, means = xs.new_zeros(()), []
        parts = list(zip(xs.split(rows), y.split(rows), strict=True))
        for turn, (part, labels) in enumerate(parts):
            if loses_last and turn == len(parts) - 1 and len(part) < rows and turn:
                continue
            z = logits(
                F.linear(x_of(part, turn, len(parts)), w_of(matrix, turn, len(parts)), b_of(bias, turn, len(parts)))
            )
            used = label(labels, turn * rows)
            total = total + each(F.cross_entropy(z, used, w, ignore_index=ignore_index, reduction="sum"))
            if (used != ignore_index).any():
                means.append(F.cross_entropy(z, used, w, ignore_index=ignore_index))
        if reduction == "sum":
            return total.to(x.dtype)
        if mean_of_means:
            return torch.stack(means).mean().to(x.dtype)
        kept = y != ignore_index
        heavy = kept.sum() if w is None else w[torch.where(kept, y, 0)][kept].sum()
        by = divisor(kept, w, len(y)) if divisor else heavy
        return (total / by).to(x.dtype)

    return loss


def by_classes(block: int, *, loses_last: bool = False, adds: bool = True, w_of: Part = _same) -> Loss:
    """Blocks of classes, each a logsumexp of its own, that are merged; the logits of all are never held."""

    def loss(
        x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
    ) -> Tensor:
        xs, matrix, bias = wide(x), wide(W), wide(b)
        starts = list(range(0, len(matrix), block))
        if loses_last and len(starts) > 1 and len(matrix) % block:
            starts = starts[:-1]
        tops, totals = [], []
        for turn, start in enumerate(starts):
            part = w_of(matrix[start : start + block], turn, len(starts))
            z = F.linear(xs, part, bias[start : start + block])
            tops.append(z.amax(1).detach())
            totals.append(torch.exp(z - tops[-1][:, None]).sum(1))
        top = torch.stack(tops).amax(0)
        shares = torch.stack([s * torch.exp(t - top) for s, t in zip(totals, tops, strict=True)])
        total = shares.sum(0) if adds else shares.amax(0)
        kept = y != ignore_index
        label = torch.where(kept, y, 0)
        own = torch.ones_like(total) if weight is None else wide(weight)[label]
        picked = (xs * matrix[label]).sum(1) + bias[label]
        losses = torch.where(kept, own * (torch.log(total) + (top - picked)), 0.0)
        return (losses.sum() / own[kept].sum() if reduction == "mean" else losses.sum()).to(x.dtype)

    return loss


def _filtered(below: float) -> Loss:
    """Blocks of probabilities that are all small are left out of the backward pass (cut cross-entropy)."""

    def logits(z: Tensor) -> Tensor:
        small = torch.softmax(z.detach(), 1) < below
        return torch.where(small, z.detach(), z)

    return chunked(1024, logits=logits)


def _scaled_by_chunks(x: Tensor, turn: int, turns: int) -> Tensor:
    """The gradient of a mean over chunks, in the matrix alone."""
    return regraded(x, 1.0 / turns)


def _rounded_gradient(dtype: torch.dtype) -> Part:
    """The gradient of each chunk is rounded before it is added."""

    class Rounded(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, upstream: Tensor) -> Tensor:
            return upstream.to(dtype).to(upstream.dtype)

    return lambda x, turn, turns: applied(Rounded)(x)


def _kernel(name: str, make: Callable[[], Loss], wrong: str, **more: Any) -> Kernel:
    return Kernel(name, make, of="linear_cross_entropy", wrong=wrong, **more)


LAST = "rows of the last chunk, which is smaller, are lost"
W_LAST = "the gradient of the matrix is that of the last chunk"

KERNELS = (
    *(_kernel(f"linear, chunks of {rows}", partial(chunked, rows, loses_last=True), LAST)
      for rows in (2, 4, 8, 16, 64, 1024)),
    *(_kernel(f"linear, matrix's gradient of the last chunk of {rows}",
              partial(chunked, rows, w_of=last_alone),
              W_LAST) for rows in (4, 16, 128, 4096)),
    _kernel("linear, matrix's gradient of the first chunk", lambda: chunked(4, w_of=first_alone),
            "the gradient of the matrix is that of the first chunk"),
    _kernel("linear, input's gradient of the first chunk", lambda: chunked(4, x_of=first_alone),
            "rows beyond the first chunk have no gradient"),
    _kernel("linear, input's gradient but for the last chunk of 512", lambda: chunked(512, x_of=all_but_the_last),
            "rows of the last of several chunks have no gradient"),
    _kernel("linear, bias's gradient of the last chunk", lambda: chunked(4, b_of=last_alone),
            "the gradient of the bias is that of the last chunk"),
    _kernel("linear, bias's gradient of the last chunk of 256", lambda: chunked(256, b_of=last_alone),
            "the gradient of the bias is that of the last chunk"),
    _kernel("linear without bias", lambda: chunked(1024, b_of=lambda b, turn, turns: 0 * b), "the bias is not used"),
    _kernel("linear with a frozen bias", lambda: chunked(1024, b_of=lambda b, turn, turns: b.detach() + 0 * b),
            "the bias has no gradient"),
    _kernel("linear with a frozen matrix", lambda: chunked(1024, w_of=lambda w, turn, turns: w.detach() + 0 * w),
            "the matrix has no gradient"),
    _kernel("linear, labels of the first chunk", lambda: chunked(
                4, label=lambda y, start: y if start == 0 else torch.zeros_like(y)),
                    "labels beyond the first chunk are 0"),
    _kernel("linear, mean of means of 4", lambda: chunked(4, mean_of_means=True), "the mean of the means of chunks"),
    _kernel("linear, mean of means of 256", lambda: chunked(256, mean_of_means=True),
            "the mean of the means of chunks"),
    _kernel("linear over all rows",
            lambda: chunked(1024, divisor=lambda kept, w, n: kept.new_tensor(n, dtype=torch.float32)),
            "the mean divides by all rows"),
    _kernel("linear over kept rows", lambda: chunked(1024, divisor=lambda kept, w, n: kept.sum()),
            "the mean divides by the number of kept rows, not by their weight"),
    _kernel("linear, matrix's gradient by the number of chunks", lambda: chunked(4, w_of=_scaled_by_chunks),
            "the gradient of the matrix is divided by the number of chunks"),
    _kernel("linear, logits in bfloat16",
            lambda: chunked(1024, logits=lambda z: z + (z.bfloat16().to(z.dtype) - z).detach()),
            "logits are rounded to bfloat16", formats=(*WIDE_FORMATS, "float16")),
    _kernel("linear, matrix's gradient in bfloat16", lambda: chunked(4, w_of=_rounded_gradient(torch.bfloat16)),
            "the gradient of each chunk is rounded to bfloat16", formats=(*WIDE_FORMATS, "float16")),
    _kernel("linear, matrix in bfloat16", lambda: chunked(1024, w_of=lambda w, turn, turns: w.bfloat16().to(w.dtype)),
            "the matrix is rounded to bfloat16", formats=(*WIDE_FORMATS, "float16")),
    _kernel("linear, logits within 20", lambda: chunked(1024, logits=lambda z: z.clamp(-20, 20)),
            "logits are clamped to 20"),
    _kernel("linear, softcap 30", lambda: chunked(1024, logits=lambda z: 30 * torch.tanh(z / 30)), "logits are capped"),
    _kernel("linear, small probabilities left out", lambda: _filtered(2.0**-12),
            "logits whose probability is below 2**-12 have no gradient", seen_in="cut cross-entropy's filter"),
    _kernel("linear, classes in blocks of 4", lambda: by_classes(4, loses_last=True),
            "the last block of classes is lost"),
    _kernel("linear, classes in blocks of 128", lambda: by_classes(128, loses_last=True),
            "the last block of classes is lost"),
    _kernel("linear, classes in blocks of 4, not added", lambda: by_classes(4, adds=False),
            "the logsumexp is that of the largest block"),
    _kernel("linear, classes in blocks of 1024, not added", lambda: by_classes(1024, adds=False),
            "the logsumexp is that of the largest block"),
    _kernel("linear, classes in blocks of 256, gradient of the last", lambda: by_classes(256, w_of=last_alone),
            "the gradient of the matrix is that of the last block of classes"),
)  # fmt: skip
