"""Means that divide by another number than they should: of rows, of kept rows, of weights."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.optioned import Batch, divisor, of_probabilities, optioned, reduced, regraded
from equivalences.evidence.kernels.stored import Loss

Divisor = Callable[[Batch], Tensor]

PLAIN: dict[str, Any] = {}
REDUCTIONS: dict[str, Any] = {"reduction": ("none", "mean", "sum")}
IGNORE: dict[str, Any] = {"supports": ("ignore_index",)}
WEIGHT: dict[str, Any] = {"supports": ("weight",)}
BOTH: dict[str, Any] = {"supports": ("weight", "ignore_index")}
SMOOTH: dict[str, Any] = {"supports": ("weight", "label_smoothing")}
SOFT: dict[str, Any] = {"supports": ("weight",)}


def _number(b: Batch, count: int) -> Tensor:
    return b.own.new_tensor(float(count))


def rows(b: Batch) -> Tensor:
    """All rows, ignored ones too."""
    return _number(b, len(b.y))


def kept_rows(b: Batch) -> Tensor:
    """Rows that count, whatever they weigh."""
    return b.kept.sum().to(b.own.dtype)


def _rounded_up(step: int) -> Divisor:
    return lambda b: _number(b, -(-len(b.y) // step) * step)


def _counted_in(dtype: torch.dtype) -> Divisor:
    """The count is kept in a type that does not hold it."""
    return lambda b: b.kept.sum().to(dtype).to(b.own.dtype)


def _distinct(b: Batch) -> Tensor:
    return _number(b, len(b.y.unique()))


def _losing(b: Batch, each: Tensor, reduction: str, divisor: Divisor) -> Tensor:
    """Rows of loss 0 are taken for ignored ones."""
    if reduction != "mean":
        return reduced(b, each, reduction, divisor)
    return each.sum() / (each.detach() != 0).sum().clamp(min=1)


def _blocks(rows: int) -> Callable[[Batch, Tensor, str, Divisor], Tensor]:
    """The mean of the means of blocks, of which the last is smaller."""

    def reduce(b: Batch, each: Tensor, reduction: str, divisor: Divisor) -> Tensor:
        return torch.stack([part.mean() for part in each.split(rows)]).mean()

    return reduce


def _value_right(other: Divisor) -> Callable[[Batch, Tensor, str, Divisor], Tensor]:
    return lambda b, each, reduction, divisor: regraded(each.sum() / divisor(b), divisor(b) / other(b))


def _value_wrong(other: Divisor) -> Callable[[Batch, Tensor, str, Divisor], Tensor]:
    return lambda b, each, reduction, divisor: regraded(each.sum() / other(b), other(b) / divisor(b))


def _sum_as_mean(b: Batch, each: Tensor, reduction: str, divisor: Divisor) -> Tensor:
    return reduced(b, each, "mean" if reduction == "sum" else reduction, divisor)


def _mean_as_sum(b: Batch, each: Tensor, reduction: str, divisor: Divisor) -> Tensor:
    return reduced(b, each, "sum" if reduction == "mean" else reduction, divisor)


def _none_divided(b: Batch, each: Tensor, reduction: str, divisor: Divisor) -> Tensor:
    return each / divisor(b) if reduction == "none" else reduced(b, each, reduction, divisor)


def _sum_gradient_of_mean(b: Batch, each: Tensor, reduction: str, divisor: Divisor) -> Tensor:
    made = reduced(b, each, reduction, divisor)
    return regraded(made, 1 / divisor(b)) if reduction == "sum" else made


def _weighted_in(dtype: torch.dtype) -> Divisor:
    """The total weight is kept in few bits."""
    return lambda b: divisor(b).to(dtype).to(b.own.dtype)


def _at_least(least: float) -> Divisor:
    """A guard against a total of 0, which is let through."""
    return lambda b: torch.where(divisor(b) > 0, divisor(b).clamp(min=least), divisor(b))


def _all_weights(b: Batch) -> Tensor:
    return (b.ones if b.weight is None else b.weight).sum()


def _mean_weight(b: Batch) -> Tensor:
    return kept_rows(b) * (b.ones if b.weight is None else b.weight).mean()


def _smoothed_weight(b: Batch) -> Tensor:
    """The weight of smoothed labels, for a share of 0.1, which PyTorch's divisor leaves out."""
    return 0.9 * divisor(b) + 0.1 * _mean_weight(b)


def _over_the_ignored_too(b: Batch) -> Tensor:
    """Ignored rows weigh as class 0 does."""
    return b.own.sum()


def gradient_accumulation(z: Tensor, y: Tensor) -> Tensor:
    """Four micro-batches, each a mean, as training loops add them up."""
    parts = list(zip(wide(z).chunk(4), y.chunk(4), strict=True))
    means = [F.cross_entropy(part, label) for part, label in parts]
    return (torch.stack(means).sum() / len(means)).to(z.dtype)


def _mean(name: str, divisor: Divisor, wrong: str, said: dict[str, Any] = PLAIN, **more: Any) -> Kernel:
    return Kernel(name, lambda: optioned(divisor=divisor), wrong=wrong, said=said, **more)


def _reduced(
    name: str, reduce: Callable[[Batch, Tensor, str, Divisor], Tensor], wrong: str, said: dict[str, Any] = PLAIN
) -> Kernel:
    return Kernel(name, lambda: optioned(reduced=reduce), wrong=wrong, said=said)


def _soft(name: str, divisor: Callable[[Tensor, Tensor | None], Tensor | int], wrong: str) -> Kernel:
    return Kernel(name, lambda: of_probabilities(divisor=divisor), of="soft_cross_entropy", wrong=wrong, said=SOFT)


def one_hot(z: Tensor, y: Tensor) -> Tensor:
    """A product with one-hot labels, of which `mean` takes all N K numbers."""
    hot = F.one_hot(y, z.shape[1])
    return -(hot * torch.log_softmax(wide(z), 1)).nan_to_num(0, 0, 0).mean().to(z.dtype)


def by_keras(z: Tensor, y: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Weighted losses, averaged over rows, as Keras's sample weights are."""
    each = F.cross_entropy(wide(z), y, weight=None if weight is None else wide(weight), reduction="none")
    return each.mean().to(z.dtype)


def _as_it_is(loss: Loss) -> Loss:
    return loss


LOSSES: tuple[tuple[str, Loss, str, dict[str, Any]], ...] = (
    ("mean of a one-hot product", one_hot, "divided by N K", PLAIN),
    ("mean of four micro-batches", gradient_accumulation, "micro-batches of other sizes count as much", PLAIN),
    ("mean of weighted losses", by_keras, "divided by N in place of the total weight", WEIGHT),
)
WIDE_FORMATS = ("float64", "float32")

KERNELS = (
    *(Kernel(name, partial(_as_it_is, loss), wrong=wrong, said=said) for name, loss, wrong, said in LOSSES),
    _mean("mean over N - 1", lambda b: (rows(b) - 1).clamp(min=1), "divided by N - 1"),
    _mean("mean over N + 1", lambda b: rows(b) + 1, "divided by N + 1"),
    _mean("mean over N + 1e-6", lambda b: rows(b) + 1e-6, "1e-6 is added to the number of rows", formats=WIDE_FORMATS),
    _mean("mean over whole blocks of 8 rows", _rounded_up(8), "the padded rows of the last block count in the divisor"),
    _mean("mean over whole blocks of 128 rows, from 128 on",
          lambda b: (_rounded_up(128) if len(b.y) > 128 else rows)(b),
          "the padded rows of the last block count in the divisor"),
    _mean("mean over whole blocks of 1024 rows, from 1024 on",
          lambda b: (_rounded_up(1024) if len(b.y) > 1024 else rows)(b),
          "the padded rows of the last block count in the divisor"),
    _mean("mean over distinct labels", _distinct, "divided by the number of different labels"),
    _mean("mean counted in int8", _counted_in(torch.int8), "the count wraps around at 128 rows"),
    _mean("mean counted in a byte", _counted_in(torch.uint8), "the count wraps around at 256 rows"),
    _mean("mean counted in bfloat16", _counted_in(torch.bfloat16), "the count is rounded from 257 rows on",
          formats=(*WIDE_FORMATS, "float16")),
    _mean("mean counted in float16", _counted_in(torch.float16), "the count is rounded from 2049 rows on",
          formats=WIDE_FORMATS),
    _mean("mean counted in int16", _counted_in(torch.int16), "the count wraps around at 32,768 rows"),
    _reduced("mean over rows that lose", _losing, "rows of loss 0 are taken for ignored ones"),
    _reduced("mean of means of 32 rows", _blocks(32), "the last block, which is smaller, counts as much"),
    _reduced("mean of means of 1024 rows", _blocks(1024), "the last block, which is smaller, counts as much"),
    _reduced("mean of means of 16384 rows", _blocks(16_384), "the last block, which is smaller, counts as much"),
    _reduced("sum that is a mean", _sum_as_mean, "reduction='sum' gives the mean", REDUCTIONS),
    _reduced("mean that is a sum", _mean_as_sum, "reduction='mean' gives the sum", REDUCTIONS),
    _reduced("rows that are divided", _none_divided, "reduction='none' is divided by N", REDUCTIONS),
    _reduced("sum with a mean's gradient", _sum_gradient_of_mean, "the gradient of a sum is divided by N", REDUCTIONS),
    _mean("mean over all rows, ignored ones too", rows, "divided by N, where rows are ignored", IGNORE),
    _mean("mean over labels above 0", lambda b: (b.y > 0).sum().clamp(min=1).to(b.own.dtype),
          "rows labelled 0 are not counted", IGNORE),
    _mean("mean over labels from 0 on", lambda b: (b.y >= 0).sum().clamp(min=1).to(b.own.dtype),
          "an ignored index that is not negative is counted", IGNORE),
    _mean("mean over labels other than -100", lambda b: (b.y != -100).sum().to(b.own.dtype),
          "another ignored index than -100 is counted", IGNORE),
    _mean("mean over kept rows and one", lambda b: kept_rows(b) + (kept_rows(b) < len(b.y)),
          "one ignored row is counted", IGNORE),
    _reduced("gradient's mean over all rows", _value_right(rows), "the gradient is divided by N, the value is right",
             IGNORE),
    _reduced("value's mean over all rows", _value_wrong(rows), "the value is divided by N, the gradient is right",
             IGNORE),
    _mean("weighted mean over N", rows, "divided by N in place of the total weight", WEIGHT),
    _mean("weighted mean over all weights", _all_weights, "divided by the total of the weights of classes", WEIGHT),
    _mean("weighted mean over the mean weight", _mean_weight, "the divisor takes labels for equally frequent", WEIGHT),
    _mean("weighted mean over 1 at least", _at_least(1), "a total weight below 1 is taken for 1",
          WEIGHT, seen_in="losses that guard against 0"),
    _mean("weighted mean over 1e-3 at least", _at_least(1e-3),
          "a total weight below 1/1000 is taken for it", WEIGHT),
    _mean("weighted mean with 1e-6", lambda b: divisor(b) + 1e-6, "1e-6 is added to the total weight", WEIGHT,
          formats=WIDE_FORMATS),
    _mean("weighted mean with 1e-4", lambda b: divisor(b) + 1e-4, "1e-4 is added to the total weight", WEIGHT,
          formats=WIDE_FORMATS),
    _mean("weighted mean over bfloat16", _weighted_in(torch.bfloat16), "the total weight is rounded to bfloat16",
          WEIGHT,
          formats=(*WIDE_FORMATS, "float16")),
    _mean("weighted mean over float16", _weighted_in(torch.float16), "the total weight is rounded to float16", WEIGHT,
          formats=WIDE_FORMATS),
    _mean("weighted mean over an integer", lambda b: divisor(b).ceil(), "the total weight is rounded up", WEIGHT),
    _reduced("gradient's weighted mean over N", _value_right(rows), "the gradient is divided by N, the value is right",
             WEIGHT),
    _reduced("value's weighted mean over N", _value_wrong(rows), "the value is divided by N, the gradient is right",
             WEIGHT),
    _mean("weighted mean over ignored rows too", _over_the_ignored_too, "ignored rows weigh as class 0 does", BOTH),
    _mean("weighted mean over kept rows", kept_rows, "divided by the number of kept rows, not by their weight", BOTH),
    _mean("weighted and smoothed mean", _smoothed_weight, "the divisor is the weight of smoothed labels", SMOOTH),
    _mean("weighted and smoothed mean over N", rows, "divided by N in place of the total weight", SMOOTH),
    _soft("mean of probabilities over their sum", lambda p, w: p.sum(), "divided by the sum of all targets"),
    _soft("mean of probabilities over classes", lambda p, w: p.numel(), "divided by N K"),
    _soft("mean of probabilities over weights", lambda p, w: len(p) if w is None else (p * w).sum(),
          "divided by the total weight, where class probabilities divide by N"),
    _soft("mean of probabilities over N - 1", lambda p, w: max(1, len(p) - 1), "divided by N - 1"),
)  # fmt: skip
