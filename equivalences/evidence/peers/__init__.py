"""What two common practices say of a planted fault: `assert_close` on random inputs, and PyTorch's own OpInfo samples.

Both get the broken code itself, and the identity's reference to compare it with in the same format.

assert_close  `torch.testing.assert_close` with its default tolerances: one batch of 64 rows, 10 classes (2 where the
              identity has two), inputs from `randn`, options as a tutorial sets them; value, and gradient under a
              random upstream gradient (1 for a scalar loss).
OpInfo        the sample inputs in `op_db` of the operator that the identity is about, with the tolerances that
              PyTorch's tests have for it: those of their `TestCase`, or what the operator declares for the test and
              the format on the CPU; a test that it skips there, or expects to fail, is not run.  As `test_numpy_ref`,
              but in every format of the operator: values against the reference.  As `test_noncontiguous_samples`:
              float32, value and gradient, strided against contiguous.  As `test_fn_grad`: `gradcheck` in float64,
              in its fast mode (their default) unless the operator declares the slow one.  Of a sample, the identity
              takes the inputs and options that it has; samples that it cannot take (another reduction, no numbers)
              are left out.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace

from equivalences.evidence.faults.fault import Fault, SpecialFault
from equivalences.evidence.peers import opinfo, practice
from equivalences.model import Form

PEERS: dict[str, Callable[[Fault, str], bool | None]] = {
    "assert_close": practice.assert_close,
    "OpInfo": opinfo.notices,
}


def verdicts(fault: Fault) -> dict[str, dict[str, bool | None]]:
    """Of each peer: format -> whether it notices the fault (None: nothing to run)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {name: {fmt: notices(fault, fmt) for fmt in fault.formats} for name, notices in PEERS.items()}


def special_verdicts(fault: SpecialFault) -> dict[str, dict[str, bool | None]]:
    """The same of a fault at special values, on the ordinary numbers of its identity, against the sound call."""
    if fault.of is None:
        return {name: {} for name in PEERS}
    of = replace(fault.of, forms=(Form(fault.call),), wrt=fault.of.wrt[:1])
    return verdicts(Fault(fault.name, of, Form(fault.broken), ("value",), fault.why))
