"""The cost of the gate itself: see cases.py."""

from __future__ import annotations

from benchmarks.conftest import Timed
from benchmarks.work import Case

SUITE = "gate"


def test_gate_cost(timed: Timed, case: Case, where: str) -> None:
    timed(case, where)
