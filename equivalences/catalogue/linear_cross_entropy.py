"""Cross entropy of an affine layer: F.linear_cross_entropy, with and without chunks, and what it stands for."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from equivalences.catalogue.cross_entropy import loss
from equivalences.model import Form, Identity, Pitfall, Warns
from equivalences.oracle import exact
from equivalences.problems.layers import layers

SOURCE = "torch.nn.functional.linear_cross_entropy documentation"
NEEDS = "nn.functional.linear_cross_entropy"
CHUNKS_OF = ("contiguous",)  # what is cut off in chunks lies in memory as a whole does: these forms are slow to follow
# The chunked path took class probabilities after torch 2.13, which ignores its options with a warning.
NEEDS_SOFT = "nn.modules.linear_cross_entropy_options._auto_acc_policy"


def affine_loss(p: Any) -> Any:
    """`cross_entropy.loss` of the logits x W' + b."""
    items = vars(p) | {"z": [[exact.dot(x, w) + b for w, b in zip(p.W, p.b, strict=True)] for x in p.x]}
    return loss(SimpleNamespace(**items))


def chunked(options: str, bias: bool = True) -> Form:
    """F.linear_cross_entropy with these chunking options; without `bias` it is a column of W, and x has one of ones."""
    return Form(
        f"{'' if bias else AS_COLUMN}chunks = nn.LinearCrossEntropyOptions({options})\n"
        f"more = {{{BIAS if bias else ''}'weight': weight, 'ignore_index': ignore_index, "
        "'reduction': reduction}\n"
        "F.linear_cross_entropy(x, W, y, **more, options=chunks)",
        label=f"F.linear_cross_entropy, {options or 'default chunks'}{'' if bias else ', no bias'}",
        needs=NEEDS,
        layouts=CHUNKS_OF if options else None,
    )


BIAS = "'linear_bias': b, "
AS_COLUMN = "x, W = torch.cat((x, torch.ones_like(x[:, :1])), 1), torch.cat((W, b[:, None]), 1)\n"

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
    chunked(""),
    chunked("batch_chunk_size=1, allow_retain_graph=True"),
    chunked("batch_chunk_size=2, acc_policy='compact'"),
    chunked("batch_chunk_size=3, acc_policy='accurate'"),
    chunked("acc_policy='compact', acc_dtype=torch.float32 if x.dtype.itemsize == 2 else None"),
    Form(
        f"{AS_COLUMN}F.linear_cross_entropy(x, W, y, weight=weight, ignore_index=ignore_index, reduction=reduction)",
        label="F.linear_cross_entropy, no bias",
        needs=NEEDS,
    ),
    chunked("batch_chunk_size=2", bias=False),
)

linear_cross_entropy = Identity(
    name="linear_cross_entropy",
    statement=r"\ell(xW^\top + b) \text{ computed at once, or in chunks of rows (mean and sum)}",
    source=SOURCE,
    domain=layers(labels=True, weight="optional", ignore=True, reduction=("mean", "sum"), many=True),
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
            layouts=CHUNKS_OF,
            needs=NEEDS,
        ),
    ),
)

# --- label smoothing: torch 2.14 and before do not chunk it ----------------------------------------------------------

SMOOTHED = "weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing, reduction=reduction"

SMOOTHED_FORMS = (
    Form(f"F.cross_entropy(F.linear(x, W, b), y, {SMOOTHED})"),
    Form(f"F.linear_cross_entropy(x, W, y, linear_bias=b, {SMOOTHED})", needs=NEEDS),
    Form(
        f"head = nn.LinearCrossEntropyLoss(W.shape[1], W.shape[0], bias=True, {SMOOTHED})\n"
        "torch.func.functional_call(head, {'linear.weight': W, 'linear.bias': b}, (x, y))",
        label="nn.LinearCrossEntropyLoss",
        needs="nn.LinearCrossEntropyLoss",
    ),
    Form(
        f"rows = F.linear_cross_entropy(x, W[:, None], y[:, None], linear_bias=b[:, None], {SMOOTHED})\n"
        "rows.squeeze(1) if reduction == 'none' else rows",
        label="F.linear_cross_entropy, (C, 1) outputs",
        needs=NEEDS,
    ),
    Form(
        f"{AS_COLUMN}F.linear_cross_entropy(x, W, y, {SMOOTHED})",
        label="F.linear_cross_entropy, no bias",
        needs=NEEDS,
    ),
    Form(
        "import warnings\nwith warnings.catch_warnings():\n"
        "    warnings.simplefilter('ignore')  # of the options, which are not heeded: `chunks_of_smoothed_labels`\n"
        "    chunks = nn.LinearCrossEntropyOptions(batch_chunk_size=2)\n"
        f"    rows = F.linear_cross_entropy(x, W, y, linear_bias=b, {SMOOTHED}, options=chunks)\nrows",
        label="F.linear_cross_entropy, batch_chunk_size=2",
        needs=NEEDS,
    ),
)

linear_cross_entropy_smoothed = Identity(
    name="linear_cross_entropy_smoothed",
    statement=r"\ell(xW^\top + b) \text{ (mean and sum)}, \quad q_{nk} = (1 - \alpha) [k = y_n] + \alpha / K",
    source=SOURCE,
    domain=layers(
        labels=True,
        weight="optional",
        ignore=True,
        smoothing=True,
        reduction=("mean", "sum"),
        many=True,
    ),
    spec=affine_loss,
    out="",
    wrt=("x", "W", "b"),
    forms=SMOOTHED_FORMS,
)

linear_cross_entropy_smoothed_rows = Identity(
    name="linear_cross_entropy_smoothed_rows",
    statement=r"\ell_n = \ell(W x_n + b), \quad q_{nk} = (1 - \alpha) [k = y_n] + \alpha / K",
    source=SOURCE,
    domain=layers(labels=True, weight="optional", ignore=True, smoothing=True, reduction=("none",), out="R"),
    spec=affine_loss,
    wrt=("x", "W", "b"),
    forms=SMOOTHED_FORMS,
)

chunks_of_smoothed_labels = Pitfall(
    name="chunks_of_smoothed_labels",
    statement="with label smoothing, linear_cross_entropy warns and computes all logits at once, whatever the options",
    source=SOURCE + "; torch/nn/functional.py (the chunked path needs label_smoothing == 0)",
    of=linear_cross_entropy_smoothed,
    mistake=Form(
        f"chunks = nn.LinearCrossEntropyOptions()\n"
        f"F.linear_cross_entropy(x, W, y, linear_bias=b, {SMOOTHED}, options=chunks)",
        label="F.linear_cross_entropy, smoothing and default chunks",
        formats=("float32",),  # whether it warns does not depend on the format
        needs=NEEDS,
    ),
    outcome=Warns(UserWarning, "``options`` ignored; chunked path needs"),
    when=lambda problem: bool(problem["label_smoothing"]),
    relations=(linear_cross_entropy_smoothed,),
)

# --- class probabilities ---------------------------------------------------------------------------------------------

SOFT = "weight=weight, label_smoothing=label_smoothing, reduction=reduction"


def soft_chunked(options: str) -> Form:
    """F.linear_cross_entropy of probabilities in chunks, where no smoothing forbids them."""
    return Form(
        f"chunks = None if label_smoothing else nn.LinearCrossEntropyOptions({options})\n"
        f"F.linear_cross_entropy(x, W, p, linear_bias=b, {SOFT}, options=chunks)",
        label=f"F.linear_cross_entropy, {options or 'default chunks'}",
        needs=NEEDS_SOFT,
    )


linear_soft_cross_entropy = Identity(
    name="linear_soft_cross_entropy",
    statement=r"-\sum_{nk} w_k ((1 - \alpha) p_{nk} + \alpha / K) \log \mathrm{softmax}(W x_n + b)_k"
    r" \text{ (mean: divided by } N)",
    source=SOURCE,
    domain=layers(soft=True, weight="optional", smoothing=True, reduction=("mean", "sum"), many=True),
    spec=affine_loss,
    out="",
    wrt=("x", "W", "b"),  # not p: a target that asks for a gradient keeps PyTorch from its chunks
    forms=(
        Form(f"F.cross_entropy(F.linear(x, W, b), p, {SOFT})"),
        Form(f"F.linear_cross_entropy(x, W, p, linear_bias=b, {SOFT})", needs=NEEDS),
        Form(
            f"{AS_COLUMN}F.linear_cross_entropy(x, W, p, {SOFT})",
            label="F.linear_cross_entropy, no bias",
            needs=NEEDS,
        ),
        soft_chunked(""),
        soft_chunked("batch_chunk_size=2, acc_policy='compact'"),
        soft_chunked("batch_chunk_size=3, acc_policy='accurate'"),
    ),
)
