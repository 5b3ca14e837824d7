"""Kernels as their authors write them, right ones and wrong ones: what `check` is itself held to."""

from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.right import RIGHT
from equivalences.evidence.kernels.wrong import WRONG

__all__ = ["KERNELS", "RIGHT", "WRONG"]

KERNELS: tuple[Kernel, ...] = (*RIGHT, *WRONG)
