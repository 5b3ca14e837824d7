"""Triton's side of the kernels in `right_triton`: this module needs triton, and is imported by nothing else."""

# mypy: ignore-errors
# (Triton's language has no types that mypy knows, and triton is not there where mypy runs.)

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.autograd import Function


@triton.jit
def one_block(Z, Y, LOSS, G, classes, count, BLOCK: tl.constexpr):
    """A row in one block: its loss, and its gradient of the mean."""
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < classes
    z = tl.load(Z + row * classes + column, mask=inside, other=-float("inf")).to(tl.float32)
    hit = column == tl.load(Y + row)
    top = tl.max(z, 0)
    e = tl.exp(z - top)
    total = tl.sum(e, 0)
    tl.store(LOSS + row, tl.log(total) + (top - tl.sum(tl.where(hit, z, 0.0), 0)))
    tl.store(G + row * classes + column, (e / total - tl.where(hit, 1.0, 0.0)) / count, mask=inside)


@triton.jit
def online(Z, Y, LOSS, TOP, TOTAL, classes, IGNORED, BLOCK: tl.constexpr):
    """A row in blocks: its loss, its maximum and its sum of exponentials."""
    row = tl.program_id(0)
    y = tl.load(Y + row)
    top, total, picked = -float("inf"), 0.0, 0.0
    for first in range(0, classes, BLOCK):
        column = first + tl.arange(0, BLOCK)
        z = tl.load(Z + row * classes + column, mask=column < classes, other=-float("inf")).to(tl.float32)
        new = tl.maximum(top, tl.max(z, 0))
        fixed = tl.where(new == -float("inf"), 0.0, new)
        total = total * tl.exp(top - fixed) + tl.sum(tl.exp(z - fixed), 0)
        picked += tl.sum(tl.where(column == y, z, 0.0), 0)
        top = new
    tl.store(TOP + row, top)
    tl.store(TOTAL + row, total)
    tl.store(LOSS + row, tl.where(y == IGNORED, 0.0, tl.log(total) + (top - picked)))


@triton.jit
def online_backward(Z, Y, TOP, TOTAL, UP, G, classes, IGNORED, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    y, up = tl.load(Y + row), tl.load(UP + row)
    top, total = tl.load(TOP + row), tl.load(TOTAL + row)
    for first in range(0, classes, BLOCK):
        column = first + tl.arange(0, BLOCK)
        z = tl.load(Z + row * classes + column, mask=column < classes, other=-float("inf")).to(tl.float32)
        p = tl.exp(z - top) / total
        g = tl.where(y == IGNORED, 0.0, (p - tl.where(column == y, 1.0, 0.0)) * up)
        tl.store(G + row * classes + column, g, mask=column < classes)


@triton.jit
def softmax_rows(Z, P, classes, BLOCK: tl.constexpr):
    """Exponentials to base 2, as the hardware has them."""
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    z = tl.load(Z + row * classes + column, mask=column < classes, other=-float("inf")).to(tl.float32)
    e = tl.exp2((z - tl.max(z, 0)) * 1.4426950408889634)
    tl.store(P + row * classes + column, e / tl.sum(e, 0), mask=column < classes)


@triton.jit
def softmax_rows_backward(P, UP, G, classes, BLOCK: tl.constexpr):
    row, column = tl.program_id(0), tl.arange(0, BLOCK)
    inside = column < classes
    p = tl.load(P + row * classes + column, mask=inside, other=0.0).to(tl.float32)
    g = tl.load(UP + row * classes + column, mask=inside, other=0.0).to(tl.float32)
    tl.store(G + row * classes + column, p * (g - tl.sum(p * g, 0)), mask=inside)


@triton.jit
def binary(Z, T, LOSS, D, count, BLOCK: tl.constexpr):
    """max(z, 0) - z t + log(1 + exp(-|z|)), the logarithm without loss of digits; and its derivative."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = place < count
    z = tl.load(Z + place, mask=inside, other=0.0).to(tl.float32)
    t = tl.load(T + place, mask=inside, other=0.0).to(tl.float32)
    e = tl.exp(-tl.abs(z))
    u = 1.0 + e
    # Kahan's log1p: the rounding of 1 + e is undone.
    log1p = tl.where(u == 1.0, e, tl.log(u) * (e / tl.where(u == 1.0, 1.0, u - 1.0)))
    tl.store(LOSS + place, tl.maximum(z, 0.0) - z * t + log1p, mask=inside)
    tl.store(D + place, tl.where(z >= 0, 1.0 / u, e / u) - t, mask=inside)


class OneBlock(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        z, y = logits.contiguous(), target.contiguous()
        loss, gradient = z.new_empty(len(z), dtype=torch.float32), torch.empty_like(z)
        if len(z):
            block = triton.next_power_of_2(z.shape[1])
            one_block[(len(z),)](z, y, loss, gradient, z.shape[1], len(z), BLOCK=block)
        ctx.save_for_backward(gradient)
        return loss.mean().to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * upstream[0], None


class Online(Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, block: int) -> Tensor:
        z, y = logits.contiguous(), target.contiguous()
        loss, top, total = (z.new_empty(len(z), dtype=torch.float32) for _ in range(3))
        if len(z):
            online[(len(z),)](z, y, loss, top, total, z.shape[1], ignore_index, BLOCK=block)
        ctx.save_for_backward(z, y, top, total)
        ctx.options = ignore_index, block
        return loss

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        z, y, top, total = ctx.saved_tensors
        gradient, up = torch.empty_like(z), upstream[0].contiguous()
        if len(z):
            ignored, block = ctx.options
            online_backward[(len(z),)](z, y, top, total, up, gradient, z.shape[1], ignored, BLOCK=block)
        return gradient, None, None, None


class Softmax(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, dim: int) -> Tensor:
        x = z.movedim(dim, -1).contiguous()
        p = torch.empty_like(x)
        if x.numel():
            block = triton.next_power_of_2(x.shape[-1])
            softmax_rows[(x.numel() // x.shape[-1],)](x, p, x.shape[-1], BLOCK=block)
        ctx.save_for_backward(p)
        ctx.dim = dim
        return p.movedim(-1, dim)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (p,) = ctx.saved_tensors
        up = upstream[0].movedim(ctx.dim, -1).contiguous()
        gradient = torch.empty_like(p)
        if p.numel():
            block = triton.next_power_of_2(p.shape[-1])
            softmax_rows_backward[(p.numel() // p.shape[-1],)](p, up, gradient, p.shape[-1], BLOCK=block)
        return gradient.movedim(-1, ctx.dim), None


class Binary(Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, t: Tensor) -> Tensor:
        x, q = z.contiguous(), t.contiguous()
        loss, derivative = (x.new_empty(len(x), dtype=torch.float32) for _ in range(2))
        if len(x):
            binary[(triton.cdiv(len(x), 256),)](x, q, loss, derivative, len(x), BLOCK=256)
        ctx.save_for_backward(derivative)
        return loss.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (derivative,) = ctx.saved_tensors
        return (derivative * upstream[0].float()).to(upstream[0].dtype), None
