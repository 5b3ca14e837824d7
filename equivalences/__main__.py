"""`python -m equivalences COMMAND`: the whole catalogue on this machine, without pytest.

Exit status 0: everything holds; 1: something does not, and the reports say what; 2: wrong usage, in one line;
130: interrupted.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

from rich.console import Console

USAGE, FAILED, INTERRUPTED = 2, 1, 130
PAGES = {  # each a command and a module of `report`
    "findings": "what PyTorch gets wrong, and what to do instead",
    "pitfalls": "what looks right and is not, with numbers",
    "special": "what is right at inf, nan, nothing and nonsense",
    "invariance": "what depends on a row's place or on the threads",
}


class Usage(Exception):
    """Wrong usage; the message is the one line that says what is wrong and what would be right."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise Usage(f"{message} (`{self.prog} --help` shows the options)")


def _natural(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0, 1, 2, ...")
    return int(text)


def _positive(text: str) -> int:
    if not _natural(text):
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)


def _parser() -> _Parser:
    parser = _Parser(prog="python -m equivalences", description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    verify = commands.add_parser("verify", help="judge the catalogue on this machine", allow_abbrev=False)
    verify.add_argument("--identity", action="append", default=[], metavar="NAME", help="a name, a family or a glob")
    verify.add_argument("--format", action="append", default=[], metavar="FORMAT", help="float64, float32, ...")
    verify.add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    verify.add_argument("--mode", default="eager", metavar="MODE", help="eager (default) or compiled")
    verify.add_argument("--examples", type=_natural, metavar="N", help="drawn problems beside the edge problems")
    verify.add_argument("--seed", type=_natural, default=0, metavar="N", help="of the drawn problems (default 0)")
    verify.add_argument("--jobs", type=_positive, metavar="N", help="processes (default: one a core)")
    verify.add_argument("--json", metavar="FILE", help="write the results there, for programs")
    verify.add_argument("--resume", metavar="FILE", help="keep what is finished there, and go on from what it holds")
    verify.add_argument("--forms", action="store_true", help="also show where each form is valid")
    verify.set_defaults(run=_verify)
    compare = commands.add_parser("compare", help="what changed between two results of `verify --json`")
    compare.add_argument("before", metavar="BEFORE")
    compare.add_argument("after", metavar="AFTER")
    compare.set_defaults(run=_compare)
    sharpness = commands.add_parser("sharpness", help="how much of their allowance forms used, as Markdown")
    sharpness.add_argument("results", metavar="RESULT", nargs="+", help="written by `verify --json`, with any seeds")
    sharpness.set_defaults(run=_sharpness)
    faults = commands.add_parser("faults", help="show planted faults to the gate: can it fail?", allow_abbrev=False)
    faults.add_argument("--examples", type=_natural, metavar="N", help="drawn problems beside the edge problems")
    faults.add_argument("--docs", metavar="DIR", help="write faults.md and sensitivity.md there")
    faults.set_defaults(run=_faults)
    commands.add_parser("list", help="the catalogue").set_defaults(run=_list)
    show = commands.add_parser("show", help="one identity, pitfall or known defect")
    show.add_argument("name", metavar="NAME")
    show.set_defaults(run=_show)
    for name, what in PAGES.items():
        commands.add_parser(name, help=f"{what}, as Markdown").set_defaults(run=_page)
    commands.choices["invariance"].add_argument("--device", default="cpu", help="cpu (default), cuda, ...")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    try:
        asked = _parser().parse_args(arguments)
        status: int = asked.run(asked, _console())
        return status
    except Usage as error:
        print(f"equivalences: {error}", file=sys.stderr)
        return USAGE
    except BrokenPipeError:  # the reader has left, as `| head` does
        sys.stderr.close()
        return FAILED
    except KeyboardInterrupt:
        print("equivalences: interrupted", file=sys.stderr)
        return INTERRUPTED


def _console() -> Console:
    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = max(console.width, 200)  # a file or a pipe has no width: tables need one
    return console


# --- verify ----------------------------------------------------------------------------------------------------------


def _verify(asked: Any, console: Console) -> int:
    # torch takes seconds to load: not before the command line is known to parse.
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


# --- compare ---------------------------------------------------------------------------------------------------------


def _compare(asked: Any, console: Console) -> int:
    from equivalences.report import drift, results

    try:
        before, after = results.read(asked.before), results.read(asked.after)
    except ValueError as error:
        raise Usage(str(error)) from None
    if reason := drift.comparable(before, after):
        raise Usage(f"{asked.before} and {asked.after} cannot be compared: {reason}")
    found = list(drift.changes(before, after))
    if found:
        console.print(drift.table(before, after, found))
    for line in drift.defects(before, after):
        console.print(line)
    console.print(drift.summary(before, after, found))
    return FAILED if any(change.what == "fails now" for change in found) else 0


# --- sharpness -------------------------------------------------------------------------------------------------------


def _sharpness(asked: Any, console: Console) -> int:
    from equivalences.report import results, sharpness

    try:
        several = [results.read(path) for path in asked.results]
    except ValueError as error:
        raise Usage(str(error)) from None
    if reason := sharpness.comparable(several):
        raise Usage(f"the results cannot be taken together: {reason}")
    print(sharpness.page(several), end="")
    return 0


# --- faults ----------------------------------------------------------------------------------------------------------


def _faults(asked: Any, console: Console) -> int:
    from equivalences import files, planted, sensitivity
    from equivalences.catalogue import IDENTITIES
    from equivalences.faults import FAULTS, SPECIAL_FAULTS
    from equivalences.report import environment, plain
    from equivalences.report import planted as pages

    examples = planted.EXAMPLES if asked.examples is None else asked.examples
    with ExitStack() as stack:
        try:
            names = pages.PAGES if asked.docs else ()
            if asked.docs and Path(asked.docs).is_dir():
                (Path(asked.docs) / "sensitivity").mkdir(exist_ok=True)
            page = {name: stack.enter_context(files.destination(Path(asked.docs) / name)) for name in names}
        except OSError as error:
            raise Usage(f"--docs: cannot write into {asked.docs}: {error.strerror}") from None
        console.print(environment.summary())
        findings = [pages.found(fault, examples) for fault in plain.followed(tuple(FAULTS.values()), "faults", True)]
        for name, (caught, partly, run) in pages.counts(findings).items():
            console.print(f"{name:>12}: of {run} faults {caught} noticed in every format, {partly} in some")
        specials = [pages.special(fault) for fault in SPECIAL_FAULTS if planted.entries(fault)]
        held = sum(finding.holds for finding in specials)
        console.print(f"of {len(specials)} faults at special values their table refuses {held} in every format")
        missed = [finding for finding in specials if not finding.holds]
        for miss in missed:
            console.print(f"{miss.fault.name}, {miss.fault.call}: not refused: {miss.entries}")
        wrong = [finding for finding in findings if not finding.holds]
        for finding in wrong:
            what = "seen, though said to be invisible" if finding.fault.invisible else "not refused"
            console.print(f"{finding.fault.of.name}: {finding.fault.name}: {what}: {finding.gate}")
        if page and not wrong and not missed:
            judged = [(i, fmt) for i in IDENTITIES.values() if pages.judged(i) for fmt in i.formats]
            cells = [
                cell
                for identity, fmt in plain.followed(judged, "sensitivity", True)
                for cell in sensitivity.measured(identity, fmt)
            ]
            for name, text in {
                "faults.md": pages.faults_page(findings, specials),
                **pages.sensitivity_pages(cells),
            }.items():
                page[name].text(text)
    return FAILED if wrong or missed else 0


# --- list, show and pages --------------------------------------------------------------------------------------------


def _list(asked: Any, console: Console) -> int:
    from equivalences.report import describe

    for line in describe.catalogue():
        console.print(line, soft_wrap=True)
    return 0


def _show(asked: Any, console: Console) -> int:
    from equivalences import choices
    from equivalences.report import describe

    try:
        entry = choices.entry(asked.name)
    except choices.Unknown as error:
        raise Usage(str(error)) from None
    console.print(describe.entry(entry), soft_wrap=True)
    return 0


def _page(asked: Any, console: Console) -> int:
    from equivalences import choices

    try:
        where = {"device": choices.device(asked.device)} if "device" in asked else {}
    except choices.Unknown as error:
        raise Usage(str(error)) from None
    print(import_module(f"equivalences.report.{asked.command}").page(**where), end="")
    return 0


def _interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _interrupted)  # a time limit: what was judged is shown, drafts are removed
    sys.exit(main())
