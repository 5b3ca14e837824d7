"""What the analysis assumes of each device's kernels, each assumption with its source.

The ULP of elementary functions are the only numbers in the analysis that are not derived.  The exhaustive sweeps, and
every float64 judgement against balls, check them on the machine at hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from types import MappingProxyType

import torch
from torch.torch_version import TorchVersion

from equivalences import devices
from equivalences.rounding.summation import Blocks, Cascades, Chunks, Sums


@dataclass(frozen=True)
class Assumptions:
    """Largest error of an elementary function in ULP of its result, and how sums are added up, on one device.

    The other fields say where the kernels of this device differ from those of another, each with its source.

    scalar_division_roundings   1 if x / c is a division, 2 if the kernel multiplies by 1 / c.
    alpha_in_storage            a + alpha b: alpha, and alpha b, are rounded to the format of the data.
    softmax_backward_by_products    g s - s sum(g s), in place of (g - sum(g s)) s.
    adam_rates_in_kernel        the fused Adam takes 1 - beta and beta**t in its own arithmetic, not in double.
    steps_in_storage            products and 1 / sqrt of 16-bit numbers are rounded to their format step by step.
    running_in_double           running sums and products of float32 are kept in double, those of 16 bits in float32.
    erf_of_vectors              absolute error of the erf in float32 that gelu, and erf of 16-bit numbers, compute (0:
                                none beside that of `ulps`).
    """

    ulps: Mapping[str, float]
    source: str
    sums: Sums
    scalar_division_roundings: float = 1.0
    alpha_in_storage: bool = False
    softmax_backward_by_products: bool = False
    adam_rates_in_kernel: bool = False
    steps_in_storage: bool = False
    running_in_double: bool = False
    erf_of_vectors: float = 0.0

    def relative(self, function: str, u: float) -> float:
        """Bound on the relative error of `function` in a format of unit roundoff `u`: k ulp(y) <= 2 k u |y|."""
        return 2.0 * self.ulps[function] * u


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
                # Strided sweeps of float32: exp2 .803, log2 .511, log10 .504, erf .998, erfc .761, sin and cos .601.
                "exp2": 1.0,
                "log2": 1.0,
                "log10": 1.0,
                "rsqrt": 1.0,  # 1 / sqrt: two roundings
                "erf": 1.0,
                "erfc": 1.5,  # SLEEF: erfcf16_u15, and sinf16_u35, cosf16_u35 where there is no MKL
                "sin": 3.5,
                "cos": 3.5,
            }
        ),
        "SLEEF 3 documentation, purec (u10 functions); Intel oneMKL VML accuracy (HA)",
        Cascades(),
        alpha_in_storage=True,  # aten/.../ufunc/add.h: T in the scalar loop; opmath_t on CUDA
        steps_in_storage=True,  # aten/.../cpu/ReduceOpsKernel.cpp (prod), PowKernel.cpp, UnaryOpsKernel.cpp (rsqrt)
        running_in_double=True,  # ATen/AccumulateType.h
        # cpu/vec/vec512/vec512_float.h: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26
        erf_of_vectors=1.5e-7,
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
                # exp2f 2, log2f 1, log10f 2, rsqrtf 2, erff 2, erfcf 4 (erfc 5), sinf 2, cosf 2
                "exp2": 2.0,
                "log2": 1.0,
                "log10": 2.0,
                "rsqrt": 2.0,
                "erf": 2.0,
                "erfc": 5.0,
                "sin": 2.0,
                "cos": 2.0,
            }
        ),
        "CUDA C++ Programming Guide, Mathematical Functions, maximum ULP error",
        Blocks(),
        scalar_division_roundings=2.0,  # aten/.../cuda/BinaryDivTrueKernel.cu, ReduceMomentKernel.cu
        softmax_backward_by_products=True,  # aten/.../cuda/SoftMax.cu
        adam_rates_in_kernel=True,  # aten/.../cuda/fused_adam_utils.cuh
    ),
}

_OTHER = replace(
    _DEVICES["cpu"],
    sums=Sums(),
    alpha_in_storage=False,
    steps_in_storage=False,
    running_in_double=False,
    erf_of_vectors=0.0,
)


@lru_cache(maxsize=16)
def assumptions(device: str, mode: str = "eager") -> Assumptions:
    """The assumptions for a device type ("cpu", "cuda", ...), and for "eager" or "compiled" code.

    An unlisted accelerator is held to the CPU's functions, and may add up in any order.  Compiled code is held to the
    eager kernels, except for the order of its sums on the CPU.
    """
    kind = devices.kind(device)
    found = _DEVICES.get(kind, _OTHER)
    if (kind, mode) != ("cpu", "compiled"):
        return found
    in_chunks = TorchVersion(torch.__version__) >= "2.11"  # 2.8 adds up lane by lane without end
    return replace(found, sums=Chunks() if in_chunks else Sums())
