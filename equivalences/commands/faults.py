"""`faults`: show planted faults to the gate: can it fail?"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from rich.console import Console

from equivalences.commands import FAILED, Usage, natural


def add(commands: Any) -> None:
    """Adds the command and its options to the parser."""
    faults = commands.add_parser("faults", help="show planted faults to the gate: can it fail?", allow_abbrev=False)
    faults.add_argument("--examples", type=natural, metavar="N", help="drawn problems beside the edge problems")
    faults.add_argument("--docs", metavar="DIR", help="write faults.md and sensitivity.md there")
    faults.set_defaults(run=run)


PAGES = ("faults.md", "sensitivity.md")


def run(asked: Any, console: Console) -> int:
    from equivalences import files
    from equivalences.evidence import planted
    from equivalences.evidence.faults import FAULTS, SPECIAL_FAULTS
    from equivalences.report import plain, sensitivity
    from equivalences.report import planted as pages
    from equivalences.running import environment

    examples = planted.EXAMPLES if asked.examples is None else asked.examples
    with ExitStack() as stack:
        try:
            names = PAGES if asked.docs else ()
            page = {name: stack.enter_context(files.destination(Path(asked.docs) / name)) for name in names}
        except OSError as error:
            raise Usage(f"--docs: cannot write into {asked.docs}: {error.strerror}") from None
        console.print(environment.summary())
        findings = [pages.found(fault, examples) for fault in plain.followed(tuple(FAULTS.values()), "faults", True)]
        for name, (caught, partly, run) in pages.counts(findings).items():
            console.print(f"{name:>12}: of {run} faults {caught} noticed in every format, {partly} in some")
        there = [fault for fault in SPECIAL_FAULTS if planted.entries(fault)]
        specials = [pages.special(fault) for fault in plain.followed(there, "faults at special values", True)]
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
            page["faults.md"].text(pages.faults_page(findings, specials))
            page["sensitivity.md"].text(sensitivity.page(shown=True))
    return FAILED if wrong or missed else 0
