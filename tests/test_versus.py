"""The A/B driver: its statistics on simulated launches, its verdicts and exit statuses on a simulated clock.

The interpreters of these tests are scripts that speak the workers' language and invent their seconds: no time is
measured, and none is asserted.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.versus import controls, experiment, measure, worker
from benchmarks.versus.__main__ import main
from benchmarks.versus.process import Arm, Failed, Worker
from benchmarks.versus.record import Unusable, load
from benchmarks.versus.verdict import Samples, Verdict, claim, estimate, holm, interval, judge, log_ratios, sees

MARGIN = 0.05
EDGE = math.log1p(MARGIN)

# --- the statistics --------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("launches", [3, 12, 30])
@pytest.mark.parametrize("confidence", [0.95, 0.998])
@pytest.mark.parametrize("outliers", [0.0, 0.1])
def test_the_interval_misses_no_more_often_than_it_says(launches: int, confidence: float, outliers: float) -> None:
    """2000 simulated runs: launches scatter normally, or one in ten of them six times as far."""
    random = np.random.default_rng(0)
    runs = 2000
    scale = np.where(random.random((runs, launches)) < outliers, 6.0, 1.0)
    missed = sum(
        not low <= 0.1 <= high
        for low, high in (
            interval(run.tolist(), confidence) for run in 0.1 + 0.02 * scale * random.normal(size=scale.shape)
        )
    )
    expected = runs * (1 - confidence)
    assert missed <= expected + 4 * math.sqrt(expected)
    if not outliers:  # nor is it wider than it must be
        assert missed >= expected - 4 * math.sqrt(expected)
    assert missed or confidence > 0.95


def test_the_smallest_effect_is_what_four_runs_in_five_call_a_regression() -> None:
    random = np.random.default_rng(0)
    scatter, launches = 0.02, 12
    typical = [scatter * x for x in np.sqrt(12 / 11) * np.repeat([-1.0, 1.0], launches // 2) * np.sqrt(11 / 12)]
    found = sees(typical, MARGIN)
    assert found is not None
    runs = math.log(found) + scatter * random.normal(size=(1000, launches))
    called = sum(claim(*interval(run.tolist()), MARGIN) is Verdict.REGRESSED for run in runs)
    assert 740 <= called <= 870


@given(st.lists(st.floats(-0.3, 0.3), min_size=2, max_size=20), st.floats(0.5, 2))
def test_ratios_do_not_depend_on_which_side_is_called_a(values: list[float], factor: float) -> None:
    mirrored = {"REGRESSED": "IMPROVED", "IMPROVED": "REGRESSED"}
    there, back = ({"case": tuple(sign * v for v in values)} for sign in (1, -1))
    forth, reverse = holm(there, MARGIN)["case"][0].name, holm(back, MARGIN)["case"][0].name
    assert mirrored.get(forth, forth) == reverse
    seconds = [factor * math.exp(v) for v in values]
    assert log_ratios({"A": seconds, "A'": seconds, "B": seconds}) == (0, 0)


def test_a_launch_is_the_median_of_its_paired_blocks() -> None:
    blocks = {"A": [1.0, 2.0, 4.0], "A'": [1.0, 2.0, 4.0], "B": [1.1, 2.2, 400.0]}  # one block was disturbed
    effect, null = log_ratios(blocks)
    assert math.exp(effect) == pytest.approx(1.1)
    assert null == 0
    first, second = [1.0] * 3, [4.0] * 3
    assert log_ratios({"A": first, "A'": second, "B": [2.0] * 3}) == pytest.approx((0, math.log(4)))
    with pytest.raises(ValueError, match="shorter"):
        log_ratios({"A": first, "A'": second, "B": [1.0]})


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (EDGE + 1e-9, 1, Verdict.REGRESSED),
        (EDGE - 1e-9, 1, Verdict.INCONCLUSIVE),
        (-1, -EDGE - 1e-9, Verdict.IMPROVED),
        (-1, -EDGE + 1e-9, Verdict.INCONCLUSIVE),
        (-EDGE + 1e-9, EDGE - 1e-9, Verdict.EQUIVALENT),
        (0.01, 0.02, Verdict.EQUIVALENT),  # a difference that is there and does not matter
        (-1, 1, Verdict.INCONCLUSIVE),
        (-math.inf, math.inf, Verdict.INCONCLUSIVE),
    ],
)
def test_what_an_interval_claims(low: float, high: float, verdict: Verdict) -> None:
    assert claim(low, high, MARGIN) is verdict


def test_fewer_than_two_launches_have_no_interval() -> None:
    assert interval([0.3]) == (-math.inf, math.inf)
    assert interval([0.3, 0.3]) == (0.3, 0.3)
    assert estimate([]) is None
    assert sees([0.3], MARGIN) is None
    judged = judge({"case": Samples((0.3,), (0.0,))}, {}, MARGIN)
    assert (judged.cases[0].verdict, judged.status) == (Verdict.INCONCLUSIVE, 3)


def test_holm_holds_the_chance_of_any_false_claim() -> None:
    """300 simulated runs of 20 cases exactly on the margin, where every claim but INCONCLUSIVE is false."""
    random = np.random.default_rng(0)
    false = 0
    for _ in range(300):
        cases = {str(i): tuple(EDGE + 0.02 * random.normal(size=12)) for i in range(20)}
        false += any(found is not Verdict.INCONCLUSIVE for found, _ in holm(cases, MARGIN).values())
    assert 3 <= false <= 300 * 0.05 + 4 * math.sqrt(300 * 0.05)  # corrected, and not more than it must be


def test_holm_steps_down() -> None:
    """What is decided leaves more confidence to spare for what is not; a case alone is not corrected at all."""

    def half_width(width: float, middle: float) -> tuple[float, ...]:
        """Twelve launches whose 95 % interval is middle -+ width."""
        shape = np.repeat([-1.0, 1.0], 6)
        return tuple(middle + shape * width / interval(shape.tolist())[1])

    clear, close = half_width(0.001, 0.5), half_width(0.97 * EDGE, 2 * EDGE)
    assert holm({"close": close}, MARGIN)["close"][0] is Verdict.REGRESSED
    assert holm({"close": close, "clear": clear}, MARGIN)["close"][0] is Verdict.REGRESSED
    crowd = {str(i): close for i in range(10)}
    claims = {name: found for name, (found, _) in holm({**crowd, "clear": clear}, MARGIN).items()}
    assert claims.pop("clear") is Verdict.REGRESSED
    assert set(claims.values()) == {Verdict.INCONCLUSIVE}
    judged = judge({name: Samples(values, (0.0, 0.0)) for name, values in crowd.items()}, {}, MARGIN)
    assert {each.why for each in judged.cases} == {"not after Holm's correction over 10 cases"}


STILL = (0.001, -0.001, 0.0005)
MOVED = (0.04, 0.041, 0.039)
TINY = (0.004, 0.0041, 0.0039)  # certain, and far below the margin


@pytest.mark.parametrize(
    ("timed", "control", "verdict", "status"),
    [
        (Samples(STILL, STILL), Samples(STILL, STILL), Verdict.EQUIVALENT, 0),
        (Samples(tuple(0.2 + x for x in STILL), STILL), Samples(STILL, STILL), Verdict.REGRESSED, 1),
        (Samples(tuple(x - 0.2 for x in STILL), STILL), Samples(STILL, STILL), Verdict.IMPROVED, 0),
        (Samples((-0.2, 0.2, 0.1), STILL), Samples(STILL, STILL), Verdict.INCONCLUSIVE, 3),
        (Samples(tuple(0.2 + x for x in STILL), MOVED), Samples(STILL, STILL), Verdict.INVALID, 4),
        (Samples(tuple(0.2 + x for x in STILL), STILL), Samples(MOVED, STILL), Verdict.INVALID, 4),
        (Samples(tuple(0.2 + x for x in STILL), STILL), Samples(STILL, MOVED), Verdict.INVALID, 4),
        (Samples(STILL, STILL), Samples(STILL, STILL, "died"), Verdict.INVALID, 4),
        (Samples(STILL, STILL, "died"), Samples(STILL, STILL), Verdict.INVALID, 4),
        (Samples(STILL, TINY), Samples(TINY, TINY), Verdict.EQUIVALENT, 0),
    ],
)
def test_verdicts(timed: Samples, control: Samples, verdict: Verdict, status: int) -> None:
    judged = judge({"case": timed}, {"control": control}, MARGIN)
    assert judged.cases[0].verdict is verdict
    assert judged.status == status
    assert judged.cases[0].why or verdict not in {Verdict.INVALID}


def test_a_regression_is_not_hidden_by_another_case_that_is_invalid() -> None:
    slow, ill, dead = (
        Samples(tuple(0.2 + x for x in STILL), STILL),
        Samples(STILL, MOVED),
        Samples((), (), "B died while timing dead"),
    )
    judged = judge({"slow": slow, "ill": ill, "dead": dead}, {}, MARGIN)
    assert [each.verdict.name for each in judged.cases] == ["REGRESSED", "INVALID", "INVALID"]
    assert judged.status == 1
    assert judged.cases[1].why == "its own A/A moved"
    assert judged.cases[2].why == "B died while timing dead"


# --- the driver, on a simulated clock --------------------------------------------------------------------------------

REGISTRY = """
from dataclasses import dataclass

@dataclass(frozen=True)
class Case:
    id: str
    device: str = "cpu"
    smoke: bool = False

    def runs_on(self, device):
        return device == self.device

CASES = (Case("one", smoke=True), Case("two"), Case("far", "elsewhere"))
"""

# Answers as a worker would.  SLOW: its own factor.  FAULT=kind:request:case: what goes wrong, and when.  LAUNCHES: a
# file that counts the processes.  MACHINE: a factor on what the controls take.
SPEAKER = """#!{python} -IS
import json, os, random, sys, time
with open(os.environ["LAUNCHES"], "a") as file:
    file.write("x")
kind, _, where = os.environ.get("FAULT", "").partition(":")
noise = random.Random(os.stat(os.environ["LAUNCHES"]).st_size)  # other noise in each process, the same in each run
case = ""
for line in sys.stdin:
    request = json.loads(line)
    do = request["do"]
    if do == "quit":
        break
    case = request.get("case", case)
    answer = {{"hello": {{"environment": {{"python": os.environ.get("SAYS", "3"), "platform": "here"}}}},
               "prepare": {{"ready": case}}}}.get(do)
    if do == "time":
        factor = float(os.environ.get("MACHINE" if case.startswith("control") else "SLOW", "1"))
        answer = {{"seconds": request["runs"] * 0.005 * factor * (1 + 0.002 * noise.random())}}
    if where == f"{{do}}:{{case}}":
        if kind == "die":
            print("out of luck", file=sys.stderr)
            sys.exit(3)
        if kind == "kill":
            os.kill(os.getpid(), 9)
        if kind == "hang":
            time.sleep(60)
        if kind == "error":
            answer = {{"error": "RuntimeError: no\\nkernel"}}
        if kind == "zero":
            answer = {{"seconds": 0.0}}
        if kind == "list":
            answer = [1]
        if kind == "text":
            print("Segmentation fault?", flush=True)
            continue
        if kind == "interrupt":
            os.kill(os.getppid(), 2)
            time.sleep(60)
    print(json.dumps(answer), flush=True)
"""

Outcome = tuple[int, str, str]
Command = Callable[..., Outcome]


@pytest.fixture
def command(tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs the driver on two cases with the speaker as both interpreters."""
    (tmp_path / "two_cases.py").write_text(REGISTRY)
    speaker = tmp_path / "speaker"
    speaker.write_text(SPEAKER.format(python=sys.executable))
    speaker.chmod(0o755)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAUNCHES", str(tmp_path / "launches"))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> Outcome:
        (tmp_path / "launches").write_text("")
        capfd.readouterr()
        status = main(["--registry", "two_cases", "--a", str(speaker), *arguments])
        sys.modules.pop("two_cases", None)
        return status, *capfd.readouterr()

    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "verdicts"),
    [
        ("--b-env SLOW=1.01", 0, {"one": "EQUIVALENT", "two": "EQUIVALENT"}),
        ("--b-env SLOW=1.2", 1, {"one": "REGRESSED", "two": "REGRESSED"}),
        ("--b-env SLOW=0.8", 0, {"one": "IMPROVED", "two": "IMPROVED"}),
        ("--b-env SLOW=1.05", 3, {"one": "INCONCLUSIVE", "two": "INCONCLUSIVE"}),
        ("--b-env SLOW=1.05 --margin 2", 1, {"one": "REGRESSED", "two": "REGRESSED"}),
        ("--b-env SLOW=1.2 MACHINE=1.1", 4, {"one": "INVALID", "two": "INVALID"}),
        ("--b-env SLOW=1.2 -k two", 1, {"two": "REGRESSED"}),
        ("--b-env SLOW=1.2 --smoke", 1, {"one": "REGRESSED"}),
    ],
)
def test_exit_status_and_record(command: Command, arguments: str, status: int, verdicts: dict[str, str]) -> None:
    found, out, err = command(*arguments.split(), "--launches", "4", "--json", "record.json")
    assert found == status, err
    data = json.loads(Path("record.json").read_text())
    assert {each["case"]: each["verdict"] for each in data["verdicts"]} == verdicts
    assert data["status"] == status
    assert set(data["environments"]) == {"A", "A'", "B"}
    assert all(word in out for word in verdicts.values())
    assert " s left]" in err
    blocks = data["launches"][0]["seconds"][next(iter(verdicts))]
    assert [len(blocks[arm]) for arm in ("A", "A'", "B")] == [10, 10, 10]
    assert data["sizes"]["control/memory-copy"] == {"runs": 4, "blocks": 10}  # 5 ms a unit, 20 ms a block


def test_a_python_loop_is_no_control_between_two_pythons(command: Command) -> None:
    status, out, _ = command("--b-env", "SAYS=4", "--launches", "2", "--json", "record.json")
    assert status == 0
    assert "control/python-loop" not in out
    assert "control/memory-copy" in out
    assert "different Pythons" in out


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("die:time:one", "B died while timing one (exit status 3: out of luck)"),
        ("kill:prepare:one", "B died while preparing one (signal 9)"),
        ("hang:time:one", "B hung while timing one: no answer in 5 s"),
        ("error:prepare:one", "B failed while preparing one: RuntimeError: no kernel"),
        ("text:time:one", "B answered garbage while timing one: 'Segmentation fault?'"),
        ("list:time:one", "B answered garbage while timing one: '[1]'"),
        ("zero:time:one", "B answered garbage while timing one: 0.0 s"),
    ],
)
def test_a_worker_that_fails_costs_its_case_and_no_other(command: Command, fault: str, said: str) -> None:
    status, out, _ = command("--b-env", f"FAULT={fault}", "--launches", "3", "--timeout", "5", "--json", "record.json")
    assert status == 4
    assert "INVALID" in out
    data = json.loads(Path("record.json").read_text())
    assert {each["case"]: (each["verdict"], each["why"]) for each in data["verdicts"]} == {
        "one": ("INVALID", said),
        "two": ("EQUIVALENT", ""),
    }
    assert [set(launch["failed"]) for launch in data["launches"]] == [{"one"}, set(), set()]  # not tried again


def test_workers_that_stop_starting_end_the_run_cleanly(command: Command, tmp_path: Path) -> None:
    assert command("--launches", "2", "--json", "record.json")[0] == 0
    speaker = tmp_path / "speaker"
    speaker.write_text(
        speaker.read_text().replace(
            "noise =", "sys.exit(7) if os.stat(os.environ['LAUNCHES']).st_size > 7 else 0\nnoise ="
        )
    )
    status, _, err = command("--launches", "5", "--resume", "--json", "record.json")
    assert status == 4
    assert "stopped after 3 of 5 launches" in err
    assert "died while starting (exit status 7)" in err
    assert len(load(Path("record.json")).launches) == 3


# --- interrupted and resumed -----------------------------------------------------------------------------------------


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C as in a terminal: a job started in the background inherits that it is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_is_kept_and_resumed_as_it_would_have_been(command: Command, tmp_path: Path) -> None:
    speaker = tmp_path / "speaker"
    whole = speaker.read_text()
    third = "os.stat(os.environ['LAUNCHES']).st_size > 8"  # two environments, then three workers a launch
    speaker.write_text(
        whole.replace(
            "kind, _, where =", f'os.environ["FAULT"] = "interrupt:time:one" if {third} else ""\nkind, _, where ='
        )
    )
    status, out, err = command("--launches", "4", "--json", "record.json")
    assert status == 130
    assert "interrupted: 2 of 4 launches are kept; --resume goes on" in err
    assert "2 of 4 launches" in out
    kept = load(Path("record.json"))
    assert len(kept.launches) == 2

    speaker.write_text(whole)
    status, _, err = command("--launches", "4", "--json", "record.json")
    assert status == 2
    assert "record.json holds 2 of 4 launches" in err
    status, _, err = command("--launches", "4", "--json", "record.json", "--resume", "--b-env", "SLOW=2")
    assert status == 2
    assert "made with other settings: arms:" in err
    assert load(Path("record.json")).launches == kept.launches

    status, _, _ = command("--launches", "4", "--json", "record.json", "--resume")
    assert status == 0
    done = load(Path("record.json"))
    assert done.launches[:2] == kept.launches
    assert [launch.number for launch in done.launches] == [0, 1, 2, 3]
    assert not list(tmp_path.glob(".record*"))  # no draft is left behind


@pytest.mark.slow
def test_more_launches_extend_a_finished_record(command: Command) -> None:
    assert command("--launches", "2", "--json", "record.json")[0] == 0
    assert command("--launches", "3", "--json", "record.json", "--resume")[0] == 0
    assert [launch.number for launch in load(Path("record.json")).launches] == [0, 1, 2]
    assert command("--launches", "2", "--json", "record.json")[0] == 0  # a finished one may be replaced
    assert len(load(Path("record.json")).launches) == 2


def test_resuming_on_other_software_is_refused(command: Command) -> None:
    assert command("--launches", "2", "--json", "record.json")[0] == 0
    os.environ["SAYS"] = "4"
    try:
        status, _, err = command("--launches", "3", "--json", "record.json", "--resume")
    finally:
        del os.environ["SAYS"]
    assert status == 2
    assert "the software of A has changed" in err


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"kind": "versus", "schema": 1}', '{"kind": "versus", "schema": 9}'])
def test_a_damaged_record_is_never_overwritten(command: Command, text: str) -> None:
    Path("record.json").write_text(text)
    for extra in ((), ("--resume",)):
        status, _, err = command("--json", "record.json", *extra)
        assert status == 2
        assert "record.json holds no record" in err
    assert Path("record.json").read_text() == text
    with pytest.raises(Unusable):
        load(Path("record.json"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--b /no/such/python", "--b: there is no interpreter /no/such/python"),
        ("--b-env X", "'X' is not NAME=VALUE"),
        ("--b-env =1", "'=1' is not NAME=VALUE"),
        ("--launches 1", "'1' is not a whole number of at least 2"),
        ("--launches many", "'many' is not a whole number"),
        ("--a-threads 0", "'0' is not a whole number of at least 1"),
        ("--margin 0", "'0' is not a number above 0"),
        ("--margin nan", "'nan' is not a number above 0"),
        ("--b-compile maybe", "invalid choice: 'maybe'"),
        ("-k nothing", "-k: no case fits 'nothing'"),
        ("-k (one", "-k: '(one' is no expression"),
        ("--device elsewhere --smoke", "there are no such cases for elsewhere"),
        ("--registry no_such_module", "--registry: No module named 'no_such_module'"),
        ("--resume --json none.json", "--resume: there is no record none.json"),
        ("--json .", "--json: cannot read .: Is a directory"),
        ("--json /proc/no/record.json", "--json: cannot write /proc/no/record.json"),
        ("--b-env FAULT=die:hello:", "B died while starting (exit status 3: out of luck)"),
        ("extra", "unrecognized arguments: extra"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(command: Command, arguments: str, said: str) -> None:
    status, _, err = command(*arguments.split())
    assert status == 2
    assert len(err.splitlines()) == 1
    assert said in err
    assert not Path(".benchmarks/versus.json").exists()


# --- the worker itself -----------------------------------------------------------------------------------------------

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
    early, ready, timed, unknown, missing = map(json.loads, answers)
    assert early == {"error": "RuntimeError: no case has been prepared"}
    assert ready == {"ready": "logged"}
    assert timed == {"seconds": pytest.approx(0.02)}  # one tick lies between the two readings around the block
    assert "error" in unknown
    assert "error" in missing
    log = sys.modules[registry].Case.prepared[-1].log
    assert log == ["cpu", "check", "reset", *["run"] * 4, "reset", *["run"] * (2 + 8)]


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


# --- the experiment --------------------------------------------------------------------------------------------------


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
