"""Right kernels: work in parts (micro-batches, shards of the vocabulary), checkpoints, compiled code, random order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.utils.checkpoint import checkpoint

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel

# --- rows in parts ---------------------------------------------------------------------------------------------------


def micro_batches(logits: Tensor, target: Tensor) -> Tensor:
    """The sums of micro-batches of 8 rows, over the number of all rows."""
    total = wide(logits).new_zeros(())
    for x, y in zip(logits.split(8), target.split(8), strict=True):
        total = total + F.cross_entropy(wide(x), y, reduction="sum")
    return (total / len(logits)).to(logits.dtype)


def weighted_means(logits: Tensor, target: Tensor) -> Tensor:
    """The means of uneven micro-batches, each weighted by its share of the rows."""
    rows = len(logits)
    sizes = [rows // 3, rows // 2 - rows // 3, rows - rows // 2]
    parts = zip(logits.split(sizes), target.split(sizes), strict=True)
    means = [F.cross_entropy(wide(x), y) * (len(x) / rows) for x, y in parts if len(x)]
    if not means:
        return F.cross_entropy(logits, target)
    return torch.stack(means).sum().to(logits.dtype)


def chunks_of_columns_and_rows(logits: Tensor, target: Tensor) -> Tensor:
    """Two loops, as for a matrix of logits that is too large for either."""
    losses = []
    for x, y in zip(wide(logits).chunk(4), target.chunk(4), strict=True):
        top = x.detach().amax(1)
        fixed = torch.where(top == -torch.inf, 0.0, top)
        total = torch.stack([torch.exp(part - fixed[:, None]).sum(1) for part in x.chunk(3, dim=1)]).sum(0)
        losses.append(torch.log(total) + (top - x.gather(1, y[:, None])[:, 0]))
    return torch.cat(losses).mean().to(logits.dtype)


# --- shards of the vocabulary ----------------------------------------------------------------------------------------


class VocabularyParallel(Function):
    """Each rank holds some classes: all-reduced are the maximum, the label's logit and the sum of exponentials."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ranks: int) -> Tensor:
        shards = wide(logits).tensor_split(ranks, dim=1)
        shards = tuple(shard for shard in shards if shard.shape[1])
        top = torch.stack([shard.amax(1) for shard in shards]).amax(0)
        picked, total, exps, labels, first = [], [], [], [], 0
        for shard in shards:
            x = shard - top[:, None]
            local = target - first
            outside = (local < 0) | (local >= shard.shape[1])
            local = local.masked_fill(outside, 0)
            picked.append(x.gather(1, local[:, None])[:, 0].masked_fill(outside, 0.0))
            exps.append(x.exp())
            total.append(exps[-1].sum(1))
            labels.append((local, outside))
            first += shard.shape[1]
        denominator = torch.stack(total).sum(0)
        ctx.save_for_backward(*(e / denominator[:, None] for e in exps))
        ctx.labels, ctx.dtype = labels, logits.dtype
        return (torch.log(denominator) - torch.stack(picked).sum(0)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None]:
        gradients = []
        for p, (local, outside) in zip(ctx.saved_tensors, ctx.labels, strict=True):
            mine = p.clone()
            mine[torch.arange(len(p)), local] -= 1.0 - outside.to(p.dtype)
            gradients.append(mine)
        g = upstream[0].to(gradients[0].dtype)[:, None]
        return (torch.cat(gradients, 1) * g).to(ctx.dtype), None, None


def vocabulary_parallel(ranks: int) -> Callable[[], Callable[..., Any]]:
    def build() -> Callable[..., Any]:
        return lambda logits, target: applied(VocabularyParallel)(logits, target, ranks)

    return build


def loss_parallel(logits: Tensor, target: Tensor) -> Tensor:
    """Shards of log-probabilities by autograd: maxima and sums cross the shards, nothing else does."""
    x = wide(logits)
    half = (x.shape[1] + 1) // 2
    shards = [part for part in (x[:, :half], x[:, half:]) if part.shape[1]]
    top = torch.stack([part.detach().amax(1) for part in shards]).amax(0)[:, None]
    log_total = torch.log(torch.stack([torch.exp(part - top).sum(1) for part in shards]).sum(0))[:, None]
    logp = torch.cat([part - top - log_total for part in shards], 1)
    return F.nll_loss(logp, target).to(logits.dtype)


# --- checkpoints -----------------------------------------------------------------------------------------------------


def checkpointed(logits: Tensor, target: Tensor) -> Any:
    """The softmax is computed again in the backward pass, chunk by chunk."""

    def part(x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(wide(x), y, reduction="sum")

    chunks = zip(logits.split(1024), target.split(1024), strict=True)
    total = torch.stack([checkpoint(part, x, y, use_reentrant=False) for x, y in chunks]).sum()
    return (total / len(logits)).to(logits.dtype)


def checkpointed_reentrant(logits: Tensor, target: Tensor) -> Any:
    """The older checkpoint, which refuses torch.autograd.grad."""
    if not (torch.is_grad_enabled() and logits.requires_grad):
        return F.cross_entropy(logits, target)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return checkpoint(F.cross_entropy, logits, target, use_reentrant=True)


# --- compiled code ---------------------------------------------------------------------------------------------------


def compiled_gather() -> Callable[..., Any]:
    def loss(logits: Tensor, target: Tensor) -> Tensor:
        return -F.log_softmax(logits.float(), 1).gather(1, target[:, None]).mean()

    return torch.compile(loss)


def compiled_inside() -> Callable[..., Any]:
    """An eager function that calls a compiled one, of float32 rows."""

    @torch.compile
    def rows(x: Tensor, y: Tensor) -> Tensor:
        x = x - x.detach().amax(1, keepdim=True)
        return x.exp().sum(1).log() - x.gather(1, y[:, None]).squeeze(1)

    def loss(logits: Tensor, target: Tensor) -> Any:
        return rows(wide(logits), target).mean().to(logits.dtype)

    return loss


# --- any order -------------------------------------------------------------------------------------------------------


class AnyOrder(Function):
    """Rows add their losses in the order in which they finish, as atomic additions do: each run is another."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        p = torch.softmax(wide(logits), 1)
        rows = F.cross_entropy(wide(logits), target, reduction="none")
        order = torch.randperm(len(rows))
        parts = [part.sum() for part in rows[order].split(128)]
        ctx.save_for_backward(p, target)
        ctx.dtype = logits.dtype
        return (torch.stack([*parts, rows.new_zeros(())]).sum() / len(rows)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        p, target = ctx.saved_tensors
        hot = F.one_hot(target, p.shape[1])
        return ((p - hot) * (upstream[0].to(p.dtype) / len(p))).to(ctx.dtype), None


ROWS: dict[str, Any] = {"reduction": "none"}
ONE_SHAPE: dict[str, Any] = {"shape": (42, 3), "layouts": ("contiguous",)}

SPLIT: tuple[Kernel, ...] = (
    Kernel("sums of micro-batches", lambda: micro_batches, said={"many_rows": False}, seen_in="gradient accumulation"),
    Kernel("weighted means of micro-batches", lambda: weighted_means, seen_in="gradient accumulation, mended"),
    Kernel("chunks of rows and of classes", lambda: chunks_of_columns_and_rows, seen_in="torchtune"),
    Kernel("vocabulary-parallel, 2 ranks", vocabulary_parallel(2), said=ROWS, seen_in="Megatron-LM, NeMo"),
    Kernel("vocabulary-parallel, 8 ranks", vocabulary_parallel(8), said=ROWS, seen_in="Megatron-LM, NeMo"),
    Kernel("loss parallel, by autograd", lambda: loss_parallel, seen_in="torch.distributed, torchtitan"),
    Kernel("checkpointed chunks", lambda: checkpointed, seen_in="torchtune, axolotl"),
    Kernel("reentrant checkpoint", lambda: checkpointed_reentrant, seen_in="older trainers"),
    Kernel(
        "compiled, log_softmax and gather", compiled_gather, formats=("float32",), said=ONE_SHAPE, seen_in="nanoGPT"
    ),
    Kernel(
        "compiled inside of an eager loss", compiled_inside, formats=("float32", "bfloat16"), said=ONE_SHAPE,
        seen_in="torchtune's compiled loss",
    ),
    Kernel("rows added in any order", lambda: applied(AnyOrder), said={"deterministic": False}, seen_in="atomic adds"),
)  # fmt: skip
