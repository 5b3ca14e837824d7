"""A finding: the words, and where a table already says them."""

from __future__ import annotations

from dataclasses import dataclass

from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.model import KnownDefect, Severity, Unstable
from equivalences.findings.unstable import UNSTABLE


@dataclass(frozen=True, eq=False)
class Stated:
    """What is said of a finding that no rule of the analysis is about: fields as in `KnownDefect`."""

    severity: Severity
    off: str
    hurts: str
    instead: str
    formats: tuple[str, ...]
    modes: tuple[str, ...]
    seen: tuple[str, ...]
    why: str
    link: str = ""
    fixed: str = ""


@dataclass(frozen=True, eq=False)
class Finding:
    """One thing that PyTorch gets wrong, in words for those who meet it.

    of       where formats, releases, severity and what to do instead are said.
    example  a whole program; it holds, word by word, what `of` says to do instead.
    prints   its output on the CPU, on each release that `of` names.
    """

    name: str
    title: str
    of: KnownDefect | Unstable | Stated
    example: str
    prints: str


def known(name: str) -> KnownDefect:
    """The known defect of this name."""
    return next(defect for defect in KNOWN_DEFECTS if defect.name == name)


def unstable(name: str) -> Unstable:
    """The unstable entry of this name."""
    return next(entry for entry in UNSTABLE if entry.name == name)
