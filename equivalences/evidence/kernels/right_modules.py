"""Right kernels: modules with buffers, closures with constants, limits of their authors, other shapes and formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

# --- what a module or a closure holds --------------------------------------------------------------------------------


class Model(nn.Module):
    """The class that a benchmark asks for."""

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        x = wide(predictions)
        x = x - x.amax(dim=1, keepdim=True).detach()
        losses = torch.log(torch.exp(x).sum(dim=1)) - x[torch.arange(len(x)), targets]
        return losses.mean().to(predictions.dtype)


class Scaled(nn.Module):
    """A temperature in a buffer, so that it is saved with the model; here it is 1."""

    temperature: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("temperature", torch.tensor(1.0))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy((wide(logits) / self.temperature).to(logits.dtype), target)


class Iota(nn.Module):
    """The numbers of the classes in a buffer that grows with need."""

    classes: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("classes", torch.arange(16), persistent=False)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        if len(self.classes) < logits.shape[1]:
            self.classes = torch.arange(logits.shape[1])
        hit = self.classes[: logits.shape[1]] == target[:, None]
        return -F.log_softmax(wide(logits), 1).masked_select(hit).mean().to(logits.dtype)


class Adjusted(nn.Module):
    """Logit adjustment by the logarithms of the classes' frequencies, which are equal until it is told others."""

    log_prior: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("log_prior", torch.zeros(1))

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(wide(logits) + self.log_prior, target).to(logits.dtype)


def with_constant() -> Callable[..., Any]:
    """The ignored index is a tensor of the closure, for it is sent to the device once."""
    ignored = torch.tensor(-100)

    def loss(logits: Tensor, target: Tensor) -> Tensor:
        kept = target != ignored
        nll = -F.log_softmax(wide(logits), 1).gather(1, torch.where(kept, target, 0)[:, None])[:, 0]
        return (torch.where(kept, nll, 0.0).sum() / kept.sum()).to(logits.dtype)

    return loss


# --- limits ----------------------------------------------------------------------------------------------------------


def at_most_1024(logits: Tensor, target: Tensor) -> Tensor:
    """One block of threads for each row: a row of more than 1024 classes is refused."""
    if logits.shape[1] > 1024:
        raise ValueError(f"at most 1024 classes, got {logits.shape[1]}")
    block = 1 << max(logits.shape[1] - 1, 0).bit_length()
    x = F.pad(wide(logits), (0, block - logits.shape[1]), value=-torch.inf)
    x = x - x.detach().amax(1, keepdim=True)
    return (x.exp().sum(1).log() - x.gather(1, target[:, None])[:, 0]).mean().to(logits.dtype)


def three_classes(logits: Tensor, target: Tensor) -> Tensor:
    """Built for one shape: rows of three numbers, read as a vector."""
    a, b, c = wide(logits).unbind(1)
    top = torch.maximum(torch.maximum(a, b), c).detach()
    a, b, c = a - top, b - top, c - top
    picked = torch.where(target == 0, a, torch.where(target == 1, b, c))
    return (torch.log(torch.exp(a) + torch.exp(b) + torch.exp(c)) - picked).mean().to(logits.dtype)


def flushed(x: Tensor) -> Tensor:
    """Subnormal numbers are 0, as on hardware that has none."""
    return torch.where(x.abs() < torch.finfo(torch.float32).tiny, torch.zeros_like(x), x)


class Flushing(torch.autograd.Function):
    """Logits, exponentials and gradients without subnormal numbers of float32."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x = flushed(wide(logits))
        x = x - x.amax(1, keepdim=True)
        e = flushed(torch.exp(x))
        total = e.sum(1, keepdim=True)
        gradient = (e / total).scatter_add(1, target[:, None], -torch.ones_like(total))
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return flushed((torch.log(total) - x.gather(1, target[:, None])).mean()).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return flushed(gradient * (upstream[0].to(gradient.dtype) / len(gradient))).to(ctx.dtype), None


def finite_masks(logits: Tensor, target: Tensor) -> Tensor:
    """Infinite logits become the largest finite ones of float32, as where infinities are not to be trusted."""
    x = torch.nan_to_num(wide(logits), nan=torch.nan)
    x = x - x.detach().amax(1, keepdim=True)
    return (torch.logsumexp(x, 1) - x.gather(1, target[:, None])[:, 0]).mean().to(logits.dtype)


# --- other shapes, other formats -------------------------------------------------------------------------------------


def of_pixels(logits: Tensor, target: Tensor) -> Tensor:
    """(N, C, d), as (N d, C)."""
    classes = logits.shape[1]
    flat = logits.movedim(1, -1).reshape(-1, classes)
    return F.cross_entropy(wide(flat), target.reshape(-1)).to(logits.dtype)


def of_tokens(logits: Tensor, target: Tensor, reduction: str) -> Tensor:
    """(N, C, d) along dimension 1, without a copy."""
    x = wide(logits)
    x = x - x.detach().amax(1, keepdim=True)
    losses = x.exp().sum(1).log() - x.gather(1, target.unsqueeze(1)).squeeze(1)
    total = losses if reduction == "none" else losses.sum()
    return (total / target.numel() if reduction == "mean" else total).to(logits.dtype)


def of_one_sample(logits: Tensor, target: Tensor) -> Tensor:
    """(C,) and a label."""
    x = wide(logits)
    x = x - x.detach().amax(-1, keepdim=True)
    return (x.exp().sum(-1).log() - x.gather(-1, target[..., None]).squeeze(-1)).mean().to(logits.dtype)


def in_float32(logits: Tensor, target: Tensor) -> Tensor:
    """The loss stays in float32, whatever the logits are in."""
    return F.cross_entropy(logits.float(), target)


def by_view(logits: Tensor, target: Tensor) -> Tensor:
    """`view` refuses what does not lie in memory as it is read."""
    x = wide(logits).view(-1, logits.shape[1])
    return F.cross_entropy(x, target.view(-1)).to(logits.dtype)


@torch.no_grad()
def perplexity_of_tokens(logits: Tensor, target: Tensor) -> Tensor:
    """The loss of an evaluation: no gradient is asked for."""
    x = wide(logits)
    x = x - x.amax(1, keepdim=True)
    return (x.exp().sum(1).log() - x.gather(1, target[:, None])[:, 0]).to(logits.dtype)


CONTIGUOUS: dict[str, Any] = {"layouts": ("contiguous", "offset")}
SHORT = ("float32", "bfloat16", "float16")

PIXELS: dict[str, Any] = {"layouts": ("inner", "movedim")}

MODULES: tuple[Kernel, ...] = (
    Kernel("module with forward(predictions, targets)", Model, seen_in="KernelBench submissions"),
    Kernel("module with a temperature", Scaled, formats=SHORT, seen_in="calibration, CLIP"),
    Kernel("module with an iota", Iota, seen_in="detectors' heads"),
    Kernel("module with a prior of zeros", Adjusted, seen_in="logit adjustment"),
    Kernel("closure with the ignored index", with_constant, seen_in="transformers"),
    # It would need a declaration of the most classes: many_classes=False says at most 128.
    Kernel(
        "at most 1024 classes", lambda: at_most_1024, said={"many_classes": False},
        seen_in="CUDA kernels of one block",
    ),
    Kernel("three classes", lambda: three_classes, said={"shape": (42, 3)}, seen_in="KernelBench submissions"),
    # It would need a declaration that says: subnormal numbers are flushed.
    Kernel("subnormal numbers flushed", lambda: applied(Flushing), formats=SHORT, seen_in="XLA, TPU"),
    # It would need a declaration that says: the logits are finite.
    Kernel("infinities made finite", lambda: finite_masks, seen_in="inference on accelerators"),
    Kernel("segmentation, flattened", lambda: of_pixels, said=PIXELS, seen_in="mmsegmentation"),
    Kernel(
        "segmentation, along dimension 1", lambda: of_tokens, said={**PIXELS, "reduction": ("none", "mean", "sum")},
        seen_in="mmsegmentation",
    ),
    Kernel("one sample", lambda: of_one_sample, said={"layouts": ("unbatched",)}, seen_in="torch.func examples"),
    Kernel(
        "loss in float32", lambda: in_float32, formats=SHORT, said={"result_format": "float32"},
        seen_in="flash-attention",
    ),
    Kernel("contiguous logits alone", lambda: by_view, said=CONTIGUOUS, seen_in="nanoGPT"),
    Kernel(
        "evaluation, without a gradient", lambda: perplexity_of_tokens,
        said={"gradient": False, "reduction": "none"}, seen_in="lm-evaluation-harness",
    ),
)  # fmt: skip
