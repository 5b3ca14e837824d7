"""Binary cross entropy of logits, as it is written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, Stored

Each = Callable[[Tensor, Tensor], Tensor]  # logits, targets -> losses
SOFT: dict[str, Any] = {"supports": ("soft_targets",)}
POSITIVE: dict[str, Any] = {"supports": ("pos_weight",)}
POSITIVE_SUM: dict[str, Any] = {"supports": ("pos_weight", "soft_targets"), "reduction": "sum"}
WEIGHT: dict[str, Any] = {"supports": ("weight",)}
BOTH: dict[str, Any] = {"supports": ("weight", "pos_weight")}
NONE: dict[str, Any] = {"reduction": "none"}
WIDE_FORMATS, LONG_RANGE = ("float64", "float32"), ("float64", "float32", "bfloat16")


def right(z: Tensor, t: Tensor) -> Tensor:
    """What the others get wrong."""
    return F.binary_cross_entropy_with_logits(z, t, reduction="none")


def mean(each: Each) -> Loss:
    """The mean of losses."""
    return lambda z, t: each(wide(z), wide(t)).mean().to(z.dtype)


def of_probabilities(log: Callable[[Tensor], Tensor]) -> Each:
    """Sigmoid, then a logarithm, or what stands for it."""

    def each(z: Tensor, t: Tensor) -> Tensor:
        p = torch.sigmoid(z)
        return -(t * log(p) + (1 - t) * log(1 - p))

    return each


def by_softplus(softplus: Callable[[Tensor], Tensor]) -> Each:
    """The loss of either target by another softplus."""
    return lambda z, t: t * softplus(-z) + (1 - t) * softplus(z)


def linear_from(threshold: float) -> Callable[[Tensor], Tensor]:
    """softplus(x) = x beyond a threshold."""
    return lambda x: torch.where(x > threshold, x, torch.log1p(torch.exp(torch.where(x > threshold, 0.0, x))))


def nothing_below(threshold: float) -> Callable[[Tensor], Tensor]:
    """softplus(x) = 0 below a threshold."""
    return lambda x: torch.where(
        x < -threshold, 0.0 * x, F.softplus(x, threshold=800.0 if x.dtype == torch.double else 80.0)
    )


def _by_log(x: Tensor) -> Tensor:
    """log(1 + exp(-|x|)), without log1p: 0 from |x| = 17 on."""
    return x.clamp(min=0) + torch.log(1 + torch.exp(-x.abs()))


def _by_relu_and_size(z: Tensor, t: Tensor) -> Tensor:
    """max(z, 0) - z t + log(1 + exp(-|z|)), whose slopes at 0 are those of relu and |z|: 0."""
    return torch.relu(z) - z * t + torch.log1p(torch.exp(-z.abs()))


def fused(gradient: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    """A right mean with a gradient of its own: (logits, targets) -> that of each loss."""

    def loss(z: Tensor, t: Tensor) -> Tensor:
        def run(z: Tensor) -> tuple[Tensor, Tensor]:
            x, target = wide(z), wide(t)
            count = max(1, len(z))
            return right(x, target).mean().to(z.dtype), (gradient(x, target) / count).to(z.dtype)

        return applied(Stored)(z, run, lambda g, upstream: g * upstream)

    return loss


def _slope(z: Tensor, t: Tensor) -> Tensor:
    """t (sigma(z) - 1) + (1 - t) sigma(z), without cancellation."""
    return (1 - t) * torch.sigmoid(z) - t * torch.sigmoid(-z)


def optioned(
    each: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor],
    divisor: Callable[[Tensor, Tensor], Tensor | int] = lambda weight, t: len(t),
) -> Loss:
    """Losses of (logits, targets, weights of rows, weight of positives), reduced."""

    def loss(
        z: Tensor, t: Tensor, *, weight: Tensor | None = None, pos_weight: Tensor | None = None, reduction: str = "mean"
    ) -> Tensor:
        x, target = wide(z), wide(t)
        w = torch.ones_like(x) if weight is None else wide(weight)
        positive = x.new_ones(()) if pos_weight is None else wide(pos_weight)
        found = each(x, target, w, positive)
        return (found.sum() / divisor(w, target) if reduction == "mean" else found.sum()).to(z.dtype)

    return loss


def _sum(each: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]) -> Loss:
    loss = optioned(each)
    return lambda z, t, **options: loss(z, t, reduction="sum", **options)


def both(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    """The right one."""
    return F.binary_cross_entropy_with_logits(z, t, w, pos_weight=positive, reduction="none")


def _positive_on_the_other_side(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return both(-z, 1 - t, w, positive)


def _positive_on_both(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return positive * w * right(z, t)


def _positive_if_above_half(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return w * torch.where(t > 0.5, positive, 1.0) * right(z, t)


def _positive_if_any(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return w * torch.where(t > 0, positive, 1.0) * right(z, t)


def _positive_added(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return w * (1 + positive * t) * right(z, t)


def _positive_in_the_value(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    plain = w * right(z, t)
    return plain + (both(z, t, w, positive) - plain).detach()


def _positive_of_predicted(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return w * torch.where(z > 0, positive, 1.0) * right(z, t)


def _positive_in_the_linear_term(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    """softplus(z) - w t z, as if the weight scaled the target."""
    return w * (F.softplus(z) - positive * t * z)


def _weight_of_the_first(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return w[:1] * right(z, t)


def _weight_squared(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return w * w * right(z, t)


def _weight_in_the_value(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    plain = right(z, t)
    return plain + (w * plain - plain).detach()


def _pos_divided(z: Tensor, t: Tensor, *, pos_weight: Tensor | None = None) -> Tensor:
    x, target = wide(z), wide(t)
    positive = x.new_ones(()) if pos_weight is None else wide(pos_weight)
    weight = 1 + (positive - 1) * target
    return (both(x, target, torch.ones_like(x), positive).sum() / weight.sum()).to(z.dtype)


def _row_weights_alone(z: Tensor, t: Tensor, w: Tensor, positive: Tensor) -> Tensor:
    return w * right(z, t) if bool((w != 1).any()) else both(z, t, w, positive)


def _each(name: str, each: Each, wrong: str, said: dict[str, Any] | None = None, **more: Any) -> Kernel:
    return Kernel(name, lambda: mean(each), of="binary_cross_entropy_with_logits", wrong=wrong, said=said or {}, **more)


def _slopes(name: str, gradient: Callable[[Tensor, Tensor], Tensor], wrong: str, **more: Any) -> Kernel:
    return Kernel(name, lambda: fused(gradient), of="binary_cross_entropy_with_logits", wrong=wrong, **more)


def _option(name: str, make: Callable[[], Loss], wrong: str, said: dict[str, Any]) -> Kernel:
    return Kernel(name, make, of="binary_cross_entropy_with_logits", wrong=wrong, said=said)


def _truncated_sigmoid(x: Tensor) -> Tensor:
    return (x / 6 + 0.5).clamp(0, 1)


KERNELS = (
    _each("bce by log(sigmoid)", of_probabilities(torch.log), "inf, or nan, from a logit of 17 on the wrong side on"),
    _each("bce with a floor of -100", of_probabilities(lambda p: torch.log(p).clamp(min=-100)),
          "log p is never below -100: from 1 - p = 0 on there is no gradient", seen_in="BCELoss"),
    _each("bce with 1e-7", of_probabilities(lambda p: torch.log(p + 1e-7)), "no loss is above 16"),
    _each("bce with 1e-12", of_probabilities(lambda p: torch.log(p + 1e-12)), "no loss is above 28"),
    _each("bce of p within 1e-6", of_probabilities(lambda p: torch.log(p.clamp(1e-6, 1 - 1e-6))),
          "no loss is above 14"),
    _each("bce of logits within 10", lambda z, t: right(z.clamp(-10, 10), t), "logits are clamped to 10"),
    _each("bce of logits within 30", lambda z, t: right(z.clamp(-30, 30), t), "logits are clamped to 30"),
    _each("bce of logits within 88", lambda z, t: right(z.clamp(-88, 88), t), "logits are clamped to 88"),
    _each("bce by softplus up to 10", by_softplus(linear_from(10)), "softplus(x) is x from 10 on",
          formats=WIDE_FORMATS),
    _each("bce by softplus up to 15", by_softplus(linear_from(15)), "softplus(x) is x from 15 on",
          formats=("float64",)),
    _each("bce by softplus up to 20", by_softplus(linear_from(20)), "softplus(x) is x from 20 on",
          formats=("float64",)),
    _each("bce by softplus up to 30", by_softplus(linear_from(30)), "softplus(x) is x from 30 on",
          formats=("float64",)),
    _each("bce by softplus from -10 on", by_softplus(nothing_below(10)), "softplus(x) is 0 below -10"),
    _each("bce by softplus from -15 on", by_softplus(nothing_below(15)), "softplus(x) is 0 below -15",
          formats=LONG_RANGE),
    _each("bce by softplus from -20 on", by_softplus(nothing_below(20)), "softplus(x) is 0 below -20",
          formats=LONG_RANGE),
    _each("bce by softplus from -50 on", by_softplus(nothing_below(50)), "softplus(x) is 0 below -50",
          formats=LONG_RANGE),
    _each("bce by log(1 + exp)", by_softplus(_by_log), "small losses are 0, without log1p", formats=WIDE_FORMATS),
    _each("bce by exp unguarded", by_softplus(lambda x: torch.log1p(torch.exp(x))), "inf from a logit of 89 on"),
    _each("bce by relu and size", _by_relu_and_size, "the gradient at a logit of 0 is -t in place of 1/2 - t",
          seen_in="kornia, timm, and many others"),
    _each("bce by squared softplus", by_softplus(lambda x: (x + torch.sqrt(x * x + 4 * 0.48045)) / 2),
          "a smooth hinge for softplus"),
    _each("bce of hard targets", lambda z, t: right(z, (t > 0.5).to(z.dtype)), "targets are rounded to 0 or 1", SOFT),
    _each("bce of integer targets", lambda z, t: right(z, t.long().to(z.dtype)), "targets below 1 are 0", SOFT),
    _each("bce without entropy", lambda z, t: right(z, t) + torch.xlogy(t, t) + torch.xlogy(1 - t, 1 - t),
          "the entropy of the targets is taken off", SOFT),
    _each("bce smoothed", lambda z, t: right(z, 0.9 * t + 0.05), "targets are smoothed by 0.1"),
    _each("bce with targets swapped", lambda z, t: right(z, 1 - t), "1 and 0 are swapped"),
    _each("bce of sigmoids", lambda z, t: right(torch.sigmoid(z), t), "sigmoid is applied twice"),
    _each("bce of positives", lambda z, t: t * F.softplus(-z), "negatives lose nothing"),
    _each("bce in bits", lambda z, t: right(z, t) / 0.693147, "the logarithm has base 2"),
    _each("bce with focus", lambda z, t: (1 - torch.exp(-right(z, t))) ** 0.1 * right(z, t),
          "a focal weight is left on"),
    _each("bce of targets in bfloat16", lambda z, t: right(z, t.bfloat16().to(z.dtype)),
          "targets are rounded to bfloat16",
          SOFT, formats=(*WIDE_FORMATS, "float16")),
    _each("bce in bfloat16", lambda z, t: right(z.bfloat16(), t.bfloat16()).to(z.dtype), "computed in bfloat16",
          formats=(*WIDE_FORMATS, "float16")),
    _each("bce of float64 in float32", lambda z, t: right(z.float(), t.float()).double(), "computed in float32",
          formats=("float64",)),
    Kernel("bce over N - 1", lambda: lambda z, t: (right(wide(z), wide(t)).sum() / max(1, len(t) - 1)).to(z.dtype),
           of="binary_cross_entropy_with_logits", wrong="divided by N - 1"),
    Kernel("bce over positives", lambda: lambda z, t: (
               right(wide(z), wide(t)).sum() / wide(t).sum().clamp(min=1)).to(z.dtype),
           of="binary_cross_entropy_with_logits",
               wrong="divided by the number of positives", seen_in="detection losses"),
    Kernel("bce of the first 4096", lambda: lambda z, t: (
               right(wide(z), wide(t))[:4096].sum() / len(t)).to(z.dtype),
           of="binary_cross_entropy_with_logits", wrong="rows beyond 4096 are not computed"),
    Kernel("bce of the first 65,536", lambda: lambda z, t: (
               right(wide(z), wide(t))[:65_536].sum() / len(t)).to(z.dtype),
           of="binary_cross_entropy_with_logits", wrong="rows beyond 65,536 are not computed"),
    Kernel("bce of whole blocks of 8", lambda: lambda z, t: (
               right(wide(z), wide(t))[: len(t) // 8 * 8 if len(t) > 8 else len(t)].sum() / len(t)).to(z.dtype),
           of="binary_cross_entropy_with_logits", wrong="the tail of a vector loop is lost"),
    _slopes("bce's gradient without t", lambda z, t: torch.sigmoid(z), "the gradient is sigmoid(z)"),
    _slopes("bce's gradient reversed", lambda z, t: -_slope(z, t), "the gradient has the wrong sign"),
    _slopes("bce's gradient 0 at 0", lambda z, t: torch.where(z == 0, 0.0, _slope(z, t)),
            "a logit of 0 has no gradient"),
    _slopes("bce's gradient by sign at 0", lambda z, t: torch.where(z == 0, 1 - t, _slope(z, t)),
            "at a logit of 0 the gradient is 1 - t"),
    _slopes("bce's gradient within 20", lambda z, t: torch.where(z.abs() > 20, 0.0, _slope(z, t)),
            "logits beyond 20 have no gradient, also on the wrong side"),
    _slopes("bce's gradient from 1e-6 on", lambda z, t: torch.where(_slope(z, t).abs() < 1e-6, 0.0, _slope(z, t)),
            "gradients below 1e-6 are 0", formats=LONG_RANGE),
    _slopes("bce's gradient by hard sigmoid", lambda z, t: _truncated_sigmoid(z) - t, "a piecewise linear sigmoid"),
    _slopes("bce's gradient in bfloat16", lambda z, t: _slope(z, t).bfloat16().to(z.dtype), "rounded to bfloat16",
            formats=(*WIDE_FORMATS, "float16")),
    _slopes("bce's gradient in float16", lambda z, t: _slope(z, t).half().to(z.dtype), "rounded to float16",
            formats=LONG_RANGE),
    _slopes("bce's gradient not divided", lambda z, t: _slope(z, t) * len(t), "the gradient lacks 1/N"),
    _slopes("bce's gradient clipped", lambda z, t: _slope(z, t).clamp(-0.9, 0.9),
            "gradients of single rows are clipped"),
    Kernel("bce of rows, upstream's first", lambda: lambda z, t: applied(Stored)(
               z, lambda x: (right(wide(x), wide(t)).to(z.dtype), _slope(wide(x), wide(t)).to(z.dtype)),
               lambda g, u: g * u[0]),
           of="binary_cross_entropy_with_logits", wrong="one row's upstream gradient is taken for all", said=NONE),
    _option("pos_weight on negatives", lambda: optioned(_positive_on_the_other_side), "negatives are weighted",
            POSITIVE),
    _option("pos_weight on all", lambda: optioned(_positive_on_both), "positives and negatives are weighted", POSITIVE),
    _option("pos_weight nowhere", lambda: optioned(lambda z, t, w, positive: w * right(z, t)), "pos_weight is not used",
            POSITIVE),
    _option("pos_weight from 1/2 on", lambda: _sum(_positive_if_above_half), "soft targets above 1/2 are positives",
            POSITIVE_SUM),
    _option("pos_weight of any target", lambda: _sum(_positive_if_any), "soft targets above 0 are positives",
            POSITIVE_SUM),
    _option("pos_weight added", lambda: optioned(_positive_added), "positives weigh 1 + pos_weight", POSITIVE),
    _option("pos_weight in the value alone", lambda: optioned(_positive_in_the_value), "the gradient is not weighted",
            POSITIVE),
    _option("pos_weight of predicted", lambda: optioned(_positive_of_predicted), "rows with z > 0 are weighted",
            POSITIVE),
    _option("pos_weight on the target", lambda: optioned(_positive_in_the_linear_term),
            "softplus(z) is not weighted where the target is", POSITIVE),
    _option("pos_weight in the divisor", lambda: _pos_divided, "the mean divides by the weight of all rows", POSITIVE),
    _option("weights of rows in the divisor", lambda: optioned(both, lambda w, t: w.sum()),
            "the mean divides by the total weight", WEIGHT),
    _option("weights of rows nowhere", lambda: optioned(lambda z, t, w, positive: right(z, t)), "weights are not used",
            WEIGHT),
    _option("weights of the first row", lambda: optioned(_weight_of_the_first), "one row's weight is taken for all",
            WEIGHT),
    _option("weights of rows squared", lambda: optioned(_weight_squared), "weights are applied twice", WEIGHT),
    _option("weights of rows in the value alone", lambda: optioned(_weight_in_the_value),
            "the gradient is not weighted",
            WEIGHT),
    _option("weights of rows, no pos_weight", lambda: optioned(_row_weights_alone),
            "with weights of rows, pos_weight is not used", BOTH),
)  # fmt: skip
