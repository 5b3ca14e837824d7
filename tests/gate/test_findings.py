"""Every program of docs/findings.md is run as it is printed, and prints what the page says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.model import KnownDefect, Unstable
from equivalences.findings.programs import FINDINGS
from equivalences.findings.programs.finding import Finding
from equivalences.findings.unstable import UNSTABLE
from equivalences.report import findings
from equivalences.running.forms import torch_version

PAGE = Path(__file__).parents[2] / "docs" / "findings.md"

# Runs each program in a namespace of its own, with the threads that a process starts with: torch is imported once.
RUNNER = """
import contextlib, io, json, sys, torch
threads, found = torch.get_num_threads(), {}
for name, program in json.load(sys.stdin).items():
    torch.set_num_threads(threads)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(program, name, "exec"), {"__name__": "__main__"})
    found[name] = printed.getvalue()
print(json.dumps(found))
"""


def there(mode: str) -> list[Finding]:
    """The findings with a program that this release and mode have."""
    compiled = [finding for finding in FINDINGS if "torch.compile(" in finding.example]
    found = compiled if mode == "compiled" else [finding for finding in FINDINGS if finding not in compiled]
    return [each for each in found if each.example and torch_version() in findings.releases(each)]


def printed(programs: dict[str, str]) -> dict[str, str]:
    """What each program prints, all in one process."""
    ran = subprocess.run(
        [sys.executable, "-c", RUNNER], input=json.dumps(programs), capture_output=True, text=True, check=False
    )
    assert not ran.returncode, ran.stderr
    found: dict[str, str] = json.loads(ran.stdout)
    return found


@pytest.mark.slow
def test_programs_print_what_the_page_says(mode: str) -> None:
    shown = there(mode)
    if not shown:
        pytest.skip(f"no finding was seen in torch {torch_version()}")
    # Compiled code leaves traces in its process (two of the findings are about that): one process for each.
    batches = [[each] for each in shown] if mode == "compiled" else [shown]
    for batch in batches:
        found = printed({each.name: each.example for each in batch})
        assert found == {each.name: each.prints for each in batch}


@pytest.mark.parametrize("finding", FINDINGS, ids=lambda finding: finding.name)
def test_what_to_do_instead_is_in_the_program(finding: Finding) -> None:
    assert bool(finding.example) == bool(finding.prints)
    if finding.example:
        assert finding.of.instead in finding.example, "what the page advises is not what its program tries"
    else:
        assert findings.releases(finding) == ("2.8.0",), "show it in a program"


def test_each_entry_of_the_tables_is_found() -> None:
    """One program may stand for several operations of one kernel: those have the same cause, word by word."""
    told = {finding.of.why for finding in FINDINGS}
    entries: list[KnownDefect | Unstable] = [
        *(defect for defect in KNOWN_DEFECTS if "cpu" in defect.devices),
        *UNSTABLE,
    ]
    missing = [entry.name for entry in entries if entry.why not in told]
    assert not missing, f"no finding shows {missing}"


def test_names_are_told_apart() -> None:
    assert len({finding.name for finding in FINDINGS}) == len(FINDINGS)


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == findings.page(), (
        "docs/findings.md is out of date: python -m equivalences findings > docs/findings.md"
    )
