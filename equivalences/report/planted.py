"""Planted faults as a page of the documentation: Markdown, written by the command, checked by a test."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass

from equivalences.catalogue import FAMILIES, FAMILY_OF
from equivalences.evidence import peers, planted
from equivalences.evidence.faults import FAULTS, SPECIAL_FAULTS
from equivalences.evidence.faults.fault import Fault, SpecialFault
from equivalences.formats import FORMATS
from equivalences.report import markdown, sealed

COMMAND = "python -m equivalences faults --docs docs"


@dataclass(frozen=True, eq=False)
class Finding:
    """One fault: what the gate found in each format, with which problem; whether each peer noticed, in each format."""

    fault: Fault
    gate: dict[str, dict[str, int]]
    peers: dict[str, dict[str, bool | None]]

    @property
    def holds(self) -> bool:
        """Whether the gate sees all that it should, and nothing of what cannot be seen."""
        expected = set() if self.fault.invisible else set(self.fault.breaks)
        return all(set(found) == expected for found in self.gate.values())


def found(fault: Fault, examples: int = planted.EXAMPLES) -> Finding:
    """Shows a fault to the gate and to its peers."""
    gate = {fmt: planted.refuted(fault, fmt, examples) for fmt in fault.formats}
    return Finding(fault, gate, peers.verdicts(fault))


@dataclass(frozen=True, eq=False)
class SpecialFinding:
    """One fault at special values: the entries of their table that refuse it, and the peers, in each format."""

    fault: SpecialFault
    entries: dict[str, list[str]]
    peers: dict[str, dict[str, bool | None]]

    @property
    def holds(self) -> bool:
        """Whether some entry refuses it in every format."""
        return all(self.entries.values())


def special(fault: SpecialFault) -> SpecialFinding:
    """Shows a fault at special values to their table and to the peers."""
    entries = {fmt: [entry.name for entry in planted.refusing(fault, fmt)] for fmt in FORMATS}
    return SpecialFinding(fault, entries, peers.special_verdicts(fault))


def faults_digest() -> str:
    """What the page on faults says of them without running any: changes with every entry."""
    ordinary = (
        f"{name}|{f.broken.code}|{f.formats}|{f.broken.layouts}|{f.breaks}|{f.why}|{f.hidden}|{f.invisible}"
        for name, f in FAULTS.items()
    )
    return sealed.digest(
        (*ordinary, *(f"{f.name}|{f.call}|{f.broken}|{f.why}|{f.of and f.of.name}" for f in SPECIAL_FAULTS))
    )


def _formats(names: Sequence[str]) -> str:
    return "all" if len(names) == len(FORMATS) else ", ".join(names)


def _gate(finding: Finding) -> str:
    if finding.fault.invisible:
        return "inside" if finding.holds else "SEEN"
    if not finding.holds:
        return "MISSED"
    return ", ".join(f"{kind} {max(cell[kind] for cell in finding.gate.values())}" for kind in finding.fault.breaks)


def _peer(cells: dict[str, bool | None]) -> str:
    run = {fmt: noticed for fmt, noticed in cells.items() if noticed is not None}
    if not run:
        return "not run"
    seen = [fmt for fmt, noticed in run.items() if noticed]
    return "yes" if len(seen) == len(run) else f"only {', '.join(seen)}" if seen else "**no**"


def counts(findings: Sequence[Finding]) -> dict[str, tuple[int, int, int]]:
    """The gate and each peer: faults noticed in every format that it ran, noticed in some format, and faults run."""
    visible = [finding for finding in findings if not finding.fault.invisible]
    held = sum(finding.holds for finding in visible)
    table = {"this gate": (held, held, len(visible))}
    for name in peers.PEERS:
        cells = [[x for x in finding.peers[name].values() if x is not None] for finding in visible]
        run = [cell for cell in cells if cell]
        table[name] = sum(map(all, run)), sum(map(any, run)), len(run)
    return table


def _cells(finding: Finding) -> tuple[str, ...]:
    fault = finding.fault
    return (
        f"`{fault.of.name}`",
        fault.name + " †" * fault.hidden,
        fault.why,
        _formats(fault.formats),
        _gate(finding),
        *(_peer(finding.peers[name]) for name in peers.PEERS),
    )


def fault_row(finding: Finding) -> str:
    """The line of the page that has the finding."""
    return markdown.row(_cells(finding))


def special_row(finding: SpecialFinding) -> str:
    """The line of the page that has a fault at special values."""
    return markdown.row(_special(finding))


def _special(finding: SpecialFinding) -> tuple[str, ...]:
    fault, (first, *others) = finding.fault, finding.entries.values()
    refusing = [name for name in first if all(name in names for names in others)]
    return (
        planted.entries(fault)[0].operation,
        fault.name,
        fault.why,
        _some(refusing) if finding.holds else "MISSED",
        *(_peer(finding.peers[name]) for name in peers.PEERS),
    )


def _some(names: Sequence[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    more = f"; and {len(names) - most} more" if len(names) > most else ""
    return "; ".join(names[:most]) + more


def faults_page(findings: Sequence[Finding], specials: Sequence[SpecialFinding]) -> str:
    """Every fault, what the gate says of it and what two common practices say."""
    visible = [finding for finding in findings if not finding.fault.invisible]
    lines = [
        *sealed.header("Planted faults", COMMAND, faults_digest()),
        f"{len(findings)} formulations broken on purpose (`equivalences/evidence/faults/`), each shown to the gate in "
        f"every format in which it exists, on the edge problems, {planted.EXAMPLES} drawn ones and "
        "then those that leave no input, or no combination of options, out: what a cell gets in the "
        f"`ci` profile. {len(visible)} must be refused; {len(findings) - len(visible)} cannot be seen, and the "
        "arithmetic at the end says why.",
        "",
        "The column *gate* has the number of the problem that first refuted the value and the gradient, in the format "
        "in which that took longest. Faults marked † are planted in a kernel, out of sight of the error analysis, and "
        "judged by the allowance of the reference. Beside it, run on the same code, in the same formats:",
        "",
        *(line.strip() for line in (inspect.getdoc(peers) or "").split("\n\n")[-1].splitlines()),
        "",
        "*yes*: noticed in every format; *only ...*: in these; **no**: in none. *not run*: "
        "`peers/opinfo.py` maps no operator of `op_db` to the identity.",
        "",
        *markdown.table(
            ("", "noticed in every format", "in some format", "faults run"),
            [(name, *map(str, numbers)) for name, numbers in counts(findings).items()],
        ),
    ]
    for family in FAMILIES:
        mine = [finding for finding in visible if FAMILY_OF[finding.fault.of.name] == family]
        if mine:
            lines += [f"## {family}", ""]
            lines += markdown.table(
                ("identity", "fault", "how one comes to write it", "formats", "gate", *peers.PEERS),
                [_cells(finding) for finding in mine],
            )
    lines += [
        "## Special values",
        "",
        f"{len(specials)} more are wrong at special values (`equivalences/evidence/faults/special.py`), which the gate "
        "never meets: their table, [special_values.md](special_values.md), must refuse each in every format. "
        "*refused by*: its entries that do so in all of them. Beside it the peers, on the ordinary numbers of an "
        "identity with the same items, against the sound call; *not run*: there is none, or no operator for it.",
        "",
        *markdown.table(
            ("operation", "fault", "how one comes to write it", "refused by", *peers.PEERS), map(_special, specials)
        ),
    ]
    lines += ["## What cannot be seen", ""]
    lines += markdown.table(
        ("identity", "fault", "formats", "gate", "why nothing can see it"),
        [
            (f"`{f.fault.of.name}`", f.fault.name, _formats(f.fault.formats), _gate(f), f.fault.invisible)
            for f in findings
            if f.fault.invisible
        ],
    )
    return sealed.page(lines)
