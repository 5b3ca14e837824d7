"""Known defects of optimizers."""

from __future__ import annotations

from typing import Any

import numpy as np

from equivalences.findings.known_defects.releases import SEEN
from equivalences.findings.known_defects.rules import actual
from equivalences.findings.model import KnownDefect, Severity
from equivalences.model import Problem

# Two parameters at 0 with gradient 1; every state is 0, and nothing but the learning rate acts.
_STEP: dict[str, Any] = {
    **{name: np.zeros(2) for name in ("w", "m", "v", "top")}, "d": np.ones(2), "step": 0, "first": True,
    "lr": 1.0, "beta1": 0.5, "beta2": 0.5, "eps": 1e-8, "momentum": 0.5, "dampening": 0.0, "nesterov": False,
    "weight_decay": 0.0, "maximize": False,
}  # fmt: skip


OPTIMIZERS = (
    KnownDefect(
        name="adam-compiled-float32-correction",
        operation="_local_scalar_dense",
        formats=("float64", "float32", "bfloat16", "float16"),
        as_is=actual.number_stays_in_its_tensor,
        identity="adam_step",
        form="plain",
        layout="contiguous",
        witness=Problem("float32", {**_STEP, "beta2": 0.999}),
        why="compiled, the step count stays a float32 tensor, and with it 1 - beta**t and lr / (1 - beta**t): with the "
        "usual 0.999 the first step is 6.4e-6 too small, of float64 parameters as well",
        severity=Severity.DIGITS,
        off="the first step is too small by 6.6e-6 of itself, in float64 as well",
        hurts="whoever compares a compiled training with an eager one; float64 training keeps 6 digits",
        instead="optimizer.step()",
        link="https://github.com/pytorch/pytorch/pull/88173",
        modes=("compiled",),
        seen=("2.8.0", "2.13.0", "2.14.1", "2.15.0"),
        module="torch.optim.adam",
    ),
    *(
        KnownDefect(
            name=f"fused-{name}-strides",
            operation=operation,
            formats=("float64", "float32", "bfloat16", "float16"),
            as_is=actual.fused_ignores_strides,
            identity=f"{name}_step",
            form="fused",
            layout="strided",
            witness=Problem("float32", _STEP),
            why="parameters, gradients and state are taken for contiguous: of every second number of a vector, half is "
            "left as it was and as many numbers outside are overwritten (CUDA refuses such parameters)",
            severity=Severity.SERIOUS,
            off="half of the parameters do not move, and as many numbers outside are overwritten",
            hurts="whoever trains a slice or a transposed view",
            instead="foreach=True",
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
        as_is=actual.foreach_mul_rounds_its_number,
        identity="sgd_momentum_step",
        form="foreach",
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
        severity=Severity.LAST_DIGITS,
        off="0.91797 instead of 0.92188 for 1.0234 times 0.9 in bfloat16: one unit in the last place",
        hurts="moments of SGD and Adam with foreach=True in 16 bits",
        instead="foreach=False",
        link="",
        modes=("eager",),
        seen=SEEN,
    ),
    KnownDefect(
        name="fused-sgd-16bit-blocks",
        operation="_fused_sgd",
        formats=("bfloat16", "float16"),
        as_is=actual.fused_sgd_skips_blocks,
        identity="sgd_step",
        form="fused",
        layout="contiguous",
        witness=Problem("bfloat16", {**_STEP, **dict.fromkeys(("w", "d", "m"), np.ones(64))}),
        why="the vector body of the 16-bit kernel never stores the parameters: only the last few numbers are trained",
        severity=Severity.SERIOUS,
        off="96 of 100 parameters do not move at all",
        hurts="16-bit training with SGD(fused=True)",
        instead="foreach=True",
        link="https://github.com/pytorch/pytorch/issues/191763",
        modes=("eager",),
        seen=("2.8.0", "2.11.0", "2.13.0"),
        fixed="2.14",
    ),
)
