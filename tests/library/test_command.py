"""The command line: exit statuses, one clear line for wrong usage, nothing half-written."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import pytest

import equivalences
from equivalences import schema
from equivalences.catalogue import IDENTITIES
from equivalences.gate import sweep
from equivalences.judging.tally import Tally
from equivalences.model import Form

TINY = ("verify", "--identity", "logsumexp", "--format", "float32", "--examples", "1", "--jobs", "1")

Outcome = tuple[int, str, str]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("verify --identity sofmax", r"unknown identity 'sofmax': did you mean 'softmax'"),
        ("verify --identity qqq", r"unknown identity 'qqq': `equivalences list` shows all of them"),
        ("verify --format float31", "unknown format 'float31': did you mean 'float32'"),
        ("verify --device warp", "device 'warp' is not available here"),
        ("verify --device cpu:x", "cpu:x"),
        ("verify --mode fast", "unknown mode 'fast': choose from eager, compiled"),
        ("verify --examples -3", "'-3' is not a number"),
        ("verify --jobs 0", "must be at least 1"),
        ("verify --json /no/such/place.json", "cannot write /no/such/place.json: No such file or directory"),
        ("verify --json .", "cannot write .: is a directory"),
        ("verify --json /dev/null", "cannot write /dev/null: is no regular file"),
        ("verify --json out --resume ./out", "--json and --resume name the same file"),
        ("verify extra", "unrecognized arguments: extra"),
        ("show nothing", "unknown name 'nothing': did you mean"),
        ("list nothing-at-all", "nothing in the catalogue has 'nothing-at-all'"),
        ("veryfy", "invalid choice: 'veryfy'"),
        ("rules no_such_op", "no operation of ATen is called no_such_op"),
        ("compare /no/such/a.json b.json", "cannot read /no/such/a.json: No such file or directory"),
        ("sharpness /no/such/a.json", "cannot read /no/such/a.json: No such file or directory"),
        ("", "required: COMMAND"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(command: Callable[..., Outcome], arguments: str, said: str) -> None:
    status, out, err = command(*arguments.split())
    assert status == 2
    assert out == ""
    assert len(err.splitlines()) == 1
    assert said in err


def test_rules_lists_what_is_followed(command: Callable[..., Outcome]) -> None:
    status, out, _ = command("rules", "log*", "erf*")
    lines = [line.split() for line in out.splitlines()]
    assert status == 0
    assert ["log2", "followed"] in lines
    assert ["erfinv", "without", "a", "rule"] in lines
    assert not any(line[0].startswith("add") for line in lines)
    assert f"{len(lines) - 1} operations: " in out


def test_verify_writes_its_results(command: Callable[..., Outcome], tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    status, out, _ = command(*TINY, "--json", str(path), "--forms")
    assert status == 0, out
    assert "logsumexp" in out
    assert "0 with failures" in out
    found = json.loads(path.read_text())
    assert [(t["identity"], t["format"]) for t in found["tallies"]] == [("logsumexp", "float32")]
    assert found["plan"]["examples"] == 1
    assert list(tmp_path.iterdir()) == [path]


def test_sharpness_takes_the_largest_and_names_what_is_low(command: Callable[..., Outcome], tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("one.json", "two.json")]
    assert command(*TINY, "--json", str(paths[0]))[0] == 0
    results = json.loads(paths[0].read_text())
    for cell in results["tallies"][0]["cells"]:
        kernel = cell["form"] == "torch.logsumexp(z, dim)"
        cell["error/allowance"] = {"value": 0.75, "gradient": 2**-7}[cell["quantity"]] if kernel else 2**-8
    paths[1].write_text(json.dumps(schema.sealed(results)))
    status, page, _ = command("sharpness", str(paths[1]))
    assert status == 0
    assert "| `logsumexp` | value |  | 0.75 |" in page
    assert "| `logsumexp` | gradient |  | *0.008* |" in page
    assert "*0.004*" in page.partition("Below")[2]
    _, both, _ = command("sharpness", *map(str, paths))
    assert "*" not in both.partition("Below")[2].partition("\n")[2], "the larger of two results was left out"
    results["environment"]["torch"]["version"] = "0.1"
    paths[1].write_text(json.dumps(schema.sealed(results)))
    status, _, said = command("sharpness", *map(str, paths))
    assert status == 2
    assert "different releases of torch" in said


@pytest.mark.slow
def test_compare_tells_other_bits_from_new_failures(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity = IDENTITIES["logsumexp"]
    before, after = str(tmp_path / "before.json"), str(tmp_path / "after.json")

    def judged(path: str, code: str, *options: str) -> None:
        changed = replace(identity, forms=(identity.reference, Form(code, label="mine")))
        monkeypatch.setitem(IDENTITIES, identity.name, changed)
        command(*TINY, "--json", path, *options)

    judged(before, "torch.logsumexp(z, dim)")
    judged(after, "torch.logsumexp(z, dim)")
    status, out, _ = command("compare", before, after)
    assert status == 0
    assert "2 forms judged by both, 0 compute other bits, 0 fail now and did not before; 0 judged by one of them" in out
    judged(after, "m = z.amax(dim, keepdim=True); (z - m).exp().sum(dim).log() + m.squeeze(dim)")
    status, out, _ = command("compare", before, after)
    assert status == 0
    assert "mine" in out
    assert "1 compute other bits, 0 fail now" in out
    judged(after, "torch.logsumexp(z, dim) + 1")
    status, out, _ = command("compare", before, after)
    assert status == 1
    assert "1 fail now" in out
    command(*TINY, "--identity", "log_softmax", "--format", "bfloat16", "--json", before)
    judged(after, "torch.logsumexp(z, dim)")
    status, out, _ = command("compare", before, after)
    assert "known defect" not in out  # of log_softmax, which was not judged again
    assert "10 judged by one of them only" in out
    judged(after, "torch.logsumexp(z, dim)", "--seed", "1")
    status, _, err = command("compare", before, after)
    assert status == 2
    assert "cannot be compared: judged with different seed: 0 and 1" in err
    Path(after).write_text("{}")
    assert command("compare", before, after)[0] == 2


def test_an_upgrade_into_a_serious_known_defect_fails(command: Callable[..., Outcome], tmp_path: Path) -> None:
    before, after = tmp_path / "before.json", tmp_path / "after.json"
    asked = ("verify", "--identity", "log_softmax", "--format", "bfloat16", "--examples", "0", "--jobs", "1")
    status, out, _ = command(*asked, "--json", str(after))
    assert status == 0
    assert "known defect, serious: log_softmax-16bit-sum: " in out
    assert "do instead: F.cross_entropy(z.float(), y)" in out
    found = json.loads(after.read_text())
    met = next(each for each in found["tallies"][0]["known defects"] if each["name"] == "log_softmax-16bit-sum")
    assert 0 < met["share"] < 1
    assert met["error/allowance"] > 1
    found["tallies"][0]["known defects"] = found["known defects"] = []
    before.write_text(json.dumps(schema.sealed(found)))
    status, out, _ = command("compare", str(before), str(after))
    assert status == 1
    assert out.startswith("known defect met now, serious: log_softmax-16bit-sum: ")
    assert "FAIL (serious-defect)" in out
    assert command("compare", str(before), str(after), "--fail-on", "never")[0] == 0
    assert command("compare", str(before), str(after), "--fail-on", "bits,failure")[0] == 0
    assert command("compare", str(before), str(after), "--fail-on", "bits", "--fail-on", "known-defect")[0] == 1
    status, out, _ = command("compare", str(after), str(before))
    assert status == 0
    assert out.startswith("known defect no longer met, serious: log_softmax-16bit-sum: ")
    assert command("compare", str(after), str(before), "--fail-on", "never,bits")[0] == 2


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_results_are_there_whatever_becomes_of_the_output(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    run = subprocess.Popen(
        [sys.executable, "-m", "equivalences", *TINY, "--json", str(path)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONIOENCODING": encoding},
    )  # fmt: skip
    assert run.stdout is not None
    if encoding == "utf-8":
        run.stdout.close()  # the reader has left before anything was printed
        run.stdout = None
    out, err = run.communicate()
    assert run.returncode == 0, err
    assert b"Traceback" not in err
    assert schema.read(path).complete
    assert encoding == "utf-8" or b"logsumexp" in out


@pytest.mark.slow
def test_compare_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; from equivalences.__main__ import main; status = main(['compare', 'no', 'no']);"
        'sys.exit(f\'{status} {sorted({"torch", "numpy"} & set(sys.modules))}\')'
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith("2 []\n")


def test_a_failing_form_and_one_that_raises_are_reported(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = IDENTITIES["logsumexp"]
    wrong = Form("torch.logsumexp(z, dim) + 1", label="off by one")
    raises = Form("torch.logsumexp(z, 7)", label="no such dimension")
    monkeypatch.setitem(IDENTITIES, identity.name, replace(identity, forms=(*identity.forms, wrong, raises)))
    status, out, _ = command(*TINY)
    assert status == 1
    assert "1 outside, 1 raised" in out
    assert "form      off by one" in out
    assert "raised IndexError: Dimension out of range" in out
    assert "repeat with torch alone:" in out
    assert "never tested" not in out  # of the form that raised it would say nothing new
    assert "1 with failures, 0 not fully tested" in out


def test_results_that_cannot_be_written_are_shown(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    identity, folder, judge_unit = IDENTITIES["logsumexp"], tmp_path / "folder", sweep.run
    wrong = Form("torch.logsumexp(z, dim) + 1", label="off by one")
    hopeless = Form("torch.logsumexp(z, dim) + 0 * torch.exp((z * z).sum(dim))", regions=("extreme",))
    folder.mkdir()

    def run(unit: sweep.Unit) -> Tally:
        shutil.rmtree(folder, ignore_errors=True)
        return judge_unit(unit)

    monkeypatch.setattr(sweep, "run", run)
    arguments = (*TINY, "--examples", "0", "--json", str(folder / "results.json"))
    status, out, err = command(*arguments)
    assert status == 2
    assert "0 with failures, 0 not fully tested" in out
    assert f"equivalences: could not write {folder / 'results.json'}: No such file or directory\n" in err
    folder.mkdir()
    monkeypatch.setitem(IDENTITIES, identity.name, replace(identity, forms=(*identity.forms, wrong, hopeless)))
    status, out, err = command(*arguments)
    assert status == 1
    assert "form      off by one" in out
    assert "never tested, not once" in out
    assert "1 with failures, 1 not fully tested" in out
    assert "could not write" in err


def test_an_oracle_that_raises_is_a_failure_of_its_identity_only(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    identity = IDENTITIES["logsumexp"]
    monkeypatch.setitem(IDENTITIES, identity.name, replace(identity, spec=lambda p: p.nothing, formats=("float64",)))
    status, out, _ = command(
        "verify", "--identity", "logsumexp", "--format", "float64", "--examples", "0", "--jobs", "1"
    )
    assert status == 1
    assert "the oracle, not the form" in out


def test_what_was_never_tested_fails(command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch) -> None:
    identity = IDENTITIES["logsumexp"]
    hopeless = Form("torch.logsumexp(z, dim) + 0 * torch.exp((z * z).sum(dim))", regions=("extreme",))
    monkeypatch.setitem(IDENTITIES, identity.name, replace(identity, forms=(*identity.forms, hopeless)))
    monkeypatch.setattr(sweep, "EXAMPLES", {"eager": 1})
    status, out, _ = command(*TINY)
    assert status == 1
    assert f"logsumexp in float32: {hopeless.label}: value, region extreme" in out


def test_interrupt_prints_what_was_judged(
    command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    judge_unit = sweep.run

    def run(unit: sweep.Unit) -> Tally:
        if unit.format == "bfloat16":
            raise KeyboardInterrupt
        return judge_unit(unit)

    monkeypatch.setattr(sweep, "run", run)
    path = tmp_path / "results.json"
    status, out, err = command(*TINY, "--format", "bfloat16", "--json", str(path))
    assert status == 130
    assert "logsumexp" in out
    assert "1 of 2 cells complete" in out
    assert "interrupted" in err
    assert list(tmp_path.iterdir()) == [path]
    found = schema.read(path)
    assert not found.complete
    assert [(t.format, t.complete) for t in found.tallies] == [("float32", True)]
    status, out, _ = command("compare", str(path), str(path))
    assert status == 0
    assert out.count(f"{path} is of a run that was interrupted: only its 1 complete cells are compared") == 2


def test_what_needs_no_torch_does_not_load_it() -> None:
    code = """
import sys
sys.modules["torch"] = None  # to import it raises
from equivalences.__main__ import main
for arguments, status in {
    "list": 0, "list bce": 0, "show nothing": 2, "verify --identity sofmax": 2, "verify --format float31": 2,
    "verify --mode fast": 2, "veryfy": 2,
}.items():
    assert main(arguments.split()) == status, arguments
for arguments in ("--version", "--help"):
    try:
        main([arguments])
    except SystemExit as done:
        assert not done.code
try:
    main(["verify", "--identity", "softmax", "--format", "float32"])
except ImportError:
    print("END")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    assert f"equivalences {equivalences.__version__}, torch {metadata.version('torch')}" in done.stdout
    assert done.stdout.splitlines()[-2:] == ["judging softmax in float32, on cpu, eager; loading torch ...", "END"]


@pytest.mark.slow
def test_the_module_runs() -> None:
    arguments = [sys.executable, "-m", "equivalences", "show", "nothing"]
    done = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert done.returncode == 2
    assert done.stderr.startswith("equivalences: unknown name 'nothing'")
