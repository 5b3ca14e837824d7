"""The loss alone, by formulation: see cases.py."""

from __future__ import annotations

from benchmarks.conftest import Timed
from benchmarks.work import Case

SUITE = "loss"


def test_losses(timed: Timed, case: Case, where: str) -> None:
    timed(case, where)
