"""Right kernels: Triton's, forward and backward, which run without a GPU by its interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from equivalences.evidence.kernels.idioms import applied
from equivalences.evidence.kernels.kernel import Kernel


def one_block() -> Callable[..., Any]:
    from equivalences.evidence.kernels.right_triton_jit import OneBlock

    made: Callable[..., Any] = applied(OneBlock)
    return made


def online(block: int) -> Callable[[], Callable[..., Any]]:
    def build() -> Callable[..., Any]:
        from equivalences.evidence.kernels.right_triton_jit import Online

        def loss(logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
            rows: Tensor = applied(Online)(logits, target, ignore_index, block)
            return (rows.sum() / (target != ignore_index).sum()).to(logits.dtype)

        return loss

    return build


def softmax() -> Callable[..., Any]:
    from equivalences.evidence.kernels.right_triton_jit import Softmax

    def rows(z: Tensor, dim: int) -> Any:
        return applied(Softmax)(z, dim)

    return rows


def binary() -> Callable[..., Any]:
    from equivalences.evidence.kernels.right_triton_jit import Binary

    def loss(z: Tensor, t: Tensor) -> Any:
        return applied(Binary)(z, t)

    return loss


WIDE = ("float32",)  # the interpreter has no bfloat16
# A millisecond a row, interpreted.
FEW: dict[str, Any] = {"many_rows": False, "layouts": ("contiguous", "strided")}

TRITON: tuple[Kernel, ...] = (
    Kernel("Triton, a row in one block", one_block, formats=WIDE, said=FEW, seen_in="Liger-Kernel, Triton tutorials"),
    Kernel(
        "Triton, online in blocks of 1024", online(1024), formats=WIDE, seen_in="flash-attention, unsloth",
        said={**FEW, "supports": ("ignore_index",)},
    ),
    Kernel(
        "Triton, softmax by exp2", softmax, "softmax", formats=WIDE, said={"layouts": ("contiguous",)},
        seen_in="Triton tutorials",
    ),
    Kernel(
        "Triton, BCE with its derivative", binary, "binary_cross_entropy_with_logits", formats=WIDE,
        said={**FEW, "supports": ("soft_targets",), "reduction": "none"}, seen_in="fused classifier heads",
    ),
)  # fmt: skip
