"""The benchmarks' pytest options, and pytest-benchmark set up so that `pytest --benchmark-only` times correctly.

Loaded by the conftest.py at the root, beside the gate's plugin (whose --device it shares).  pytest-benchmark reads its
options when pytest is configured, after every other plugin: defaults are set here, before, where the user said nothing.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import cache, data, machine
from benchmarks.cases import Case, grid
from equivalences import devices

FOLDER = Path(__file__).parent

# What pytest-benchmark does unless the user says otherwise; each stands for an option --benchmark-NAME.
DEFAULTS = {
    "benchmark_timer": "torch.utils.benchmark.timer",  # synchronises the accelerator
    "benchmark_disable_gc": True,
    "benchmark_save_data": True,  # every round is kept: the time of every seed, not their middle
    "benchmark_sort": "name",
    "benchmark_columns": ["median", "iqr", "min", "rounds"],
}


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("benchmarks", "what is timed, and on which data")
    group.addoption("--data", default="digits28", metavar="SET", help=f"of {', '.join(data.SETS)}")
    # pytest parses a first time before it loads this: after a space, a folder that exists would be one of tests to it.
    group.addoption(
        "--data-root", metavar="FOLDER", help=f"of the data sets' files, after = (default: {cache.folder()})"
    )
    group.addoption("--download", action="store_true", help="fetch the files of --data mnist or cifar10")
    group.addoption("--full-grid", action="store_true", help="every combination of the axes, not a sensible cross")
    group.addoption("--threads", type=int, metavar="N", help="of torch, within an operation (default: as it starts)")


def _said(config: pytest.Config, option: str) -> bool:
    return any(arg == option or arg.startswith(f"{option}=") for arg in config.invocation_params.args)


def _devices(config: pytest.Config) -> tuple[str, ...]:
    """The device asked for, else every one that there is."""
    return (str(config.getoption("device")),) if _said(config, "--device") else devices.available()


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """What pytest-benchmark warns of is shown, not raised: it compares, or says that it cannot, as pytest starts.

    Not in pyproject.toml, where a filter by class is an error if the package is missing; before pytest_configure, whose
    filters are set by then.
    """
    if config.pluginmanager.hasplugin("benchmark"):
        config.addinivalue_line("filterwarnings", "default::pytest_benchmark.logger.PytestBenchmarkWarning")


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "smoke: one of the few benchmarks that run everywhere in under two minutes")
    if not config.pluginmanager.hasplugin("benchmark"):
        return
    option = config.option
    try:
        devices.require(config.getoption("device"))  # first: the folder of saved runs is named after it
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    name = config.getoption("data")
    if name not in data.SETS:
        raise pytest.UsageError(f"unknown data set {name!r}: choose from {', '.join(data.SETS)}")
    if config.getoption("data_root"):
        os.environ[cache.VARIABLE] = config.getoption("data_root")
    if option.benchmark_only:
        if config.args_source is not pytest.Config.ArgsSource.ARGS:
            config.args[:] = [str(FOLDER)]  # the tests hold no benchmark: they need not be collected
        if (threads := config.getoption("threads")) is not None:
            if threads < 1:
                raise pytest.UsageError("--threads must be at least 1")
            torch.set_num_threads(threads)
    elif not option.benchmark_enable:
        option.benchmark_disable = True  # pytest alone never times: a benchmark runs once, and is checked
    for option_name, value in DEFAULTS.items():
        if not _said(config, "--" + option_name.replace("_", "-")):
            setattr(option, option_name, value)
    if not _said(config, "--benchmark-storage"):
        option.benchmark_storage = f"file://./.benchmarks/{machine.storage(_devices(config))}"


def pytest_report_header(config: pytest.Config) -> list[str]:
    if not config.getoption("benchmark_only", False):
        return []
    wanted = _devices(config)
    lines = [
        f"benchmarks: on {', '.join(wanted)}, {torch.get_num_threads()} thread(s), data {config.getoption('data')}"
    ]
    if devices.accelerator() is None:
        lines.append("benchmarks: no accelerator here, so cases that need one are not collected")
    return lines


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    machine_info.update(machine.info(_devices(config)))


@pytest.hookimpl(optionalhook=True, tryfirst=True)
def pytest_benchmark_compare_machine_info(
    benchmarksession: Any, machine_info: dict[str, Any], compared_benchmark: dict[str, Any]
) -> None:
    saved = compared_benchmark["machine_info"]
    try:
        machine.comparable(machine_info, saved)
    except machine.Incomparable as error:
        raise pytest.UsageError(str(error)) from None
    if unlike := machine.differences(saved, machine_info):
        benchmarksession.logger.warning(f"the saved run is of other software or settings: {'; '.join(unlike)}")
    # So that pytest-benchmark does not compare clocks, nor print both whole (which fails for a folder elsewhere).
    compared_benchmark["machine_info"] = machine_info


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `case` and `where` runs once for every case of its module's SUITE and every device of it."""
    config, suite = metafunc.config, getattr(metafunc.module, "SUITE", None)
    if suite is None or not {"case", "where"} <= set(metafunc.fixturenames):
        return
    every = grid(config.getoption("data"), config.getoption("full_grid"))
    chosen = [(case, device) for device in _devices(config) for case in every if case.suite == suite]
    metafunc.parametrize(("case", "where"), _parameters(chosen))


def _parameters(chosen: Sequence[tuple[Case, str]]) -> list[Any]:
    return [
        pytest.param(
            case,
            device,
            id=f"{case.id.removeprefix(f'{case.suite}-')}-device:{device}",
            marks=[pytest.mark.smoke] if case.smoke else [],
        )
        for case, device in chosen
        if case.runs_on(device)
    ]
