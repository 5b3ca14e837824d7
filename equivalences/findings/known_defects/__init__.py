"""Known defects of PyTorch: data.  Each names the operation, what it really does, and a witness that must still fail.

`as_is` is the operation's rule as the kernel behaves, so that the gate stays sharp beside a defect: an error beyond
even that is a failure.  An entry whose witness no longer fails is to be deleted, and
tests/gate/test_known_defects.py says so.
"""

from __future__ import annotations

from collections.abc import Mapping

from equivalences.findings.known_defects.losses import LOSSES
from equivalences.findings.known_defects.optimizers import OPTIMIZERS

KNOWN_DEFECTS = (*LOSSES, *OPTIMIZERS)

# Operation -> the modules of which a defect says that theirs is the call.
MODULES: Mapping[str, frozenset[str]] = {
    defect.operation: frozenset(each.module for each in KNOWN_DEFECTS if each.operation == defect.operation) - {""}
    for defect in KNOWN_DEFECTS
    if defect.module
}
