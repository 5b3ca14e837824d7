"""`verify`: judge the catalogue on this machine."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from equivalences.commands import FAILED, INTERRUPTED, USAGE, Usage, natural, positive

if TYPE_CHECKING:  # torch takes seconds to load
    from equivalences.files import Destination
    from equivalences.gate.resume import Finished
    from equivalences.judging.tally import Tally
    from equivalences.model import Identity


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    verify = commands.add_parser("verify", help="judge the catalogue on this machine", allow_abbrev=False)
    verify.add_argument("--identity", action="append", default=[], metavar="NAME", help="a name, a family or a glob")
    verify.add_argument("--format", action="append", default=[], metavar="FORMAT", help="float64, float32, ...")
    verify.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    verify.add_argument("--mode", default="eager", metavar="MODE", help="eager (default) or compiled")
    verify.add_argument("--examples", type=natural, metavar="N", help="drawn problems beside the edge problems")
    verify.add_argument("--seed", type=natural, default=0, metavar="N", help="of the drawn problems (default 0)")
    verify.add_argument("--jobs", type=positive, metavar="N", help="processes (default: one a core)")
    verify.add_argument("--json", metavar="FILE", help="write the results there, for programs")
    verify.add_argument("--resume", metavar="FILE", help="keep what is finished there, and go on from what it holds")
    verify.add_argument("--forms", action="store_true", help="also show where each form is valid")
    verify.set_defaults(run=run)


@dataclass(frozen=True)
class Plan:
    """What is to be judged, how, and where the results go."""

    identities: tuple[Identity, ...]
    formats: tuple[str, ...]
    device: str
    mode: str
    examples: int
    seed: int
    jobs: int
    file: Destination | None
    finished: Finished | None

    @property
    def order(self) -> list[tuple[str, str]]:
        """The cells, an identity in a format each, in the catalogue's order."""
        return [(i.name, fmt) for i in self.identities for fmt in self.formats if fmt in i.formats]


@dataclass(frozen=True)
class Judged:
    """What came of a plan: the tallies in its order, of which cells they are whole, and how the run ended."""

    tallies: list[Tally]
    complete: frozenset[tuple[str, str]]
    interrupted: bool
    died: bool
    seconds: float


def run(asked: Any, console: Console) -> int:
    with ExitStack() as stack:
        plan = _asked(asked, stack)
        from equivalences.running import environment

        console.print(environment.summary(plan.device), soft_wrap=True)
        if plan.finished:
            held = f"{asked.resume} holds {len(plan.finished)} finished units of work: they are not judged again"
            console.print(held, soft_wrap=True)
        judged = _judge(plan)
        unwritten = _write(plan, judged, asked.json)
        if plan.finished is not None and plan.finished.lost:
            unwritten = True
            said = f"could not keep all that was finished in {asked.resume}: {plan.finished.lost}"
            print(f"equivalences: {said}", file=sys.stderr)
        status = _show(asked, plan, judged, unwritten, console)
        return FAILED if judged.died else status


def _asked(asked: Any, stack: ExitStack) -> Plan:
    """The plan that the arguments ask for; opens the files that it needs.  Raises Usage."""
    from equivalences import choices, files

    try:
        identities, formats = choices.identities(asked.identity), choices.formats(asked.format)
        device, mode = choices.device(asked.device), choices.mode(asked.mode)
        file = stack.enter_context(files.destination(asked.json)) if asked.json is not None else None
    except choices.Unknown as error:
        raise Usage(str(error)) from None
    except OSError as error:
        raise Usage(f"--json: cannot write {asked.json}: {error.strerror}") from None
    if not any(fmt in identity.formats for identity in identities for fmt in formats):
        raise Usage(f"none of the identities is judged in {', '.join(formats)}")
    if file and asked.resume is not None and file.path == Path(os.path.realpath(asked.resume)):
        raise Usage("--json and --resume name the same file: give each its own")
    if asked.resume is None:  # nothing can be wrong any more; to load torch takes seconds
        print(f"judging {_amount(identities, formats)}, on {device}, {mode}; loading torch ...", flush=True)
    from equivalences import devices
    from equivalences.gate import processes, resume, sweep

    stack.enter_context(devices.threads(1))  # as every worker has: what is recorded is what ran
    try:
        finished = stack.enter_context(resume.finished(asked.resume, device)) if asked.resume is not None else None
    except resume.Unfit as error:
        raise Usage(f"--resume: {error}") from None
    except OSError as error:
        raise Usage(f"--resume: cannot write {asked.resume}: {error.strerror}") from None
    return Plan(
        identities, formats, device, mode,
        examples=sweep.EXAMPLES[mode] if asked.examples is None else asked.examples,
        seed=asked.seed,
        jobs=asked.jobs or (processes.cores() if device == "cpu" else 1),
        file=file, finished=finished,
    )  # fmt: skip


def _amount(identities: tuple[Identity, ...], formats: tuple[str, ...]) -> str:
    """How much there is to judge, in words."""
    what = identities[0].name if len(identities) == 1 else f"{len(identities)} identities"
    return f"{what} in {', '.join(fmt for fmt in formats if any(fmt in each.formats for each in identities))}"


def _judge(plan: Plan) -> Judged:
    """Judges it, and shows progress; an interruption ends it early."""
    from equivalences.gate import processes, sweep
    from equivalences.report.progress import shown

    begun = time.monotonic()
    cells: dict[tuple[str, str], Tally] = {}
    complete: set[tuple[str, str]] = set()
    interrupted = died = False
    try:
        with shown() as progress:
            for tally in sweep.sweep(
                plan.identities, plan.formats, plan.device, plan.mode, plan.examples, plan.seed,
                jobs=plan.jobs, progress=progress(cells), finished=plan.finished,
            ):  # fmt: skip
                complete.add((tally.identity.name, tally.format))
    except KeyboardInterrupt:
        interrupted = True
    except processes.WorkerDied as error:  # what was judged until then is worth having
        interrupted = died = True
        print(f"equivalences: {error}", file=sys.stderr)
    tallies = [cells[key] for key in plan.order if key in cells]
    return Judged(tallies, frozenset(complete), interrupted, died, time.monotonic() - begun)


def _write(plan: Plan, judged: Judged, name: str) -> bool:
    """Writes the results for programs, where they are asked for; whether that failed, which stderr then says."""
    from equivalences.report import results

    if plan.file is None:
        return False
    incomplete = set(plan.order) - judged.complete
    said = {
        "identities": [identity.name for identity in plan.identities],
        "formats": list(plan.formats), "device": plan.device, "mode": plan.mode,
        "examples": plan.examples, "seed": plan.seed,
    }  # fmt: skip
    try:
        plan.file.write(results.results(judged.tallies, said, incomplete))
    except OSError as error:  # what was judged is shown all the same
        print(f"equivalences: could not write {name}: {error.strerror}", file=sys.stderr)
        return True
    return False


def _show(asked: Any, plan: Plan, judged: Judged, unwritten: bool, console: Console) -> int:
    """Tables, reports of failures, and the ending; returns the exit status."""
    from equivalences.report import defects, ending, failure, table

    tallies = judged.tallies
    if asked.forms:
        for t in tallies:
            console.print(table.validity(t, console.width))
            console.print()
    if tallies:
        console.print(table.summary(tallies, console.width))
        for line in defects.met(tallies):
            console.print(line, soft_wrap=True)
    failing = [t for t in tallies if t.failures]
    for t in failing:
        for f in {f.form.label: f for f in reversed(t.failures)}.values():
            console.rule()
            print(failure.text(f), flush=True)
    whole = plan.mode == "eager" and not judged.interrupted
    vacuous = [(t, missing) for t in tallies if whole and (missing := t.vacuous())]
    if vacuous:
        console.rule()
        print("never tested, not once with an allowance that says something:")
        for t, missing in vacuous:
            print("\n".join(f"  {t.identity.name} in {t.format}: {each}" for each in missing))
    console.rule()
    cells = len(judged.complete), len(plan.order)
    for line in ending.sentences(tallies, cells, judged.seconds, [t for t, _ in vacuous], judged.interrupted):
        console.print(line, soft_wrap=not console.is_terminal)
    if judged.interrupted:
        print("equivalences: interrupted; this is what was judged so far", file=sys.stderr)
        if asked.resume:
            print(f"equivalences: the same command goes on from {asked.resume}", file=sys.stderr)
        return INTERRUPTED
    return FAILED if failing or vacuous else USAGE if unwritten else 0
