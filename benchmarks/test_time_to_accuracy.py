"""Time to accuracy, seed after seed: see cases.py."""

from __future__ import annotations

from benchmarks.conftest import Timed
from benchmarks.work import Case

SUITE = "accuracy"


def test_time_to_accuracy(timed: Timed, case: Case, where: str) -> None:
    timed(case, where)
