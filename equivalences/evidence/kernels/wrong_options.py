"""ignore_index, class weights, label smoothing and class probabilities, each misread."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.optioned import (
    Batch,
    kept,
    mixed,
    of_probabilities,
    optioned,
    regraded,
    smooth,
    weights,
)
from equivalences.evidence.kernels.stored import Stored, at, scaled

IGNORE: dict[str, Any] = {"supports": ("ignore_index",)}
IGNORE_ROWS: dict[str, Any] = {"supports": ("ignore_index",), "reduction": ("none",)}
IGNORE_SUM: dict[str, Any] = {"supports": ("ignore_index",), "reduction": ("sum",)}
WEIGHT: dict[str, Any] = {"supports": ("weight",)}
WEIGHT_SUM: dict[str, Any] = {"supports": ("weight",), "reduction": ("sum",)}
BOTH: dict[str, Any] = {"supports": ("weight", "ignore_index")}
SMOOTH: dict[str, Any] = {"supports": ("label_smoothing",)}
SMOOTH_WEIGHT: dict[str, Any] = {"supports": ("label_smoothing", "weight")}
SMOOTH_IGNORE: dict[str, Any] = {"supports": ("label_smoothing", "ignore_index")}
SMOOTH_REDUCED: dict[str, Any] = {"supports": ("label_smoothing",), "reduction": ("mean", "sum")}
WIDE_FORMATS = ("float64", "float32")

Kept = Callable[[Tensor, int, int], Tensor]


# --- ignored rows ---


def _last_row_too(y: Tensor, index: int, classes: int) -> Tensor:
    found = kept(y, index, classes).clone()
    found[-1:] = True
    return found


def _after_the_first(y: Tensor, index: int, classes: int) -> Tensor:
    """Padding stands at the end: nothing counts after the first ignored row."""
    return (y == index).cumsum(0) == 0


def _whole_blocks(rows: int) -> Kept:
    """A block with one ignored row is skipped."""

    def found(y: Tensor, index: int, classes: int) -> Tensor:
        count = [((part != index).all() | (y != index).sum().eq(0)).expand(len(part)) for part in y.split(rows)]
        return torch.cat(count) if len(y) > rows else kept(y, index, classes)

    return found


def _small_batches(rows: int, classes: int) -> Kept:
    """Another path for large logits, in which nobody thought of it."""

    def found(y: Tensor, index: int, count: int) -> Tensor:
        return torch.ones_like(y, dtype=torch.bool) if len(y) >= rows and count >= classes else kept(y, index, count)

    return found


def _gradient_flows(b: Batch, each: Tensor) -> Tensor:
    return torch.where(b.kept, each, each - each.detach())


def _value_counts(b: Batch, each: Tensor) -> Tensor:
    return torch.where(b.kept, each, each.detach())


def _compacted(z: Tensor, y: Tensor, *, ignore_index: int = -100) -> Tensor:
    """Kept rows are moved to the front; their gradients stay there."""
    count = y != ignore_index
    order = torch.cat((torch.nonzero(count), torch.nonzero(~count))).squeeze(1)
    x = wide(z)
    moved = x[order]
    each = torch.where(
        count[order], F.cross_entropy(moved.detach(), y[order].clamp(0, z.shape[1] - 1), reduction="none"), 0
    )
    share = torch.softmax(moved.detach(), 1) - F.one_hot(y[order].clamp(0, z.shape[1] - 1), z.shape[1])
    gradient = share * count[order][:, None] / count.sum()
    total = each.sum() / count.sum()
    linear = (x * gradient).sum()
    return (total + (linear - linear.detach()).nan_to_num(0, 0, 0)).to(z.dtype)


# --- class weights ---


def _by_row(weight: Tensor | None, label: Tensor, logs: Tensor) -> Tensor:
    return weights(weight, torch.arange(len(label)) % logs.shape[1], logs)


def _by_prediction(weight: Tensor | None, label: Tensor, logs: Tensor) -> Tensor:
    return weights(weight, logs.argmax(1), logs)


def _changed(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor | None, Tensor, Tensor], Tensor]:
    return lambda weight, label, logs: weights(None if weight is None else change(weight), label, logs)


def _unweighted(b: Batch) -> Tensor:
    return -at(b.logs, b.label)


def _twice(b: Batch) -> Tensor:
    return -b.own * b.own * at(b.logs, b.label)


def _gradient_unweighted(b: Batch) -> Tensor:
    each = -at(b.logs, b.label)
    return regraded(each, 1.0) + (b.own * each - each).detach()


def _value_unweighted(b: Batch) -> Tensor:
    each = -at(b.logs, b.label)
    return b.own * each - (b.own * each - each).detach()


def _detached_and_unweighted(z: Tensor, y: Tensor, *, weight: Tensor | None = None) -> Tensor:
    return F.cross_entropy(wide(z.detach()), y).to(z.dtype)


def _detached_weights_of_rows(z: Tensor, y: Tensor, *, weight: Tensor | None = None) -> Tensor:
    each = F.cross_entropy(wide(z.detach()), y, reduction="none")
    return (each if weight is None else each * wide(weight)[torch.arange(len(y)) % z.shape[1]]).mean().to(z.dtype)


# --- label smoothing ---

Mixed = Callable[[Tensor, Callable[[], Tensor], float, int], Tensor]


def _others(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    """1 - share for the label, share / (K - 1) for each other class."""
    if not share or classes < 2:
        return hard
    return (1 - share) * hard + share * (smooth() * classes - hard) / (classes - 1)


def _one_less(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    """share / (K - 1) for every class."""
    return mixed(hard, lambda: smooth() * classes / max(1, classes - 1), share, classes)


def _label_not_smoothed(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    return (1 - share) * hard + share * (smooth() - hard / classes) if share else hard


def _added(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    return hard + share * smooth() if share else hard


def _total(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    return mixed(hard, lambda: smooth() * classes, share, classes)


def _value_only(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    return hard + (mixed(hard, smooth, share, classes) - hard).detach()


def _gradient_only(hard: Tensor, smooth: Callable[[], Tensor], share: float, classes: int) -> Tensor:
    both = mixed(hard, smooth, share, classes)
    return both - (both - hard).detach()


def _with(change: Callable[[float], float]) -> Mixed:
    return lambda hard, smooth, share, classes: mixed(hard, smooth, change(share), classes)


def _up_to(most: int) -> Mixed:
    """Beyond so many classes there is a path without it."""
    return lambda hard, smooth, share, classes: mixed(hard, smooth, share if classes <= most else 0.0, classes)


def _unweighted_smooth(b: Batch) -> Tensor:
    return -b.logs.mean(1)


def _label_weighted_smooth(b: Batch) -> Tensor:
    return -b.own * b.logs.mean(1)


def _of_a_power_of_two(b: Batch) -> Tensor:
    classes = b.x.shape[1]
    return smooth(b) * classes / (1 << (classes - 1).bit_length())


def _first(count: int) -> Callable[[Batch], Tensor]:
    """The smoothing of the first block alone."""
    return lambda b: -(b.logs[:, :count] if b.weight is None else (b.logs * b.weight)[:, :count]).sum(1) / b.x.shape[1]


def _kernel(name: str, wrong: str, said: dict[str, Any], **parts: Any) -> Kernel:
    return Kernel(name, lambda: optioned(**parts), wrong=wrong, said=said)


def _soft(name: str, wrong: str, supports: tuple[str, ...] = (), **parts: Any) -> Kernel:
    return Kernel(
        name, lambda: of_probabilities(**parts), of="soft_cross_entropy", wrong=wrong, said={"supports": supports}
    )


def _hot_if_first_is(z: Tensor, p: Tensor) -> Tensor:
    """Labels in place of probabilities, where the first row is one-hot."""
    if p[:1].amax() == 1:
        return F.cross_entropy(wide(z), p.argmax(1)).to(z.dtype)
    return F.cross_entropy(wide(z), wide(p)).to(z.dtype)


def _assumed_normalised(z: Tensor, p: Tensor) -> Tensor:
    """softmax - p, which is the gradient only if p adds up to 1; the value is right."""

    def run(z: Tensor) -> tuple[Tensor, Tensor]:
        x, t = wide(z), wide(p)
        return F.cross_entropy(x, t).to(z.dtype), ((torch.softmax(x, 1) - t) / len(p)).to(z.dtype)

    return applied(Stored)(z, run, scaled)


def _dropped_smoothing(b: Batch, each: Tensor) -> Tensor:
    """Ignored rows lose what smoothing asks of them."""
    return torch.where(b.kept, each, 0.1 * smooth(b))


KERNELS = (
    _kernel("ignored rows, gradient flows", "ignored rows have no loss, and a gradient", IGNORE,
            dropped=_gradient_flows),
    _kernel("ignored rows, value counts", "ignored rows have a loss, and no gradient", IGNORE, dropped=_value_counts),
    _kernel("ignored rows, gradient flows, sum", "ignored rows have no loss, and a gradient", IGNORE_SUM,
            dropped=_gradient_flows),
    _kernel("ignored rows if -100", "only -100 is ever ignored", IGNORE, kept=lambda y, index, n: y != -100),
    _kernel("ignored rows if negative", "every negative label is ignored, and no other", IGNORE,
            kept=lambda y, index, n: y >= 0),
    _kernel("ignored rows if no class", "an ignored index that is a class is not heeded", IGNORE,
            kept=lambda y, index, n: (y >= 0) & (y < n)),
    _kernel("ignored rows, 0 as none", "ignore_index=0 is taken for no index", IGNORE,
            kept=lambda y, index, n: y != (index or -100)),
    _kernel("ignored rows, 0 as well", "label 0 is ignored too", IGNORE,
            kept=lambda y, index, n: (y != index) & (y != 0) | (y == 0).all() | ~((y != index) & (y != 0)).any()),
    _kernel("ignored rows but the last", "the last row counts whatever its label", IGNORE, kept=_last_row_too),
    _kernel("ignored rows at the end", "all rows after the first ignored one are dropped", IGNORE_SUM,
            kept=_after_the_first),
    _kernel("ignored rows in blocks of 8", "a block with an ignored row is dropped", IGNORE_SUM, kept=_whole_blocks(8)),
    _kernel("ignored rows in blocks of 128", "a block with an ignored row is dropped", IGNORE_SUM,
            kept=_whole_blocks(128)),
    _kernel("ignored rows up to 64 x 64", "from 64 rows of 64 classes on nothing is ignored", IGNORE,
            kept=_small_batches(64, 64)),
    _kernel("ignored rows up to 16 x 256", "from 16 rows of 256 classes on nothing is ignored", IGNORE,
            kept=_small_batches(16, 256)),
    _kernel("ignored rows up to 2 x 1025", "from 1025 classes on nothing is ignored", IGNORE,
            kept=_small_batches(2, 1025)),
    _kernel("ignored rows up to 5000 x 1", "from 5000 rows on nothing is ignored", IGNORE,
            kept=_small_batches(5000, 1)),
    _kernel("ignored rows by a byte", "labels are compared in 8 bits: 156 is -100", IGNORE,
            kept=lambda y, index, n: (y & 255) != (index & 255)),
    _kernel("ignored rows by bfloat16", "labels are compared in bfloat16: 255 and 256 are one",
            IGNORE, kept=lambda y, index, n: (y + 1).bfloat16() != torch.tensor(index + 1).bfloat16()),
    _kernel("ignored rows by their size", "|label| is compared: 100 is ignored for -100", IGNORE,
            kept=lambda y, index, n: y.abs() != abs(index)),
    _kernel("ignored rows, one late", "the row after an ignored one is dropped", IGNORE_ROWS,
            kept=lambda y, index, n: (y != index).roll(1)),
    Kernel("ignored rows cut out", lambda: _compacted, wrong="gradients of kept rows are written to the first rows",
           said=IGNORE),
    _kernel("ignored rows smoothed", "ignored rows keep a tenth of their smoothing term", SMOOTH_IGNORE,
            dropped=_dropped_smoothing),
    _kernel("weights ignored", "class weights are not used, but for the divisor", WEIGHT, hard=_unweighted),
    _kernel("weights ignored, sum", "class weights are not used", WEIGHT_SUM, hard=_unweighted),
    _kernel("weights nowhere", "class weights are not used", WEIGHT, weights=_changed(torch.ones_like)),
    _kernel("weights by row", "the weight is that of the row's number", WEIGHT_SUM, weights=_by_row),
    _kernel("weights by prediction", "the weight is that of the largest logit", WEIGHT_SUM, weights=_by_prediction),
    _kernel("weights twice", "the weight is applied twice to the loss", WEIGHT, hard=_twice),
    _kernel("weights by square root", "the square root of the weight is applied", WEIGHT, weights=_changed(torch.sqrt)),
    _kernel("weights that add up to 1", "weights are normalised first", WEIGHT_SUM,
            weights=_changed(lambda w: w / w.sum())),
    _kernel("weights up to 1", "weights above 1 are taken for 1", WEIGHT_SUM,
            weights=_changed(lambda w: w.clamp(max=1))),
    _kernel("weights from 1e-2 on", "weights below 1/100 are raised to it", WEIGHT_SUM,
            weights=_changed(lambda w: w.clamp(min=1e-2))),
    Kernel("weights in bfloat16", lambda: optioned(weights=_changed(lambda w: w.bfloat16().to(w.dtype))),
           wrong="weights are rounded to bfloat16", said=WEIGHT_SUM, formats=(*WIDE_FORMATS, "float16")),
    Kernel("weights in float16", lambda: optioned(weights=_changed(lambda w: w.half().to(w.dtype))),
           wrong="weights are rounded to float16", said=WEIGHT_SUM, formats=WIDE_FORMATS),
    _kernel("weights backwards", "weights are read from the last class on", WEIGHT_SUM,
            weights=_changed(lambda w: w.flip(0))),
    _kernel("weights of the first 1024", "classes from 1024 on weigh 1", WEIGHT_SUM, weights=_changed(
            lambda w: torch.cat((w[:1024], torch.ones_like(w[1024:]))))),
    _kernel("weights of the first 32", "classes from 32 on weigh 1", WEIGHT_SUM, weights=_changed(
            lambda w: torch.cat((w[:32], torch.ones_like(w[32:]))))),
    _kernel("weights in the value alone", "the gradient is not weighted", WEIGHT_SUM, hard=_gradient_unweighted),
    _kernel("weights in the gradient alone", "the value is not weighted", WEIGHT_SUM, hard=_value_unweighted),
    Kernel("weights ignored, no gradient", lambda: _detached_and_unweighted,
           wrong="class weights are not used, and there is no gradient", said=WEIGHT),
    Kernel("weights ignored, none asked for", lambda: _detached_and_unweighted, wrong="class weights are not used",
           said={**WEIGHT, "gradient": False}),
    Kernel("weights by row, no gradient", lambda: _detached_weights_of_rows,
           wrong="the weight is that of the row's number, divided by N, and there is no gradient", said=WEIGHT),
    _kernel("smoothing over the others", "the label gets 1 - eps, each other class eps / (K - 1)", SMOOTH,
            mixed=_others),
    _kernel("smoothing by K - 1", "each class gets eps / (K - 1)", SMOOTH, mixed=_one_less),
    _kernel("smoothing but for the label", "the label gets 1 - eps, each other class eps / K", SMOOTH,
            mixed=_label_not_smoothed),
    _kernel("smoothing added", "the label keeps all of its share", SMOOTH, mixed=_added),
    _kernel("smoothing by the sum", "each class gets eps, not eps / K", SMOOTH, mixed=_total),
    _kernel("smoothing in the value alone", "the gradient is that of hard labels", SMOOTH, mixed=_value_only),
    _kernel("smoothing in the gradient alone", "the value is that of hard labels", SMOOTH, mixed=_gradient_only),
    _kernel("smoothing squared", "eps is applied twice", SMOOTH, mixed=_with(lambda share: share * share)),
    _kernel("smoothing below 1", "eps = 1 is taken for none", SMOOTH,
            mixed=_with(lambda share: share if share < 1 else 0)),
    _kernel("smoothing of 0.1", "eps is a constant, where it is not 0", SMOOTH,
            mixed=_with(lambda share: 0.1 if share else 0)),
    _kernel("smoothing up to 1024 classes", "beyond 1024 classes labels are hard", SMOOTH, mixed=_up_to(1024)),
    _kernel("smoothing up to 32768 classes", "beyond 32,768 classes labels are hard", SMOOTH_REDUCED,
            mixed=_up_to(32_768)),
    _kernel("smoothing by a power of two", "K is that of the padded row", SMOOTH, smooth=_of_a_power_of_two),
    _kernel("smoothing of the first 1024", "the smoothing term is that of the first 1024 classes", SMOOTH,
            smooth=_first(1024)),
    _kernel("smoothing of the first 32", "the smoothing term is that of the first 32 classes", SMOOTH,
            smooth=_first(32)),
    _kernel("smoothing unweighted", "class weights are left out of the smoothing term", SMOOTH_WEIGHT,
            smooth=_unweighted_smooth),
    _kernel("smoothing by the label's weight", "the smoothing term has the weight of the label", SMOOTH_WEIGHT,
            smooth=_label_weighted_smooth),
    _soft("probabilities normalised", "targets are divided by their sum", target=lambda p: p / p.sum(1, keepdim=True)),
    _soft("probabilities as labels", "only the most probable class counts",
          target=lambda p: F.one_hot(p.argmax(1), p.shape[1]).to(p.dtype)),
    _soft("probabilities from 0.01 on", "targets below 1/100 count as 0",
          target=lambda p: torch.where(p < 0.01, 0.0, p)),
    _soft("probabilities above 1e-6", "targets are raised to 1e-6", target=lambda p: p.clamp(min=1e-6)),
    _soft("probabilities as logits", "softmax is taken of the targets too", target=lambda p: torch.softmax(p, 1)),
    _soft("probabilities without entropy", "Kullback-Leibler divergence in place of cross entropy",
          rows=lambda q, logs: (torch.xlogy(q, q) - q * logs).sum(1)),
    Kernel("probabilities in bfloat16", lambda: of_probabilities(target=lambda p: p.bfloat16().to(p.dtype)),
           of="soft_cross_entropy", wrong="targets are rounded to bfloat16", formats=(*WIDE_FORMATS, "float16")),
    _soft("probabilities of the first 64 classes", "classes from 64 on are left out of the sum",
          rows=lambda q, logs: -(q * logs)[:, :64].sum(1)),
    _soft("probabilities of the first 4096 classes", "classes from 4096 on are left out of the sum",
          rows=lambda q, logs: -(q * logs)[:, :4096].sum(1)),
    _soft("probabilities, weights ignored", "class weights are not used", ("weight",), weighted=lambda q, w: q),
    _soft("probabilities, the label's weight", "each row has the weight of its most probable class", ("weight",),
          weighted=lambda q, w: q * w[q.argmax(1)][:, None]),
    _soft("probabilities, smoothing ignored", "label smoothing is not applied", ("label_smoothing",),
          smoothed=lambda p, share: p),
    _soft("probabilities, smoothing added", "eps / K is added, 1 - eps left out", ("label_smoothing",),
          smoothed=lambda p, share: p + share / p.shape[1]),
    Kernel("probabilities by the first row", lambda: _hot_if_first_is, of="soft_cross_entropy",
           wrong="if the first row is one-hot, all are taken for it"),
    Kernel("probabilities taken for normalised", lambda: _assumed_normalised, of="soft_cross_entropy",
           wrong="the gradient is softmax - p, where p adds up to less or more than 1 in 16 bits",
           formats=("bfloat16", "float16")),
)  # fmt: skip
