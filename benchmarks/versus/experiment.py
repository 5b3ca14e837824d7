"""`python -m benchmarks.versus.experiment --minutes N`: how often is the A/B driver wrong, and what does it find?

Times work with a planted slowdown of 0, 5 and 10 % on this machine in two ways, in turn: by the driver's own launches
and by pytest-benchmark with `--benchmark-compare-fail=median:5%`.  Every comparison joins a record as it goes; another
call goes on with it.  `--minutes 0` only shows what there is.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import binomtest

from benchmarks.versus import controls, measure
from benchmarks.versus.measure import Launch, Plan, Size
from benchmarks.versus.planted import CASES, PLANTED, UNITS
from benchmarks.versus.process import ROOT, Arm, Failed
from benchmarks.versus.record import samples
from benchmarks.versus.verdict import Verdict, judge

RECORD = Path(".benchmarks/experiment.jsonl")
PASSES = (0, 1, 2)  # too many, of `UNITS`: slowdowns of 0, 5 and 10 %
MARGINS = (0.05, 0.02)
LAUNCHES = 12  # of one comparison by the driver
COMPARISONS = 6  # by pytest-benchmark between two of the driver's: about as long
THRESHOLD = "median:5%"

NAMES = tuple(case.id for case in CASES)


def plan(seed: int) -> Plan:
    """The driver's plan with three Bs, one a slowdown: A, its A/A, and each B are what one comparison would time."""
    arms = [Arm(name, sys.executable, threads=1) for name in ("A", "A'")]
    arms += [Arm(_arm(passes), sys.executable, ((PLANTED, str(passes)),), threads=1) for passes in PASSES]
    cases = (*NAMES, *(case.id for case in controls.CASES))
    return Plan(tuple(arms), cases, ("benchmarks.versus.planted", controls.REGISTRY), seed=seed)


def _arm(passes: int) -> str:
    return f"B+{passes}"


def compare_with_threshold(folder: Path) -> dict[str, list[str]]:
    """pytest-benchmark's way, once: saves a run, compares one run a slowdown with it; the cases each call slower."""
    _benchmark(folder, 0, "--benchmark-save=base")
    found = {}
    for passes in PASSES:
        said = _benchmark(folder, passes, "--benchmark-compare", f"--benchmark-compare-fail={THRESHOLD}")
        found[str(passes)] = [
            name for name in NAMES if any(f"[{name.removeprefix('planted/')}]" in line for line in said)
        ]
    return found


def _benchmark(folder: Path, passes: int, *options: str) -> list[str]:
    """One run of pytest-benchmark with its defaults; the lines that name a regression.  Raises Failed."""
    arm = Arm("pytest-benchmark", sys.executable, ((PLANTED, str(passes)),), threads=1)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "benchmarks/versus/baseline.py",
        "--noconftest",
        "-p",
        "no:cacheprovider",
    ]
    # A clock that moved is worth a warning to it, and warnings are errors here.
    command += ["-W", "default::pytest_benchmark.logger.PytestBenchmarkWarning"]
    command += ["-q", "--benchmark-only", f"--benchmark-storage={folder}", *options]
    done = subprocess.run(command, cwd=ROOT, env=arm.environment(), capture_output=True, text=True, timeout=300)
    output = (done.stdout + done.stderr).splitlines()
    slower = [line for line in output if "has failed PercentageRegressionCheck" in line]
    if done.returncode != (1 if slower else 0):
        raise Failed(f"pytest-benchmark ended with status {done.returncode}: {(output or ['nothing'])[-1]}")
    return slower


def extend(path: Path, minutes: float) -> None:
    """Adds whole comparisons to the record, the two ways in turn, until the time is over."""
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * minutes
    lines = read(path)
    sizes = next((_sizes(line["sizes"]) for line in lines if "sizes" in line), {})
    seed = 1 + max((line["seed"] for line in lines if "seed" in line), default=-1)
    console = Console(stderr=True, highlight=False, markup=False)
    while time.monotonic() < deadline:
        begun = time.monotonic()
        launches = []
        for number in range(LAUNCHES):
            launches.append(measure.launch(plan(seed), number, sizes, {}))
            console.print(f"comparison {seed}, launch {number + 1} of {LAUNCHES}, {_left(deadline)}")
        took = time.monotonic() - begun
        _append(path, {
            "seed": seed, "seconds": took, "sizes": {name: asdict(size) for name, size in sizes.items()},
            "launches": [asdict(launch) for launch in launches],
        })  # fmt: skip
        for number in range(COMPARISONS):
            if time.monotonic() > deadline:
                break
            begun = time.monotonic()
            # Below the working directory: of any other, pytest-benchmark cannot say where the saved run is.
            (saved := ROOT / ".benchmarks").mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=saved) as folder:
                slower = compare_with_threshold(Path(folder))
            _append(path, {"slower": slower, "seconds": time.monotonic() - begun})
            console.print(f"pytest-benchmark, {number + 1} of {COMPARISONS}, {_left(deadline)}")
        seed += 1


def _left(deadline: float) -> str:
    return f"{max(0.0, deadline - time.monotonic()) / 60:.0f} min left"


def _append(path: Path, line: Mapping[str, Any]) -> None:
    """A line of its own, also after one that was cut off."""
    with path.open("a+b") as file:
        file.seek(max(file.tell() - 1, 0))
        cut_off = file.read() not in (b"", b"\n")
        file.write(b"\n" * cut_off + json.dumps(line).encode() + b"\n")


def _sizes(found: Mapping[str, Mapping[str, int]]) -> dict[str, Size]:
    return {name: Size(**size) for name, size in found.items()}


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a record, without those that were cut off."""
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        with contextlib.suppress(ValueError):
            found.append(json.loads(line))
    return found


def verdicts(lines: Iterable[Mapping[str, Any]], passes: int, margin: float) -> Counter[Verdict]:
    """How often each verdict was given, a case and a comparison each, at one slowdown."""
    counted: Counter[Verdict] = Counter()
    for line in lines:
        if "launches" in line:
            launches = [Launch(**launch) for launch in line["launches"]]
            names = [*NAMES, *(case.id for case in controls.CASES)]
            found = samples(launches, names, ("A", "A'", _arm(passes)))
            judged = judge(
                {name: found[name] for name in NAMES}, {case.id: found[case.id] for case in controls.CASES}, margin
            )
            counted.update(judgement.verdict for judgement in judged.cases)
    return counted


def table(lines: Sequence[Mapping[str, Any]]) -> Table:
    """Both ways side by side: how often B was called slower, with Clopper and Pearson's 95 % interval."""
    shown = Table(title=f"how often B was called slower ({', '.join(NAMES)})", title_justify="left")
    shown.add_column("decided by", no_wrap=True)
    for passes in PASSES:
        shown.add_column(f"{'nothing' if not passes else f'{passes / UNITS:.0%}'} planted", justify="right")
    shown.add_column("A/A: other verdicts", overflow="fold")
    for margin in MARGINS:
        counts = [verdicts(lines, passes, margin) for passes in PASSES]
        rest = ", ".join(f"{n} {verdict.name}" for verdict, n in counts[0].items() if verdict is not Verdict.REGRESSED)
        rates = [_rate(count[Verdict.REGRESSED], sum(count.values())) for count in counts]
        shown.add_row(f"versus, margin {margin:.0%}, {LAUNCHES} launches", *rates, rest)
    slower = [line["slower"] for line in lines if "slower" in line]
    rates = [_rate(sum(len(each[str(passes)]) for each in slower), len(NAMES) * len(slower)) for passes in PASSES]
    shown.add_row(f"pytest-benchmark, {THRESHOLD}", *rates, "")
    return shown


def _rate(hits: int, trials: int) -> str:
    if not trials:
        return "–"
    bounds = binomtest(hits, trials).proportion_ci()
    return f"{hits}/{trials} = {hits / trials:.1%} ({bounds.low:.1%} to {bounds.high:.1%})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the experiment for a while, then shows the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versus.experiment", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.0, metavar="N", help="how long to go on (default 0)")
    parser.add_argument("--json", type=Path, default=RECORD, metavar="FILE", help=f"the record (default {RECORD})")
    asked = parser.parse_args(arguments)
    status = 0
    try:
        extend(asked.json, asked.minutes)
    except KeyboardInterrupt:
        status = 130
    except Failed as error:
        print(f"experiment: {error}", file=sys.stderr)
        status = 4
    lines = read(asked.json)
    console = Console(highlight=False, markup=False)
    console.width = max(console.width, 160)
    console.print(table(lines))
    for key, what in (("launches", "versus"), ("slower", "pytest-benchmark")):
        took = [line["seconds"] for line in lines if key in line]
        console.print(f"{what}: {len(took)} comparisons a slowdown, {sum(took) / 60:.0f} min, {len(NAMES)} cases each")
    return status


if __name__ == "__main__":
    sys.exit(main())
