"""What the analysis assumes of elementary functions and sums, for each device, each with its source.

These are the only numbers in the analysis that are not derived.  The exhaustive sweeps and every float64 judgement
against balls check them on the machine at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Assumptions:
    """Largest error of an elementary function in ULP of its result, and how sums are ordered, on one device."""

    ulps: Mapping[str, float]
    source: str
    vectors: bool = False  # sums are those of aten/.../cpu/SumKernel.cpp and aten/.../cpu/vec/functional.h

    def relative(self, function: str, u: float) -> float:
        """Bound on the relative error of `function` in a format of unit roundoff `u`: k ulp(y) <= 2 k u |y|."""
        return 2.0 * self.ulps[function] * u

    def sum_height(self, n: int) -> int:
        """Largest number of additions on the way of one term into a sum of n: any order has at most n - 1."""
        return max(n - 1, 0)

    def at_sum_height(self, n: int, threads: int) -> int:
        """The same for at::sum over n numbers that lie evenly in memory, in `threads` parts (each at least 32768)."""
        if not self.vectors:
            return self.sum_height(n)
        return min(self.sum_height(n), max(at_sum_height(n, lanes) for lanes in (1, *_VECTORS)) + threads)

    def row_height(self, n: int, wide: bool) -> int:
        """The same for a row inside a kernel (vec::map_reduce_all): lane by lane, then the lanes; `wide`: float64."""
        if not self.vectors:
            return self.sum_height(n)
        return min(
            self.sum_height(n), max(-(-n // lanes) + lanes for lanes in (_VECTORS[:3] if wide else _VECTORS[1:4]))
        )

    def nll_height(self, n: int) -> int:
        """The same for the total of nll_loss, in the storage format: a cascade on the CPU.

        Elsewhere any order (cuda/NLLLoss2d.cu adds the totals of blocks atomically, in the storage format; Loss.cu is
        better than that in 16 bits, which adds in float32).
        """
        return cascade_height(n) if self.vectors else self.sum_height(n)


_VECTORS = (2, 4, 8, 16, 32)  # numbers a vector: of 128 to 512 bits, float64 to 16 bits


def at_sum_height(n: int, lanes: int) -> int:
    """Additions on the way of a term of at::sum in one thread, in vectors of `lanes` numbers (aten/.../SumKernel.cpp).

    Four sums side by side, each a cascade of four levels; the last level takes whatever is left.  Then the levels, the
    vectors over, the four sums, the lanes and the numbers over, one after the other (first the two halves of a
    16-bit vector).
    """
    size = n // lanes // 4
    step = 2 ** max(4, (size - 1).bit_length() // 4) if size > 1 else 16
    height, left = 0, size
    for level in range(4):
        height += min(left, step) if level < 3 else left
        left = -(-left // step)
    return height + 3 + 3 + 3 + 2 * lanes + 1


def cascade_height(n: int) -> int:
    """Additions that round a term on its way through ATen's cascade sum of 8 levels (aten/.../native/LossNLL.cpp).

    Level 0 takes 2**q terms before it is folded into level 1, and so on; at the end the levels are added up.  Adding
    to an empty level is exact.
    """
    step = 2 ** cascade_power(n)
    height, level, left = 0, 0, n
    while left > 1:
        height += (min(left, step) if level < 7 else left) - 1
        left, level = left // step + 1 if left > step else 1, level + 1
    return max(0, min(n - 1, height + level))


def cascade_power(n: int) -> int:
    """The logarithm, to base 2, of how many terms of a cascade sum of `n` a level takes."""
    return max(4, math.ceil(math.log2(max(n, 1))) // 8)


_DEVICES = {
    "cpu": Assumptions(
        MappingProxyType(
            {
                # SLEEF promises 1.0 ULP for the *_u10 functions that ATen's vector classes call
                # (https://sleef.org/purec.xhtml); MKL's VML in high-accuracy mode promises below 1.  Measured over all
                # 2**32 float32 inputs on torch 2.13: exp .986, log .549, log1p 1.000, tanh .569.
                "exp": 1.0,
                "log": 1.0,
                "log1p": 1.0,
                "expm1": 1.0,
                "tanh": 1.0,
                "sqrt": 0.5,  # IEEE 754 requires correct rounding
                "pow": 1.0,
            }
        ),
        "SLEEF 3 documentation, purec (u10 functions); Intel oneMKL VML accuracy (HA)",
        vectors=True,
    ),
    "cuda": Assumptions(
        MappingProxyType(
            {
                # CUDA C++ Programming Guide, mathematical functions appendix, single precision without fast-math:
                # expf 2 (1 from CUDA 12 on), logf 1, log1pf 1, expm1f 1, tanhf 2, powf 4; sqrt correctly rounded.
                "exp": 2.0,
                "log": 1.0,
                "log1p": 1.0,
                "expm1": 1.0,
                "tanh": 2.0,
                "sqrt": 0.5,
                "pow": 4.0,
            }
        ),
        "CUDA C++ Programming Guide, Mathematical Functions, maximum ULP error",
    ),
}


def assumptions(device: str) -> Assumptions:
    """The assumptions for a device type ("cpu", "cuda", ...); an unlisted accelerator is held to the CPU's."""
    return _DEVICES.get(device.partition(":")[0], _DEVICES["cpu"])
