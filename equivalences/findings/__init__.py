"""What PyTorch gets wrong, for those who meet it: data.  Each has a program that shows it with torch alone.

What a finding shares with a known defect or an unstable entry it takes from there.  A program prints, on the releases
that the finding names, what stands here (tests/test_findings.py); docs/findings.md is made of it.
"""

from __future__ import annotations

from equivalences.findings.compiled import COMPILED
from equivalences.findings.finding import Finding
from equivalences.findings.losses import LOSSES
from equivalences.findings.optimizers import OPTIMIZERS
from equivalences.findings.sixteen_bits import SIXTEEN_BITS
from equivalences.findings.tails import TAILS

FINDINGS: tuple[Finding, ...] = (*LOSSES, *SIXTEEN_BITS, *OPTIMIZERS, *COMPILED, *TAILS)
