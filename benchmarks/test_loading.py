"""The loader alone: see cases.py."""

from __future__ import annotations

from benchmarks.conftest import Timed
from benchmarks.work import Case

SUITE = "loading"


def test_loading(timed: Timed, case: Case, where: str) -> None:
    timed(case, where)
