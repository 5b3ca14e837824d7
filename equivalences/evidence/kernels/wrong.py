"""Every wrong kernel: `check` must refuse each of them in each format that it claims."""

from __future__ import annotations

from equivalences.evidence.kernels import (
    wrong_binary,
    wrong_cheats,
    wrong_functions,
    wrong_gradients,
    wrong_linear,
    wrong_masks,
    wrong_maxima,
    wrong_means,
    wrong_online,
    wrong_options,
    wrong_precision,
    wrong_ranges,
    wrong_rows,
    wrong_state,
    wrong_tails,
)
from equivalences.evidence.kernels.kernel import Kernel

WRONG: tuple[Kernel, ...] = (
    *wrong_online.KERNELS,
    *wrong_maxima.KERNELS,
    *wrong_tails.KERNELS,
    *wrong_ranges.KERNELS,
    *wrong_precision.KERNELS,
    *wrong_gradients.KERNELS,
    *wrong_means.KERNELS,
    *wrong_options.KERNELS,
    *wrong_masks.KERNELS,
    *wrong_rows.KERNELS,
    *wrong_state.KERNELS,
    *wrong_binary.KERNELS,
    *wrong_functions.KERNELS,
    *wrong_linear.KERNELS,
    *wrong_cheats.KERNELS,
)
