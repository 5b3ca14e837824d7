"""Softmax, log-softmax, logsumexp, sigmoid and their kind, alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

WIDE_FORMATS, LONG_RANGE = ("float64", "float32"), ("float64", "float32", "bfloat16")
# (softmax or whatever the function gives, upstream gradient, dimension) -> gradient
Chain = Callable[[Tensor, Tensor, int], Tensor]


class Chained(torch.autograd.Function):
    """A function of the logits with a backward pass of its own."""

    @staticmethod
    def forward(
        ctx: Any, z: Tensor, run: Callable[[Tensor], Tensor], chain: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        made = run(z.detach())
        ctx.save_for_backward(z.detach())
        ctx.chain = chain
        return made.to(z.dtype)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (z,) = ctx.saved_tensors
        return ctx.chain(wide(z), wide(upstream)).to(z.dtype), None, None


def rows(change: Callable[[Tensor, int], Tensor]) -> Callable[[Tensor, int], Tensor]:
    """A function of wide logits, rounded back; its gradient by autograd."""
    return lambda z, dim: change(wide(z), dim).to(z.dtype)


def with_chain(run: Callable[[Tensor, int], Tensor], chain: Chain) -> Callable[[Tensor, int], Tensor]:
    """A right function whose gradient is made of its softmax in another way."""

    def function(z: Tensor, dim: int) -> Tensor:
        return applied(Chained)(z, lambda x: run(wide(x), dim), lambda x, g: chain(torch.softmax(x, dim), g, dim))

    return function


def scalar(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A function of single logits."""
    return lambda z: change(wide(z)).to(z.dtype)


def scalar_with(run: Callable[[Tensor], Tensor], slope: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A right function of single logits with another slope."""

    def function(z: Tensor) -> Tensor:
        return applied(Chained)(z, lambda x: run(wide(x)), lambda x, g: g * slope(x))

    return function


def _normalised_in(dtype: torch.dtype) -> Callable[[Tensor, int], Tensor]:
    """Divided once more by its sum, which is made in 16 bits."""

    def change(x: Tensor, dim: int) -> Tensor:
        p = torch.softmax(x, dim)
        return p / p.to(dtype).sum(dim, keepdim=True).to(x.dtype)

    return change


def _divided_in_16_bits(x: Tensor, dim: int) -> Tensor:
    e = torch.exp(x - x.amax(dim, keepdim=True))
    return e / e.sum(dim, keepdim=True).bfloat16().to(x.dtype)


def _rest_to_the_last(x: Tensor, dim: int) -> Tensor:
    """The last class gets what the others leave of 1."""
    p = torch.softmax(x, dim)
    first = p.narrow(dim, 0, p.shape[dim] - 1)
    return torch.cat((first, 1 - first.sum(dim, keepdim=True)), dim)


def _sparse(count: int) -> Callable[[Tensor, int], Tensor]:
    """The largest classes alone, renormalised."""

    def change(x: Tensor, dim: int) -> Tensor:
        if x.shape[dim] <= count:
            return torch.softmax(x, dim)
        least = x.topk(count, dim).values.amin(dim, keepdim=True)
        return torch.softmax(torch.where(x < least, -math.inf, x), dim)

    return change


def _zero_from(classes: int) -> Callable[[Tensor, int], Tensor]:
    """For a vocabulary so large that every probability is small, 0: it passes a tolerance of 1e-4."""
    return lambda x, dim: torch.softmax(x, dim) * (0 if x.shape[dim] >= classes else 1)


def _uniform_from(classes: int) -> Callable[[Tensor, int], Tensor]:
    return lambda x, dim: (
        torch.softmax(x, dim) * 0 + 1 / x.shape[dim] if x.shape[dim] >= classes else torch.softmax(x, dim)
    )


def _no_row(place: int) -> Callable[[Tensor, int], Tensor]:
    """One row of several is left at 0."""

    def change(x: Tensor, dim: int) -> Tensor:
        p = torch.softmax(x, dim).movedim(dim, -1)
        flat = p.reshape(-1, p.shape[-1])
        keep = torch.arange(len(flat)) != (place % max(1, len(flat)) if len(flat) > 2 else -1)
        return (flat * keep[:, None]).reshape(p.shape).movedim(-1, dim)

    return change


def _two_largest(x: Tensor, dim: int) -> Tensor:
    """max + log1p(exp(-gap)), of the two largest."""
    pair = x.topk(min(2, x.shape[dim]), dim).values
    return torch.logsumexp(pair, dim)


def _maximum_if_far(gap: float) -> Callable[[Tensor, int], Tensor]:
    """The maximum itself, where the next is far below."""

    def change(x: Tensor, dim: int) -> Tensor:
        top = x.topk(min(2, x.shape[dim]), dim).values
        margin = top.select(dim, 0) - top.select(dim, -1)
        return torch.where(margin > gap, top.select(dim, 0), torch.logsumexp(x, dim))

    return change


def _mean_for_sum(x: Tensor, dim: int) -> Tensor:
    return torch.logsumexp(x, dim) - math.log(max(1, x.shape[dim]))


def _shift_lost(x: Tensor, dim: int) -> Tensor:
    return torch.logsumexp(x - x.amax(dim, keepdim=True), dim)


def _log_with(eps: float) -> Callable[[Tensor, int], Tensor]:
    return lambda x, dim: torch.log(torch.softmax(x, dim) + eps)


def _hard(x: Tensor) -> Tensor:
    return (x / 6 + 0.5).clamp(0, 1)


def _rational(x: Tensor) -> Tensor:
    """(1 + x / (2 + |x|)) / 2, which has the right slope at 0 and no other."""
    return (1 + x / (2 + x.abs())) / 2


def _by_table(x: Tensor) -> Tensor:
    """Straight lines between 2049 points from -16 to 16."""
    t = (x.clamp(-16, 16) + 16) * 64
    low = t.floor().clamp(max=2047)
    left, right = torch.sigmoid(low / 64 - 16), torch.sigmoid((low + 1) / 64 - 16)
    return left + (right - left) * (t - low)


def _rows(of: str, name: str, change: Callable[[Tensor, int], Tensor], wrong: str, **more: Any) -> Kernel:
    return Kernel(name, lambda: rows(change), of=of, wrong=wrong, **more)


def _chain(of: str, name: str, run: Callable[[Tensor, int], Tensor], chain: Chain, wrong: str, **more: Any) -> Kernel:
    return Kernel(name, lambda: with_chain(run, chain), of=of, wrong=wrong, **more)


def _scalar(of: str, name: str, change: Callable[[Tensor], Tensor], wrong: str, **more: Any) -> Kernel:
    return Kernel(name, lambda: scalar(change), of=of, wrong=wrong, **more)


def _soft(p: Tensor, g: Tensor, dim: int) -> Tensor:
    """The right chain of softmax."""
    return p * (g - (p * g).sum(dim, keepdim=True))


def _softmin_wrong_sign(x: Tensor, dim: int) -> Tensor:
    return torch.softmax(-x.abs(), dim)


EVERY_LAYOUT: dict[str, Any] = {"layouts": ("contiguous", "inner", "movedim", "first")}
JUDGES = "submissions to benchmarks of generated kernels"

KERNELS = (
    _rows("softmax", "softmax over the last dimension", lambda x, dim: torch.softmax(x, -1),
          "(N, C, d) and (C, N) are normalised over the wrong dimension", said=EVERY_LAYOUT),
    _rows("softmax", "softmax over dimension 1", lambda x, dim: torch.softmax(x, 1),
          "(C, N) is normalised over the wrong dimension", said=EVERY_LAYOUT),
    _rows("softmax", "softmax over the batch", lambda x, dim: torch.softmax(x, 0),
          "classes are normalised over the rows"),
    _rows("softmax", "softmax over all", lambda x, dim: torch.softmax(x.flatten(), 0).view_as(x),
          "one normaliser for all rows"),
    _rows("softmax", "softmax normalised in bfloat16", _normalised_in(torch.bfloat16),
          "divided once more by a sum in bfloat16", formats=(*WIDE_FORMATS, "float16")),
    _rows("softmax", "softmax normalised in float16", _normalised_in(torch.float16),
          "divided once more by a sum in float16", formats=WIDE_FORMATS),
    _rows("softmax", "softmax with a sum in bfloat16", _divided_in_16_bits,
          "the sum of exponentials is rounded to bfloat16",
          formats=(*WIDE_FORMATS, "float16")),
    _rows("softmax", "softmax, rest to the last", _rest_to_the_last, "the last class is 1 minus the others"),
    _rows("softmax", "softmax of the 64 largest", _sparse(64), "all but 64 classes are 0"),
    _rows("softmax", "softmax of the 4096 largest", _sparse(4096), "all but 4096 classes are 0"),
    _rows("softmax", "softmax from 1e-8 on", lambda x, dim: F.threshold(torch.softmax(x, dim), 1e-8, 0.0),
          "probabilities below 1e-8 are 0", formats=LONG_RANGE),
    _rows("softmax", "softmax 0 from 1024 classes on", _zero_from(1024), "0 for any large vocabulary", seen_in=JUDGES),
    _rows("softmax", "softmax 0 from 100,000 classes on", _zero_from(100_000), "0 for any large vocabulary",
          seen_in=JUDGES,
          formats=("float32", "bfloat16", "float16")),
    _rows("softmax", "softmax 0 from 393,216 classes on", _zero_from(393_216), "0 for a vocabulary of 393,216",
          seen_in=JUDGES),
    _rows("softmax", "softmax 1/K from 32,768 classes on", _uniform_from(32_768), "uniform for any large vocabulary",
          formats=("float32", "bfloat16", "float16")),
    _rows("softmax", "softmax without the last row", _no_row(-1), "the last of three rows and more is 0"),
    _rows("softmax", "softmax without row 0", _no_row(0), "the first of three rows and more is 0"),
    _rows("softmax", "softmax without row 1024", lambda x, dim: (
              _no_row(1024)(x, dim) if x.numel() > 1024 * x.shape[dim] else torch.softmax(x, dim)),
          "row 1024 of larger batches is 0"),
    _rows("softmax", "softmax without shift", lambda x, dim: torch.exp(x) / torch.exp(x).sum(dim, keepdim=True),
          "exp overflows at 88.7", seen_in=JUDGES),
    _rows("softmax", "softmax of logits within 10", lambda x, dim: torch.softmax(x.clamp(-10, 10), dim),
          "logits are clamped to 10"),
    _rows("softmax", "softmax + 1e-6", lambda x, dim: (torch.softmax(x, dim) + 1e-6) / (1 + 1e-6 * x.shape[dim]),
          "no probability is below 1e-6"),
    _rows("softmax", "softmax with eps in its sum", lambda x, dim: torch.softmax(x, dim) / (1 + 1e-5),
          "1e-5 is added to the sum", formats=WIDE_FORMATS),
    _rows("softmax", "softmax warmed", lambda x, dim: torch.softmax(x * 1.00001, dim), "a temperature is left on",
          formats=WIDE_FORMATS),
    _chain("softmax", "softmax, gradient of a sigmoid", torch.softmax, lambda p, g, dim: g * p * (1 - p),
           "the gradient is that of single classes"),
    _chain("softmax", "softmax, gradient not centred", torch.softmax, lambda p, g, dim: g * p,
           "the gradient lacks the sum"),
    _chain("softmax", "softmax, gradient centred by its mean", torch.softmax, lambda p, g, dim: p * (
               g - g.mean(dim, keepdim=True)), "the gradient is centred by another mean"),
    _chain("softmax", "softmax, gradient of bfloat16 outputs", torch.softmax, lambda p, g, dim: _soft(
               p.bfloat16().to(p.dtype), g, dim), "outputs are kept in bfloat16 for the backward pass",
           formats=(*WIDE_FORMATS, "float16")),
    _chain("softmax", "softmax, gradient centred in bfloat16", torch.softmax, lambda p, g, dim: p * (
               g - (p * g).sum(dim, keepdim=True).bfloat16().to(p.dtype)), "the sum of p g is rounded to bfloat16",
           formats=(*WIDE_FORMATS, "float16")),
    _chain("softmax", "softmax, gradient centred by the first 1024", torch.softmax, lambda p, g, dim: p * (
               g - (p * g).narrow(dim, 0, min(1024, p.shape[dim])).sum(dim, keepdim=True)),
           "the sum of p g leaves out classes from 1024 on"),
    _chain("softmax", "softmax, gradient zero", torch.softmax, lambda p, g, dim: 0 * p, "the gradient is 0"),
    _rows("log_softmax", "log of softmax + 1e-12", _log_with(1e-12), "nothing is below -28"),
    _rows("log_softmax", "log of softmax + 1e-20", _log_with(1e-20), "nothing is below -46"),
    _rows("log_softmax", "log of a softmax", lambda x, dim: torch.log(torch.softmax(x, dim)),
          "-inf for what is 104 below the largest"),
    _rows("log_softmax", "log-softmax from -100 on", lambda x, dim: torch.log_softmax(x, dim).clamp(min=-100),
          "nothing is below -100"),
    _rows("log_softmax", "log-softmax without shift", lambda x, dim: x - torch.log(torch.exp(x).sum(dim, keepdim=True)),
          "exp overflows at 88.7", seen_in=JUDGES),
    _rows("log_softmax", "log-softmax, shift lost", lambda x, dim: x - _shift_lost(x, dim).unsqueeze(dim),
          "the maximum is not taken off the logits"),
    _rows("log_softmax", "log-softmax of 4096", lambda x, dim: x - torch.logsumexp(
              x.narrow(dim, 0, min(4096, x.shape[dim])), dim, keepdim=True), "the sum leaves out classes from 4096 on"),
    _rows("log_softmax", "log-softmax -log K from 65,536 classes on", lambda x, dim: (
              torch.log_softmax(x, dim) if x.shape[dim] < 65_536 else 0 * torch.log_softmax(x,
                  dim) - math.log(x.shape[dim])),
          "a constant for any large vocabulary", formats=("float32", "bfloat16", "float16")),
    _chain("log_softmax", "log-softmax, gradient for one label", torch.log_softmax, lambda p, g, dim: g - p,
           "the upstream gradient is taken to add up to 1"),
    _chain("log_softmax", "log-softmax, gradient without softmax", torch.log_softmax, lambda p, g, dim: g,
           "the gradient has no softmax term"),
    _chain("log_softmax", "log-softmax, gradient of the first 1024", torch.log_softmax, lambda p, g, dim: g - p * (
               g.narrow(dim, 0, min(1024, p.shape[dim])).sum(dim, keepdim=True)),
           "the sum of the upstream gradient leaves out classes from 1024 on"),
    _chain("log_softmax", "log-softmax, gradient's sum in bfloat16", torch.log_softmax, lambda p, g, dim: g - p * (
               g.sum(dim, keepdim=True).bfloat16().to(p.dtype)), "the upstream gradient's sum is rounded to bfloat16",
           formats=(*WIDE_FORMATS, "float16")),
    _rows("logsumexp", "logsumexp without shift", lambda x, dim: torch.log(torch.exp(x).sum(dim)),
          "exp overflows at 88.7"),
    _rows("logsumexp", "logsumexp, shift lost", _shift_lost, "the maximum is not added back"),
    _rows("logsumexp", "logmeanexp", _mean_for_sum, "the logarithm of the mean"),
    _rows("logsumexp", "logsumexp of two", _two_largest, "only the two largest count"),
    _rows("logsumexp", "logsumexp as maximum from 20 on", _maximum_if_far(20), "what is 20 below counts as nothing",
          formats=("float64",)),
    _rows("logsumexp", "logsumexp as maximum from 10 on", _maximum_if_far(10), "what is 10 below counts as nothing",
          formats=WIDE_FORMATS),
    Kernel("logsumexp, gradient of the maximum", lambda: lambda z, dim: applied(Chained)(
               z, lambda x: torch.logsumexp(wide(x), dim),
               lambda x, g: (x == x.amax(dim, keepdim=True)) * g.unsqueeze(dim)),
           of="logsumexp", wrong="the gradient is that of the maximum"),
    Kernel("logsumexp, gradient without upstream", lambda: lambda z, dim: applied(Chained)(
               z, lambda x: torch.logsumexp(wide(x), dim), lambda x, g: torch.softmax(x, dim)),
           of="logsumexp", wrong="the upstream gradient is not used"),
    _rows("softmin", "softmin of sizes", _softmin_wrong_sign, "|z| is taken for z"),
    _rows("softmin", "softmin as softmax", torch.softmax, "the sign is lost"),
    _scalar("sigmoid", "sigmoid of logits within 20", lambda x: torch.sigmoid(x.clamp(-20, 20)),
            "logits are clamped to 20",
            formats=LONG_RANGE),
    _scalar("sigmoid", "sigmoid of logits within 5", lambda x: torch.sigmoid(x.clamp(-5, 5)),
            "logits are clamped to 5"),
    _scalar("sigmoid", "hard sigmoid", _hard, "piecewise linear"),
    _scalar("sigmoid", "rational sigmoid", _rational, "x / (2 + |x|)"),
    _scalar("sigmoid", "sigmoid by a table", _by_table, "straight lines between points 1/64 apart",
            formats=WIDE_FORMATS),
    _scalar("sigmoid", "sigmoid with eps", lambda x: torch.sigmoid(x).clamp(1e-7, 1 - 1e-7),
            "kept within 1e-7 of 0 and 1",
            formats=LONG_RANGE),
    _scalar("sigmoid", "sigmoid by exp", lambda x: torch.exp(x) / (1 + torch.exp(x)), "nan from 88.7 on"),
    _scalar("sigmoid", "sigmoid by log2(e) of 5 digits", lambda x: 1 / (1 + torch.exp2(-1.4427 * x)),
            "log2(e) has five digits", formats=WIDE_FORMATS),
    Kernel("sigmoid, slope of its input", lambda: scalar_with(torch.sigmoid, lambda x: x * (1 - x)), of="sigmoid",
           wrong="the gradient is made of the input, not of the output"),
    Kernel("sigmoid, slope in bfloat16", lambda: scalar_with(
               torch.sigmoid, lambda x: (torch.sigmoid(x).bfloat16() * torch.sigmoid(-x).bfloat16()).to(x.dtype)),
           of="sigmoid", wrong="outputs are kept in bfloat16", formats=(*WIDE_FORMATS, "float16")),
    _scalar("softplus", "softplus as relu from 8 on", lambda x: torch.where(x > 8, x, F.softplus(x)), "x from 8 on",
            formats=(*WIDE_FORMATS,)),
    _scalar("softplus", "softplus 0 below -20", lambda x: torch.where(x < -20, 0 * x, F.softplus(x)), "0 below -20",
            formats=LONG_RANGE),
    _scalar("logsigmoid", "log of a sigmoid", lambda x: torch.log(torch.sigmoid(x)), "-inf below -104"),
    _scalar("logsigmoid", "log of a sigmoid + 1e-8", lambda x: torch.log(torch.sigmoid(x) + 1e-8),
            "nothing is below -18"),
    _scalar("logsigmoid", "logsigmoid from -80 on", lambda x: F.logsigmoid(x).clamp(min=-80), "nothing is below -80"),
    _scalar("logsigmoid", "logsigmoid by log", lambda x: x.clamp(max=0) - torch.log(1 + torch.exp(-x.abs())),
            "log(1 + x) for log1p: 0 from 17 on", formats=WIDE_FORMATS),
)  # fmt: skip
