"""Right kernels: how the label's term is picked, from log-probabilities or beside them."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.evidence.kernels.idioms import wide
from equivalences.evidence.kernels.kernel import Kernel


def by_gather(logits: Tensor, target: Tensor) -> Tensor:
    return -F.log_softmax(logits, dim=-1).gather(-1, target.unsqueeze(-1)).mean()


def by_advanced_index(logits: Tensor, target: Tensor) -> Tensor:
    rows = torch.arange(logits.size(0), device=logits.device)
    return -logits.log_softmax(1)[rows, target].mean()


def by_take_along_dim(logits: Tensor, target: Tensor) -> Tensor:
    logp = torch.log_softmax(logits, 1)
    return torch.neg(torch.take_along_dim(logp, target[:, None], dim=1)).squeeze(1).mean()


def by_flat_index(logits: Tensor, target: Tensor) -> Tensor:
    logp = F.log_softmax(logits, 1)
    place = torch.arange(len(logp)) * logp.shape[1] + target
    return -logp.reshape(-1).index_select(0, place).mean()


def by_mask(logits: Tensor, target: Tensor) -> Tensor:
    """XLA style: an iota is compared with the labels, and nothing is gathered."""
    logp = F.log_softmax(logits, 1)
    hit = torch.arange(logits.shape[1])[None, :] == target[:, None]
    return -torch.where(hit, logp, torch.zeros_like(logp)).sum() / len(logits)


def by_masked_select(logits: Tensor, target: Tensor) -> Tensor:
    hit = F.one_hot(target, logits.shape[1]).bool()
    return -F.log_softmax(logits, 1).masked_select(hit).mean()


def by_masked_fill(logits: Tensor, target: Tensor) -> Tensor:
    other = F.one_hot(target, logits.shape[-1]) == 0
    return -(logits.log_softmax(-1).masked_fill(other, 0.0).sum(-1)).mean()


def by_one_hot_product(logits: Tensor, target: Tensor) -> Tensor:
    """For finite logits: a masked class times 0 would be nan."""
    hot = F.one_hot(target, num_classes=logits.shape[1]).to(logits.dtype)
    return -(hot * F.log_softmax(logits, dim=1)).sum(dim=1).mean()


def by_scatter(logits: Tensor, target: Tensor) -> Tensor:
    """For finite logits."""
    hot = torch.zeros_like(logits).scatter_(1, target.view(-1, 1), 1.0)
    return torch.mean(torch.sum(-hot * F.log_softmax(logits, dim=1), dim=1))


def by_probabilities(logits: Tensor, target: Tensor) -> Tensor:
    """PyTorch's own soft targets, given one-hot rows.  For finite logits."""
    return F.cross_entropy(logits, F.one_hot(target, logits.shape[1]).to(logits.dtype))


def by_optax(logits: Tensor, target: Tensor) -> Tensor:
    """Both the label's logit and the logarithm are relative to a maximum that is a constant."""
    x = logits - logits.amax(-1, keepdim=True).detach()
    picked = torch.take_along_dim(x, target[..., None], -1)[..., 0]
    return (x.exp().sum(-1).log() - picked).mean()


def by_nll(logits: Tensor, target: Tensor) -> Tensor:
    return F.nll_loss(F.log_softmax(logits, 1), target)


def by_sum_over_count(logits: Tensor, target: Tensor) -> Tensor:
    """As trainers do that know the number of tokens of a global batch."""
    total = F.cross_entropy(logits.float() if logits.itemsize < 4 else logits, target, reduction="sum")
    return (total / target.numel()).to(logits.dtype)


def by_vmap(logits: Tensor, target: Tensor) -> Any:
    """The loss of one sample, mapped over the batch."""

    def one(row: Tensor, label: Tensor) -> Tensor:
        return -F.log_softmax(row, 0).gather(0, label[None])[0]

    return torch.func.vmap(one)(logits, target).mean()


def by_distribution(logits: Tensor, target: Tensor) -> Any:
    """A policy's negative log-likelihood; the distribution normalises logits that have their maximum taken off."""
    x = logits - logits.detach().amax(-1, keepdim=True)
    return -torch.distributions.Categorical(logits=x, validate_args=False).log_prob(target).mean()


def by_softplus(logits: Tensor, target: Tensor) -> Tensor:
    """Two terms: the label's, and all others'; softplus of their difference keeps the digits of sure rows."""
    x = wide(logits)
    others = x.scatter(1, target[:, None], -torch.inf)
    top = others.detach().amax(1)
    top = torch.where(top == -torch.inf, 0.0, top)
    total = torch.exp(others - top[:, None]).sum(1)
    d = torch.log(torch.where(total == 0, 1.0, total)) + (top - x.gather(1, target[:, None]).squeeze(1))
    d = torch.where(total == 0, -torch.inf, d)  # there is no other class, or all are masked
    return F.softplus(d, threshold=50).mean().to(logits.dtype)


HOT = "one-hot losses of vision models"

LABELS: tuple[Kernel, ...] = (
    Kernel("log_softmax and gather", lambda: by_gather, seen_in="torchtune, TRL"),
    Kernel("log_softmax and advanced index", lambda: by_advanced_index, seen_in="courses"),
    Kernel("log_softmax and take_along_dim", lambda: by_take_along_dim, seen_in="optax, by torch"),
    Kernel("log_softmax and a flat index", lambda: by_flat_index, seen_in="fairseq"),
    Kernel("log_softmax and an iota", lambda: by_mask, seen_in="PyTorch/XLA, torch_tpu"),
    Kernel("log_softmax and masked_select", lambda: by_masked_select, seen_in=HOT),
    Kernel("log_softmax and masked_fill", lambda: by_masked_fill, seen_in=HOT),
    # These three would need a declaration that says: the logits are finite.
    Kernel("log_softmax times one-hot", lambda: by_one_hot_product, seen_in=HOT),
    Kernel("log_softmax times scattered ones", lambda: by_scatter, seen_in="person re-identification losses"),
    Kernel("cross_entropy of one-hot rows", lambda: by_probabilities, seen_in="timm"),
    Kernel("shift, exp, sum, log, minus the label", lambda: by_optax, seen_in="optax, by torch"),
    Kernel("log_softmax and nll_loss", lambda: by_nll, seen_in="PyTorch"),
    Kernel("sum in float32, over the count", lambda: by_sum_over_count, seen_in="transformers' trainer"),
    Kernel("vmap of one row's loss", lambda: by_vmap, seen_in="per-sample gradients"),
    Kernel("Categorical of shifted logits", lambda: by_distribution, seen_in="policy gradients"),
    Kernel("softplus of all others", lambda: by_softplus, seen_in="circle and AM-softmax losses"),
)
