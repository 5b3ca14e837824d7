"""Known defects of losses, activations and of the sums below them."""

from __future__ import annotations

from typing import Any

import numpy as np

from equivalences.findings.known_defects.releases import SEEN
from equivalences.findings.known_defects.rules import actual
from equivalences.findings.model import KnownDefect, Severity
from equivalences.model import Problem


def _equal_rows(
    format: str, rows: int, *, ignored: int = 0, weight: Any = None, logits: tuple[float, float] = (0.0, 0.0)
) -> Problem:
    """Rows of the same two logits, labelled 0; every `ignored`-th of them is ignored (0: none)."""
    y = np.where(np.arange(rows) % ignored == 0, -100, 0) if ignored else np.zeros(rows, dtype=int)
    options = {"ignore_index": -100, "weight": weight, "reduction": "mean"}
    return Problem(format, {"z": np.tile(logits, (rows, 1)), "y": y, **options, "g": np.array(1.0)})


def _equal_scalars(reduction: str) -> Problem:
    rows = 2049  # losses of log 2 in three columns, beside a fourth one that is cut off
    items = {"z": np.zeros(rows), "t": np.ones(rows), "weight": np.ones(rows), "pos_weight": np.array(1.0)}
    return Problem("float32", {**items, "reduction": reduction, "g": np.array(1.0)})


LOSSES = (
    KnownDefect(
        name="log_softmax-16bit-sum",
        operation="_log_softmax",
        formats=("bfloat16", "float16"),
        as_is=actual.log_softmax_in_storage,
        identity="log_softmax",
        form="log-softmax",
        layout="contiguous",
        witness=Problem("bfloat16", {"z": np.array([[0.0, -6.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension last: the sum of exponentials and its log are rounded to 16 bits before they are used; of "
        "65,520 equal logits and more, in float16, it is inf, and so is the loss",
        severity=Severity.SERIOUS,
        off="loss 0 instead of 0.0025 at the bfloat16 logits [0, -6]; inf instead of 11.09 for 65,520 equal float16 "
        "logits",
        hurts="16-bit losses of confident rows; float16 logits over a vocabulary of 65,520 classes and more",
        instead="F.cross_entropy(z.float(), y)",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="softmax-16bit-tail",
        operation="_softmax",
        formats=("bfloat16", "float16"),
        as_is=actual.softmax_rounds_exponentials,
        identity="softmax",
        form="softmax",
        layout="inner",
        witness=Problem("bfloat16", {"z": np.array([[-161.0, -162.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension not last: the scalar tail of the kernel rounds exp(x - max) to 16 bits, then divides",
        severity=Severity.LAST_DIGITS,
        off="0.2676 instead of 0.2695 at the bfloat16 column [-161, -162]: one unit in the last place",
        hurts="whoever expects a row's result not to depend on its place in the batch",
        instead="torch.softmax(z.float(), dim=0).to(z.dtype)",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    *(
        KnownDefect(
            name=f"{operation}-skipped-folds",
            operation=f"{operation}_forward",
            formats=("float64", "float32", "bfloat16", "float16"),
            as_is=actual.nll_loss_skips_folds,
            identity="cross_entropy_many_rows",
            form=form,
            layout="contiguous",
            witness=_equal_rows("bfloat16", 1024, ignored=2),
            why="an ignored row skips the fold of the cascade sum that falls on it: where every second row, or every "
            "16th (the first of each sequence, say), is ignored, the sum is sequential: bfloat16 stops at 256 rows' "
            "worth of loss, 0.5 instead of 0.693 for 1024 rows, 0.0078 for 65536; float32 is 0.6 % off with 2**20, "
            "every 16th ignored",
            severity=Severity.SERIOUS,
            off="mean 0.0078 instead of 0.693 of 65,536 bfloat16 rows, every 2nd ignored; float32 0.6 % too small with "
            "2**20 rows, every 16th ignored",
            hurts="token batches with a fixed ignored position, on the CPU",
            instead="F.cross_entropy(z[keep], y[keep])",
            link="",
            modes=("eager",),
            seen=SEEN,
        )
        for operation, form in (("nll_loss", "cross-entropy"), ("nll_loss2d", "nll-2d"))
    ),
    *(
        KnownDefect(
            name=f"{operation}-float16-total",
            operation=f"{operation}_forward",
            formats=("float16",),
            as_is=actual.nll_loss_loses_weight,
            identity="cross_entropy_many_rows",
            form=form,
            layout="contiguous",
            witness=_equal_rows("float16", 2, weight=np.full(2, 60000.0), logits=(4.0, 0.0)),
            why="the number of rows, or their total weight, is kept in float16, where 65520 is inf: the mean (of 65520 "
            "rows without weights, say) and its gradient are exactly zero",
            severity=Severity.SERIOUS,
            off="mean and gradient exactly 0 from 65,520 rows on, instead of 0.693 for two equal logits",
            hurts="large float16 batches; float16 class weights whose total is beyond 65,504",
            instead="F.cross_entropy(z.float(), y)",
            link="https://github.com/pytorch/pytorch/issues/85791",
            modes=("eager",),
            seen=SEEN,
        )
        for operation, form in (("nll_loss", "cross-entropy"), ("nll_loss2d", "nll-2d"))
    ),
    *(
        KnownDefect(
            name=f"{operation}-piece-by-piece",
            operation=operation,
            formats=("float64", "float32"),
            as_is=actual.sum_in_order,
            identity="binary_cross_entropy_large_batch",
            form="padding-cut-off",
            layout="contiguous",
            witness=_equal_scalars(reduction=operation),
            why="the cascade covers numbers that lie evenly in memory; of a slice or of an expanded tensor, each piece "
            "is added to the result, one after the other: torch.ones(2**23, 4)[:, :3].mean() is 1.11 in float32",
            severity=Severity.SERIOUS,
            off="mean 1.11 instead of 1 of 25 million ones in float32, with one thread",
            hurts="means of per-token losses with the padding cut off",
            instead="x.contiguous().mean()",
            link="https://github.com/pytorch/pytorch/issues/37234",
            modes=("eager",),
            seen=SEEN,
        )
        for operation in ("sum", "mean")
    ),
    KnownDefect(
        name="sigmoid-backward-float16-steps",
        operation="sigmoid_backward",
        formats=("float16",),
        as_is=actual.sigmoid_backward_in_storage,
        identity="sigmoid",
        form="sigmoid",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([-0.25]), "g": np.array([1.0625])}),
        why="float16: 1 - y and g (1 - y) are rounded to storage; bfloat16 and tanh's backward compute in float32",
        severity=Severity.LAST_DIGITS,
        off="gradient 0.26172 instead of 0.26152 at the logit -0.25: one unit in the last place",
        hurts="gates and attention trained in float16: small gradients",
        instead="torch.sigmoid(z.float())",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="logit-16bit-steps",
        operation="logit",
        formats=("bfloat16", "float16"),
        as_is=actual.logit_in_storage,
        identity="binary_cross_entropy_soft",
        form="bce-of-sigmoid",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([0.06719970703125]), "t": np.array([0.0]), "g": np.array([1.0])}),
        why="1 - x and x / (1 - x) are rounded to 16 bits before the logarithm: next to 1/2 a half is lost, and the "
        "gradient of binary_cross_entropy by its target is this",
        severity=Severity.DIGITS,
        off="-0.00049 instead of -0.00098 at the float16 number next below 1/2",
        hurts="soft labels that are learnt: the gradient of binary_cross_entropy by its target",
        instead="torch.logit(p.float())",
        link="https://github.com/pytorch/pytorch/issues/140252",
        modes=("eager",),
        seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
    ),
    *(
        KnownDefect(
            name=f"{operation}-backward-16bit-steps-cuda",
            operation=f"{operation}_backward",
            formats=("bfloat16", "float16"),
            as_is=rule,
            identity=operation,
            form=operation,
            layout="contiguous",
            witness=Problem("float16", {"z": np.array([z]), "g": np.array([g])}),
            why=f"every step of {formula} is rounded to 16 bits, where the CPU computes in float32 (but for sigmoid in "
            "float16): errors of 1.5 units in the last place",
            severity=Severity.LAST_DIGITS,
            off="up to 1.5 units in the last place",
            hurts="small 16-bit gradients of gates and attention, on the GPU",
            instead="compute it in float32 (not tried on a GPU)",
            link=link,
            devices=("cuda",),
            seen=("2.11.0",),
        )
        for operation, rule, formula, z, g, link in (
            ("sigmoid", actual.sigmoid_backward_in_storage, "g (1 - y) y", -0.37451171875, 1.4658203125, ""),
            (
                "tanh",
                actual.tanh_backward_in_storage,
                "g (1 - y y)",
                0.015655517578125,
                1.0029296875,
                "https://github.com/intel/torch-xpu-ops/pull/3043",
            ),
        )
    ),
    KnownDefect(
        name="softmax-backward-16bit-products-cuda",
        operation="_softmax_backward_data",
        formats=("bfloat16", "float16"),
        as_is=actual.softmax_backward_rounds_products,
        identity="softmax",
        form="softmax",
        layout="contiguous",
        witness=Problem("bfloat16", {"z": np.array([[-45.5, 45.5]]), "g": np.array([[-0.87109375, -1.125]])}),
        why="grad * output is stored in 16 bits before it is added up (cuda/SoftMax.cu), and then the sum is taken "
        "from it: gradients that cancel lose what the CPU, in float32, keeps",
        severity=Severity.DIGITS,
        off="gradients that cancel keep no digit of what the CPU keeps",
        hurts="16-bit attention, on the GPU: small gradients",
        instead="compute it in float32 (not tried on a GPU)",
        link="",
        devices=("cuda",),
        seen=("2.11.0",),
    ),
    KnownDefect(
        name="nll_loss2d-16bit-blocks-cuda",
        operation="nll_loss2d_forward",
        formats=("bfloat16", "float16"),
        as_is=actual.nll_loss2d_adds_blocks_in_storage,
        identity="cross_entropy_many_rows",
        form="nll-2d",
        layout="contiguous",
        witness=_equal_rows("bfloat16", 65520),
        why="every block of threads adds its part of the loss and of the number of rows to totals of 16 bits: with "
        "thousands of short sequences they stop growing, and the gradient of the mean over 5,460 of 12 is 16 times too "
        "large in bfloat16",
        severity=Severity.SERIOUS,
        off="the gradient of the mean over 5,460 sequences of 12 is 16 times too large in bfloat16",
        hurts="16-bit token batches as (N, C, d), on the GPU",
        instead="compute it in float32 (not tried on a GPU)",
        link="https://github.com/pytorch/pytorch/issues/61523",
        devices=("cuda",),
        seen=("2.11.0",),
    ),
    KnownDefect(
        name="nll_loss-float16-total-cuda",
        operation="nll_loss_forward",
        formats=("float16",),
        as_is=actual.nll_loss_total_in_float16,
        identity="cross_entropy_many_rows",
        form="cross-entropy",
        layout="contiguous",
        witness=_equal_rows("float16", 2, weight=np.full(2, 60000.0), logits=(4.0, 0.0)),
        why="the number of rows, or their total weight, is kept in float16 for the backward pass, where 65520 is inf: "
        "the loss is right and its gradient exactly zero",
        severity=Severity.SERIOUS,
        off="gradient exactly 0 from 65,520 rows on",
        hurts="large float16 batches, on the GPU",
        instead="compute it in float32 (not tried on a GPU)",
        link="https://github.com/pytorch/pytorch/issues/85791",
        devices=("cuda",),
        modes=("eager",),
        seen=("2.11.0",),
    ),
    KnownDefect(
        name="distributions-clamp-probabilities",
        operation="clamp",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=actual.clamp_moves_its_input,
        identity="bernoulli_nll",
        form="bernoulli-log-prob",
        layout="contiguous",
        witness=Problem("float32", {"p": np.array([2.0**-24]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="torch.distributions moves probabilities into [eps, 1 - eps] before the logarithm: 15.94 instead of 16.64",
        severity=Severity.DIGITS,
        off="log-probability -15.94 instead of -16.64 of p = 2**-24 in float32",
        hurts="whoever takes log_prob of near certainties",
        instead="Bernoulli(logits=z)",
        link="https://github.com/pytorch/pytorch/issues/186825",
        devices=("cpu", "cuda"),
        seen=SEEN,
        module="torch.distributions",
    ),
    KnownDefect(
        name="bce-backward-floor",
        operation="binary_cross_entropy_backward",
        formats=("float64", "float32", "bfloat16"),
        as_is=actual.bce_backward_with_floor,
        identity="binary_cross_entropy",
        form="bce-of-sigmoid",
        layout="contiguous",
        witness=Problem("float32", {"z": np.array([-50.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="the gradient divides by max(x (1 - x), 1e-12): -1.9e-10 instead of -1 for a confidently wrong row",
        severity=Severity.SERIOUS,
        off="gradient -1.9e-10 instead of -1 at the logit -50, target 1",
        hurts="sigmoid + BCELoss: the rows that are most wrong do not learn",
        instead="F.binary_cross_entropy_with_logits(z, t)",
        link="https://github.com/pytorch/pytorch/issues/103316",
        devices=("cpu", "cuda"),
        seen=SEEN,
    ),
    KnownDefect(
        name="bce-backward-float16-nan",
        operation="binary_cross_entropy_backward",
        formats=("float16",),
        as_is=actual.bce_backward_with_floor,
        identity="binary_cross_entropy",
        form="bce-of-sigmoid",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([9.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="the floor 1e-12 is 0 in float16: the gradient of a confidently right row is 0 / 0 = nan",
        severity=Severity.SERIOUS,
        off="gradient nan instead of -0.00012 at the logit 9, target 1",
        hurts="sigmoid + BCELoss in float16: one confidently right row spoils the step",
        instead="F.binary_cross_entropy_with_logits(z.float(), t)",
        link="",
        devices=("cpu", "cuda"),
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="soft-margin-backward-compiled",
        operation="soft_margin_loss_backward",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=actual.soft_margin_backward_by_difference,
        identity="soft_margin_loss",
        form="soft-margin-loss",
        layout="contiguous",
        witness=Problem("float32", {"z": np.array([20.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="compiled, the gradient is t g (sigmoid(t z) - 1): 0 instead of -2e-9, which eager code gets right",
        severity=Severity.DIGITS,
        off="gradient 0 instead of -2.1e-9 at the margin 20",
        hurts="confidently right rows, compiled",
        instead="F.softplus(-t * z)",
        link="",
        modes=("compiled",),
        seen=SEEN,
    ),
    KnownDefect(
        name="expm1-compiled-difference",
        operation="expm1",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=actual.expm1_by_difference,
        identity="tanh",
        form="by-expm1",
        layout="contiguous",
        witness=Problem("float32", {"z": np.full(16, 2.0**-34), "slope": 0.0, "g": np.ones(16)}),
        why="compiled, expm1 of eight numbers and more is exp(x) - 1, which is 0 for what is far below 1",
        severity=Severity.DIGITS,
        off="0 instead of 5.8e-11 at 2**-34",
        hurts="tanh and ELU by hand, log-probabilities near 0, compiled",
        instead="2 * torch.sinh(x / 2) * torch.exp(x / 2)",
        link="https://github.com/pytorch/pytorch/issues/189803",
        modes=("compiled",),
        seen=("2.8.0", "2.13.0"),
        fixed="2.14.1",
    ),
)
