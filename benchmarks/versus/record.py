"""The record of a comparison: a JSON file that grows by a launch at a time and can be gone on with."""

from __future__ import annotations

import importlib
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.versus import controls
from benchmarks.versus.measure import Launch, Plan, Size
from benchmarks.versus.process import ROOT
from benchmarks.versus.verdict import Estimate, Judged, Judgement, Samples, judge, log_ratios

SCHEMA = 1


class Unusable(Exception):
    """A file that is no record, or one of other settings; the message is one line."""


@dataclass
class Record:
    """Everything that was measured, and with what; the verdicts follow from it and from the margin."""

    settings: dict[str, Any]
    environments: dict[str, dict[str, Any]]
    wanted: int
    margin: float
    sizes: dict[str, Size] = field(default_factory=dict)
    launches: list[Launch] = field(default_factory=list)

    @property
    def complete(self) -> bool:
        """Whether all launches that were asked for are there."""
        return len(self.launches) >= self.wanted

    @property
    def failed(self) -> dict[str, str]:
        """The cases that could not be timed, with the reason."""
        return {case: reason for launch in self.launches for case, reason in launch.failed.items()}

    def samples(self, arms: tuple[str, str, str] = ("A", "A'", "B")) -> dict[str, Samples]:
        """Case by case, what the launches have to say of three of the arms."""
        return samples(self.launches, self.settings["cases"], arms)

    def judged(self) -> Judged:
        """The verdicts.  Python's own speed is no control where the arms run different Pythons."""
        found = self.samples()
        counted = {case.id for case in controls.CASES if not (case.interpreted and self.two_pythons)}
        names = {case.id for case in controls.CASES}
        return judge(
            {name: each for name, each in found.items() if name not in names},
            {name: each for name, each in found.items() if name in counted},
            self.margin,
        )

    @property
    def two_pythons(self) -> bool:
        """Whether the arms run different versions of Python."""
        return len({found.get("python") for found in self.environments.values()}) > 1

    def data(self) -> dict[str, Any]:
        """All of it as plain data, the verdicts included."""
        judged = self.judged()
        return {
            "schema": SCHEMA,
            "kind": "versus",
            "settings": self.settings,
            "environments": self.environments,
            "wanted": self.wanted,
            "margin": self.margin,
            "sizes": {case: asdict(size) for case, size in self.sizes.items()},
            "launches": [asdict(launch) for launch in self.launches],
            "status": judged.status,
            "verdicts": [_plain(each) for each in judged.cases],
            "controls": [_plain(each) for each in judged.controls],
        }


def samples(launches: Sequence[Launch], cases: Sequence[str], arms: tuple[str, str, str]) -> dict[str, Samples]:
    """Case by case, the log ratios of three arms (A, the second A, B), a pair of numbers a launch."""
    found: dict[str, Samples] = {}
    for case in cases:
        timed = [launch.seconds[case] for launch in launches if case in launch.seconds]
        pairs = [log_ratios({"A": each[arms[0]], "A'": each[arms[1]], "B": each[arms[2]]}) for each in timed]
        failed = next((launch.failed[case] for launch in launches if case in launch.failed), "")
        found[case] = Samples(tuple(effect for effect, _ in pairs), tuple(null for _, null in pairs), failed)
    return found


def settings(plan: Plan) -> dict[str, Any]:
    """What may not change between the launches of one record, as JSON would give it back."""
    found: dict[str, Any] = json.loads(json.dumps(asdict(plan)))
    return {**found, "sources of the cases": _sources(plan.registries)}


def _sources(registries: Sequence[str]) -> int:
    """A checksum of what decides what a case does: the code here, and the registries wherever they are."""
    files = {path for folder in ("benchmarks", "equivalences") for path in (ROOT / folder).rglob("*.py")}
    files |= {Path(file) for name in registries if (file := importlib.import_module(name).__file__)}
    return zlib.crc32(b"".join(path.read_bytes() for path in sorted(files)))


def load(path: Path) -> Record:
    """The record in a file.  Raises Unusable if it holds something else, OSError if it cannot be read."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["kind"] != "versus" or data["schema"] != SCHEMA:
            raise ValueError
        record = Record(
            data["settings"],
            data["environments"],
            int(data["wanted"]),
            float(data["margin"]),
            {case: Size(**size) for case, size in data["sizes"].items()},
            [Launch(**launch) for launch in data["launches"]],
        )
        record.judged()  # raises where a launch lacks a block of an arm
    except (ValueError, KeyError, TypeError, AttributeError):
        raise Unusable(f"{path} holds no record of benchmarks.versus, schema {SCHEMA}") from None
    return record


def differences(record: Record, settings: Mapping[str, Any], environments: Mapping[str, Any]) -> list[str]:
    """What keeps new launches from joining a record, one short phrase each."""
    found = [
        f"{key}: {_short(record.settings.get(key))}, now {_short(value)}"
        for key, value in settings.items()
        if record.settings.get(key) != value
    ]
    then = json.loads(json.dumps(record.environments))
    now = json.loads(json.dumps(environments))
    return found + [f"the software of {name} has changed" for name in now if then.get(name) != now[name]]


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:59] + "…"


def _plain(judgement: Judgement) -> dict[str, Any]:
    return {
        "case": judgement.case,
        "verdict": judgement.verdict.name,
        "effect": _estimate(judgement.effect),
        "null": _estimate(judgement.null),
        "sees": _finite(judgement.sees),
        "why": judgement.why,
    }


def _estimate(estimate: Estimate | None) -> dict[str, float | None] | None:
    """An estimate as plain data; an interval that is not there becomes null."""
    if estimate is None:
        return None
    known = estimate.launches > 1
    return {
        "ratio": estimate.ratio,
        "low": estimate.low if known else None,
        "high": _finite(estimate.high) if known else None,
        "launches": estimate.launches,
    }


def _finite(number: float | None) -> float | None:
    """A number that JSON has: infinity becomes null."""
    return number if number is not None and math.isfinite(number) else None
