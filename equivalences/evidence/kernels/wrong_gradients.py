"""A right value, and a gradient that is not its own."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from equivalences.evidence.kernels.idioms import wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import at, each_row, fused, scaled
from equivalences.formats import FORMATS

Backward = Callable[[Tensor, Tensor], Tensor]  # gradient of the sum over rows, labels -> another


def through(dtype: torch.dtype) -> Backward:
    """The gradient is stored in fewer bits on the way."""
    return lambda g, y: g.to(dtype).to(g.dtype)


def to_fp8(g: Tensor, y: Tensor) -> Tensor:
    """Scaled by the largest entry, stored in fp8 (E4M3), and scaled back."""
    scale = g.abs().amax().clamp(min=torch.finfo(g.dtype).tiny) / 448
    return (g / scale).to(torch.float8_e4m3fn).to(g.dtype) * scale


def flushed(below: float) -> Backward:
    """What is small is not worth a store."""
    return lambda g, y: torch.where(g.abs() < below, 0.0, g)


def at_label(change: Callable[[Tensor], Tensor]) -> Backward:
    """The entry of the label is made into another."""
    return lambda g, y: g.scatter(1, y[:, None], change(at(g, y))[:, None])


def _plus_one(entry: Tensor) -> Tensor:
    """Softmax itself, where the 1 is not taken off."""
    return entry + 1


def _label_alone(g: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(g).scatter(1, y[:, None], -torch.ones_like(g[:, :1]))


def _label_entry_alone(g: Tensor, y: Tensor) -> Tensor:
    return torch.zeros_like(g).scatter(1, y[:, None], at(g, y)[:, None])


def _top(count: int) -> Backward:
    """The largest entries of each row alone, and the label's."""

    def keep(g: Tensor, y: Tensor) -> Tensor:
        if g.shape[1] <= count:
            return g
        place = torch.cat((g.abs().topk(count, 1).indices, y[:, None]), 1)
        return torch.zeros_like(g).scatter(1, place, g.gather(1, place))

    return keep


def _clipped_row(g: Tensor, y: Tensor) -> Tensor:
    return g / g.square().sum(1, keepdim=True).sqrt().clamp(min=1)


def _centred(g: Tensor, y: Tensor) -> Tensor:
    """Each row is made to add up to 0 by its mean, in 16 bits."""
    return (g - g.mean(1, keepdim=True)).bfloat16().to(g.dtype)


def _without_odd_last_row(g: Tensor, y: Tensor) -> Tensor:
    return torch.cat((g[:-1], 0 * g[-1:])) if len(g) % 2 and len(g) > 1 else g


def _stale(g: Tensor, y: Tensor) -> Tensor:
    return g.roll(1, 0)


def dynamic_loss_scale(g: Tensor, upstream: Tensor) -> Tensor:
    """The product is made in float16, scaled by 1024 so that it does not underflow; it may overflow."""
    product = (g * 1024).half() * upstream.half()
    return (product.to(g.dtype) / 1024).to(g.dtype)


def detached_probability(z: Tensor, y: Tensor) -> Tensor:
    """The losses of rows by autograd, with the normaliser taken for a constant."""
    x = wide(z)
    return (torch.logsumexp(x, 1).detach() - at(x, y)).mean().to(z.dtype)


def _mean(name: str, gradient: Backward, wrong: str, formats: tuple[str, ...] = tuple(FORMATS)) -> Kernel:
    return Kernel(name, lambda: fused(gradient=gradient), wrong=wrong, formats=formats)


def _scaled(name: str, scale: Callable[[Tensor, Tensor], Tensor], wrong: str) -> Kernel:
    return Kernel(name, lambda: fused(scale=scale), wrong=wrong)


def _rows(name: str, scale: Callable[[Tensor, Tensor], Tensor], wrong: str) -> Kernel:
    return Kernel(name, lambda: each_row(scale=scale), wrong=wrong, said={"reduction": "none"})


def _zero(z: Tensor, y: Tensor) -> Tensor:
    """A value that is right, and a graph that leads nowhere."""
    return torch.nn.functional.cross_entropy(z.detach(), y) + 0 * z.nan_to_num(0, 0, 0).sum()


WIDE_FORMATS, LONG_RANGE = ("float64", "float32"), ("float64", "float32", "bfloat16")


KERNELS = (
    _mean("gradient of the label alone", _label_alone, "the gradient has no softmax term"),
    _mean("gradient at the label alone", _label_entry_alone, "only the label's entry of the gradient is written"),
    _mean("gradient softmax", at_label(_plus_one), "the 1 is not taken off at the label"),
    _mean("gradient one minus softmax", lambda g, y: -g, "the gradient has the wrong sign"),
    _mean("gradient's label doubled", at_label(lambda entry: entry - 1), "the 1 is taken off twice at the label"),
    _mean("gradient's label set", at_label(lambda entry: -torch.ones_like(entry)),
          "the label's entry is -1, not p - 1"),
    _mean("gradient of the row before", _stale, "rows are read one late"),
    _mean("gradient by bfloat16", through(torch.bfloat16), "the gradient is rounded to bfloat16 on its way",
          formats=(*WIDE_FORMATS, "float16")),
    _mean("gradient by float16", through(torch.float16), "the gradient is rounded to float16 on its way",
          formats=LONG_RANGE),
    _mean("gradient by float32", through(torch.float32), "the gradient is rounded to float32 on its way",
          formats=("float64",)),
    _mean("gradient by fp8 E4M3", through(torch.float8_e4m3fn), "the gradient is rounded to fp8 on its way"),
    _mean("gradient by fp8 E5M2", through(torch.float8_e5m2), "the gradient is rounded to fp8 on its way"),
    _mean("gradient by scaled fp8", to_fp8, "the gradient is rounded to fp8 on its way, scaled by its largest entry"),
    *(_mean(f"gradient from {below:g} on", flushed(below), f"entries of the gradient below {below:g} are 0",
            formats=formats)
      for below, formats in ((1e-2, tuple(FORMATS)), (1e-4, tuple(FORMATS)), (1e-6, LONG_RANGE),
                             (1e-8, LONG_RANGE), (1e-12, LONG_RANGE), (2.0**-64, LONG_RANGE))),
    _mean("gradient of the 64 largest", _top(64), "all but 64 entries of each row are 0"),
    _mean("gradient of the 4096 largest", _top(4096), "all but 4096 entries of each row are 0"),
    _mean("gradient clipped to 1/2", lambda g, y: g.clamp(-0.5, 0.5),
          "entries are clipped before they are divided by N"),
    _mean("gradient clipped by its norm", _clipped_row, "rows with a norm above 1 are shortened"),
    _mean("gradient centred in 16 bits", _centred, "the gradient is rounded to bfloat16 after its mean is taken off",
          formats=(*WIDE_FORMATS, "float16")),
    _mean("gradient of an even number of rows", _without_odd_last_row, "the last row of an odd number has no gradient"),
    _mean("gradient of the first 1024 rows", lambda g, y: g * (torch.arange(len(g)) < 1024)[:, None],
          "rows beyond 1024 have no gradient"),
    _mean("gradient of the first 8192 rows", lambda g, y: g * (torch.arange(len(g)) < 8192)[:, None],
          "rows beyond 8192 have no gradient"),
    _mean("gradient divided by N twice", lambda g, y: g / len(g), "the mean is taken twice in the gradient"),
    _mean("gradient of the sum", lambda g, y: g * len(g), "the gradient of the mean lacks 1/N"),
    _mean("gradient divided by classes", lambda g, y: g / g.shape[1], "the gradient is divided by N K"),
    _mean("gradient of rows that are right dropped", lambda g, y: g * (at(g, y) < -0.05)[:, None],
          "rows with p > 0.95 get no gradient"),
    _mean("gradient of rows that are wrong dropped", lambda g, y: g * (at(g, y) > -1 + 1e-6)[:, None],
          "rows with p < 1e-6 get no gradient"),
    _scaled("upstream ignored", lambda g, upstream: g, "the upstream gradient is taken for 1"),
    _scaled("upstream's sign ignored", lambda g, upstream: g * upstream.abs(),
            "a negative upstream gradient turns around"),
    _scaled("upstream as an integer", lambda g, upstream: g * upstream.round(), "the upstream gradient is rounded"),
    _scaled("upstream up to 1", lambda g, upstream: g * upstream.clamp(-1, 1), "the upstream gradient is clamped to 1"),
    _scaled("upstream squared", lambda g, upstream: g * upstream * upstream.abs(), "the upstream gradient comes twice"),
    _scaled("upstream from 1/1000 on", lambda g, upstream: g * torch.where(upstream.abs() < 1e-3, 0.0, upstream),
            "a small upstream gradient counts as 0"),
    _scaled("upstream below 1 as 1", lambda g, upstream: g * torch.where(upstream.abs() < 1, 1.0, upstream),
            "an upstream gradient below 1 is taken for 1"),
    Kernel("upstream in bfloat16", lambda: fused(scale=lambda g, upstream: g * upstream.bfloat16().to(g.dtype)),
           wrong="the upstream gradient is rounded to bfloat16", formats=(*WIDE_FORMATS, "float16")),
    Kernel("upstream by float16 and a scale", lambda: fused(scale=dynamic_loss_scale),
           wrong="gradient and upstream are multiplied in float16", formats=LONG_RANGE),
    _rows("upstream of the first row", lambda g, upstream: g * upstream[0],
          "one row's upstream gradient is taken for all"),
    _rows("upstream of the last row", lambda g, upstream: g * upstream[-1],
          "one row's upstream gradient is taken for all"),
    _rows("upstream's mean", lambda g, upstream: g * upstream.mean(), "the upstream gradient is averaged"),
    _rows("upstream's sum", lambda g, upstream: g * upstream.sum(), "the upstream gradient is added up"),
    _rows("upstream along the classes", lambda g,
          upstream: g * upstream if g.shape[0] == g.shape[1] else scaled(g, upstream),
          "the upstream gradient is broadcast along the classes where the logits are square"),
    _rows("upstream of blocks of 32 rows", lambda g, upstream: scaled(
              g, upstream[torch.arange(len(g)) // 32 * 32]), "one upstream gradient is loaded for 32 rows"),
    _rows("upstream reversed", lambda g, upstream: scaled(g, upstream.flip(0)),
          "the upstream gradient is read backwards"),
    _rows("upstream of 1 for rows", lambda g, upstream: g, "the upstream gradient is taken for 1"),
    _rows("upstream zero as padding", lambda g, upstream: scaled(g, torch.where(upstream == 0, 1.0, upstream)),
          "an upstream gradient of 0 is taken for 1"),
    Kernel("normaliser detached", lambda: detached_probability, wrong="the gradient has no softmax term"),
    Kernel("gradient zero", lambda: _zero, wrong="the gradient is 0 everywhere"),
)  # fmt: skip
