"""The planted work under pytest-benchmark as it comes: what `benchmarks.versus.experiment` is compared with."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from benchmarks.versus.planted import CASES, Case


@pytest.mark.parametrize("planted", CASES, ids=lambda planted: planted.id.removeprefix("planted/"))
def test_planted(benchmark: Any, planted: Case) -> None:
    torch.set_num_threads(1)
    benchmark(planted.prepare("cpu").run)
