"""Height of each kernel's summation tree: the most additions that any one term passes through.

The error of a sum grows with this height (Higham 2002, 4.2), not with the number of terms.  In any order the height is
at most n - 1, but a bound of n - 1 says nothing about large batches.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

from equivalences.formats import Format


@dataclass(frozen=True)
class Sums:
    """Sums in any order: the only assumption about an unlisted accelerator.

    Each method gives the height of a summation tree.

    nll_in_storage    whether the totals of nll_loss are kept in the format of the data, not in that of the arithmetic.
    atomics_flush     whether additions to one place of memory, in float32, take subnormal numbers for zero.
    """

    nll_in_storage: bool = False
    atomics_flush: bool = False

    def flushes(self, fmt: Format) -> bool:
        """Whether additions to one place of memory take subnormal numbers of this format for zero."""
        return self.atomics_flush and fmt.name == "float32"

    def any(self, n: int) -> int:
        """Of n numbers, one after the other or in any other order."""
        return max(n - 1, 0)

    def whole(self, n: int, threads: int) -> int:
        """at::sum of n numbers that lie evenly in memory, on the CPU in `threads` parts (each at least 32768)."""
        return self.any(n)

    def row(self, n: int, wide: bool) -> int:
        """A row of n numbers, adjacent in memory, inside a kernel; `wide`: of float64."""
        return self.any(n)

    def moments(self, n: int, wide: bool) -> float:
        """Means of parts of n numbers that are merged into one; those of a loop count half (rules/moments.py)."""
        return self.any(n) + 1.0

    def nll(self, n: int, short: bool = False) -> int:
        """The total of nll_loss over n rows; `short`: of 16-bit numbers."""
        return self.any(n)

    def nll2d(self, images: int, pixels: int, short: bool = False) -> int:
        """The total of nll_loss2d over `images`, each of `pixels` numbers."""
        return self.nll(images * pixels, short)


# --- the CPU: cascades, in vectors -----------------------------------------------------------------------------------

_VECTORS = (2, 4, 8, 16, 32)  # numbers a vector: of 128 to 512 bits, float64 to 16 bits


@dataclass(frozen=True)
class Cascades(Sums):
    """The CPU (aten/src/ATen/native/cpu/SumKernel.cpp, cpu/vec/functional.h, LossNLL.cpp)."""

    nll_in_storage: bool = True

    def whole(self, n: int, threads: int) -> int:
        return min(self.any(n), max(at_sum_height(n, lanes) for lanes in (1, *_VECTORS)) + threads)

    def row(self, n: int, wide: bool) -> int:
        """vec::map_reduce_all: lane by lane, then the lanes."""
        return min(self.any(n), max(-(-n // lanes) + lanes for lanes in (_VECTORS[:3] if wide else _VECTORS[1:4])))

    def moments(self, n: int, wide: bool) -> float:
        """RowwiseMoments (cpu/moments_utils.h): 16 numbers a lane, a cascade, then the rest and the lanes in loops."""
        lanes = _VECTORS[-1]
        chunks = max(-(-n // (16 * _VECTORS[0])), 1)
        return min(self.any(n) + 1.0, 17 / 2 + (chunks - 1).bit_length() + lanes / 2 + (lanes + 1) / 2)

    def nll(self, n: int, short: bool = False) -> int:
        return cascade_height(n)


@lru_cache(maxsize=4096)
def at_sum_height(n: int, lanes: int) -> int:
    """The height of at::sum in one thread, in vectors of `lanes` numbers (aten/.../SumKernel.cpp).

    Four sums side by side are each a cascade of four levels; the last level takes the rest.  Then the levels, the
    remaining vectors, the four sums, the lanes and the remaining numbers are added one after the other (first the two
    halves of a 16-bit vector).
    """
    size = n // lanes // 4
    step = 2 ** max(4, (size - 1).bit_length() // 4) if size > 1 else 16
    height, left = 0, size
    for level in range(4):
        height += min(left, step) if level < 3 else left
        left = -(-left // step)
    return height + 3 + 3 + 3 + 2 * lanes + 1


@lru_cache(maxsize=4096)
def cascade_height(n: int) -> int:
    """The height of ATen's cascade sum of 8 levels (aten/.../native/LossNLL.cpp), counting additions that round.

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
    """log2 of the number of terms that one level of a cascade sum of `n` terms takes."""
    return max(4, math.ceil(math.log2(max(n, 1))) // 8)


@dataclass(frozen=True)
class Chunks(Cascades):
    """Compiled code on the CPU (torch/csrc/inductor/cpp_prefix.h, cascade_sum_combine): one way for every sum.

    Lane by lane, or number by number, 4096 numbers are added one after the other.  The chunks form a tree whose levels
    are added up; then come the lanes, and the threads.  16-bit data are added up in float32, but nll_loss in storage.
    """

    def _chunks(self, n: int, threads: int) -> int:
        levels = (-(-n // _CHUNK)).bit_length()
        return min(self.any(n), _CHUNK + 2 * levels + _VECTORS[-1] + threads)

    def whole(self, n: int, threads: int) -> int:
        return self._chunks(n, threads)

    def row(self, n: int, wide: bool) -> int:
        return self._chunks(n, 1)

    def nll(self, n: int, short: bool = False) -> int:
        return super().nll(n) if short else self._chunks(n, _MOST_THREADS)


_CHUNK = 4096
_MOST_THREADS = 256  # their sums are added up one after the other


# --- CUDA: threads of a block, then a tree ---------------------------------------------------------------------------

_WARP = 32  # threads; a warp, and then the warps of a block, are added up in a tree of 5 + 5 levels
_TREE = 10


@dataclass(frozen=True)
class Blocks(Sums):
    """CUDA (aten/src/ATen/native/cuda: Reduce.cuh, SoftMax.cu, PersistentSoftmax.cuh, Loss.cu, NLLLoss2d.cu)."""

    # PTX ISA, atom: add.f32 on global memory flushes subnormal inputs and results to zero.
    atomics_flush: bool = True

    def whole(self, n: int, threads: int) -> int:
        """setReduceConfig: 256 numbers a thread at most, or a 256th of all where there are very many results.

        Four sums a thread, each of vectors of four at most; a block's threads in a tree, then the blocks the same way.
        """
        thread = max(256, -(-n // 256))
        return min(self.any(n), thread + 8 + _TREE + -(-n // (256 * 256)) + _TREE)

    def row(self, n: int, wide: bool) -> int:
        """A warp at least shares a row; then a tree, or (cunn_SoftMaxForward) 32 sums of each warp, 32 of the block."""
        return min(self.any(n), -(-n // _WARP) + 2 * _WARP)

    def nll(self, n: int, short: bool = False) -> int:
        """nll_loss_forward_reduce_cuda_kernel_2d: one block of n / 16 threads (32 to 1024), then a tree."""
        threads = min(max(1 << max((n // 16).bit_length() - 1, 0), 32), 1024)
        return min(self.any(n), -(-n // threads) + _TREE)

    def nll2d(self, images: int, pixels: int, short: bool = False) -> int:
        """nll_loss2d_forward_kernel: below 256 pixels a thread, a tree, then the blocks, in any order."""
        return min(self.any(images * pixels), min(pixels, 256) + _TREE + nll2d_blocks(images, pixels))


def nll2d_blocks(images: int, pixels: int) -> int:
    """How many blocks of threads share the total of nll_loss2d (blocks_per_sample of 128 threads, of each image)."""
    return images * max(-(-pixels // 128) // 128, 1)
