"""An interrupted `verify` goes on from its record, with the results of a run that nothing interrupted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from equivalences.__main__ import main
from equivalences.catalogue import IDENTITIES
from equivalences.gate import resume, sweep
from equivalences.judging.tally import Tally
from equivalences.model import Form

TWO = ("verify", "--identity", "uniform_logits", "--identity", "logsumexp_shift", "--format", "float16", "--jobs", "1")
ASKED = (*TWO, "--examples", "2")  # six units
judge_unit = sweep.run


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The units judged, in their order; after three more the user loses patience, unless told otherwise."""
    met: list[tuple[str, int]] = []

    def run(unit: sweep.Unit) -> Tally:
        if len(met) == 3:
            raise KeyboardInterrupt
        met.append((unit.identity.name, unit.batch))
        return judge_unit(unit)

    monkeypatch.setattr(sweep, "run", run)
    monkeypatch.setattr(sweep, "BATCH", 1)
    return met


def results(*arguments: str, path: Path) -> Any:
    assert main([*ASKED, *arguments, "--json", str(path)]) == 0
    return json.loads(path.read_text())


@pytest.mark.parametrize("cut", [0, 1, 400], ids="cut {}".format)
def test_a_resumed_run_judges_the_rest_and_says_the_same(
    cut: int, ran: list[tuple[str, int]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record"
    assert main([*ASKED, "--resume", str(record)]) == 130
    assert f"goes on from {record}" in capsys.readouterr().err
    first = ran.copy()
    record.write_bytes(record.read_bytes()[: -cut or None])  # a run that was killed in the middle of a record
    ran[:] = [("", 0)] * 4  # patience
    resumed = results("--resume", str(record), path=tmp_path / "resumed.json")
    again = ran[4:]
    assert len(first) == 3
    assert len(again) == (3 if not cut else 4)
    assert set(first) | set(again) == {(name, k) for name in ("uniform_logits", "logsumexp_shift") for k in range(3)}
    assert resumed == results(path=tmp_path / "at once.json")
    ran.clear()  # all is there: nothing is judged
    assert results("--resume", str(record), path=tmp_path / "again.json") == resumed
    assert not ran


def test_what_failed_is_judged_again_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    identity = IDENTITIES["uniform_logits"]
    wrong = replace(identity, forms=(*identity.forms, Form("torch.logsumexp(z, dim) * 2", label="doubled")))
    monkeypatch.setitem(IDENTITIES, identity.name, wrong)
    for _ in range(2):
        assert main([*ASKED, "--identity", identity.name, "--resume", str(tmp_path / "record")]) == 1
        assert "form      doubled" in capsys.readouterr().out


def test_a_record_of_something_else_is_refused_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record"
    asked = [*TWO, "--examples", "0", "--resume", str(record)]

    def refused(why: str) -> None:
        before = record.read_bytes()
        assert main(asked) == 2
        assert capsys.readouterr().err == f"equivalences: --resume: {record} {why}\n"
        assert record.read_bytes() == before

    record.write_text("the notes of somebody\n")
    refused("is no record of finished units")
    record.unlink()
    assert main(asked) == 0
    capsys.readouterr()
    there = resume.circumstances("cpu")
    for name in ("torch", "sources"):
        monkeypatch.setattr(resume, "circumstances", lambda device, name=name: {**there, name: "another"})
        refused(f"was made in other circumstances ({name}): name another file")


@pytest.mark.parametrize("junk", [b"I1x\n.", b"no record at all", b"\0", b"00000000 {}\n"], ids=str)
@pytest.mark.parametrize("place", ["instead of the first record", "after the last record"])
def test_a_damaged_record_is_refused_and_kept(
    junk: bytes, place: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "record"
    asked = [*TWO, "--examples", "0", "--resume", str(record)]
    assert main(asked) == 0
    whole = record.read_bytes() if place.startswith("after") else resume.TITLE
    record.write_bytes(whole + junk)
    capsys.readouterr()
    assert main(asked) == 2
    said = f"is damaged: what it holds from byte {len(whole)} on is no record"
    assert capsys.readouterr().err == f"equivalences: --resume: {record} {said}\n"
    assert record.read_bytes() == whole + junk


@pytest.mark.slow
def test_half_a_record_is_cut_off_wherever_it_ends(tmp_path: Path) -> None:
    path = tmp_path / "record"
    with resume.finished(path, "cpu"):
        pass
    whole = path.read_bytes()
    for end in range(len(resume.TITLE), len(whole)):
        path.write_bytes(whole[:end])
        with resume.finished(path, "cpu") as held:
            assert not held
        assert path.read_bytes() == whole
