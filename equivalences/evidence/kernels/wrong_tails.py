"""The last block of classes, the padding beside it, and labels that only some blocks look for."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, Rows, Stored, at, fused, of_rows, scaled, two_pass


def cut(block: int) -> Callable[[Tensor], Tensor]:
    """Whole blocks alone, where there is one."""
    return lambda x: x[:, : x.shape[1] // block * block] if x.shape[1] > block else x


def padded(block: int, fill: float) -> Callable[[Tensor], Tensor]:
    """Rows filled up to whole blocks."""
    return lambda x: F.pad(x, (0, -x.shape[1] % block), value=fill)


def _padded_if_any(block: int, fill: float) -> Callable[[Tensor], Tensor]:
    """The same, but for rows of which all is masked: these stay so."""

    def filled(x: Tensor) -> Tensor:
        more = torch.where(x.amax(1, keepdim=True) == -math.inf, -math.inf, fill).to(x.dtype)
        return torch.cat((x, more.expand(-1, -x.shape[1] % block)), 1)

    return filled


def _to_a_power(x: Tensor, fill: float) -> Tensor:
    return F.pad(x, (0, (1 << (x.shape[1] - 1).bit_length()) - x.shape[1]), value=fill)


def summed_over(some: Callable[[Tensor], Tensor]) -> Loss:
    """The maximum of all classes, the sum over others than these."""

    def over(x: Tensor) -> Rows:
        top = x.amax(1)
        return Rows(top, torch.exp(some(x) - top[:, None]).sum(1))

    return fused(over)


def reduced_over(some: Callable[[Tensor], Tensor]) -> Loss:
    """The maximum and the sum over others than the classes."""
    return fused(lambda x: two_pass(some(x)))


def without_gradient(of: Callable[[int], slice]) -> Loss:
    """The gradient of some classes is left as the buffer was made: 0."""

    def gradient(g: Tensor, y: Tensor) -> Tensor:
        g = g.clone()
        g[:, of(g.shape[1])] = 0
        return g

    return fused(gradient=gradient)


def _from(limit: int) -> Callable[[int], slice]:
    return lambda classes: slice(limit, classes)


def label_seen_in(block: int, *, value: bool = True, gradient: bool = True) -> Loss:
    """The label is compared with the columns of the first block alone."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        def run(z: Tensor) -> tuple[Tensor, Tensor]:
            x = wide(z)
            losses, g = of_rows(x, y, two_pass(x))
            missed = y >= block
            if value:
                losses = losses + torch.where(missed, at(x, y), 0.0)
            if gradient:
                g = g.scatter_add(1, y[:, None], missed[:, None].to(g.dtype))
            return losses.mean().to(z.dtype), (g / len(z)).to(z.dtype)

        return applied(Stored)(z, run, scaled)

    return loss


def _label_of(make: Callable[[Tensor], Tensor]) -> Loss:
    """Labels that went through another type; what is no class then is brought back, as memory does not complain."""
    return fused(label=lambda y, z: make(y).long() % z.shape[1])


def _one_hot_by_comparing(dtype: torch.dtype | None) -> Loss:
    """Labels found by comparing with an arange in a format that does not hold all integers."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        kind = dtype or z.dtype
        hot = torch.arange(z.shape[1], dtype=kind, device=z.device) == y.to(kind)[:, None]
        x = wide(z)
        picked = torch.where(hot, x, 0.0).sum(1)
        return (torch.logsumexp(x, 1) - picked).mean().to(z.dtype)

    return loss


def _flat_index(dtype: torch.dtype) -> Loss:
    """z.view(-1)[row * classes + label], with an index in another type."""

    def label(y: Tensor, z: Tensor) -> Tensor:
        row = torch.arange(len(y), device=y.device).to(dtype)
        flat = (row * z.shape[1] + y.to(dtype)).long() % max(z.numel(), 1)
        return torch.where(flat // z.shape[1] == torch.arange(len(y), device=y.device), flat % z.shape[1], 0)

    return fused(label=label)


def _lost(name: str, what: str, *blocks: int) -> tuple[Kernel, ...]:
    return tuple(Kernel(f"{name} {block}", partial(reduced_over, cut(block)), wrong=what) for block in blocks)


TAIL = "classes after the last whole block are left out of the logsumexp"
ZEROS = "padded columns hold 0 in place of -inf, and count"

KERNELS = (
    *_lost("whole blocks of", TAIL, 4, 8, 64, 128, 1024, 4096, 32_768),
    Kernel("sum in whole blocks of 16", lambda: summed_over(cut(16)),
           wrong="the sum leaves out the tail, the maximum not"),
    Kernel("sum in whole blocks of 256", lambda: summed_over(cut(256)),
           wrong="the sum leaves out the tail, the maximum not"),
    Kernel("sum in whole blocks of 8192", lambda: summed_over(cut(8192)),
           wrong="the sum leaves out the tail, the maximum not"),
    Kernel("one class too few", lambda: summed_over(lambda x: x[:, :-1] if x.shape[1] > 4096 else x),
           wrong="beyond 4096 classes, the last one is left out of the sum"),
    Kernel("one class too many", lambda: summed_over(lambda x: torch.cat((x, x[:, :1]), 1) if x.shape[1] % 2 else x),
           wrong="an odd number of classes: the first class is read again as the last of a pair"),
    Kernel("overlapping blocks of 1024", lambda: summed_over(
               lambda x: torch.cat((x[:, : x.shape[1] // 1024 * 1024], x[:, -1024:]), 1) if x.shape[1] > 1024 else x),
           wrong="the last block is moved back until it is whole, and what it overlaps counts twice"),
    Kernel("zeros up to 32", lambda: reduced_over(padded(32, 0.0)), wrong=ZEROS),
    Kernel("zeros up to 128 in the sum", lambda: summed_over(padded(128, 0.0)), wrong=ZEROS),
    Kernel("zeros up to 1024, from there on", lambda: reduced_over(
               lambda x: padded(1024, 0.0)(x) if x.shape[1] > 1024 else x),
           wrong="in the last of several blocks, masked columns hold 0 in place of -inf"),
    Kernel("zeros up to 4096, from there on", lambda: reduced_over(
               lambda x: padded(4096, 0.0)(x) if x.shape[1] > 4096 else x),
           wrong="in the last of several blocks, masked columns hold 0 in place of -inf"),
    Kernel("zeros up to 65536, from 50257 on", lambda: reduced_over(
               lambda x: padded(65_536, 0.0)(x) if x.shape[1] >= 50_257 else x),
           wrong="a large vocabulary is padded with 0 in place of -inf"),
    Kernel("zeros up to a power of two", lambda: reduced_over(lambda x: _to_a_power(x, 0.0)), wrong=ZEROS),
    Kernel("-100 up to a power of two", lambda: reduced_over(lambda x: _to_a_power(x, -100.0)),
           wrong="padded columns hold -100, which is no logit for rows far below"),
    Kernel("-10000 up to 64", lambda: reduced_over(padded(64, -1e4)),
           wrong="padded columns hold -10,000, which is no logit for rows far below"),
    Kernel("-65504 up to a power of two", lambda: reduced_over(lambda x: _to_a_power(x, -65_504.0)),
           wrong="padded columns hold float16's lowest number, which other formats go below",
           formats=("float64", "float32", "bfloat16")),
    Kernel("-1e9 up to 128", lambda: reduced_over(_padded_if_any(128, -1e9)),
           wrong="padded columns hold -1e9, which is no logit for rows that lie there",
           formats=("float64", "float32", "bfloat16")),
    Kernel("gradient of whole blocks of 64", lambda: without_gradient(lambda n: slice(n // 64 * 64, n)),
           wrong="classes after the last whole block of 64 have no gradient"),
    Kernel("gradient of whole blocks of 1024", lambda: without_gradient(
               lambda n: slice(n // 1024 * 1024 if n > 1024 else n, n)),
           wrong="classes after the last whole block of 1024 have no gradient"),
    Kernel("gradient of whole blocks of 4096", lambda: without_gradient(
               lambda n: slice(n // 4096 * 4096 if n > 4096 else n, n)),
           wrong="classes after the last whole block of 4096 have no gradient"),
    Kernel("gradient of all but the last", lambda: without_gradient(lambda n: slice(max(1, n - 1), n)),
           wrong="the last class has no gradient"),
    Kernel("gradient of all but the last, from 128 on", lambda: without_gradient(lambda n: slice(max(128, n - 1), n)),
           wrong="beyond 128 classes the last one has no gradient"),
    *(Kernel(f"gradient of the first {limit:,}", partial(without_gradient, _from(limit)),
             wrong=f"classes beyond {limit:,} have no gradient") for limit in (1024, 8192, 32_768, 50_257)),
    Kernel("gradient of the first 65,536", lambda: without_gradient(lambda n: slice(65_536, n)),
           wrong="classes beyond 65,536 have no gradient"),
    Kernel("gradient of the first 100,000", lambda: without_gradient(lambda n: slice(100_000, n)),
           wrong="classes beyond 100,000 have no gradient", formats=("float32", "bfloat16", "float16")),
    Kernel("gradient of even tiles", lambda: fused(gradient=lambda g, y: g * (
               torch.arange(g.shape[1], device=g.device) // 2048 % 2 == 0)),
           wrong="every second tile of 2048 classes has no gradient"),
    *(Kernel(f"label in the first {block:,}", partial(label_seen_in, block),
             wrong=f"labels from {block:,} on are not found: the loss is logsumexp, the gradient softmax")
      for block in (64, 128, 1024, 8192, 32_768, 65_536)),
    Kernel("label's gradient in the first 128", lambda: label_seen_in(128, value=False),
           wrong="labels from 128 on get no -1 in their gradient"),
    Kernel("label's gradient in the first 4096", lambda: label_seen_in(4096, value=False),
           wrong="labels from 4096 on get no -1 in their gradient"),
    Kernel("label's value in the first 1024", lambda: label_seen_in(1024, gradient=False),
           wrong="the loss of labels from 1024 on lacks their logit; the gradient is right"),
    Kernel("labels in int8", lambda: _label_of(lambda y: y.to(torch.int8)), wrong="labels from 128 on wrap around"),
    Kernel("labels in uint8", lambda: _label_of(lambda y: y.to(torch.uint8)), wrong="labels from 256 on wrap around"),
    Kernel("labels in int16", lambda: _label_of(lambda y: y.to(torch.int16)),
           wrong="labels from 32,768 on wrap around"),
    Kernel("labels in 16 bits", lambda: _label_of(lambda y: y & 65_535), wrong="labels from 65,536 on wrap around"),
    Kernel("labels in 12 bits", lambda: _label_of(lambda y: y & 4095), wrong="labels from 4096 on wrap around"),
    Kernel("labels in bfloat16", lambda: _label_of(lambda y: y.bfloat16()), wrong="labels from 257 on are rounded"),
    Kernel("labels in float16", lambda: _label_of(lambda y: y.half().float().clamp(max=65_504)),
           wrong="labels from 2049 on are rounded"),
    Kernel("labels clamped to 255", lambda: _label_of(lambda y: y.clamp(max=255)), wrong="labels saturate at 255"),
    Kernel("labels clamped to 32000", lambda: _label_of(lambda y: y.clamp(max=31_999)),
           wrong="labels saturate at 31,999"),
    Kernel("labels compared in the logits' format", lambda: _one_hot_by_comparing(None),
           wrong="arange in 16 bits: several classes equal a large label", formats=("bfloat16", "float16")),
    Kernel("labels compared in bfloat16", lambda: _one_hot_by_comparing(torch.bfloat16),
           wrong="arange in bfloat16: several classes equal a label beyond 256"),
    Kernel("flat index in float32", lambda: _flat_index(torch.float32),
           wrong="row * classes + label is rounded beyond 2**24 numbers"),
    Kernel("flat index in bfloat16", lambda: _flat_index(torch.bfloat16),
           wrong="row * classes + label is rounded beyond 256 numbers"),
    Kernel("flat index in int16", lambda: _flat_index(torch.int16),
           wrong="row * classes + label overflows beyond 32,767 numbers"),
    Kernel("label of the last class off by one", lambda: fused(
               label=lambda y, z: torch.where(y == z.shape[1] - 1, (y - 1).clamp(min=0), y)),
           wrong="a label that is the last class is taken for the one before"),
    Kernel("label 0 as padding", lambda: fused(
               label=lambda y, z: y, losses=lambda each: each, gradient=lambda g, y: g * (y != 0)[:, None]),
           wrong="rows labelled 0 get no gradient: 0 is taken for padding"),
    Kernel("label one block late", lambda: fused(
               label=lambda y, z: torch.where((y >= 1024) & (y < z.shape[1] - 1), y + 1, y)),
           wrong="labels from 1024 on are off by one"),
    Kernel("mask by <= in the last block", lambda: summed_over(
               lambda x: F.pad(x, (0, 1), value=0.0) if x.shape[1] % 128 else x),
           wrong="column <= classes: one column beyond the row counts, which holds 0"),
)  # fmt: skip
