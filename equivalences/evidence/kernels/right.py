"""All right kernels.  Those of `AS_FORMULA` are right as a formula of production is, with another condition number."""

from __future__ import annotations

from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.right_as_formula import AS_FORMULA
from equivalences.evidence.kernels.right_base2 import BASE2
from equivalences.evidence.kernels.right_binary import BINARIES
from equivalences.evidence.kernels.right_function import FUNCTIONS
from equivalences.evidence.kernels.right_labels import LABELS
from equivalences.evidence.kernels.right_linear import LINEAR
from equivalences.evidence.kernels.right_modules import MODULES
from equivalences.evidence.kernels.right_online import ONLINE
from equivalences.evidence.kernels.right_options import OPTIONS
from equivalences.evidence.kernels.right_rows import ROWS
from equivalences.evidence.kernels.right_soft import SOFTS
from equivalences.evidence.kernels.right_split import SPLIT
from equivalences.evidence.kernels.right_triton import TRITON

RIGHT: tuple[Kernel, ...] = (
    *ONLINE, *FUNCTIONS, *LABELS, *OPTIONS, *SPLIT, *LINEAR, *BASE2, *BINARIES, *SOFTS, *ROWS, *MODULES, *TRITON,
    *AS_FORMULA,
)  # fmt: skip
