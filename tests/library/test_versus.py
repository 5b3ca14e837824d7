"""The A/B driver: its verdicts and exit statuses on a simulated clock, interrupted and resumed.

The interpreters of these tests are scripts that speak the workers' language and invent their seconds: no time is
measured, and none is asserted.
"""

from __future__ import annotations

import json
import math
import os
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks.versus.__main__ import main
from benchmarks.versus.measure import Launch
from benchmarks.versus.record import Record, Unusable, load

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
    threads = {{"within operations": request.get("threads") or int(os.environ.get("OMP_NUM_THREADS", 4))}}
    said = {{"python": os.environ.get("SAYS", "3"), "platform": "here", "threads": threads}}
    answer = {{"hello": {{"environment": said}},
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
        if kind in ("interrupt", "terminate"):
            os.kill(os.getppid(), 2 if kind == "interrupt" else 15)
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
        status = main(["--registry", "two_cases", "--block", "20", "--blocks", "10", "--a", str(speaker), *arguments])
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


@pytest.mark.parametrize(
    ("arguments", "threads"),
    [
        ("", {"A": 4, "B": 4}),
        ("--b-env OMP_NUM_THREADS=2", {"A": 4, "B": 2}),
        ("--a-env OMP_NUM_THREADS=2", {"A": 2, "B": 2}),
        ("--a-env OMP_NUM_THREADS=2 --b-threads 3", {"A": 2, "B": 3}),
        ("--b-env OMP_NUM_THREADS=2 --b-threads 3", {"A": 4, "B": 3}),
    ],
)
def test_threads_are_as_said(
    command: Command, monkeypatch: pytest.MonkeyPatch, arguments: str, threads: dict[str, int]
) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    status, out, _ = command(*arguments.split(), "--launches", "2", "--blocks", "1", "--json", "record.json")
    assert status == 0
    environments = load(Path("record.json")).environments
    assert {name: environments[name]["threads"]["within operations"] for name in "AB"} == threads
    assert all(f"{count} thread(s)" in out for count in threads.values())


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
    """Ctrl-C as in a terminal: a job started in the background inherits that it is ignored.  SIGTERM ends no pytest."""
    handlers = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: lambda *_: pytest.fail("nobody handled it")}
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.slow
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_is_kept_and_resumed_as_it_would_have_been(command: Command, tmp_path: Path) -> None:
    speaker = tmp_path / "speaker"
    whole = speaker.read_text()
    third = "os.stat(os.environ['LAUNCHES']).st_size > 8"  # two environments, then three workers a launch
    faulty = whole.replace(
        "kind, _, where =", f'os.environ["FAULT"] = "interrupt:time:one" if {third} else ""\nkind, _, where ='
    )
    speaker.write_text(faulty)
    status, out, err = command("--launches", "4", "--margin", "7", "--json", "record.json")
    assert status == 130
    assert "interrupted: 2 of 4 launches are kept; --resume goes on" in err
    assert "2 of 4 launches" in out
    kept = load(Path("record.json"))
    assert len(kept.launches) == 2

    speaker.write_text(faulty.replace("interrupt:", "terminate:").replace("> 8", "> 2"))
    status, _, err = command("--json", "record.json", "--resume")
    assert status == 130
    assert "interrupted: 2 of 4 launches are kept; --resume goes on" in err
    assert load(Path("record.json")).launches == kept.launches
    assert not list(tmp_path.glob(".record*"))

    speaker.write_text(whole)
    status, _, err = command("--launches", "4", "--json", "record.json")
    assert status == 2
    assert "record.json holds 2 of 4 launches" in err
    status, _, err = command("--launches", "4", "--json", "record.json", "--resume", "--b-env", "SLOW=2")
    assert status == 2
    assert "made with other settings: arms:" in err
    assert load(Path("record.json")).launches == kept.launches

    status, _, _ = command("--json", "record.json", "--resume")
    assert status == 0
    done = load(Path("record.json"))
    assert (done.wanted, done.margin) == (4, 0.07)
    assert done.launches[:2] == kept.launches
    assert [launch.number for launch in done.launches] == [0, 1, 2, 3]
    assert not list(tmp_path.glob(".record*"))  # no draft is left behind


@pytest.mark.slow
def test_more_launches_extend_a_finished_record(command: Command) -> None:
    assert command("--launches", "2", "--json", "record.json")[0] == 0
    assert command("--launches", "3", "--json", "record.json", "--resume")[0] == 0
    status, out, _ = command("--launches", "2", "--json", "record.json", "--resume")
    assert status == 0
    assert "3 of 3 launches" in out
    assert [launch.number for launch in load(Path("record.json")).launches] == [0, 1, 2]
    assert command("--launches", "2", "--json", "record.json")[0] == 0  # a finished one may be replaced
    assert len(load(Path("record.json")).launches) == 2


def test_two_launches_that_could_see_nothing_are_written() -> None:
    """Of 203 cases one scatters so that what it sees, corrected for all, is beyond every number."""
    names = [str(number) for number in range(203)]

    def launch(n: int) -> Launch:
        other = {name: 1.8**n if name == "0" else 1 + n / 100 for name in names}
        return Launch(n, {name: {"A": [1.0], "A'": [1.0], "B": [other[name]]} for name in names}, {})

    launches = [launch(0), launch(1)]
    record = Record({"cases": names, "arms": []}, {}, 2, 0.05, launches=launches)
    assert math.isinf(record.judged().cases[0].sees or 0)
    data = json.loads(json.dumps(record.data(), allow_nan=False))
    assert data["verdicts"][0]["sees"] is None


def test_resuming_on_other_software_is_refused(command: Command) -> None:
    assert command("--launches", "2", "--json", "record.json")[0] == 0
    os.environ["SAYS"] = "4"
    try:
        status, _, err = command("--launches", "3", "--json", "record.json", "--resume")
    finally:
        del os.environ["SAYS"]
    assert status == 2
    assert "the software of A has changed" in err


def test_resuming_with_other_sources_is_refused(command: Command, tmp_path: Path) -> None:
    assert command("--launches", "2", "--blocks", "1", "--json", "record.json")[0] == 0
    (tmp_path / "two_cases.py").write_text(REGISTRY + "# not what it was\n")
    status, _, err = command("--blocks", "1", "--json", "record.json", "--resume")
    assert status == 2
    assert "made with other settings: sources of the cases: " in err


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


def test_a_record_that_lacks_an_arm_is_refused(command: Command) -> None:
    assert command("--launches", "2", "--blocks", "1", "--json", "record.json")[0] == 0
    data = json.loads(Path("record.json").read_text())
    del data["launches"][1]["seconds"]["one"]["B"]
    Path("record.json").write_text(json.dumps(data))
    status, _, err = command("--blocks", "1", "--json", "record.json", "--resume")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert "record.json holds no record" in err


def test_a_record_that_cannot_be_written_ends_the_run_in_one_line(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("equivalences.files.Destination.write", full)
    status, _, err = command("--launches", "2", "--blocks", "1", "--json", "record.json")
    assert status == 4
    assert err.splitlines()[-1] == (
        "versus: stopped after 1 of 2 launches: cannot write the record: No space left on device"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("X = 1", "has no CASES with an id and runs_on(device) each"),
        ("CASES = (1,)", "has no CASES with an id and runs_on(device) each"),
        ("raise ImportError('libcudart.so.12: cannot open')", "--registry: libcudart.so.12: cannot open"),
        ("import torch.no_such_part", "--registry: No module named 'torch.no_such_part'"),
        ("1 +", "--registry: invalid syntax"),
    ],
)
def test_a_registry_that_is_none_is_wrong_usage(command: Command, source: str, said: str) -> None:
    Path("ill_cases.py").write_text(source)
    sys.modules.pop("ill_cases", None)
    status, _, err = command("--registry", "ill_cases")
    assert status == 2
    assert len(err.splitlines()) == 1
    assert said in err


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
