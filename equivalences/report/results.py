"""Results that programs read: tallies as JSON, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from equivalences.judge import Crash, Judgement, Tally
from equivalences.report.environment import environment

SCHEMA = 2


def tally(t: Tally) -> dict[str, Any]:
    """One tally as plain data; numbers that are not finite become the strings "inf" and "nan"."""
    return {
        "identity": t.identity.name,
        "statement": t.identity.statement,
        "format": t.format,
        "problems": t.problems,
        "numbers": t.numbers,
        "worst": {
            kind: {
                "error/allowance": _plain(worst.ratio),
                "form": worst.form,
                "region": worst.region,
                "problem": None if worst.problem is None else repr(worst.problem),
            }
            for kind, worst in t.worst.items()
        },
        "cells": [
            {
                "form": form,
                "quantity": kind,
                "region": region,
                "numbers": cell.judged,
                "informative": cell.informative,
                "bounded": cell.bounded,
                "within contract": cell.stable,
                "known defect": cell.known,
                "error/allowance": _plain(cell.ratio),
                "error/contract": _plain(cell.contract_ratio),
            }
            for (form, kind, region), cell in t.cells.items()
        ],
        "known defects": dict(t.defects),
        "problems crc32": f"{t.seen:08x}",
        "fingerprints": [
            {"form": form, "quantity": quantity, "crc32": f"{crc:08x}"}
            for (form, quantity), crc in t.fingerprints.items()
        ],
        "never tested": t.vacuous(),
        "failures": [failure(f) for f in t.failures],
    }


def failure(f: Judgement) -> dict[str, Any]:
    """One failing judgement as plain data."""
    where = {"form": f.form.label, "layout": f.layout, "device": f.device, "mode": f.mode, "problem": repr(f.problem)}
    if isinstance(f, Crash):
        return {**where, "raised": type(f.error).__name__, "message": str(f.error)}
    return {**where, "quantity": f.quantity, "verdicts": f.verdict.tolist()}


def results(tallies: Iterable[Tally], plan: Mapping[str, Any]) -> dict[str, Any]:
    """All that one run of `verify` found: the environment, what was asked for, and every tally."""
    return {
        "schema": SCHEMA,
        "environment": environment(str(plan.get("device", "cpu"))),
        "plan": dict(plan),
        "tallies": [tally(t) for t in tallies],
    }


def read(path: str | Path) -> dict[str, Any]:
    """Results that `results` wrote.  Raises ValueError, in one line, for a file that holds something else."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        raise ValueError(f"{path} is no JSON: write it again with `verify --json {path}`") from None
    if not isinstance(found, dict) or found.get("schema") != SCHEMA or "tallies" not in found:
        raise ValueError(f"{path} holds no results of this version: write it again with `verify --json {path}`")
    return found


def _plain(x: float) -> float | str:
    return float(x) if math.isfinite(x) else str(float(x))


class Destination:
    """A file that will be there whole, or as it was before."""

    def __init__(self, path: Path, draft: Path) -> None:
        self.path, self._draft = path, draft

    def write(self, data: Mapping[str, Any]) -> None:
        """Puts `data`, as JSON, in the place of what the file held."""
        self.text(json.dumps(data, indent=1, allow_nan=False) + "\n")

    def text(self, text: str) -> None:
        """Puts `text` in the place of what the file held."""
        with open(self._draft, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        self._draft.replace(self.path)


@contextmanager
def destination(path: str | Path) -> Iterator[Destination]:
    """A place for results.  Raises OSError at once if a file cannot be written there; leaves no draft behind."""
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(21, "is a directory", str(target))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(13, "may not be written", str(target))
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    draft = Path(name)
    try:
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o666 & ~mask)  # mkstemp's file is for its owner alone
        yield Destination(target, draft)
    finally:
        draft.unlink(missing_ok=True)
