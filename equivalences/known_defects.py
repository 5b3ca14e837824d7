"""Known defects of PyTorch: data.  Each names the operation, what it really does, and a witness that must still fail.

`as_is` is the operation's rule as the kernel behaves, so that the gate stays sharp beside a defect: an error beyond
even that is a failure.  An entry whose witness no longer fails is to be deleted (tests/test_known_defects.py says so).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from equivalences.model import KnownDefect, Problem
from equivalences.rounding import as_is


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


# Two parameters at 0 with gradient 1; every state is 0, and nothing but the learning rate acts.
SEEN = ("2.8.0", "2.11.0", "2.13.0", "2.14.1", "2.15.0")  # where nothing else is said (2.11.0: on the GPU's machine)

_STEP: dict[str, Any] = {
    **{name: np.zeros(2) for name in ("w", "m", "v", "top")}, "d": np.ones(2), "step": 0, "first": True,
    "lr": 1.0, "beta1": 0.5, "beta2": 0.5, "eps": 1e-8, "momentum": 0.5, "dampening": 0.0, "nesterov": False,
    "weight_decay": 0.0, "maximize": False,
}  # fmt: skip


KNOWN_DEFECTS = (
    KnownDefect(
        name="log_softmax-16bit-sum",
        operation="_log_softmax",
        formats=("bfloat16", "float16"),
        as_is=as_is.log_softmax_in_storage,
        identity="log_softmax",
        form="F.log_softmax(z, dim)",
        layout="contiguous",
        witness=Problem("bfloat16", {"z": np.array([[0.0, -6.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension last: the sum of exponentials and its log are rounded to 16 bits before they are used; of "
        "65,520 equal logits and more, in float16, it is inf, and so is the loss",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="softmax-16bit-tail",
        operation="_softmax",
        formats=("bfloat16", "float16"),
        as_is=as_is.softmax_rounds_exponentials,
        identity="softmax",
        form="F.softmax(z, dim)",
        layout="inner",
        witness=Problem("bfloat16", {"z": np.array([[-161.0, -162.0]]), "g": np.array([[1.0, 0.5]])}),
        why="class dimension not last: the scalar tail of the kernel rounds exp(x - max) to 16 bits, then divides",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    *(
        KnownDefect(
            name=f"{operation}-skipped-folds",
            operation=f"{operation}_forward",
            formats=("float64", "float32", "bfloat16", "float16"),
            as_is=as_is.nll_loss_skips_folds,
            identity="cross_entropy_many_rows",
            form=form,
            layout="contiguous",
            witness=_equal_rows("bfloat16", 1024, ignored=2),
            why="an ignored row skips the fold of the cascade sum that falls on it: where every second row, or every "
            "16th (the first of each sequence, say), is ignored, the sum is sequential: bfloat16 stops at 256 rows' "
            "worth of loss, 0.5 instead of 0.693 here, 0.0078 with 65536 rows; float32 is 0.5 % off with 2**20 rows, "
            "every 16th ignored",
            link="",
            modes=("eager",),
            seen=SEEN,
        )
        for operation, form in (("nll_loss", "F.cross_entropy"), ("nll_loss2d", "(N, C, d1, d2)"))
    ),
    *(
        KnownDefect(
            name=f"{operation}-float16-total",
            operation=f"{operation}_forward",
            formats=("float16",),
            as_is=as_is.nll_loss_loses_weight,
            identity="cross_entropy_many_rows",
            form=form,
            layout="contiguous",
            witness=_equal_rows("float16", 2, weight=np.full(2, 60000.0), logits=(4.0, 0.0)),
            why="the number of rows, or their total weight, is kept in float16, where 65520 is inf: the mean (of 65520 "
            "rows without weights, say) and its gradient are exactly zero",
            link="https://github.com/pytorch/pytorch/issues/85791",
            modes=("eager",),
            seen=SEEN,
        )
        for operation, form in (("nll_loss", "F.cross_entropy"), ("nll_loss2d", "(N, C, d1, d2)"))
    ),
    *(
        KnownDefect(
            name=f"{operation}-piece-by-piece",
            operation=operation,
            formats=("float64", "float32"),
            as_is=as_is.sum_in_order,
            identity="binary_cross_entropy_large_batch",
            form="the padding of a batch cut off",
            layout="contiguous",
            witness=_equal_scalars(reduction=operation),
            why="the cascade covers numbers that lie evenly in memory; of a slice or of an expanded tensor, each piece "
            "is added to the result, one after the other: torch.ones(2**23, 4)[:, :3].mean() is 1.11 in float32",
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
        as_is=as_is.sigmoid_backward_in_storage,
        identity="sigmoid",
        form="torch.sigmoid(z)",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([-0.25]), "g": np.array([1.0625])}),
        why="float16: 1 - y and g (1 - y) are rounded to storage; bfloat16 and tanh's backward compute in float32",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="logit-16bit-steps",
        operation="logit",
        formats=("bfloat16", "float16"),
        as_is=as_is.logit_in_storage,
        identity="binary_cross_entropy_soft",
        form="F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([0.06719970703125]), "t": np.array([0.0]), "g": np.array([1.0])}),
        why="1 - x and x / (1 - x) are rounded to 16 bits before the logarithm: next to 1/2 a half is lost, and the "
        "gradient of binary_cross_entropy by its target is this",
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
            form=f"torch.{operation}(z)",
            layout="contiguous",
            witness=Problem("float16", {"z": np.array([z]), "g": np.array([g])}),
            why=f"every step of {formula} is rounded to 16 bits, where the CPU computes in float32 (but for sigmoid in "
            "float16): errors of 1.5 units in the last place",
            link=link,
            devices=("cuda",),
            seen=("2.11.0",),
        )
        for operation, rule, formula, z, g, link in (
            ("sigmoid", as_is.sigmoid_backward_in_storage, "g (1 - y) y", -0.37451171875, 1.4658203125, ""),
            (
                "tanh",
                as_is.tanh_backward_in_storage,
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
        as_is=as_is.softmax_backward_rounds_products,
        identity="softmax",
        form="F.softmax(z, dim)",
        layout="contiguous",
        witness=Problem("bfloat16", {"z": np.array([[-45.5, 45.5]]), "g": np.array([[-0.87109375, -1.125]])}),
        why="grad * output is stored in 16 bits before it is added up (cuda/SoftMax.cu), and then the sum is taken "
        "from it: gradients that cancel lose what the CPU, in float32, keeps",
        link="",
        devices=("cuda",),
        seen=("2.11.0",),
    ),
    KnownDefect(
        name="nll_loss2d-16bit-blocks-cuda",
        operation="nll_loss2d_forward",
        formats=("bfloat16", "float16"),
        as_is=as_is.nll_loss2d_adds_blocks_in_storage,
        identity="cross_entropy_many_rows",
        form="(N, C, d1, d2)",
        layout="contiguous",
        witness=_equal_rows("bfloat16", 65520),
        why="every block of threads adds its part of the loss and of the number of rows to totals of 16 bits: with "
        "thousands of short sequences they stop growing, and the gradient of the mean over 5,460 of 12 is 16 times too "
        "large in bfloat16",
        link="https://github.com/pytorch/pytorch/issues/61523",
        devices=("cuda",),
        seen=("2.11.0",),
    ),
    KnownDefect(
        name="nll_loss-float16-total-cuda",
        operation="nll_loss_forward",
        formats=("float16",),
        as_is=as_is.nll_loss_total_in_float16,
        identity="cross_entropy_many_rows",
        form="F.cross_entropy",
        layout="contiguous",
        witness=_equal_rows("float16", 2, weight=np.full(2, 60000.0), logits=(4.0, 0.0)),
        why="the number of rows, or their total weight, is kept in float16 for the backward pass, where 65520 is inf: "
        "the loss is right and its gradient exactly zero",
        link="https://github.com/pytorch/pytorch/issues/85791",
        devices=("cuda",),
        modes=("eager",),
        seen=("2.11.0",),
    ),
    KnownDefect(
        name="distributions-clamp-probabilities",
        operation="clamp",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=as_is.clamp_moves_its_input,
        identity="bernoulli_nll",
        form="-torch.distributions.Bernoulli(p).log_prob(t)",
        layout="contiguous",
        witness=Problem("float32", {"p": np.array([2.0**-24]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="torch.distributions moves probabilities into [eps, 1 - eps] before the logarithm: 15.94 instead of 16.64",
        link="https://github.com/pytorch/pytorch/issues/186825",
        devices=("cpu", "cuda"),
        seen=SEEN,
        within="torch.distributions",
    ),
    KnownDefect(
        name="bce-backward-floor",
        operation="binary_cross_entropy_backward",
        formats=("float64", "float32", "bfloat16"),
        as_is=as_is.bce_backward_with_floor,
        identity="binary_cross_entropy",
        form="F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')",
        layout="contiguous",
        witness=Problem("float32", {"z": np.array([-50.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="the gradient divides by max(x (1 - x), 1e-12): -1.9e-10 instead of -1 for a confidently wrong row",
        link="https://github.com/pytorch/pytorch/issues/103316",
        devices=("cpu", "cuda"),
        seen=SEEN,
    ),
    KnownDefect(
        name="bce-backward-float16-nan",
        operation="binary_cross_entropy_backward",
        formats=("float16",),
        as_is=as_is.bce_backward_with_floor,
        identity="binary_cross_entropy",
        form="F.binary_cross_entropy(torch.sigmoid(z), t, reduction='none')",
        layout="contiguous",
        witness=Problem("float16", {"z": np.array([9.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="the floor 1e-12 is 0 in float16: the gradient of a confidently right row is 0 / 0 = nan",
        link="",
        devices=("cpu", "cuda"),
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="soft-margin-backward-compiled",
        operation="soft_margin_loss_backward",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=as_is.soft_margin_backward_by_difference,
        identity="soft_margin_loss",
        form="F.soft_margin_loss(z, t, reduction='none')",
        layout="contiguous",
        witness=Problem("float32", {"z": np.array([20.0]), "t": np.array([1.0]), "g": np.array([1.0])}),
        why="compiled, the gradient is t g (sigmoid(t z) - 1): 0 instead of -2e-9, which eager code gets right",
        link="",
        modes=("compiled",),
        seen=SEEN,
    ),
    KnownDefect(
        name="expm1-compiled-difference",
        operation="expm1",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=as_is.expm1_by_difference,
        identity="tanh",
        form="torch.expm1(2 * z) / (torch.expm1(2 * z) + 2)",
        layout="contiguous",
        witness=Problem("float32", {"z": np.full(16, 2.0**-34), "slope": 0.0, "g": np.ones(16)}),
        why="compiled, expm1 of eight numbers and more is exp(x) - 1, which is 0 for what is far below 1",
        link="https://github.com/pytorch/pytorch/issues/189803",
        modes=("compiled",),
        seen=("2.8.0", "2.13.0"),
        fixed="2.14.1",
    ),
    KnownDefect(
        name="adam-compiled-float32-correction",
        operation="_local_scalar_dense",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=as_is.number_stays_in_its_tensor,
        identity="adam_step",
        form="Adam()",
        layout="contiguous",
        witness=Problem("float32", {**_STEP, "beta2": 0.999}),
        why="compiled, the step count stays a float32 tensor, and with it 1 - beta**t and lr / (1 - beta**t): with the "
        "usual 0.999 the first step is 6.4e-6 too small, of float64 parameters as well",
        link="https://github.com/pytorch/pytorch/pull/88173",
        modes=("compiled",),
        seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
        within="torch.optim.Adam",
    ),
    *(
        KnownDefect(
            name=f"fused-{name}-strides",
            operation=operation,
            formats=("float64", "float32", "bfloat16", "float16"),
            as_is=as_is.fused_ignores_strides,
            identity=f"{name}_step",
            form=f"{optimizer}(fused=True)",
            layout="strided",
            witness=Problem("float32", _STEP),
            why="parameters, gradients and state are taken for contiguous: of every second number of a vector, half is "
            "left as it was and as many numbers outside are overwritten (CUDA refuses such parameters)",
            link="",
            modes=("eager",),
            seen=SEEN,
        )
        for name, optimizer, operation in (
            ("sgd", "SGD", "_fused_sgd"),
            ("adam", "Adam", "_fused_adam"),
            ("adamw", "AdamW", "_fused_adamw"),
        )
    ),
    KnownDefect(
        name="foreach_mul-16bit-number",
        operation="_foreach_mul",
        formats=("bfloat16", "float16"),
        as_is=as_is.foreach_mul_rounds_its_number,
        identity="sgd_momentum_step",
        form="SGD(foreach=True)",
        layout="contiguous",
        witness=Problem(
            "float16",
            {
                **_STEP,
                "w": np.array([0.0]),
                "d": np.array([-0.004535675048828125]),
                "m": np.array([0.0045166015625]),
                "momentum": 0.9,
                "first": False,
            },
        ),
        why="torch._foreach_mul_(tensors, 0.9) rounds 0.9 to 16 bits, tensor.mul_(0.9) does not: mul_ makes a C++ "
        "number the first operand, and the kernel takes only the second one in float32; one rounding more for the "
        "moments of SGD and Adam with foreach=True (0.999 is 1 in bfloat16)",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="fused-sgd-16bit-blocks",
        operation="_fused_sgd",
        formats=("bfloat16", "float16"),
        as_is=as_is.fused_sgd_skips_blocks,
        identity="sgd_step",
        form="SGD(fused=True)",
        layout="contiguous",
        witness=Problem("bfloat16", {**_STEP, **dict.fromkeys(("w", "d", "m"), np.ones(64))}),
        why="the vector body of the 16-bit kernel never stores the parameters: only the last few numbers are trained",
        link="https://github.com/pytorch/pytorch/issues/191763",
        modes=("eager",),
        seen=("2.8.0", "2.11.0", "2.13.0"),
        fixed="2.14",
    ),
)
