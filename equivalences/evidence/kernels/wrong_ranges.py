"""Logits, probabilities and losses that are clamped, epsilons inside logarithms, and exponentials of few digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, Rows, at, fused
from equivalences.formats import FORMATS


def clamped(low: float, high: float, *, learns: bool = False) -> Loss:
    """Logits kept within bounds; with `learns`, the gradient passes the bounds as if they were none."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        x = wide(z)
        kept = x.clamp(low, high)
        return F.cross_entropy(x + (kept - x).detach() if learns else kept, y).to(z.dtype)

    return loss


def of_probabilities(negative_log: Callable[[Tensor], Tensor]) -> Loss:
    """Softmax, the label's probability, and minus its logarithm, or what stands for it."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return negative_log(at(torch.softmax(wide(z), 1), y)).mean().to(z.dtype)

    return loss


def _log_with(eps: float) -> Callable[[Tensor], Tensor]:
    return lambda p: -torch.log(p + eps)


def unshifted(beyond: int = 0) -> Loss:
    """exp of the logits themselves, where there are more classes than `beyond`."""

    def over(x: Tensor) -> Rows:
        top = x.new_zeros(len(x)) if x.shape[1] > beyond else x.amax(1)
        return Rows(top, torch.exp(x - top[:, None]).sum(1))

    return fused(over)


def by_exp(exp: Callable[[Tensor], Tensor], *, value: bool = True, gradient: bool = True) -> Loss:
    """Two passes with another exponential function, of numbers up to 0."""

    def over(x: Tensor) -> Rows:
        top = x.amax(1)
        own, exact = exp(x - top[:, None]), torch.exp(x - top[:, None])
        total = (own if value else exact).sum(1)
        return Rows(top, total, own / own.sum(1, keepdim=True) if gradient else exact / exact.sum(1, keepdim=True))

    return fused(over)


def polynomial(degree: int) -> Callable[[Tensor], Tensor]:
    """exp by a power of two and a Taylor polynomial of 2**f about f = 0, for f within 1/2."""

    def exp(x: Tensor) -> Tensor:
        t = (x * math.log2(math.e)).clamp(min=-1000)
        whole = t.round()
        f, p = (t - whole) * math.log(2), torch.ones_like(t)
        for k in range(degree, 0, -1):
            p = 1 + f / k * p
        return torch.ldexp(p, whole)

    return exp


def exp2_with(log2_of_e: float) -> Callable[[Tensor], Tensor]:
    """exp by exp2, with log2(e) of few digits."""
    return lambda x: torch.exp2(x * log2_of_e)


def wavy(relative: float) -> Callable[[Tensor], Tensor]:
    """exp with a relative error that oscillates, as that of a fast approximation does."""
    return lambda x: torch.exp(x) * (1 + relative * torch.sin(40 * x))


def schraudolph(x: Tensor) -> Tensor:
    """exp by writing a line into the bits of a float32 (Schraudolph 1999): 3 % off."""
    bits = (x.float() * (2**23 / math.log(2)) + (127 * 2**23 - 366_393)).clamp(min=0)
    return bits.to(torch.int32).view(torch.float32).to(x.dtype)


def quantised(step: float) -> Callable[[Tensor], Tensor]:
    """exp by a table of arguments `step` apart."""
    return lambda x: torch.exp((x / step).round() * step)


def cut_off(below: float) -> Callable[[Tensor], Tensor]:
    """What is further below the maximum counts as nothing."""
    return lambda x: torch.where(x < below, 0.0, torch.exp(x))


def squared(times: int) -> Callable[[Tensor], Tensor]:
    """(1 + x / n)**n with n a power of two."""
    return lambda x: (1 + x.clamp(min=-(2.0**times)) / 2**times) ** (2**times)


def by_log(log: Callable[[Tensor], Tensor]) -> Loss:
    """Another logarithm of the sum of exponentials; the gradient is right."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        x = wide(z)
        top = x.amax(1).detach()
        total = torch.exp(x - top[:, None]).sum(1)
        right = torch.log(total)
        return (right + (log(total) - right).detach() + (top - at(x, y))).mean().to(z.dtype)

    return loss


def _log_of_few_terms(total: Tensor) -> Tensor:
    """The exponent, and five terms of 2 artanh((m - 1) / (m + 1)) of the significand."""
    m, exponent = torch.frexp(total)
    s = (m - 1) / (m + 1)
    return 2 * sum((s ** (2 * k + 1) / (2 * k + 1) for k in range(4)), torch.zeros_like(s)) + exponent * math.log(2)


def _capped(cap: float) -> Loss:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(cap * torch.tanh(wide(z) / cap), y).to(z.dtype)

    return loss


def _losses(change: Callable[[Tensor], Tensor]) -> Loss:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return change(F.cross_entropy(wide(z), y, reduction="none")).mean().to(z.dtype)

    return loss


def _in_low_precision(make: Callable[[Tensor], Tensor]) -> Loss:
    """The difference of logits and maximum goes through a function before exp."""
    return by_exp(lambda x: torch.exp(make(x)))


HALF_LOG2_E = torch.tensor(math.log2(math.e)).half().item()
BF_LOG2_E = torch.tensor(math.log2(math.e)).bfloat16().item()
WIDE_FORMATS, LONG_RANGE = ("float64", "float32"), ("float64", "float32", "bfloat16")

KERNELS = (
    *(Kernel(f"logits within {bound:g}", partial(clamped, -bound, bound),
             wrong=f"logits are clamped to {bound:g} on either side", seen_in="generated kernels")
      for bound in (5.0, 10.0, 20.0, 50.0, 80.0, 88.0, 1e4)),
    Kernel("logits within 10, straight through", lambda: clamped(-10, 10, learns=True),
           wrong="logits are clamped to 10 on either side, the gradient is as if they were not"),
    Kernel("logits above -30", lambda: clamped(-30, math.inf), wrong="logits below -30 are raised to it"),
    Kernel("logits above -1e4", lambda: clamped(-1e4, math.inf),
           wrong="logits below -10,000, and masks, are raised to it"),
    Kernel("logits above -65504", lambda: clamped(-65_504, math.inf),
           wrong="logits below float16's lowest number are raised to it", formats=LONG_RANGE),
    Kernel("logits below 60", lambda: clamped(-math.inf, 60), wrong="logits above 60 are lowered to it"),
    Kernel("logits below 30000", lambda: clamped(-math.inf, 3e4), wrong="logits above 30,000 are lowered to it"),
    Kernel("logits capped by 30 tanh(z / 30)", lambda: _capped(30), wrong="a softcap that belongs to another model"),
    Kernel("logits capped by 1000 tanh(z / 1000)", lambda: _capped(1000),
           wrong="a softcap that belongs to another model"),
    Kernel("logits by nan_to_num", lambda: lambda z,
           y: F.cross_entropy(torch.nan_to_num(wide(z), neginf=-1e3), y).to(z.dtype),
           wrong="a mask of -inf becomes -1000"),
    Kernel("difference within 20", lambda: _in_low_precision(lambda x: x.clamp(min=-20)),
           wrong="no class is further than 20 below the largest"),
    Kernel("difference within 50", lambda: _in_low_precision(lambda x: x.clamp(min=-50)),
           wrong="no class is further than 50 below the largest"),
    Kernel("difference within 87", lambda: _in_low_precision(lambda x: x.clamp(min=-87)),
           wrong="no class is further than 87 below the largest", formats=LONG_RANGE),
    Kernel("difference in float16", lambda: _in_low_precision(lambda x: x.half().to(x.dtype)),
           wrong="z - max is rounded to float16", formats=WIDE_FORMATS),
    Kernel("difference in bfloat16", lambda: _in_low_precision(lambda x: x.bfloat16().to(x.dtype)),
           wrong="z - max is rounded to bfloat16", formats=(*WIDE_FORMATS, "float16")),
    Kernel("no shift", unshifted, wrong="exp of the logits overflows at 88.7, underflows at -103"),
    Kernel("no shift beyond 128", lambda: unshifted(128), wrong="beyond 128 classes exp of the logits overflows"),
    Kernel("no shift beyond 1024", lambda: unshifted(1024), wrong="beyond 1024 classes exp of the logits overflows"),
    Kernel("no shift beyond 32768", lambda: unshifted(32_768),
           wrong="beyond 32,768 classes exp of the logits overflows"),
    Kernel("no shift beyond 65536", lambda: unshifted(65_536),
           wrong="beyond 65,536 classes exp of the logits overflows"),
    *(Kernel(f"log(p + {eps:g})", partial(of_probabilities, _log_with(eps)),
             wrong=f"no loss is above {-math.log(eps):.0f}", seen_in="textbooks and forums")
      for eps in (1e-5, 1e-7, 1e-8, 1e-10, 1e-12, 1e-30)),
    Kernel("log of p above 1e-7", lambda: of_probabilities(lambda p: -torch.log(p.clamp(min=1e-7))),
           wrong="no loss is above 16, and such rows have no gradient", seen_in="Keras"),
    Kernel("log of p between 1e-7 and 1 - 1e-7",
           lambda: of_probabilities(lambda p: -torch.log(p.clamp(1e-7, 1 - 1e-7))),
           wrong="no loss is above 16, none below 1e-7", seen_in="Keras"),
    Kernel("log of p above 1e-15", lambda: of_probabilities(lambda p: -torch.log(p.clamp(min=1e-15))),
           wrong="no loss is above 35, and such rows have no gradient", seen_in="scikit-learn before 1.3"),
    Kernel("log of softmax", lambda: of_probabilities(lambda p: -torch.log(p)),
           wrong="a probability that underflows has the loss inf"),
    Kernel("log of p + tiny", lambda: of_probabilities(lambda p: -torch.log(p + torch.finfo(p.dtype).tiny)),
           wrong="no loss is above 87 (708 in float64)"),
    Kernel("log(total + 1e-6)", lambda: by_log(lambda total: torch.log(total + 1e-6)),
           wrong="1e-6 is added to the sum of exponentials", formats=WIDE_FORMATS),
    Kernel("log1p(total)", lambda: by_log(torch.log1p), wrong="log1p of the whole sum"),
    Kernel("log of few terms", lambda: by_log(_log_of_few_terms), wrong="a series of four terms for the logarithm",
           formats=WIDE_FORMATS),
    Kernel("log of bfloat16", lambda: by_log(lambda total: torch.log(total.bfloat16()).to(total.dtype)),
           wrong="the logarithm is taken in bfloat16", formats=(*WIDE_FORMATS, "float16")),
    Kernel("log of float16", lambda: by_log(lambda total: torch.log(total.half()).to(total.dtype)),
           wrong="the logarithm is taken in float16", formats=WIDE_FORMATS),
    Kernel("log2 for log", lambda: by_log(torch.log2), wrong="the sum's logarithm has another base"),
    Kernel("losses up to 100", lambda: _losses(lambda each: each.clamp(max=100)),
           wrong="no loss is above 100, and such rows have no gradient", seen_in="BCELoss, whose clamp this is"),
    Kernel("losses up to 1000", lambda: _losses(lambda each: each.clamp(max=1000)), wrong="no loss is above 1000"),
    Kernel("losses from 1e-6 on", lambda: _losses(lambda each: torch.where(each < 1e-6, 0.0 * each, each)),
           wrong="losses below 1e-6 count as 0, with no gradient", formats=WIDE_FORMATS),
    Kernel("losses that are not finite are 0", lambda: _losses(lambda each: torch.nan_to_num(each, 0.0, 0.0, 0.0)),
           wrong="a row of loss inf, or nan, is dropped"),
    Kernel("loss below a ceiling of the mean", lambda: lambda z,
           y: F.cross_entropy(wide(z), y).clamp(max=50).to(z.dtype),
           wrong="the mean is clamped to 50, and then nothing learns"),
    *(Kernel(f"exp by {degree} terms", partial(by_exp, polynomial(degree)),
             wrong=f"a polynomial of degree {degree} for 2**f", formats=formats)
      for degree, formats in ((2, (*WIDE_FORMATS, "float16")), (3, WIDE_FORMATS), (4, WIDE_FORMATS), (5, WIDE_FORMATS),
                              (6, ("float64",)), (9, ("float64",)))),
    *(Kernel(f"exp within {relative:g}", partial(by_exp, wavy(relative)),
             wrong=f"exp has a relative error of {relative:g}", formats=formats)
      for relative, formats in ((3e-2, tuple(FORMATS)), (1e-3, WIDE_FORMATS),
                                (1e-4, WIDE_FORMATS), (1e-5, WIDE_FORMATS), (2e-6, WIDE_FORMATS), (1e-12,
                                    ("float64",)))),
    Kernel("exp within 1e-4, in the gradient", lambda: by_exp(wavy(1e-4), value=False),
           wrong="exp of the backward pass has a relative error of 1e-4", formats=WIDE_FORMATS),
    Kernel("exp within 1e-5, in the gradient", lambda: by_exp(wavy(1e-5), value=False),
           wrong="exp of the backward pass has a relative error of 1e-5", formats=WIDE_FORMATS),
    Kernel("exp by a line", lambda: by_exp(schraudolph), wrong="Schraudolph's exponential, 3 % off"),
    Kernel("exp by a table of 1/64", lambda: by_exp(quantised(2.0**-6)), wrong="arguments of exp are rounded to 1/64",
           formats=(*WIDE_FORMATS, "float16")),
    Kernel("exp by a table of 1/65536", lambda: by_exp(quantised(2.0**-16)),
           wrong="arguments of exp are rounded to 1/65536", formats=WIDE_FORMATS),
    Kernel("exp of nothing below -10", lambda: by_exp(cut_off(-10)), wrong="classes 10 below the largest do not count"),
    Kernel("exp of nothing below -16", lambda: by_exp(cut_off(-16)), wrong="classes 16 below the largest do not count",
           formats=LONG_RANGE),
    Kernel("exp of nothing below -20, in the gradient", lambda: by_exp(cut_off(-20), value=False),
           wrong="classes 20 below the largest have no gradient", formats=LONG_RANGE),
    Kernel("exp of nothing below -50", lambda: by_exp(cut_off(-50)),
           wrong="classes 50 below the largest have no gradient",
           formats=LONG_RANGE),
    Kernel("exp by squaring 10 times", lambda: by_exp(squared(10)), wrong="(1 + x / 1024)**1024 for exp"),
    Kernel("exp2 with log2(e) in float16", lambda: by_exp(exp2_with(HALF_LOG2_E)),
           wrong="log2(e) is rounded to float16"),
    Kernel("exp2 with log2(e) in bfloat16", lambda: by_exp(exp2_with(BF_LOG2_E)),
           wrong="log2(e) is rounded to bfloat16"),
    Kernel("exp2 with 1.4427", lambda: by_exp(exp2_with(1.4427)), wrong="log2(e) has five digits",
           formats=WIDE_FORMATS),
    Kernel("exp2 with 1.442695", lambda: by_exp(exp2_with(1.442695)), wrong="log2(e) has seven digits",
           formats=("float64",)),
    Kernel("exp2 without log2(e)", lambda: by_exp(torch.exp2), wrong="exp2 for exp"),
)  # fmt: skip
