"""One epoch of training: see cases.py."""

from __future__ import annotations

from benchmarks.conftest import Timed
from benchmarks.work import Case

SUITE = "training"


def test_training(timed: Timed, case: Case, where: str) -> None:
    timed(case, where)
