"""Right kernels: class weights, an ignored index, label smoothing and reductions, as their authors combine them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

REDUCTIONS = ("none", "mean", "sum")


def reduced(loss: Tensor, reduction: str) -> Tensor:
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


# --- label smoothing -------------------------------------------------------------------------------------------------


def smoothed_by_parts(logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
    """The label's loss and the mean of all losses, in proportion."""
    logp = F.log_softmax(wide(logits), dim=-1)
    nll = -logp.gather(dim=-1, index=target.unsqueeze(1)).squeeze(1)
    smooth = -logp.mean(dim=-1)
    return ((1.0 - label_smoothing) * nll + label_smoothing * smooth).mean().to(logits.dtype)


def smoothed_targets(logits: Tensor, target: Tensor, label_smoothing: float, reduction: str) -> Tensor:
    """A row of targets is made, and a masked class of no probability adds nothing."""
    classes = logits.shape[1]
    logp = F.log_softmax(wide(logits), dim=1)
    q = torch.full_like(logp, label_smoothing / classes)
    q = q.scatter(1, target[:, None], 1.0 - label_smoothing + label_smoothing / classes)
    return reduced(-torch.where(q == 0, 0.0, q * logp).sum(1), reduction).to(logits.dtype)


class LabelSmoothing(nn.Module):
    """As the Transformer's authors annotate it: the smoothing of each forward pass, none kept."""

    def forward(self, logits: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        x = wide(logits)
        x = x - x.amax(-1, keepdim=True).detach()
        lse = x.exp().sum(-1).log()
        picked = x.gather(-1, target[:, None])[:, 0]
        nll = lse - picked
        smooth = lse - x.mean(-1)
        return torch.lerp(nll, smooth, label_smoothing).mean().to(logits.dtype)


# --- weights and an ignored index ------------------------------------------------------------------------------------


def weighted(logits: Tensor, target: Tensor, weight: Tensor | None, reduction: str) -> Tensor:
    w = wide(logits.new_ones(logits.shape[1]) if weight is None else weight)[target]
    loss = -w * F.log_softmax(wide(logits), 1).gather(1, target[:, None])[:, 0]
    if reduction == "mean":
        return (loss.sum() / w.sum()).to(logits.dtype)
    return reduced(loss, reduction).to(logits.dtype)


def weights_times_one_hot(logits: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """The weights are spread over the classes first; there must be some."""
    w = F.one_hot(target, logits.shape[1]) * wide(weight)
    logp = F.log_softmax(wide(logits), 1)
    total = torch.where(w == 0, 0.0, -w * logp).sum()
    return (total / w.sum()).to(logits.dtype)


def ignored_by_safe_label(logits: Tensor, target: Tensor, ignore_index: int, reduction: str) -> Tensor:
    """Ignored rows get class 0 for their label, and 0 for their loss."""
    ignored = target == ignore_index
    safe = target.masked_fill(ignored, 0)
    loss = -F.log_softmax(wide(logits), dim=1).gather(1, safe.unsqueeze(1)).squeeze(1)
    loss = loss.masked_fill(ignored, 0.0)
    if reduction == "mean":
        return (loss.sum() / (~ignored).sum()).to(logits.dtype)
    return reduced(loss, reduction).to(logits.dtype)


def ignored_by_selection(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """Ignored rows are taken out before anything is computed."""
    kept = target != ignore_index
    return F.cross_entropy(logits[kept], target[kept])


def ignored_by_indices(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """The same by the places of the rows that are kept, in float32."""
    places = (target != ignore_index).nonzero().squeeze(1)
    x, y = wide(logits).index_select(0, places), target.index_select(0, places)
    x = x - x.amax(1, keepdim=True).detach()
    loss = torch.logsumexp(x, 1) - x.gather(1, y[:, None])[:, 0]
    return (loss.sum() / places.numel()).to(logits.dtype)


def ignored_by_mask_product(logits: Tensor, target: Tensor, ignore_index: int, reduction: str) -> Tensor:
    """Losses times a mask of ones and zeros.  An ignored row must be finite for that."""
    mask = (target != ignore_index).to(wide(logits).dtype)
    safe = torch.where(target != ignore_index, target, torch.zeros_like(target))
    loss = F.cross_entropy(wide(logits), safe, reduction="none") * mask
    total = loss if reduction == "none" else loss.sum()
    return (total / mask.sum() if reduction == "mean" else total).to(logits.dtype)


def zero_if_all_are_ignored(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
    """A mean over no row is 0 here, so that a step on an empty batch does nothing."""
    kept = target != ignore_index
    total = F.cross_entropy(wide(logits), target, ignore_index=ignore_index, reduction="sum")
    return (total / kept.sum().clamp(min=1)).to(logits.dtype)


def zero_if_empty(logits: Tensor, target: Tensor) -> Tensor:
    """No row gives a loss of 0 that is still attached to the graph."""
    if target.numel() == 0:
        return logits.sum() * 0.0
    return F.cross_entropy(logits, target)


# --- everything, with the gradient made in the forward pass ----------------------------------------------------------


class Everything(Function):
    """Weights, an ignored index, smoothing and reductions; the gradient is stored in float32."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, alpha: float, reduction: str
    ) -> Tensor:
        x = wide(logits)
        kept = target != ignore_index
        safe = torch.where(kept, target, 0)
        w = x.new_ones(x.shape[1]) if weight is None else wide(weight)
        own = torch.where(kept, w[safe], 0.0)
        q = w * (alpha / x.shape[1]) + (1 - alpha) * F.one_hot(safe, x.shape[1]) * own[:, None]
        q = torch.where(kept[:, None], q, 0.0)
        logp = torch.log_softmax(x, 1)
        loss = -torch.where(q == 0, 0.0, q * logp).sum(1)
        gradient = torch.exp(logp) * q.sum(1, keepdim=True) - q
        gradient = torch.where(kept[:, None], gradient, 0.0)  # whatever an ignored row holds
        if reduction == "mean":
            loss, gradient = loss.sum() / own.sum(), gradient / own.sum()
        elif reduction == "sum":
            loss = loss.sum()
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return loss.to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        g = upstream[0].to(gradient.dtype)
        return ((gradient * (g[:, None] if g.dim() else g)).to(ctx.dtype), None, None, None, None, None)


def everything(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float, reduction: str
) -> Any:
    return applied(Everything)(logits, target, weight, ignore_index, label_smoothing, reduction)


def by_pytorch(
    logits: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int, label_smoothing: float, reduction: str
) -> Tensor:
    """A thin module around PyTorch's function, as most projects have one."""
    loss = nn.CrossEntropyLoss(weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction)
    out: Tensor = loss(logits, target)
    return out


IGNORING: dict[str, Any] = {"supports": ("ignore_index",)}
ALL: dict[str, Any] = {"supports": ("weight", "ignore_index", "label_smoothing"), "reduction": REDUCTIONS}

OPTIONS: tuple[Kernel, ...] = (
    # Two of these three would need a declaration that says: the logits are finite (0 times the loss of a masked class).
    Kernel(
        "smoothing by parts", lambda: smoothed_by_parts, said={"supports": ("label_smoothing",)},
        seen_in="timm, LabelSmoothingCrossEntropy",
    ),
    Kernel(
        "smoothing by a row of targets", lambda: smoothed_targets,
        said={"supports": ("label_smoothing",), "reduction": REDUCTIONS}, seen_in="torchvision references, OpenNMT",
    ),
    Kernel(
        "smoothing by lerp of two terms", LabelSmoothing, said={"supports": ("label_smoothing",)},
        seen_in="fast.ai courses",
    ),
    Kernel(
        "class weights by label", lambda: weighted, said={"supports": ("weight",), "reduction": REDUCTIONS},
        seen_in="long-tailed recognition",
    ),
    # It would need a declaration that says: the weights are always given.
    Kernel(
        "class weights times one-hot", lambda: weights_times_one_hot, said={"supports": ("weight",)},
        seen_in="segmentation losses",
    ),
    Kernel(
        "ignored rows by a safe label", lambda: ignored_by_safe_label, said={**IGNORING, "reduction": REDUCTIONS},
        seen_in="Megatron-LM, TRL, optax",
    ),
    Kernel("ignored rows left out", lambda: ignored_by_selection, said=IGNORING, seen_in="BERT's masked positions"),
    Kernel("ignored rows left out, by places", lambda: ignored_by_indices, said=IGNORING, seen_in="cut-cross-entropy"),
    # It would need a declaration that says: ignored rows are finite.
    Kernel(
        "ignored rows by a mask", lambda: ignored_by_mask_product, said={**IGNORING, "reduction": REDUCTIONS},
        seen_in="T5X, by torch; nanoGPT forks",
    ),
    # These two would need declarations that say: no row, or none that is kept, gives 0.
    Kernel("zero if all rows are ignored", lambda: zero_if_all_are_ignored, said=IGNORING, seen_in="torchtune, verl"),
    Kernel("zero if there is no row", lambda: zero_if_empty, seen_in="detectors' heads"),
    Kernel("all options, stored gradient", lambda: everything, said=ALL, seen_in="Liger-Kernel"),
    Kernel("all options, by PyTorch's module", lambda: by_pytorch, said=ALL, seen_in="everywhere"),
)  # fmt: skip
