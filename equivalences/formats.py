"""Floating-point formats: unit roundoff, range, spacing, and exact conversion into a format.

The only module, beside `rounding`, in which a number may look like a tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # torch takes seconds to load, and is needed for a dtype only
    import torch


@dataclass(frozen=True)
class Format:
    """A binary floating-point format: `precision` significant bits (hidden bit included), exponent range, dtype."""

    name: str
    precision: int
    max_exponent: int  # largest e with 2**e finite
    min_exponent: int  # smallest e with 2**e normal

    @cached_property
    def dtype(self) -> torch.dtype:
        import torch

        dtype = getattr(torch, self.name)
        assert isinstance(dtype, torch.dtype)
        return dtype

    @property
    def u(self) -> float:
        """Unit roundoff, 2**-precision (Higham 2002, sec. 2.1)."""
        return 2.0**-self.precision

    @property
    def eta(self) -> float:
        """Smallest positive subnormal."""
        return 2.0 ** (self.min_exponent - self.precision + 1)

    @property
    def tiny(self) -> float:
        """Smallest positive normal number."""
        return 2.0**self.min_exponent

    @property
    def max(self) -> float:
        """Largest finite number."""
        return float((2.0 - 2.0 ** (1 - self.precision)) * 2.0**self.max_exponent)


FORMATS = {
    f.name: f
    for f in (
        Format("float64", 53, 1023, -1022),
        Format("float32", 24, 127, -126),
        Format("bfloat16", 8, 127, -126),
        Format("float16", 11, 15, -14),
    )
}


def of(dtype: torch.dtype) -> Format:
    """The format of a torch floating dtype.  Raises KeyError for any other dtype."""
    return FORMATS[str(dtype).removeprefix("torch.")]


def every_finite(fmt: Format) -> npt.NDArray[np.float64]:
    """Every finite number of a 16-bit format, zeros of both signs among them.  Raises ValueError for a wider format."""
    if fmt.dtype.itemsize != 2:
        raise ValueError(f"{fmt.name} has too many numbers to list")
    import torch

    patterns = torch.arange(2**16, dtype=torch.int32).to(torch.uint16).view(fmt.dtype).double()
    return np.asarray(patterns[patterns.isfinite()].numpy())


def ulp(values: npt.NDArray[np.float64], fmt: Format) -> npt.NDArray[np.float64]:
    """Spacing of `fmt` at |values| (the spacing just above a power of two; the subnormal spacing near zero)."""
    _, exponent = np.frexp(np.abs(values))
    spacing = np.ldexp(1.0, np.maximum(exponent - fmt.precision, fmt.min_exponent - fmt.precision + 1))
    return np.asarray(np.where(np.isfinite(values), spacing, np.nan), dtype=np.float64)


def truncate(values: npt.ArrayLike, fmt: Format) -> npt.NDArray[np.float64]:
    """The numbers of `fmt` nearest to `values` towards zero: every result is exact in `fmt`, none overflows.

    Truncation, not rounding, keeps a drawn structure (ties, order, signs) and never leaves the finite range.
    """
    x = np.asarray(values, dtype=np.float64)
    if fmt.name == "float64":
        return np.array(x)
    _, exponent = np.frexp(x)
    step = np.maximum(exponent - fmt.precision, fmt.min_exponent - fmt.precision + 1)
    return np.asarray(np.clip(np.ldexp(np.trunc(np.ldexp(x, -step)), step), -fmt.max, fmt.max))
