"""Right kernels: cross entropy of a linear layer, in chunks of rows or of classes, so that no logits are kept."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel


def total_weight(y: Tensor, weight: Tensor | None, ignore_index: int, like: Tensor) -> Tensor:
    kept = y != ignore_index
    if weight is None:
        return kept.sum().to(like.dtype)
    return torch.where(kept, wide(weight)[torch.where(kept, y, 0)], 0).sum()


# --- chunks of rows --------------------------------------------------------------------------------------------------


def checkpointed(
    x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Any:
    """Each chunk's logits are made again in the backward pass."""

    def part(rows: Tensor, labels: Tensor) -> Tensor:
        logits = F.linear(wide(rows), wide(W), wide(b))
        w = None if weight is None else wide(weight)
        return F.cross_entropy(logits, labels, w, ignore_index=ignore_index, reduction="sum")

    chunks = zip(x.split(4), y.split(4), strict=True)
    total = torch.stack([checkpoint(part, *chunk, use_reentrant=False) for chunk in chunks]).sum()
    if reduction == "mean":
        total = total / total_weight(y, weight, ignore_index, total)
    return total.to(x.dtype)


class StoredGradients(Function):
    """The gradients of all three are added up in float32 in the forward pass, chunk by chunk, and scaled afterwards."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
    ) -> Tensor:
        matrix, bias = wide(W), wide(b)
        scale = 1 / total_weight(y, weight, ignore_index, matrix) if reduction == "mean" else matrix.new_ones(())
        w = bias.new_ones(len(b)) if weight is None else wide(weight)
        loss, dx, dW, db = matrix.new_zeros(()), [], torch.zeros_like(matrix), torch.zeros_like(bias)
        for rows, labels in zip(x.split(3), y.split(3), strict=True):
            kept = labels != ignore_index
            safe = torch.where(kept, labels, 0)[:, None]
            own = torch.where(kept, w[safe[:, 0]], 0)[:, None]
            z = wide(rows) @ matrix.T + bias
            z = z - z.amax(1, keepdim=True)
            e = torch.exp(z)
            total = e.sum(1, keepdim=True)
            loss += (own * (torch.log(total) - z.gather(1, safe))).sum()
            dz = (e / total).scatter_add(1, safe, -torch.ones_like(total)) * (own * scale)
            dx.append((dz @ matrix).to(x.dtype))
            dW += dz.T @ wide(rows)
            db += dz.sum(0)
        ctx.save_for_backward(torch.cat(dx), dW.to(W.dtype), db.to(b.dtype))
        return (loss * scale).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        dx, dW, db = ctx.saved_tensors
        return dx * upstream[0], dW * upstream[0], db * upstream[0], None, None, None, None


def stored(x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, reduction: str) -> Any:
    return applied(StoredGradients)(x, W, b, y, weight, ignore_index, reduction)


def rows_in_chunks(
    x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    """Each chunk by PyTorch, in the format of the layer; nothing is reduced."""
    parts = [
        F.cross_entropy(F.linear(rows, W, b), labels, weight, ignore_index=ignore_index, reduction=reduction)
        for rows, labels in zip(x.chunk(3), y.chunk(3), strict=True)
    ]
    return torch.cat(parts)


def upcast(
    x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float,
    reduction: str,
) -> Tensor:  # fmt: skip
    """The layer in its own format, the loss of its logits in float32."""
    logits = wide(F.linear(x, W, b))
    w = None if weight is None else wide(weight)
    loss = F.cross_entropy(
        logits, y, w, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction
    )
    return loss.to(x.dtype)


# --- chunks of classes -----------------------------------------------------------------------------------------------


class ChunksOfClasses(Function):
    """An online softmax over blocks of the vocabulary, whose logits are made twice and never kept."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, W: Tensor, b: Tensor, y: Tensor, kept: Tensor, block: int) -> Tensor:
        rows, matrix, bias = wide(x), wide(W), wide(b)
        top = rows.new_full((len(x),), -torch.inf)
        total, picked = torch.zeros_like(top), torch.zeros_like(top)
        for first in range(0, len(b), block):
            z = torch.addmm(bias[first : first + block], rows, matrix[first : first + block].T)
            new = torch.maximum(top, z.amax(1))
            total = total * torch.exp(top - new) + torch.exp(z - new[:, None]).sum(1)
            top, local = new, y - first
            here = (local >= 0) & (local < z.shape[1])
            picked = torch.where(here, z.gather(1, torch.where(here, local, 0)[:, None])[:, 0], picked)
        ctx.save_for_backward(x, W, b, y, kept, top, total)
        ctx.block = block
        return torch.where(kept, torch.log(total) + (top - picked), 0)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        x, W, b, y, kept, top, total = ctx.saved_tensors
        rows, matrix, bias = wide(x), wide(W), wide(b)
        g = torch.where(kept, upstream[0], 0)[:, None]
        dx, dW, db = torch.zeros_like(rows), [], []
        for first in range(0, len(b), ctx.block):
            part = matrix[first : first + ctx.block]
            z = torch.addmm(bias[first : first + ctx.block], rows, part.T)
            p = torch.exp(z - top[:, None]) / total[:, None]
            hit = torch.arange(first, first + z.shape[1]) == y[:, None]
            dz = torch.where(hit, p - 1, p) * g
            dx += dz @ part
            dW.append(dz.T @ rows)
            db.append(dz.sum(0))
        return dx.to(x.dtype), torch.cat(dW).to(W.dtype), torch.cat(db).to(b.dtype), None, None, None


def chunks_of_classes(
    x: Tensor, W: Tensor, b: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int, reduction: str
) -> Tensor:
    kept = y != ignore_index
    safe = torch.where(kept, y, 0)
    losses: Tensor = applied(ChunksOfClasses)(x, W, b, safe, kept, 4)
    own = kept.to(losses.dtype) if weight is None else torch.where(kept, wide(weight)[safe], 0)
    losses = losses * own
    if reduction == "none":
        return losses.to(x.dtype)
    return (losses.sum() / own.sum() if reduction == "mean" else losses.sum()).to(x.dtype)


# --- soft targets ----------------------------------------------------------------------------------------------------


def soft_chunks(
    x: Tensor, W: Tensor, b: Tensor, p: Tensor, weight: Tensor | None, label_smoothing: float, reduction: str
) -> Tensor:
    """Chunks of rows against a teacher's probabilities."""
    w = None if weight is None else wide(weight)
    total = wide(x).new_zeros(())
    for rows, target in zip(x.split(4), p.split(4), strict=True):
        logits = F.linear(wide(rows), wide(W), wide(b))
        total = total + F.cross_entropy(logits, wide(target), w, label_smoothing=label_smoothing, reduction="sum")
    return (total / len(x) if reduction == "mean" else total).to(x.dtype)


ROWS, TOTAL = "linear_cross_entropy_rows", "linear_cross_entropy"

LINEAR: tuple[Kernel, ...] = (
    Kernel("linear, checkpointed chunks", lambda: checkpointed, TOTAL, seen_in="torchtune, axolotl"),
    Kernel("linear, gradients made in the forward pass", lambda: stored, TOTAL, seen_in="Liger-Kernel"),
    Kernel("linear, chunks of rows", lambda: rows_in_chunks, ROWS, seen_in="unsloth"),
    Kernel("linear, chunks of classes", lambda: chunks_of_classes, TOTAL, seen_in="cut-cross-entropy"),
    Kernel("linear, chunks of classes, rows", lambda: chunks_of_classes, ROWS, seen_in="cut-cross-entropy"),
    Kernel("linear, logits to float32", lambda: upcast, "linear_cross_entropy_smoothed", seen_in="transformers"),
    Kernel("linear, against a teacher", lambda: soft_chunks, "linear_soft_cross_entropy", seen_in="distillation"),
)  # fmt: skip
