"""The shadows of one run: for each tensor its exact value and an error bound, kept by storage and view geometry.

A shadow belongs to a storage, not to a Python object.  A view therefore shares its base's shadow, and writing in place
through either changes both.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from equivalences.model import Array
from equivalences.rounding.arrays import doubtful, numbers, spread, sure
from equivalences.rounding.coefficients import Book, Coefficient


class Shadow(NamedTuple):
    """The exact value `v` and the bound `e` on |computed - v|, float64 arrays of the tensor's shape (or spread to it).

    `e` is inf where the analysis gives no bound: an overflow, a pole, a branch that rounding may have decided.
    """

    v: Array
    e: Array


class Untracked(RuntimeError):
    """A bound was lost: an operation has no rule, or a tensor was never declared."""


Geometry = tuple[torch.Size, tuple[int, ...], Any]


def _geometry(tensor: Tensor) -> Geometry:
    return tensor.size(), tensor.stride(), tensor.storage_offset()


def _view(whole: Array, geometry: Geometry) -> Array:
    """What a tensor of this geometry shows of its storage's shadow."""
    size, stride, offset = geometry
    if 0 in size:
        return np.empty(size)
    return np.ndarray(size, whole.dtype, whole, 8 * offset, [8 * step for step in stride])


@dataclass(slots=True)
class _Stored:
    storage: torch.UntypedStorage  # kept alive: its address is the key
    dtype: torch.dtype  # of the numbers
    v: Array  # as the numbers lie in the storage, contiguous, in the shape of `whole` if there is one
    e: Array
    whole: Geometry | None  # of a tensor that covers the storage


def _other(tensor: Tensor, stored: _Stored, geometry: Geometry) -> Shadow:
    """Bits that were written as numbers of another type: what stands there, unless rounding may have changed them."""
    v = numbers(tensor)
    alike = tensor.element_size() == stored.dtype.itemsize
    return Shadow(v, spread(doubtful(_view(stored.e, geometry) if alike else stored.e.any()), v.shape))


class Shadows:
    """The shadows of the tensors of one run, and the errors of its Python numbers (`coefficients`).

    `constants` are the bits of what was neither declared nor computed, in the order in which it came in.
    """

    def __init__(self) -> None:
        self._stored: dict[int, _Stored] = {}
        self.coefficients = Book()  # Python floats known to be inexact, and by how much
        self.constants: list[bytes] = []

    def coefficient(self, number: float) -> Coefficient:
        """An exact option of the problem, as a float whose arithmetic in Python is followed."""
        return Coefficient(number, self.coefficients)

    def known(self, tensor: Tensor) -> bool:
        """Whether the tensor's storage has a shadow."""
        return tensor.untyped_storage()._cdata in self._stored

    def certain(self, tensor: Tensor) -> bool:
        """Whether it is known, to the last bit, what stands in the tensor's storage."""
        stored = self._stored.get(tensor.untyped_storage()._cdata)
        return not (tensor.is_floating_point() if stored is None else stored.e.any())

    def take(self, tensor: Tensor) -> None:
        """Says that `tensor` came in from elsewhere: a constant, exact as it stands there."""
        self.declare(tensor)
        self.constants.append(numbers(tensor).tobytes())

    def declare(self, tensor: Tensor) -> Tensor:
        """Says that `tensor` holds exact data: an input or a constant."""
        if not tensor.is_floating_point():
            return tensor  # integers and booleans are exact until a comparison says otherwise
        self.write(tensor, Shadow(numbers(tensor), np.zeros(())))
        return tensor

    def read(self, tensor: Tensor) -> Shadow:
        """The shadow of a tensor.  Raises Untracked for floating-point data that was never declared or computed."""
        stored = self._stored.get(tensor.untyped_storage()._cdata)
        if stored is None:
            if tensor.is_floating_point():
                raise Untracked(
                    f"a {tuple(tensor.shape)} {tensor.dtype} tensor has no error bound: make it an item of the problem "
                    "or build it from exact constants inside the form"
                )
            v = numbers(tensor)
            return Shadow(v, np.zeros(v.shape))
        geometry = _geometry(tensor)
        if tensor.dtype != stored.dtype:
            return _other(tensor, stored, geometry)
        if geometry == stored.whole:
            return Shadow(stored.v, stored.e)
        return Shadow(_view(stored.v, geometry), _view(stored.e, geometry))

    def write(self, tensor: Tensor, shadow: Shadow) -> None:
        """Says that `tensor` has been written, and with what."""
        v, e = shadow
        storage, geometry = tensor.untyped_storage(), _geometry(tensor)
        stored = self._stored.get(storage._cdata)
        if stored is None and not tensor.is_floating_point() and not np.any(e):
            return
        v, e = spread(v, geometry[0]), spread(sure(v, e), geometry[0])
        if stored is not None and tensor.dtype != stored.dtype:
            if tensor.numel() * tensor.element_size() < storage.nbytes():  # a part, in other numbers: none is known now
                stored.e = np.full_like(stored.e, math.inf)
                return
            stored = None
        if stored is None:
            whole = tensor.is_contiguous() and tensor.numel() * tensor.element_size() == storage.nbytes()
        else:
            whole = geometry == stored.whole
        if whole:
            self._stored[storage._cdata] = _Stored(
                storage, tensor.dtype, np.asarray(v, order="C"), np.asarray(e, order="C"), geometry
            )
            return
        if stored is None:
            size = storage.nbytes() // tensor.element_size()
            stored = _Stored(storage, tensor.dtype, np.zeros(size), np.full(size, math.inf), None)
            self._stored[storage._cdata] = stored
        else:  # a stored shadow may be shared with the one it was copied from
            stored.v, stored.e = stored.v.copy(), stored.e.copy()
        once = tuple(slice(0, 1 if stride == 0 else None) for stride in geometry[1])  # an expanded axis: one entry
        _view(stored.v, geometry)[once] = v[once]
        _view(stored.e, geometry)[once] = e[once]
