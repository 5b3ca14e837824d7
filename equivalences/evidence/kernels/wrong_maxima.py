"""Two passes over the classes, of which the first finds another number than the maximum."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Rows, fused


def relative_to(top: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Rows]:
    """Exponentials relative to a number of each row, which only if it is near the maximum keeps them in range."""

    def over(x: Tensor) -> Rows:
        shift = top(x)
        return Rows(shift, torch.exp(x - shift[:, None]).sum(1))

    return over


def _middle(x: Tensor, block: int) -> Tensor:
    blocks = x.split(block, 1)
    return torch.amax(blocks[len(blocks) // 2], 1)


def _of_row_before(x: Tensor) -> Tensor:
    """The maximum of a register that is read before it is written."""
    return x.amax(1).roll(1)


def _warps(x: Tensor) -> Tensor:
    """Thirty-two lanes of a warp of which the shuffle leaves out the upper half."""
    lanes = torch.arange(x.shape[1], device=x.device) % 32 < 16
    return x[:, lanes].amax(1)


def _bytes(x: Tensor) -> Tensor:
    return x.amax(1).clamp(-128, 127).round()


# name, what stands for the maximum, what is wrong
_SHIFTS: tuple[tuple[str, Callable[[Tensor], Tensor], str], ...] = (
    ("shift by the first 32", lambda x: x[:, :32].amax(1), "the maximum is that of the first 32 classes"),
    ("shift by the first 128", lambda x: x[:, :128].amax(1), "the maximum is that of the first 128 classes"),
    ("shift by the first 1024", lambda x: x[:, :1024].amax(1), "the maximum is that of the first 1024 classes"),
    ("shift by the first 4096", lambda x: x[:, :4096].amax(1), "the maximum is that of the first 4096 classes"),
    ("shift by the first 32768", lambda x: x[:, :32_768].amax(1), "the maximum is that of the first 32,768 classes"),
    ("shift by the last 128", lambda x: x[:, -128:].amax(1), "the maximum is that of the last 128 classes"),
    ("shift by the last 4096", lambda x: x[:, -4096:].amax(1), "the maximum is that of the last 4096 classes"),
    ("shift by the last block of 1024", lambda x: x.split(1024, 1)[-1].amax(1), "each block overwrites the maximum"),
    ("shift by a middle block of 256", lambda x: _middle(x, 256), "the maximum is that of one block in the middle"),
    ("shift by a middle block of 8192", lambda x: _middle(x, 8192), "the maximum is that of one block in the middle"),
    ("shift by every second class", lambda x: x[:, ::2].amax(1), "odd classes are left out of the maximum"),
    ("shift by every fourth class", lambda x: x[:, ::4].amax(1), "three of four classes are left out of the maximum"),
    ("shift by every 64th class", lambda x: x[:, ::64].amax(1), "the maximum is one of a sample"),
    ("shift by a half warp", _warps, "a warp's reduction leaves out lanes 16 to 31"),
    ("shift without the last class", lambda x: x[:, : max(1, x.shape[1] - 1)].amax(1), "the last class is left out"),
    ("shift without the first class", lambda x: x[:, 1:].amax(1) if x.shape[1] > 1 else x[:, 0],
     "the first class is left out of the maximum"),
    ("shift by class 0", lambda x: x[:, 0], "the first logit stands for the maximum"),
    ("shift by the last class", lambda x: x[:, -1], "the last logit stands for the maximum"),
    ("shift by the batch's maximum", lambda x: x.amax().expand(len(x)),
     "one maximum for all rows: a row far below it underflows"),
    ("shift by the batch's maximum in tiles of 4 rows", lambda x: torch.cat(
        [part.amax().expand(len(part)) for part in x.split(4)]), "one maximum for a tile of rows"),
    ("shift by the row before", _of_row_before, "each row is shifted by the maximum of the row before it"),
    ("shift by the mean", lambda x: x.mean(1), "the mean stands for the maximum"),
    ("shift by the minimum", lambda x: x.amin(1), "the minimum stands for the maximum"),
    ("shift by the middle of the range", lambda x: (x.amax(1) + x.amin(1)) / 2, "exp is relative to the middle"),
    ("shift by the largest size", lambda x: x.abs().amax(1), "the maximum of |z|: negative rows underflow"),
    ("shift that starts at 0", lambda x: x.amax(1).clamp(min=0), "rows far below 0 underflow"),
    ("shift that starts at -100", lambda x: x.amax(1).clamp(min=-100), "rows below -100 underflow"),
    ("shift that starts at -10000", lambda x: x.amax(1).clamp(min=-1e4), "rows below -10,000 underflow"),
    ("shift of one byte", _bytes, "the maximum is quantised to int8"),
    ("shift of half a maximum", lambda x: x.amax(1) / 2, "half of the maximum is taken off"),
)  # fmt: skip

KERNELS = (
    *(Kernel(name, partial(fused, relative_to(top)), wrong=what) for name, top, what in _SHIFTS),
    Kernel("shift by the maximum in float16", lambda: fused(relative_to(lambda x: x.amax(1).half().to(x.dtype))),
           wrong="the maximum is stored in float16: inf from 65,520 on",
           formats=("float64", "float32", "bfloat16")),
    Kernel("shift that starts at -65504", lambda: fused(relative_to(lambda x: x.amax(1).clamp(min=-65_504.0))),
           wrong="the maximum starts at float16's lowest number: rows below it underflow",
           formats=("float64", "float32", "bfloat16")),
    Kernel("shift by an integer", lambda: fused(relative_to(lambda x: x.amax(1).clamp(-32_768, 32_767).ceil())),
           wrong="the maximum is kept in 16 bits as an integer: logits beyond 32,767 overflow"),
)  # fmt: skip
