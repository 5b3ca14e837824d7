"""`pytest --benchmark-only` as a user meets it: what runs, what is refused, and the device layer on a simulated one."""

from __future__ import annotations

import json
import math
import os
import random
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from torch.utils.benchmark import timer

from benchmarks import machine
from benchmarks.cases import CASES
from benchmarks.overhead import median

pytest.importorskip("pytest_benchmark", reason="needs pytest-benchmark (the test extra)")
pytestmark = pytest.mark.slow  # each starts a pytest

ROOT = Path(__file__).parents[2]
CPU = {"devices": {"cpu": {"name": "Some CPU", "clocks": {"MHz": 2000.0}}}}
GPU = {"devices": {"cuda": {"name": "NVIDIA Some GPU", "capability": "9.0"}}}


def run(*arguments: str, code: str = "import pytest, sys; sys.exit(pytest.main(sys.argv[1:]))") -> tuple[int, str]:
    """pytest in a process of its own, from the root, as one command; status and everything that it said."""
    mine = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}  # it is no worker
    environment = {**mine, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", code, "-p", "no:cacheprovider", "-p", "no:xdist", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


QUICK = ("--benchmark-only", "-k", "test_gate_cost and format:bfloat16")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a timed run said, and the file that it saved."""
    folder = tmp_path_factory.mktemp("saved")
    status, said = run(*QUICK, f"--benchmark-storage={folder}", "--benchmark-save=one")
    assert status == 0, said
    (path,) = folder.rglob("*.json")
    return said, path


def test_benchmark_only_needs_no_other_flag(first: tuple[str, Path]) -> None:
    said, path = first
    # Where there is no accelerator, some releases take that of `time`.
    assert f"timer={timer.__module__}.{timer.__qualname__} " in said
    assert "on cpu, 1 thread(s), data digits28" in said
    result = json.loads(path.read_text())
    cases = result["benchmarks"]
    assert len({case["fullname"] for case in cases}) == len(cases) > 0
    for case in cases:
        assert case["stats"]["rounds"] == len(case["stats"]["data"]) == 20
        assert case["stats"]["iterations"] == 1
        assert "format:bfloat16-form:" in case["fullname"]
        assert case["extra_info"]["samples/s"] > 0
        assert case["extra_info"]["matrix-product ceiling, GFLOP/s"] > 0
    assert result["machine_info"]["devices"]["cpu"]["name"]
    assert result["machine_info"]["torch"]["version"]
    assert result["machine_info"]["threads"]["within operations"] == 1


def test_plain_pytest_never_times() -> None:
    status, said = run("benchmarks", "-k", QUICK[-1])
    assert status == 0, said
    assert "passed" in said
    assert "Median" not in said


ONLY = "--benchmark-only"


def test_the_harness_is_timed_by_hand_as_well() -> None:
    """The median of six ratios, inside its interval, which is all of them; both sides timed the same product."""
    code = "import sys; from benchmarks.overhead import main; sys.exit(main(sys.argv[-2:]))"
    status, said = run("--rounds", "6", code=code)
    assert status == 0, said
    assert re.search(r"an empty case: \d+\.\d\d us", said)
    middle, low, high = map(float, re.findall(r"harness / hand: ([\d.]+) \(([\d.]+) to ([\d.]+)\)", said)[0])
    assert 0.1 < low <= middle <= high < 10


def test_the_interval_of_a_median_covers_it() -> None:
    chance = random.Random(0)
    inside = 0
    for _ in range(1000):
        _, low, high = median([chance.expovariate(1) for _ in range(50)])
        inside += low <= math.log(2) <= high
    assert 945 <= inside <= 985  # 967 expected
    assert median(range(9)) == (4, 1, 7)


WRONG = {
    (ONLY, "--device", "warp"): "device 'warp' is not available here",
    ("--device", "cuda:99"): "device 'cuda:99' is not available here",  # nothing is timed, and nobody asks CUDA
    ("benchmarks", "--device", "cuda:99"): "device 'cuda:99' is not available here",
    (ONLY, "--data", "minst"): "unknown data set 'minst': choose from digits28, mnist",
    # With =: after a space, a folder that exists is one of tests to pytest, which looks for conftest.py there.
    (ONLY, "--data", "mnist", f"--data-root={tempfile.gettempdir()}", "-k", "test_loading and batch:256"): "mnist",
}


def test_wrong_usage_is_one_line_and_status_4() -> None:
    every = f"""import logging, pytest, sys
logging.raiseExceptions = False  # torch's handlers keep the stream of the first pytest, which it has closed
sys.stderr = sys.stdout
for wrong in {list(WRONG)}:
    print(int(pytest.main([*sys.argv[1:], *wrong])), end="<end>")
"""
    status, said = run(code=every)  # in one process: torch is imported once
    assert status == 0, said
    *parts, _ = said.split("<end>")
    for part, says in zip(parts, WRONG.values(), strict=True):
        assert part.endswith("4")
        assert says in part
        assert "Traceback" not in part
        assert "INTERNALERROR" not in part


# --- comparing -------------------------------------------------------------------------------------------------------


def test_only_results_of_one_device_are_compared() -> None:
    machine.comparable(CPU, json.loads(json.dumps(CPU)))
    for other in (GPU, {"devices": CPU["devices"] | GPU["devices"]}, {"node": "of an older version"}):
        with pytest.raises(machine.Incomparable, match=r"cpu \(Some CPU\)") as error:
            machine.comparable(CPU, other)
        assert len(str(error.value).splitlines()) == 1


def test_what_else_is_unlike_is_shown_and_compared(first: tuple[str, Path], tmp_path: Path) -> None:
    """Of one device: nothing to compare with, the same again at another clock, another release of torch."""
    _, path = first
    saved = json.loads(path.read_text())
    saved["machine_info"]["devices"]["cpu"]["clocks"]["MHz"] = 1.0
    saved_torch = saved["machine_info"]["torch"]["version"]
    for name, version in (("none", None), ("clock", saved_torch), ("torch", "2.0.0")):
        (tmp_path / name / path.parent.name).mkdir(parents=True)
        saved["machine_info"]["torch"]["version"] = version
        if version:
            (tmp_path / name / path.parent.name / path.name).write_text(json.dumps(saved))
    every = f"""import pytest, sys
sys.stderr = sys.stdout
for name in ("none", "clock", "torch"):
    storage = f"--benchmark-storage={tmp_path}/{{name}}"
    print(int(pytest.main([*sys.argv[1:], storage, "--benchmark-compare"])), end="<end>")
"""
    status, said = run(*QUICK, "--collect-only", code=every)
    assert status == 0, said
    none, clock, torch, _ = said.split("<end>")
    assert all(part.endswith("0") for part in (none, clock, torch)), said
    assert "Can't compare. No benchmark files" in none
    assert "Comparing against" in clock
    assert "PytestBenchmarkWarning" not in clock
    assert f"other software or settings: torch.version 2.0.0, now {saved_torch}\n" in torch


def test_a_saved_run_of_another_device_is_refused(first: tuple[str, Path], tmp_path: Path) -> None:
    _, path = first
    saved = json.loads(path.read_text())
    saved["machine_info"]["devices"] = GPU["devices"]
    other = tmp_path / path.parent.name / path.name
    other.parent.mkdir()
    other.write_text(json.dumps(saved))
    status, said = run(*QUICK, f"--benchmark-storage={tmp_path}", "--benchmark-compare")
    assert status == 4
    assert "cuda (NVIDIA Some GPU)" in said


# --- a simulated accelerator -----------------------------------------------------------------------------------------

# A device type made in Python: it exists, is found and can be asked for; nothing can be computed on it.
FAKE = """
import sys, pytest, torch
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
_setup_privateuseone_for_python_backend("fake")
waits = []
torch.accelerator.synchronize = lambda *_: waits.append(1)
"""


@pytest.fixture(scope="module")
def simulated() -> None:
    from torch.utils import backend_registration

    if not hasattr(backend_registration, "_setup_privateuseone_for_python_backend"):
        pytest.skip("this torch cannot simulate a device in Python (2.10 and later can)")


@pytest.mark.usefixtures("simulated")
def test_a_simulated_accelerator_is_found_timed_and_named() -> None:
    status, said = run(
        code=FAKE
        + """
from torch.utils.benchmark import timer
from benchmarks import machine
from benchmarks.cases import CASES
from equivalences import devices
assert devices.available() == ("cpu", "fake"), devices.available()
timer()
assert waits == [1], "the timer does not wait for the accelerator"
devices.synchronize("fake")
assert waits == [1, 1]
info = machine.info(devices.available())
assert info["accelerator"] == "fake" and set(machine.names(info)) == {"cpu", "fake"}
assert machine.storage(("fake",)) != machine.storage(("cpu",))
"""
    )
    assert status == 0, said


@pytest.mark.usefixtures("simulated")
def test_cases_are_collected_for_every_device() -> None:
    collect = FAKE + "sys.exit(pytest.main(sys.argv[1:]))"
    pinned = ("--benchmark-only", "--collect-only", "-q", "-k", "test_loading and batch:16-")
    status, said = run(*pinned, code=collect)
    assert status == 0, said
    lines = [line for line in said.splitlines() if "::" in line]
    ways = {way: {line.rpartition("device:")[2] for line in lines if f"loading:{way}-order" in line} for way in WAYS}
    assert ways == {"dataloader": {"cpu]", "fake]"}, "dataloader-pinned": {"fake]"}, "slices": {"cpu]", "fake]"}}


WAYS = ("dataloader", "dataloader-pinned", "slices")


def test_without_an_accelerator_one_line_says_so() -> None:
    from equivalences import devices

    if devices.accelerator() is not None:
        pytest.skip(f"there is an accelerator here: {devices.accelerator()}")
    status, said = run("--benchmark-only", "--collect-only", "benchmarks/test_training.py")
    assert status == 0, said
    assert said.count("no accelerator here, so cases that need one are not collected") == 1
    assert "pinned" not in said
    # In the order of this process, or workers of pytest-xdist could not share the work.
    here = [case.id.removeprefix("training-") for case in CASES if case.suite == "training" and case.runs_on("cpu")]
    assert re.findall(r"<Function test_training\[(.*)-device:cpu\]>", said) == here
