"""How a case becomes a benchmark: data first, then proof that it is right, then timed rounds, then the second pass."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
import torch

from benchmarks import data
from benchmarks.cases import Case, Unsupported
from benchmarks.digits import DataError
from benchmarks.measure import extra_info

T = TypeVar("T")
Timed = Callable[[Case, str], None]


@pytest.fixture(scope="session", autouse=True)
def download(request: pytest.FixtureRequest) -> None:
    """With --download, the files are fetched once, before anything else."""
    if request.config.getoption("download"):
        _or_exit(lambda: data.load(request.config.getoption("data"), download=True))


@pytest.fixture
def timed(benchmark: Any) -> Timed:
    """Times a case on a device: fixed rounds of one run each, warm, each from fresh state that is not timed."""

    def time(case: Case, where: str) -> None:
        try:
            work = _or_exit(lambda: case.prepare(where))
        except Unsupported as error:
            pytest.skip(str(error))
        work.check()  # what is wrong is not timed
        benchmark.group, benchmark.name = f"{case.title} [{where}]", case.label
        benchmark.pedantic(work.run, setup=work.reset, rounds=case.rounds, warmup_rounds=case.warmup)
        if benchmark.stats is not None:  # None where nothing is timed (--benchmark-disable, xdist)
            benchmark.extra_info.update({"case": case.id, "device": where, "threads": torch.get_num_threads()})
            benchmark.extra_info.update(extra_info(work, where, statistics.median(benchmark.stats.stats.data)))

    return time


def _or_exit(make: Callable[[], T]) -> T:
    """What `make` gives; data that cannot be had is a usage error of the whole session, said once."""
    try:
        return make()
    except DataError as error:
        pytest.exit(str(error), returncode=pytest.ExitCode.USAGE_ERROR)
