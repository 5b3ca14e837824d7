"""What the pictures are drawn from: timings in pytest-benchmark's JSON, comparisons in records of the A/B driver."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import names


class Unusable(Exception):
    """A file that holds no results that can be drawn; the message is one line."""


@dataclass(frozen=True)
class Timing:
    """One case: seconds of every round, and what else is known of it; `machine` says what it ran on, in one line."""

    case: str
    suite: str
    axes: Mapping[str, str]
    seconds: tuple[float, ...]
    info: Mapping[str, Any]
    machine: str

    @property
    def median(self) -> float:
        """Seconds a run, the middle of the rounds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Half of the rounds lie between these."""
        if len(self.seconds) < 2:
            return self.median, self.median
        low, _, high = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return low, high

    def without(self, *axes: str) -> tuple[tuple[str, str], ...]:
        """The axes that are not among these, for grouping."""
        return tuple((name, value) for name, value in self.axes.items() if name not in axes)


@dataclass(frozen=True)
class Ratio:
    """A ratio of times with its 95 % interval."""

    ratio: float
    low: float
    high: float
    launches: int


@dataclass(frozen=True)
class Compared:
    """A case of an A/B comparison: B against A, the second A against the first, and the verdict ("" for a control)."""

    case: str
    effect: Ratio | None
    null: Ratio | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """One A/B comparison; `sides` says what A and B are, a line each."""

    cases: tuple[Compared, ...]
    controls: tuple[Compared, ...]
    margin: float
    sides: tuple[str, str]
    machine: str
    launches: int


def read(paths: Iterable[Path]) -> tuple[list[Timing], list[Comparison]]:
    """Everything in the files.  Raises Unusable, naming the file, if one of them holds neither kind of result."""
    timings: list[Timing] = []
    comparisons: list[Comparison] = []
    for path in paths:
        try:
            data = json.loads(path.read_text(encoding="utf-8"))
            if data.get("kind") == "versus":
                comparisons.append(_comparison(data))
            else:
                timings += _timings(data)
        except OSError as error:
            raise Unusable(f"cannot read {path}: {error.strerror}") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            what = "neither a result of pytest-benchmark (--benchmark-json) nor a record of benchmarks.versus"
            raise Unusable(f"{path} is {what}") from None
    return timings, comparisons


def _timings(data: Mapping[str, Any]) -> list[Timing]:
    machine = _machine(data["machine_info"])
    found = []
    for benchmark in data["benchmarks"]:
        info, stats = benchmark["extra_info"], benchmark["stats"]
        if "case" not in info:
            continue  # someone else's benchmark
        suite, axes = names.axes(info["case"])
        seconds = tuple(stats.get("data") or [stats["median"]])
        where = {"device": info["device"]} if "device" in info else {}
        found.append(Timing(info["case"], suite, {**axes, **where}, seconds, info, machine))
    return found


def _comparison(data: Mapping[str, Any]) -> Comparison:
    environments = data["environments"]
    arms = {arm["name"]: arm for arm in data["settings"]["arms"]}
    return Comparison(
        tuple(_compared(each, each["verdict"]) for each in data["verdicts"]),
        tuple(_compared(each, "") for each in data["controls"]),
        float(data["margin"]),
        (_side(arms["A"], environments["A"]), _side(arms["B"], environments["B"])),
        _hardware(environments["A"]),
        len(data["launches"]),
    )


def _compared(data: Mapping[str, Any], verdict: str) -> Compared:
    return Compared(data["case"], _ratio(data["effect"]), _ratio(data["null"]), verdict)


def _ratio(data: Mapping[str, Any] | None) -> Ratio | None:
    """None as well where there is no interval, or no end of it: such a point says nothing."""
    if data is None or None in (data["low"], data["high"]):
        return None
    return Ratio(data["ratio"], data["low"], data["high"], data["launches"])


def _side(arm: Mapping[str, Any], environment: Mapping[str, Any]) -> str:
    said = [f"torch {environment['torch']['version']}"] if "torch" in environment else []
    said += [f"Python {environment['python']}", *(f"{name}={value}" for name, value in arm["env"])]
    if "threads" in environment:
        said.append(f"{environment['threads']['within operations']} thread(s)")
    return ", ".join(said + ([f"compile {arm['compile']}"] if arm["compile"] != "as-is" else []))


def _machine(info: Mapping[str, Any]) -> str:
    """Hardware, release and threads in one line."""
    threads = info.get("threads", {}).get("within operations")
    said = [_hardware(info)]
    said += [f"torch {info['torch']['version']}"] if "torch" in info else []
    return ", ".join(said + ([f"{threads} thread(s)"] if threads else []))


def _hardware(info: Mapping[str, Any]) -> str:
    cpu = info.get("cpu", "")
    if isinstance(cpu, Mapping):  # pytest-benchmark's own
        cpu = cpu.get("brand_raw", "")
    device = info.get("device", {}).get("name", "")
    return " + ".join(dict.fromkeys(filter(None, (cpu, device)))) or str(info.get("platform", "unknown machine"))
