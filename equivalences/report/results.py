"""Results that programs read: tallies as JSON, of the types in `equivalences.schema`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np

from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.judging.judge import Crash, Judgement
from equivalences.judging.tally import Tally
from equivalences.model import Problem
from equivalences.running.environment import environment
from equivalences.schema import SCHEMA, sealed

LISTED = 1000  # numbers of a worst problem; larger ones would make up nine tenths of the file


def tally(t: Tally, complete: bool = True) -> dict[str, Any]:
    """One tally as plain data; numbers that are not finite become the strings "inf" and "nan"."""
    return {
        "identity": t.identity.name,
        "statement": t.identity.statement,
        "format": t.format,
        "complete": complete,
        "problems": t.problems,
        "numbers": t.numbers,
        "worst": {
            kind: {
                "error/allowance": plain(worst.ratio),
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
                "error/allowance": plain(cell.ratio),
                "error/contract": plain(cell.contract_ratio),
            }
            for (form, kind, region), cell in t.by_kind().items()
        ],
        "known defects": met(t),
        "problems crc32": f"{t.seen:08x}",
        "fingerprints": [
            {"form": form, "quantity": quantity, "crc32": f"{crc:08x}"}
            for (form, quantity), crc in t.fingerprints.items()
        ],
        "never tested": t.vacuous() if complete else [],
        "failures": [failure(f) for f in t.failures],
    }


def met(t: Tally) -> list[dict[str, Any]]:
    """What a tally says of known defects, as plain data: of each in each form."""
    return [
        {
            "name": defect,
            "form": form,
            "numbers": seen.numbers,
            "share": seen.numbers / t.sizes[form],
            "error/allowance": plain(seen.ratio),
            "error in ulp": plain(seen.ulps),
        }
        for (form, defect), seen in t.met.items()
    ]


def _listed(problem: Problem) -> str:
    """A problem as code; a large one by its size and digest, which its seed gives again."""
    size = sum(np.size(item) for item in problem.items.values())
    return repr(problem) if size <= LISTED else f"{size:,} numbers, crc32 {problem.digest:08x}"


def failure(f: Judgement) -> dict[str, Any]:
    """One failing judgement as plain data."""
    where = {"form": f.form.label, "layout": f.layout, "device": f.device, "mode": f.mode, "problem": repr(f.problem)}
    if isinstance(f, Crash):
        return {**where, "raised": type(f.error).__name__, "message": str(f.error)}
    return {**where, "quantity": f.quantity, "verdicts": f.own.fact.tolist()}


def defects(tallies: Iterable[Tally]) -> list[dict[str, str]]:
    """The known defects that were met, as plain data, the most severe first."""
    met = {name for t in tallies for name in t.defects}
    return [
        {
            "name": defect.name,
            "severity": defect.severity.name.lower().replace("_", " "),
            "off": defect.off,
            "hurts": defect.hurts,
            "instead": defect.instead,
        }
        for defect in sorted(KNOWN_DEFECTS, key=lambda defect: -defect.severity)
        if defect.name in met
    ]


def results(
    tallies: Iterable[Tally], plan: Mapping[str, Any], incomplete: Collection[tuple[str, str]] = ()
) -> dict[str, Any]:
    """All that one run of `verify` found: the environment, what was asked for, and every tally.

    `incomplete` are the cells, an identity in a format each, of which not everything was judged.
    """
    tallies = list(tallies)
    return sealed(
        {
            "schema": SCHEMA,
            "complete": not incomplete,
            "environment": environment(str(plan.get("device", "cpu"))),
            "plan": dict(plan),
            "known defects": defects(tallies),
            "tallies": [tally(t, (t.identity.name, t.format) not in incomplete) for t in tallies],
        }
    )


def plain(x: float) -> float | str:
    """The number itself, or a word for one that JSON does not have."""
    return float(x) if math.isfinite(x) else str(float(x))
