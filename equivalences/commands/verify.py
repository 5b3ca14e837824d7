"""`verify`: judge the catalogue on this machine."""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from equivalences.commands import FAILED, INTERRUPTED, Usage, natural, positive


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


def run(asked: Any, console: Console) -> int:
    from equivalences import choices, files, resume, sweep
    from equivalences.report import environment, failure, results, table
    from equivalences.report.progress import shown
    from equivalences.tally import Tally

    with ExitStack() as stack:
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
        try:
            finished = stack.enter_context(resume.finished(asked.resume, device)) if asked.resume is not None else None
        except resume.Unfit as error:
            raise Usage(f"--resume: {error}") from None
        except OSError as error:
            raise Usage(f"--resume: cannot write {asked.resume}: {error.strerror}") from None
        examples = sweep.EXAMPLES[mode] if asked.examples is None else asked.examples
        jobs = asked.jobs or (sweep.cores() if device == "cpu" else 1)

        console.print(environment.summary(device))
        if finished:
            console.print(f"{asked.resume} holds {len(finished)} finished units of work: they are not judged again")
        begun = time.monotonic()
        cells: dict[tuple[str, str], Tally] = {}
        complete = 0
        interrupted = False
        try:
            with shown() as progress:
                for _ in sweep.sweep(
                    identities, formats, device, mode, examples, asked.seed,
                    jobs=jobs, progress=progress(cells), finished=finished,
                ):  # fmt: skip
                    complete += 1
        except KeyboardInterrupt:
            interrupted = True
        except sweep.WorkerDied as error:
            print(f"equivalences: {error}", file=sys.stderr)
            return FAILED
        order = [(identity.name, fmt) for identity in identities for fmt in formats if fmt in identity.formats]
        tallies = [cells[key] for key in order if key in cells]

        if asked.forms:
            for t in tallies:
                console.print(table.validity(t))
        if tallies:
            console.print(table.summary(tallies))
        unwritten = False
        if file and not interrupted:  # before the reports, which take long where much has failed
            plan = {
                "identities": [identity.name for identity in identities],
                "formats": list(formats), "device": device, "mode": mode, "examples": examples, "seed": asked.seed,
            }  # fmt: skip
            try:
                file.write(results.results(tallies, plan))
            except OSError as error:
                unwritten = True  # what was judged is shown all the same
                print(f"equivalences: could not write {asked.json}: {error.strerror}", file=sys.stderr)
        failing = [t for t in tallies if t.failures]
        for t in failing:
            for f in {f.form.label: f for f in reversed(t.failures)}.values():
                console.rule()
                print(failure.text(f), flush=True)
        whole = mode == "eager" and not interrupted
        vacuous = [(t, missing) for t in tallies if whole and (missing := t.vacuous())]
        if vacuous:
            console.rule()
            print("never tested, not once with an allowance that says something:")
            for t, missing in vacuous:
                print("\n".join(f"  {t.identity.name} in {t.format}: {each}" for each in missing))
        console.rule()
        numbers, runs = sum(t.numbers for t in tallies), sum(t.problems for t in tallies)
        took = time.monotonic() - begun
        console.print(
            f"{numbers:,} numbers of {runs:,} problems judged in {took:.0f} s: "
            f"{len({t.identity.name for t in tallies})} identities, {complete} of {len(order)} cells complete; "
            f"{len(failing)} with failures, {len(vacuous)} not fully tested"
        )
        if interrupted:
            print("equivalences: interrupted; this is what was judged so far", file=sys.stderr)
            if asked.resume:
                print(f"equivalences: the same command goes on from {asked.resume}", file=sys.stderr)
            return INTERRUPTED
        return FAILED if failing or vacuous or unwritten else 0
