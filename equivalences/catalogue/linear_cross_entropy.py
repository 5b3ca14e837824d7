"""Cross entropy of an affine layer: F.linear_cross_entropy, with and without chunks, and what it stands for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from equivalences import exact
from equivalences.catalogue.cross_entropy import loss
from equivalences.model import Form, Identity
from equivalences.problems.layers import layers

SOURCE = "torch.nn.functional.linear_cross_entropy documentation"
NEEDS = "nn.functional.linear_cross_entropy"
# The chunked path took class probabilities after torch 2.13, which ignores its options with a warning.
NEEDS_SOFT = "nn.modules.linear_cross_entropy_options._auto_acc_policy"


def affine_loss(p: Any) -> Any:
    """`cross_entropy.loss` of the logits x W' + b."""
    items = vars(p) | {"z": [[exact.dot(x, w) + b for w, b in zip(p.W, p.b, strict=True)] for x in p.x]}
    return loss(SimpleNamespace(**items))


def chunked(options: str, target: str = "y", more: str = "", needs: str = NEEDS) -> Form:
    """F.linear_cross_entropy with these chunking options."""
    return Form(
        f"chunks = nn.LinearCrossEntropyOptions({options})\n"
        f"more = {{'linear_bias': b, 'weight': weight, 'reduction': reduction{more}}}\n"
        f"F.linear_cross_entropy(x, W, {target}, **more, options=chunks)",
        label=f"F.linear_cross_entropy, {options or 'default chunks'}",
        needs=needs,
    )


IGNORED = ", 'ignore_index': ignore_index"

FORMS = (
    Form("F.cross_entropy(F.linear(x, W, b), y, weight, ignore_index=ignore_index, reduction=reduction)"),
    Form("F.cross_entropy(x @ W.mT + b, y, weight, ignore_index=ignore_index, reduction=reduction)"),
    Form(
        "F.linear_cross_entropy(x, W, y, linear_bias=b, weight=weight, ignore_index=ignore_index, reduction=reduction)",
        needs=NEEDS,
    ),
    Form(
        "head = nn.LinearCrossEntropyLoss(W.shape[1], W.shape[0], bias=True, weight=weight, "
        "ignore_index=ignore_index, reduction=reduction)\n"
        "torch.func.functional_call(head, {'linear.weight': W, 'linear.bias': b}, (x, y))",
        label="nn.LinearCrossEntropyLoss",
        needs="nn.LinearCrossEntropyLoss",
    ),
    Form(
        "rows = F.linear_cross_entropy(x, W[:, None], y[:, None], linear_bias=b[:, None], weight=weight, "
        "ignore_index=ignore_index, reduction=reduction)\n"
        "rows.squeeze(1) if reduction == 'none' else rows",
        label="F.linear_cross_entropy, (C, 1) outputs",
        needs=NEEDS,
    ),
    chunked("", more=IGNORED),
    chunked("batch_chunk_size=1, allow_retain_graph=True", more=IGNORED),
    chunked("batch_chunk_size=2, acc_policy='compact'", more=IGNORED),
    chunked("batch_chunk_size=3, acc_policy='accurate'", more=IGNORED),
    chunked("acc_policy='compact', acc_dtype=torch.float32 if x.dtype.itemsize == 2 else None", more=IGNORED),
)

linear_cross_entropy = Identity(
    name="linear_cross_entropy",
    statement=r"\ell(xW^\top + b) \text{ computed at once, or in chunks of rows (mean and sum)}",
    source=SOURCE,
    domain=layers(labels=True, weight="optional", ignore=True, reduction=("mean", "sum")),
    spec=affine_loss,
    out="",
    wrt=("x", "W", "b"),
    forms=FORMS,
)

linear_cross_entropy_rows = Identity(
    name="linear_cross_entropy_rows",
    statement=r"\ell_n = \ell(W x_n + b) \text{ computed at once, or in chunks of rows}",
    source=SOURCE,
    domain=layers(labels=True, weight="optional", ignore=True, reduction=("none",), out="R"),
    spec=affine_loss,
    wrt=("x", "W", "b"),
    forms=(
        *FORMS,
        Form(
            "chunks = nn.LinearCrossEntropyOptions()\n"
            "more = {'linear_bias': b, 'weight': weight, 'ignore_index': ignore_index, 'reduction': 'none'}\n"
            "torch.stack([F.linear_cross_entropy(row, W, label, **more, options=chunks) for row, label in zip(x, y)])",
            label="F.linear_cross_entropy, row by row",
            needs=NEEDS,
        ),
    ),
)

linear_soft_cross_entropy = Identity(
    name="linear_soft_cross_entropy",
    statement=r"-\sum_{nk} w_k p_{nk} \log \mathrm{softmax}(W x_n + b)_k \text{ (mean: divided by } N)",
    source=SOURCE,
    domain=layers(soft=True, weight="optional", reduction=("mean", "sum")),
    spec=affine_loss,
    out="",
    wrt=("x", "W", "b"),
    forms=(
        Form("F.cross_entropy(F.linear(x, W, b), p, weight, reduction=reduction)"),
        Form("F.linear_cross_entropy(x, W, p, linear_bias=b, weight=weight, reduction=reduction)", needs=NEEDS),
        chunked("", "p", needs=NEEDS_SOFT),
        chunked("batch_chunk_size=2, acc_policy='compact'", "p", needs=NEEDS_SOFT),
        chunked("batch_chunk_size=3, acc_policy='accurate'", "p", needs=NEEDS_SOFT),
    ),
)
