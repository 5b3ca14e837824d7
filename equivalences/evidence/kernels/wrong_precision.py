"""Sums, logarithms and products in fewer bits than the format claims, and results of another kind."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import (
    Loss,
    Rows,
    Stored,
    at,
    each_row,
    fused,
    of_rows,
    scaled,
    two_pass,
    unseen,
)

LANES = 32
WIDE_FORMATS, SHORT = ("float64", "float32"), ("bfloat16", "float16")
NONE: dict[str, Any] = {"reduction": "none"}


def one_after_the_other(terms: Tensor, dtype: torch.dtype) -> Tensor:
    """Sums of rows by a few lanes, each of which adds one number after the other in a format."""
    padded = F.pad(terms, (0, -terms.shape[1] % LANES)).to(dtype)
    total = padded[:, :LANES].clone()
    for part in padded.split(LANES, 1)[1:]:
        total += part
    return total.to(terms.dtype).sum(1)


def accumulated(dtype: torch.dtype) -> Callable[[Tensor], Rows]:
    """The sum of exponentials in an accumulator of few bits.  As of a compiled kernel, it is not seen."""

    def over(x: Tensor) -> Rows:
        top = x.amax(1)
        return Rows(top, one_after_the_other(torch.exp(x - top[:, None]), dtype))

    return unseen(over)


def truncated(x: Tensor, bits: int) -> Tensor:
    """The first bits of a float32's significand, as TensorFloat-32 has 11."""
    mask = ~((1 << (24 - bits)) - 1)
    return (x.float().contiguous().view(torch.int32) & mask).view(torch.float32).to(x.dtype)


def all_in(make: Callable[[Tensor], Tensor]) -> Loss:
    """Everything in one format, and the result brought back."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        x = make(z)
        top = x.detach().amax(1, keepdim=True)
        return (torch.log(torch.exp(x - top).sum(1)) + top.squeeze(1) - at(x, y)).mean().to(z.dtype)

    return loss


def rows_in(change: Callable[[Tensor], Tensor]) -> Loss:
    """The losses of rows are rounded before they are averaged."""
    return fused(losses=change)


def rows_added_in(dtype: torch.dtype | None) -> Loss:
    """The losses of rows are added up one after the other in few bits (None: in the format of the logits)."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        def run(z: Tensor) -> tuple[Tensor, Tensor]:
            x = wide(z)
            losses, g = of_rows(x, y, two_pass(x))
            add = unseen(lambda each: Rows(one_after_the_other(each[None], dtype or z.dtype), each))
            return (add(losses).top[0] / len(z)).to(z.dtype), (g / len(z)).to(z.dtype)

        return applied(Stored)(z, run, scaled)

    return loss


def divided_in(dtype: torch.dtype) -> Loss:
    """1 / N in few bits."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        share = (1 / torch.tensor(float(len(z)))).to(dtype).to(wide(z).dtype)
        return (F.cross_entropy(wide(z), y, reduction="sum") * share).to(z.dtype)

    return loss


def in_numpy(z: Tensor, y: Tensor) -> Tensor:
    """A float64 loss that NumPy computes in float32."""

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        x = z.detach().double().numpy().astype(np.float32)
        top = x.max(1, keepdims=True) if x.size else x[:, :1]
        with np.errstate(all="ignore"):
            e = np.exp(x - top)
            share = e / e.sum(1, keepdims=True)
            losses = np.log(e.sum(1)) + top[:, 0] - x[np.arange(len(x)), y.numpy()]
            share[np.arange(len(x)), y.numpy()] -= 1
            mean, g = losses.sum() / np.float32(len(x)), share / np.float32(len(x))
        return torch.tensor(float(mean)).to(z.dtype), torch.from_numpy(g).to(z.dtype)

    return applied(Stored)(z, run, scaled)


def shifted_after_rounding(z: Tensor, y: Tensor) -> Tensor:
    """The logsumexp of each row is stored in the format of the logits, and the label's logit taken off it."""
    x = wide(z)
    stored = torch.logsumexp(x, 1).to(z.dtype).to(x.dtype)
    return (stored - at(x, y)).mean().to(z.dtype)


def recomputed_from_stored(z: Tensor, y: Tensor) -> Tensor:
    """The backward pass recomputes softmax from a logsumexp that was stored in the format of the logits."""

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        x = wide(z)
        total = torch.logsumexp(x, 1)
        losses = torch.log(torch.exp(x - x.amax(1, keepdim=True)).sum(1)) + (x.amax(1) - at(x, y))
        g = torch.exp(x - total.to(z.dtype).to(x.dtype)[:, None])
        g = g.scatter_add(1, y[:, None], -torch.ones_like(g[:, :1]))
        return losses.mean().to(z.dtype), (g / len(z)).to(z.dtype)

    return applied(Stored)(z, run, scaled)


def approximate_reciprocal(x: Tensor) -> Rows:
    """1 / total of 12 bits, as some hardware gives it."""
    rows = two_pass(x)
    inverse = truncated(1 / rows.total, 12)
    return Rows(rows.top, rows.total, torch.exp(x - rows.top[:, None]) * inverse[:, None])


def once_more(dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
    """Rounded to a format and back."""
    return lambda x: x.to(dtype).to(x.dtype)


def result_as(make: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    """A right mean, handed out in another way."""
    return lambda z, y: make(F.cross_entropy(wide(z), y).to(z.dtype))


def rows_as(make: Callable[[Tensor], Any]) -> Callable[[Tensor, Tensor], Any]:
    """Right losses of rows, handed out in another way."""
    return lambda z, y: make(F.cross_entropy(wide(z), y, reduction="none").to(z.dtype))


def _exact_product(x: Tensor) -> Tensor:
    """A temperature of 1, as 0.1 * 10 in bfloat16."""
    return x * float(torch.tensor(0.1).bfloat16()) * 10


KERNELS = (
    Kernel("sum of exp in bfloat16", lambda: fused(accumulated(torch.bfloat16)),
           wrong="exponentials are added up in bfloat16, where 256 + 1 is 256"),
    Kernel("sum of exp in float16", lambda: fused(accumulated(torch.float16)),
           wrong="exponentials are added up in float16, where 2048 + 1 is 2048", formats=("float64", "float32",
               "float16")),
    Kernel("sum of exp in bfloat16, rows", lambda: each_row(accumulated(torch.bfloat16)),
           wrong="exponentials are added up in bfloat16, where 256 + 1 is 256", said=NONE),
    Kernel("sum of exp in float32", lambda: fused(accumulated(torch.float32)),
           wrong="exponentials are added up in float32", formats=("float64",)),
    Kernel("logits in bfloat16", lambda: fused(logits=once_more(torch.bfloat16)),
           wrong="logits are rounded to bfloat16",
           formats=(*WIDE_FORMATS, "float16")),
    Kernel("logits in float16", lambda: fused(logits=lambda x: once_more(torch.float16)(x.clamp(-65_504, 65_504))),
           wrong="logits are rounded to float16, as autocast does", formats=WIDE_FORMATS),
    Kernel("logits in TensorFloat-32", lambda: fused(logits=lambda x: truncated(x, 11)),
           wrong="logits keep 11 bits", formats=WIDE_FORMATS),
    Kernel("logits of 20 bits", lambda: fused(logits=lambda x: truncated(x, 20)), wrong="logits keep 20 bits",
           formats=WIDE_FORMATS),
    Kernel("float64 in float32", lambda: lambda z, y: F.cross_entropy(z.float(), y).double(),
           wrong="computed in float32", formats=("float64",)),
    Kernel("float64 in NumPy's float32", lambda: in_numpy, wrong="computed in float32", formats=("float64",)),
    Kernel("float64 with float32 exp", lambda: fused(lambda x: Rows(
               x.amax(1), torch.exp((x - x.amax(1, keepdim=True)).float()).double().sum(1))),
           wrong="exp of the forward pass is computed in float32", formats=("float64",)),
    Kernel("float64 with a float32 gradient", lambda: fused(gradient=lambda g, y: g.float().double()),
           wrong="the gradient is rounded to float32", formats=("float64",)),
    Kernel("float64 with a float32 mean", lambda: rows_in(once_more(torch.float32)),
           wrong="losses are rounded to float32 before they are averaged", formats=("float64",)),
    Kernel("float32 in bfloat16", lambda: all_in(lambda z: z.bfloat16()), wrong="computed in bfloat16",
           formats=(*WIDE_FORMATS, "float16")),
    Kernel("float32 in float16", lambda: all_in(lambda z: z.half()), wrong="computed in float16",
           formats=("float64", "float32", "bfloat16")),
    Kernel("all in the format of the logits", lambda: all_in(lambda z: z),
           wrong="each step is rounded to 16 bits: an offset of the logits is lost", formats=SHORT),
    Kernel("logsumexp in the format of the logits", lambda: shifted_after_rounding,
           wrong="logsumexp is rounded to 16 bits before the label's logit is taken off", formats=SHORT),
    Kernel("backward pass from a rounded logsumexp", lambda: recomputed_from_stored,
           wrong="softmax is recomputed from a logsumexp of 16 bits", formats=SHORT),
    Kernel("losses in bfloat16", lambda: rows_in(once_more(torch.bfloat16)),
           wrong="losses of rows are rounded to bfloat16",
           formats=(*WIDE_FORMATS, "float16")),
    Kernel("losses in float16", lambda: rows_in(once_more(torch.float16)),
           wrong="losses of rows are rounded to float16",
           formats=("float64", "float32", "bfloat16")),
    Kernel("mean in bfloat16", lambda: rows_added_in(torch.bfloat16),
           wrong="losses are added up one after the other in bfloat16"),
    Kernel("mean in float16", lambda: rows_added_in(torch.float16),
           wrong="losses are added up one after the other in float16"),
    Kernel("mean in the format of the logits", lambda: rows_added_in(None),
           wrong="losses are added up one after the other in 16 bits", formats=SHORT),
    Kernel("1 / N in float16", lambda: divided_in(torch.float16), wrong="1 / N is rounded to float16",
           formats=WIDE_FORMATS),
    Kernel("1 / N in bfloat16", lambda: divided_in(torch.bfloat16), wrong="1 / N is rounded to bfloat16",
           formats=(*WIDE_FORMATS, "float16")),
    Kernel("1 / N in float32", lambda: divided_in(torch.float32),
           wrong="1 / N is rounded to float32", formats=("float64",)),
    Kernel("reciprocal of 12 bits", lambda: fused(approximate_reciprocal), wrong="1 / sum has 12 bits in the gradient",
           formats=WIDE_FORMATS),
    Kernel("temperature of 1 in bfloat16", lambda: fused(logits=_exact_product), wrong="0.1 * 10 is not 1 in bfloat16",
           formats=(*WIDE_FORMATS, "float16")),
    Kernel("result in float32", lambda: lambda z, y: F.cross_entropy(z.float(), y),
           wrong="the result is float32 whatever the logits are", formats=("float64", "bfloat16", "float16")),
    Kernel("result in float64", lambda: result_as(lambda value: value.double()), wrong="the result is float64",
           formats=("float32", "bfloat16", "float16")),
    Kernel("result in float16", lambda: result_as(lambda value: value.half()), wrong="the result is float16",
           formats=("float64", "float32", "bfloat16")),
    Kernel("result of shape (1,)", lambda: result_as(lambda value: value[None]), wrong="the mean has shape (1,)"),
    Kernel("result of shape (1, 1)", lambda: result_as(lambda value: value[None, None]),
           wrong="the mean has shape (1, 1)"),
    Kernel("rows of shape (N, 1)", lambda: rows_as(lambda each: each[:, None]),
           wrong="losses have shape (N, 1)", said=NONE),
    Kernel("rows squeezed", lambda: rows_as(lambda each: each.squeeze()), wrong="the loss of one row has no dimension",
           said=NONE),
    Kernel("result as a number", lambda: result_as(float), wrong="the mean is a Python number, without a gradient"),
    Kernel("result in a tuple", lambda: result_as(lambda value: (value, None)), wrong="the mean comes in a tuple"),
)  # fmt: skip
