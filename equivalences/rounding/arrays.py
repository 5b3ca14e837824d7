"""NumPy arrays for shadows: the analysis computes with none of the kernels that it is there to judge.

NumPy's float64 functions are within the bounds that `assumptions` grants to kernels (measured against balls in
tests/library/test_rounding.py), and its pairwise sums form a lower tree than that of any kernel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivalences.model import Array

NOTHING: Any = np.float64(0.0)  # the bound of an exact number
FEW = 8  # below, NumPy adds up a row from left to right


def numbers(tensor: Tensor) -> Array:
    """A copy of what stands in a tensor, in float64."""
    found: Array = tensor.detach().to("cpu", torch.float64, copy=True).numpy()
    return found


def as_array(tensor: Tensor) -> Array:
    """Indices or masks, as they are."""
    found: Array = tensor.detach().cpu().numpy()
    return found


def as_tensor(x: Array) -> Tensor:
    """An array for an operation of torch that moves data, and does not write into it."""
    x = np.asarray(x)
    return torch.from_numpy(x if x.flags.writeable else x.copy())


@lru_cache(maxsize=4096)
def held(number: float, dtype: torch.dtype) -> float:
    """A Python number as a format takes it in."""
    return float(torch.tensor(number, dtype=dtype))


def unbounded(e: Array, where: Any) -> Array:
    """`e`, with inf (no bound) where the mask holds."""
    return np.where(where, math.inf, e)


def sure(v: Array, e: Array) -> Array:
    """`e`, with inf (no bound) where `v` is nan or inexactly infinite, or `e` is nan."""
    if np.logical_and.reduce(np.isfinite(v) & (e < math.inf), axis=None):  # nearly always: cheap
        return e
    return np.where((np.isfinite(v) | (np.isinf(v) & (e == 0))) & (e < math.inf), e, math.inf)


def doubtful(where: Any) -> Array:
    """inf (no bound) where the mask holds, 0 (exact) elsewhere."""
    return np.where(where, math.inf, 0.0)


def spread(x: Array, shape: tuple[int, ...]) -> Array:
    """An array in the shape of a larger one."""
    return x if x.shape == shape else np.broadcast_to(x, shape)


def add_up(x: Array, dims: Sequence[int] | None = None, keepdim: bool = False) -> Array:
    """A pairwise sum over `dims` (None: all): NumPy itself adds in pairs only along numbers adjacent in memory."""
    if dims is None or (len(dims) == x.ndim and not keepdim):
        return np.asarray(np.ravel(x).sum())
    if len(dims) == 1 and dims[0] % x.ndim == x.ndim - 1 and x.flags.c_contiguous:
        total = fold(np.add, x, -1)
        return total if keepdim else total[..., 0]
    last = tuple(range(-len(dims), 0))
    rows = np.ascontiguousarray(np.moveaxis(x, tuple(dims), last))
    kept = rows.shape[: x.ndim - len(dims)]
    found: Array = rows.reshape(*kept, math.prod(rows.shape[len(kept) :])).sum(-1)
    return np.expand_dims(found, tuple(dims)) if keepdim else found


def fold(reduce: np.ufunc, x: Array, dim: int) -> Array:
    """A sum (`np.add`) or maximum over one axis, which stays: the bits of NumPy's own, and faster for short rows.

    NumPy takes one short row after the other; all rows at once are 8 to 20 times as fast.
    """
    if x.ndim > 1 and dim % x.ndim == x.ndim - 1 and x.shape[-1] < FEW:
        found: Array = reduce.reduce(np.ascontiguousarray(np.moveaxis(x, -1, 0)), 0)[..., None]
        return found
    return np.asarray(reduce.reduce(x, dim, keepdims=True))


def along(index: Array, dim: int) -> tuple[Array, ...]:
    """The NumPy index of the entries that `index`, along `dim`, points to (as gather and scatter read it)."""
    places = list(_places(index.shape))
    places[dim] = index
    return tuple(places)


@lru_cache(maxsize=256)
def _places(shape: tuple[int, ...]) -> tuple[Array, ...]:
    return tuple(np.ogrid[tuple(slice(size) for size in shape)]) if shape else ()


def put(x: Array, dim: int, index: Array, values: Array | float) -> Array:
    """A copy of `x` with `values` where `index`, along `dim`, points to."""
    x = np.array(x)
    x[along(index, dim)] = values
    return x
