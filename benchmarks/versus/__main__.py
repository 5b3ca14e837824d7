"""`python -m benchmarks.versus`: is B slower than A on this machine?  Two interpreters, or one with two settings.

Exit status 0: every case equivalent or improved; 1: at least one regressed; 2: wrong usage, in one line; 3: none
regressed, at least one inconclusive; 4: none regressed, at least one invalid; 130: interrupted (or ended by SIGTERM),
`--resume` goes on.
"""

from __future__ import annotations

import argparse
import importlib
import math
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

from benchmarks.versus import controls, measure, show
from benchmarks.versus.measure import Plan
from benchmarks.versus.process import COMPILE, Arm, Failed
from benchmarks.versus.record import Record, Unusable, differences, load, settings
from equivalences.files import Destination, destination

USAGE, INVALID, INTERRUPTED = 2, 4, 130
REGISTRY = "benchmarks.cases"
RECORD = Path(".benchmarks/versus.json")
MARGIN, LAUNCHES = 5, 12  # percent, and fresh processes an arm, unless others are asked for
THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


class Usage(Exception):
    """Wrong usage; the message is the one line that says what is wrong and what would be right."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message} (`{self.prog} --help` shows the options)")


def _at_least(smallest: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < smallest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {smallest}")
        return int(text)

    return number


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")
    return value


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE")
    return name, value


def _parser() -> _Parser:
    assert __doc__ is not None
    parser = _Parser(prog="python -m benchmarks.versus", description=__doc__, allow_abbrev=False)
    for side, default in (("a", "this interpreter"), ("b", "that of A")):
        group = parser.add_argument_group(f"{side.upper()}")
        group.add_argument(f"--{side}", metavar="PYTHON", help=f"interpreter (default: {default})")
        group.add_argument(f"--{side}-env", type=_variable, nargs="+", action="extend", default=[], metavar="K=V")
        group.add_argument(
            f"--{side}-threads", type=_at_least(1), metavar="N",
            help=f"default: what --{side}-env says ({' or '.join(THREADS)}), else what A's torch takes",
        )  # fmt: skip
        group.add_argument(
            f"--{side}-compile", choices=COMPILE, default="as-is",
            help="off: torch.compile does nothing; on: every unit goes through it (default: as the case has it)",
        )  # fmt: skip
    what = parser.add_argument_group("what is compared")
    what.add_argument("-k", dest="expression", default="", metavar="CASES", help="an expression, as pytest's -k")
    what.add_argument("--smoke", action="store_true", help="the smoke cases only")
    what.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    what.add_argument("--registry", default=REGISTRY, metavar="MODULE", help=f"has the CASES (default {REGISTRY})")
    how = parser.add_argument_group("how")
    default = "default {}, with --resume the record's"
    how.add_argument("--margin", type=_positive, metavar="PERCENT", help=f"that matters ({default.format(MARGIN)})")
    how.add_argument("--launches", type=_at_least(2), metavar="N", help=f"fresh processes ({default.format(LAUNCHES)})")
    how.add_argument(
        "--blocks", type=_at_least(1), default=Plan.blocks, metavar="N", help="a case and launch (default %(default)s)"
    )
    how.add_argument(
        "--block",
        type=_positive,
        default=1e3 * Plan.block,
        metavar="MS",
        help="length of a block (default %(default)g)",
    )
    how.add_argument(
        "--timeout", type=_positive, default=Plan.timeout, metavar="S", help="for one answer (default %(default)g)"
    )
    how.add_argument("--seed", type=_at_least(0), default=0, metavar="N", help="of the order of blocks (default 0)")
    how.add_argument("--json", type=Path, default=RECORD, metavar="FILE", help=f"the record (default {RECORD})")
    how.add_argument("--resume", action="store_true", help="go on with the record; more --launches extend it")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the comparison; returns the exit status."""
    try:
        with _terminated_as_interrupted():
            return _compare(_parser().parse_args(arguments))
    except Usage as error:
        print(f"versus: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("versus: interrupted before the first launch", file=sys.stderr)
        return INTERRUPTED


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM, from a scheduler or a timeout, ends a run as Ctrl-C does: no worker and no draft is left behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _compare(asked: Any) -> int:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, 200)  # a file or a pipe has no width: tables need one
    there = _there(asked)
    plan, environments = _planned(asked)
    record = _record(asked, there, plan, environments)
    console.print(show.header(record), soft_wrap=True)
    with _writable(asked.json) as file:
        status = _measure(plan, record, file)
    if record.launches:
        console.print(show.table(record))
        console.print(show.summary(record), soft_wrap=True)
        console.print(f"The record: {asked.json}", soft_wrap=True)
    return status if status is not None else record.judged().status


def _measure(plan: Plan, record: Record, file: Destination) -> int | None:
    """Adds the launches that are missing, the file growing with each; returns an exit status if that is decided."""
    missing = range(len(record.launches), record.wanted)
    try:
        with show.progress(len(missing) * len(plan.cases)) as advance:
            for number in missing:

                def finished(case: str, number: int = number) -> None:
                    advance(f"launch {number + 1}: {case}")

                for case in record.failed:
                    finished(case)
                record.launches.append(measure.launch(plan, number, record.sizes, record.failed, finished))
                _write(file, record)
        _write(file, record)
    except KeyboardInterrupt:
        kept = f"{len(record.launches)} of {record.wanted} launches are kept; --resume goes on"
        print(f"versus: interrupted: {kept}", file=sys.stderr)
        return INTERRUPTED
    except Failed as error:
        print(f"versus: stopped after {len(record.launches)} of {record.wanted} launches: {error}", file=sys.stderr)
        return INVALID
    return None


def _write(file: Destination, record: Record) -> None:
    try:
        file.write(record.data())
    except OSError as error:
        raise Failed(f"cannot write the record: {error.strerror}") from None


def _there(asked: Any) -> Record | None:
    """The record to go on with, if that is what is asked for.  Raises Usage rather than lose an unfinished one."""
    if not asked.json.exists():
        if asked.resume:
            raise Usage(f"--resume: there is no record {asked.json}")
        return None
    try:
        record = load(asked.json)
    except Unusable as error:
        raise Usage(f"--json: {error}") from None
    except OSError as error:
        raise Usage(f"--json: cannot read {asked.json}: {error.strerror}") from None
    if asked.resume:
        return record
    if not record.complete:
        what = f"{asked.json} holds {len(record.launches)} of {record.wanted} launches"
        raise Usage(f"{what}: --resume goes on with them, --json FILE writes elsewhere, or remove it")
    return None


def _planned(asked: Any) -> tuple[Plan, dict[str, dict[str, Any]]]:
    """The plan, and the environments of its arms.

    The threads are those that A's torch takes, unless others are asked for, by option or in the arm's own environment.
    """
    first = _interpreter("--a", asked.a or sys.executable)
    second = _interpreter("--b", asked.b) if asked.b else first
    cases = (*_cases(asked), *(case.id for case in controls.CASES))
    registries = (asked.registry, controls.REGISTRY)
    try:
        a = Arm("A", first, tuple(asked.a_env), asked.a_threads, asked.a_compile)
        of_a = measure.environment(a, registries, asked.device, asked.timeout)
        threads = of_a.get("threads", {}).get("within operations")
        a = replace(a, threads=asked.a_threads or _unless_said(asked.a_env, threads))
        b = Arm("B", second, tuple(asked.b_env), asked.b_threads or _unless_said(asked.b_env, threads), asked.b_compile)
        of_b = measure.environment(b, registries, asked.device, asked.timeout)
    except Failed as error:
        raise Usage(str(error)) from None
    arms = (a, replace(a, name="A'"), b)
    plan = Plan(arms, cases, registries, asked.device, asked.block / 1e3, asked.blocks, asked.seed, asked.timeout)
    return plan, {"A": of_a, "A'": of_a, "B": of_b}


def _unless_said(env: Sequence[tuple[str, str]], threads: int | None) -> int | None:
    """The threads, or None where the environment variables of an arm say how many: what they say is left alone."""
    return None if any(name in THREADS for name, _ in env) else threads


def _record(asked: Any, there: Record | None, plan: Plan, environments: dict[str, dict[str, Any]]) -> Record:
    """A new record, or the old one if it was made with the same settings.  Raises Usage otherwise."""
    if there is None:
        there = Record(settings(plan), environments, LAUNCHES, MARGIN / 100)
    if changed := differences(there, settings(plan), environments):
        raise Usage(f"--resume: {asked.json} was made with other settings: {'; '.join(changed)}")
    margin = asked.margin / 100 if asked.margin else there.margin
    # What is there is kept, and judged, though fewer were asked for.
    return replace(there, wanted=max(asked.launches or there.wanted, len(there.launches)), margin=margin)


@contextmanager
def _writable(path: Path) -> Iterator[Destination]:
    """The file of the record.  Raises Usage, before anything is measured, if it cannot be written."""
    with ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(destination(path))
        except OSError as error:
            raise Usage(f"--json: cannot write {path}: {error.strerror}") from None
        yield file


def _cases(asked: Any) -> tuple[str, ...]:
    """Ids of the cases that are asked for.  Raises Usage if there are none."""
    try:
        registry = importlib.import_module(asked.registry)
    except Exception as error:  # whatever a module does when it is imported
        raise Usage(f"--registry: {' '.join(str(error).split()) or type(error).__name__}") from None
    cases = tuple(getattr(registry, "CASES", ()))
    if not (cases and all(hasattr(case, "id") and hasattr(case, "runs_on") for case in cases)):
        raise Usage(f"--registry: {asked.registry} has no CASES with an id and runs_on(device) each")
    cases = tuple(case for case in cases if not asked.smoke or getattr(case, "smoke", False))
    if asked.expression:
        from benchmarks.cases import select  # brings torch along

        try:
            cases = select(cases, asked.expression)
        except ValueError as error:
            raise Usage(f"-k: {error}") from None
    cases = tuple(case for case in cases if case.runs_on(asked.device))
    if not cases:
        raise Usage(f"there are no such cases for {asked.device}")
    return tuple(case.id for case in cases)


def _interpreter(option: str, name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise Usage(f"{option}: there is no interpreter {name}")
    return str(Path(found).absolute())  # not resolved: a virtual environment's Python is a link


if __name__ == "__main__":
    sys.exit(main())
