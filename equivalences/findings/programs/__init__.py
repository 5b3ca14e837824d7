"""What PyTorch gets wrong, for those who meet it: data.  Each has a program that shows it with torch alone.

What a finding shares with a known defect or an unstable entry it takes from there.  A program prints, on the releases
that the finding names, what stands here (tests/gate/test_findings.py); docs/findings.md is made of it.
"""

from __future__ import annotations

from equivalences.findings.programs.compiled import COMPILED
from equivalences.findings.programs.finding import Finding
from equivalences.findings.programs.losses import LOSSES
from equivalences.findings.programs.optimizers import OPTIMIZERS
from equivalences.findings.programs.sixteen_bits import SIXTEEN_BITS
from equivalences.findings.programs.tails import TAILS

FINDINGS: tuple[Finding, ...] = (*LOSSES, *SIXTEEN_BITS, *OPTIMIZERS, *COMPILED, *TAILS)
