"""The worker of the A/B driver, the order of its blocks, and the experiment that tries it.  No time is asserted."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks.versus import controls, experiment, measure, worker
from benchmarks.versus.process import Arm, Failed, Worker
from benchmarks.versus.verdict import Verdict

WORK = """
import os, sys

class Work:
    def __init__(self, device):
        self.log = [device]
    def reset(self):
        self.log.append("reset")
    def run(self):
        self.log.append("run")
        print("noise on stdout")
    def check(self):
        self.log.append("check")
        if os.environ.get("WRONG"):
            raise AssertionError("0.5 is not 0.7")

class Case:
    id = "logged"
    prepared = []
    def prepare(self, device):
        self.prepared.append(Work(device))
        return self.prepared[-1]

CASES = (Case(),)
"""


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "logged_case.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return "logged_case"


@pytest.mark.slow
def test_the_worker_resets_outside_the_timing_and_warms_up(registry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter(range(1000))
    session = worker.Session([registry])
    session._timer = lambda: next(ticks) * 0.02
    answers: list[str] = []
    requests = (
        {"do": "time", "runs": 8},  # before anything was prepared
        {"do": "prepare", "case": "logged", "device": "cpu", "check": True},
        {"do": "time", "runs": 8},
        {"do": "time", "runs": 1},
        {"do": "dance"},
        {"do": "prepare", "case": "missing", "device": "cpu", "check": False},
        {"do": "quit"},
        {"do": "time", "runs": 8},
    )
    try:
        worker.serve(session, map(json.dumps, requests), answers.append)
    finally:
        import gc

        gc.enable()
        gc.unfreeze()
    early, ready, timed, single, unknown, missing = map(json.loads, answers)
    assert early == {"error": "RuntimeError: no case has been prepared"}
    assert ready == {"ready": "logged"}
    assert timed == {"seconds": pytest.approx(0.02)}  # one tick lies between the two readings around the block
    assert single == {"seconds": pytest.approx(0.02)}
    assert "error" in unknown
    assert "error" in missing
    log = sys.modules[registry].Case.prepared[-1].log
    assert log == ["cpu", "check", "reset", *["run"] * 4, "reset", *["run"] * (2 + 8), "reset", *["run"] * (1 + 1)]


def test_a_real_worker_keeps_the_case_away_from_its_answers(registry: str) -> None:
    arm = Arm("A", sys.executable, threads=1)
    with Worker(arm, [registry, controls.REGISTRY], 60) as ready:
        assert ready.hello("cpu")["python"]
        for case in ("logged", *(control.id for control in controls.CASES)):
            ready.prepare(case, "cpu", check=True)
            assert ready.time(case, 2) > 0
        process = ready._process
    assert process.returncode == 0
    with Worker(Arm("B", sys.executable, (("WRONG", "1"),)), [registry], 60) as wrong:
        wrong.hello("cpu")
        with pytest.raises(Failed, match=r"^B failed while preparing logged: AssertionError: 0.5 is not 0.7$"):
            wrong.prepare("logged", "cpu", check=True)
    with (
        Worker(arm, ["no_such_registry"], 60) as lost,
        pytest.raises(Failed, match="No module named 'no_such_registry'"),
    ):
        lost.hello("cpu")


def test_blocks_run_in_random_order_that_the_seed_fixes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Recorder:
        """Stands in for a worker, and writes down the order of blocks."""

        order: list[str]

        def __init__(self, arm: Arm, registries: Sequence[str], timeout: float) -> None:
            self.arm = arm

        def __enter__(self) -> Recorder:
            return self

        def __exit__(self, *error: object) -> None: ...

        def hello(self, device: str) -> dict[str, object]:
            return {}

        def prepare(self, case: str, device: str, check: bool) -> None: ...

        def time(self, case: str, runs: int) -> float:
            self.order.append(self.arm.name)
            return 0.02

    monkeypatch.setattr(measure, "Worker", Recorder)
    plan = measure.Plan((Arm("A", "a"), Arm("A'", "a"), Arm("B", "b")), ("one", "two"), ())

    def orders(seed: int, number: int) -> list[str]:
        Recorder.order = []
        sizes = {case: measure.Size(1, 10) for case in plan.cases}
        from dataclasses import replace

        found = measure.launch(replace(plan, seed=seed), number, sizes, {})
        assert all(len(blocks) == 10 for arms in found.seconds.values() for blocks in arms.values())
        return Recorder.order

    same = orders(0, 0)
    assert same == orders(0, 0)
    assert same != orders(0, 1) != orders(1, 1)
    rounds = [same[i : i + 3] for i in range(0, len(same), 3)]
    assert all(sorted(each) == ["A", "A'", "B"] for each in rounds)  # every round has each arm once
    assert len({tuple(each) for each in rounds}) >= 4  # of 6 orders, in 20 rounds


def test_the_experiment_counts_what_was_called_slower(tmp_path: Path) -> None:
    """On simulated launches: the plants are found where the margin lets them be, and nothing else is."""
    random = np.random.default_rng(0)
    cases = (*experiment.NAMES, *(case.id for case in controls.CASES))

    def launch(number: int) -> dict[str, object]:
        seconds = {
            case: {
                arm.name: [
                    (1 + passes / 20 * case.startswith("planted")) * math.exp(0.005 * random.normal())
                    for _ in range(10)
                ]
                for arm in experiment.plan(0).arms
                for passes in [int(dict(arm.env).get("PLANTED", 0))]
            }
            for case in cases
        }
        return {"number": number, "seconds": seconds, "failed": {}}

    path = tmp_path / "record.jsonl"
    lines: list[dict[str, object]] = [
        {"seed": seed, "seconds": 60, "sizes": {}, "launches": [launch(number) for number in range(12)]}
        for seed in range(2)
    ]
    lines.append({"seconds": 30, "slower": {"0": ["planted/loss"], "1": [], "2": list(experiment.NAMES)}})
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"seconds": 3')  # the last line was cut off
    found = experiment.read(path)
    assert found == lines
    for number in range(2):  # another call goes on with it
        experiment._append(path, {"seconds": number})
    assert experiment.read(path) == [*lines, {"seconds": 0}, {"seconds": 1}]
    experiment._append(tmp_path / "new.jsonl", {"seconds": 1})
    assert (tmp_path / "new.jsonl").read_text() == '{"seconds": 1}\n'
    counts = {
        (passes, margin): dict(experiment.verdicts(found, passes, margin))
        for passes in (0, 1, 2)
        for margin in (0.05, 0.02)
    }
    every = 2 * len(experiment.NAMES)
    assert counts[0, 0.05] == counts[0, 0.02] == {Verdict.EQUIVALENT: every}
    assert counts[1, 0.05] == {Verdict.INCONCLUSIVE: every}  # exactly on the margin
    assert counts[1, 0.02] == counts[2, 0.05] == {Verdict.REGRESSED: every}
    shown = [list(column.cells) for column in experiment.table(found).columns]
    assert shown[1][2].startswith(f"1/{len(experiment.NAMES)} = ")  # type: ignore[union-attr]
    assert shown[3][0].startswith(f"{every}/{every} = 100.0%")  # type: ignore[union-attr]


def test_planted_work_is_as_much_longer_as_it_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks.versus import planted

    for passes in experiment.PASSES:
        monkeypatch.setenv(planted.PLANTED, str(passes))
        done: list[int] = []
        planted.Case("counted", lambda: lambda: done.append(1)).prepare("cpu").run()  # noqa: B023
        assert len(done) == planted.UNITS + passes
