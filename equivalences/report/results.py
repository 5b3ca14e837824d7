"""Results that programs read: tallies as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equivalences.judge import Crash, Judgement
from equivalences.model import Problem
from equivalences.report.environment import environment
from equivalences.tally import Tally

SCHEMA = 2
LISTED = 1000  # numbers of a worst problem; larger ones would make up nine tenths of the file


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
                "problem": None if worst.problem is None else _listed(worst.problem),
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


def _listed(problem: Problem) -> str:
    """A problem as code; a large one by its size and digest, which its seed gives again."""
    size = sum(np.size(item) for item in problem.items.values())
    return repr(problem) if size <= LISTED else f"{size:,} numbers, crc32 {problem.digest:08x}"


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
