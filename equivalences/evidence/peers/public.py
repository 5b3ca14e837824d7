"""What public judges of kernels accept, re-stated as their inputs and tolerances: data, with where each was read.

Each compares one kernel with PyTorch's own function, in the same format, on one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.evidence.kernels.kernel import Kernel
from equivalences.formats import FORMATS

Tolerance = tuple[float, float]  # relative, absolute


@dataclass(frozen=True)
class PublicJudge:
    """One batch of logits, and how far from PyTorch's a result may be.

    sizes     rows and classes.
    logits    a batch of these sizes, in float32.
    value     the tolerance of the value, by format ("": of all others).
    gradient  that of the gradient; None: no gradient is asked for.
    """

    name: str
    source: str
    sizes: tuple[int, int]
    logits: Callable[[int, int], Tensor]
    value: Mapping[str, Tolerance]
    gradient: Mapping[str, Tolerance] | None = None


# Of torch.testing.assert_close, by its documentation.
DEFAULTS: Mapping[str, Tolerance] = {
    "float64": (1e-7, 1e-7), "float32": (1.3e-6, 1e-5), "bfloat16": (1.6e-2, 1e-5), "float16": (1e-3, 1e-5),
}  # fmt: skip

JUDGES = (
    PublicJudge(
        "assert_close",
        "torch.testing.assert_close with its defaults, on randn",
        (64, 10),
        torch.randn,
        DEFAULTS,
        DEFAULTS,
    ),
    PublicJudge(
        "KernelBench", "eval.py: one shape, rand, forward only", (128, 4096), torch.rand,
        {"float32": (1e-4, 1e-4), "": (1e-2, 1e-2)},
    ),
    PublicJudge(
        "BackendBench", "its comparator: 1e-2 whatever it is given", (128, 1024), torch.rand, {"": (1e-2, 1e-2)},
    ),
    PublicJudge(
        "tritonbench", "assert_close with its defaults on randn, forward", (128, 4096), torch.randn,
        DEFAULTS,
    ),
    PublicJudge(
        "Liger", "test_cross_entropy.py: float32 1e-6 and 1e-8, 16 bits 5e-2", (64, 4096), torch.randn,
        {"float32": (1e-6, 1e-8), "": (5e-2, 1e-8)}, {"float32": (1e-6, 1e-8), "": (5e-2, 1e-8)},
    ),
    PublicJudge(
        "flash-attention", "test_cross_entropy.py: 1e-5 and 1e-6; 16-bit gradients 1e-4", (64, 4096), torch.randn,
        {"": (1e-5, 1e-6)}, {"float32": (1e-5, 1e-6), "": (1e-2, 1e-4)},
    ),
)  # fmt: skip


def functions(of: str) -> Callable[..., Tensor] | None:
    """PyTorch's own function of that name; None where no public judge has one."""
    known: dict[str, Callable[..., Tensor]] = {
        "cross_entropy": F.cross_entropy, "softmax": F.softmax, "log_softmax": F.log_softmax,
    }  # fmt: skip
    return known.get(of)


def accepts(judge: PublicJudge, kernel: Kernel, fmt: str) -> bool | None:
    """Whether a public judge accepts a kernel in a format; None where it has nothing to compare it with."""
    reference = functions(kernel.of)
    if reference is None or kernel.said.get("supports") or kernel.said.get("reduction", "mean") != "mean":
        return None
    torch.manual_seed(0)
    rows, classes = judge.sizes
    z = judge.logits(rows, classes).to(FORMATS[fmt].dtype)
    y = torch.randint(classes, (rows,))
    fn = kernel.build()
    by_label = kernel.of == "cross_entropy"

    def run(call: Callable[..., Any], named: bool) -> list[Tensor]:
        logits = z.clone().requires_grad_(judge.gradient is not None)
        value = call(logits, y) if by_label else call(z=logits, dim=1) if named else call(logits, 1)
        if judge.gradient is None:
            return [value.detach()]
        value.backward(torch.ones_like(value))
        return [value.detach(), torch.zeros_like(z) if logits.grad is None else logits.grad]

    expected = run(reference, False)
    try:
        got = run(fn, True)
    except Exception:
        return False
    tolerances = [each for each in (judge.value, judge.gradient) if each is not None]
    return all(_close(a, b, table.get(fmt) or table[""]) for a, b, table in zip(got, expected, tolerances, strict=True))


def _close(got: Tensor, expected: Tensor, tolerance: Tolerance) -> bool:
    rtol, atol = tolerance
    return got.shape == expected.shape and torch.allclose(
        got.double(), expected.double(), rtol=rtol, atol=atol, equal_nan=True
    )
