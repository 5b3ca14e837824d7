"""A damaged or foreign file is refused in one line with status 2: never a traceback, never another answer."""

from __future__ import annotations

import errno
import json
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from equivalences import files, schema
from equivalences.__main__ import main
from equivalences.gate import resume

MUTATIONS = 300
ASKED = ("verify", "--identity", "logsumexp_shift", "--format", "float16", "--examples", "0", "--jobs", "1")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    """A small results file and a small record of finished units."""
    folder = tmp_path_factory.mktemp("written")
    results, record = folder / "results.json", folder / "record"
    assert main([*ASKED, "--json", str(results), "--resume", str(record)]) == 0
    return results.read_bytes(), record.read_bytes()


def mutated(content: bytes, rng: random.Random) -> bytes:
    """The content with one thing wrong: a bit, a byte, a digit, a piece cut out or doubled, or no end."""
    at, to = sorted(rng.sample(range(len(content)), 2))
    kind = rng.randrange(6)
    if kind == 0:
        return content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
    if kind == 1:
        return content[:at] + rng.randbytes(1) + content[at + 1 :]
    if kind == 2:
        at = rng.choice([index for index, letter in enumerate(content) if chr(letter).isdigit()])
        return content[:at] + str(rng.randrange(10)).encode() + content[at + 1 :]
    if kind == 3:
        return content[:at] + content[to:]
    if kind == 4:
        return content[:to] + content[at:]
    return content[:at]


def rewritten(content: Any, rng: random.Random) -> Any:
    """JSON data with one part, wherever, replaced by something else or left out: what a checksum would notice."""
    places: list[tuple[Any, Any]] = []

    def walk(part: Any) -> None:
        for key in part if isinstance(part, dict) else range(len(part)):
            places.append((part, key))
            if isinstance(part[key], dict | list):
                walk(part[key])

    walk(content)
    part, key = rng.choice(places)
    replacements: list[Any] = [None, True, -1, 1e300, "", "nan", [], {}, [[]], {"": 0}]
    if rng.random() < 1 / 3 and isinstance(part, dict):
        del part[key]
    else:
        part[key] = rng.choice(replacements)
    return content


@pytest.mark.slow
def test_a_damaged_results_file_is_refused(
    written: tuple[bytes, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = tmp_path / "whole.json", tmp_path / "damaged.json"
    whole.write_bytes(written[0])
    rng = random.Random(0)
    for _ in range(MUTATIONS):
        damaged = mutated(written[0], rng)
        path.write_bytes(damaged)
        status = main(["compare", str(whole), str(path)])
        captured = capsys.readouterr()
        try:
            same = json.loads(damaged) == json.loads(written[0])
        except (ValueError, UnicodeDecodeError):
            same = False
        assert status == (0 if same else 2), captured
        assert same or len(captured.err.splitlines()) == 1


@pytest.mark.slow
def test_a_results_file_of_somebody_else_is_no_traceback(
    written: tuple[bytes, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, path = tmp_path / "whole.json", tmp_path / "foreign.json"
    whole.write_bytes(written[0])
    rng = random.Random(1)
    for _ in range(MUTATIONS):
        path.write_text(json.dumps(schema.sealed(rewritten(json.loads(written[0]), rng))))
        assert main(["compare", str(path), str(whole), "--fail-on", "never"]) in (0, 2)
        assert len(capsys.readouterr().err.splitlines()) <= 1
    for text in ("[" * 100_000, '{"schema": 3, "tallies": []}', '{"schema": 2, "tallies": []}', "", "null", "1" * 9999):
        path.write_text(text)
        assert main(["compare", str(path), str(whole)]) == 2, text[:40]
        assert len(capsys.readouterr().err.splitlines()) == 1


def units(record: Path) -> Any:
    """What a record holds, as it is written down; None if it is refused."""
    try:
        with resume.finished(record, "cpu") as held:
            return {resume.encoded(unit, tally) for unit, tally in held.items()}
    except resume.Unfit:
        return None


@pytest.mark.slow
def test_a_damaged_record_never_gives_other_tallies(
    written: tuple[bytes, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = resume.circumstances("cpu")
    monkeypatch.setattr(resume, "circumstances", lambda device: here)
    path, content = tmp_path / "record", written[1]
    path.write_bytes(content)
    there = units(path)
    assert there
    rng = random.Random(2)
    for flip in (True, False):
        for _ in range(MUTATIONS):
            bit = rng.randrange(8 * len(content))
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped if flip else mutated(content, rng))
            held = units(path)
            assert held is None or held <= there


@contextmanager
def held_by_another(path: Path) -> Iterator[None]:
    with open(path, "ab") as file:  # another open file has a lock of its own, as another process has
        assert files.locked(file)
        yield


def test_a_record_belongs_to_one_run(
    written: tuple[bytes, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "record"
    path.write_bytes(written[1])
    with held_by_another(path):
        assert main([*ASKED, "--resume", str(path)]) == 2
    assert f"{path} is in use by another run" in capsys.readouterr().err
    assert path.read_bytes() == written[1]


def test_a_full_disk_is_told_and_nothing_judged_is_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record, results, write = tmp_path / "record", tmp_path / "results.json", resume.write

    def full(file: Any, text: bytes) -> None:
        if b'"identity"' not in text:  # no unit yet
            write(file, text)
            return
        file.write(text[: len(text) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(resume, "write", full)
    assert main([*ASKED, "--json", str(results), "--resume", str(record)]) == 2
    assert f"could not keep all that was finished in {record}: No space left on device" in capsys.readouterr().err
    assert schema.read(results).complete
    assert units(record) == set(), "half a record was left"


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_a_record_is_a_regular_file(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / kind
    (Path.mkdir if kind == "folder" else os.mkfifo)(path)
    assert main([*ASKED, "--resume", str(path)]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_the_draft_of_a_killed_run_is_removed_by_the_next_one(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    orphan, of_another = tmp_path / f".results.json.abc{files.DRAFT}", tmp_path / f".other.json.abc{files.DRAFT}"
    for each in (orphan, of_another):
        each.touch()
    with files.destination(path), files.destination(path) as second:
        second.text("results")
        assert len([each for each in tmp_path.iterdir() if each.name.startswith(".results")]) == 1, "a living draft"
    assert sorted(tmp_path.iterdir()) == sorted([path, of_another])
