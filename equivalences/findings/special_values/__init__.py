"""Special values: one table of operation, input, what is right there, why, and what PyTorch does instead.  Data.

Right is the limit, where there is one (an infinite logit stands for one that grows without bound; 0 times the
infinite is 0 where the factor 0 stays 0 on the way), else what PyTorch documents; where neither says anything, nan.
An entry is a few lines in one module below.  `docs/special_values.md` is made of it (`equivalences.report.special`).
"""

from __future__ import annotations

from equivalences.findings.model import SpecialValue
from equivalences.findings.special_values import (
    binary,
    cross_entropy,
    cross_entropy_options,
    distributions,
    linear_cross_entropy,
    masks,
    nll_loss,
    sigmoid,
    softmax,
)

_MODULES = (
    softmax,
    cross_entropy,
    cross_entropy_options,
    nll_loss,
    linear_cross_entropy,
    sigmoid,
    binary,
    distributions,
    masks,
)

SPECIAL_VALUES: tuple[SpecialValue, ...] = tuple(entry for module in _MODULES for entry in module.TABLE)

SHOWN = 16  # numbers that are written in a line; of more, the shape or the first that differs
