"""Arrows run one way, and each tool has its place: read from the imports, so that it stays so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "equivalences"

# From the bottom up: a module imports what stands before it, or beside it in its own line.
LAYERS = (
    ("model", "formats", "devices", "files", "schema"),
    ("enclosure",),
    ("rounding", "exact"),
    ("oracle",),
    ("problems",),
    ("catalogue",),
    ("known_defects", "unstable", "faults", "special_values"),
    ("findings",),
    ("running", "invariance"),
    ("judging", "outcomes"),
    ("sweep",),
    ("planted", "peers", "sensitivity"),
    ("entries", "choices"),
    ("report",),
    ("own", "resume"),
    ("plugin", "commands", "__init__"),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Who may know a tool; everybody else must not.
TOOLS = {
    "hypothesis": {"problems/strategies.py", "plugin"},
    "flint": {"exact", "oracle", "enclosure", "formats"},
    "pytest": {"plugin"},
    "rich": {"report", "commands", "__main__"},
    "pylatexenc": {"report"},
    "torch": set(LEVEL)
    - {
        "model",
        "exact",
        "oracle",
        "enclosure",
        "problems",
        "catalogue",
        "known_defects",
        "unstable",
        "special_values",
        "entries",
    },
}


def imports(path: Path) -> Iterator[str]:
    """The absolute names of the modules that a file imports, wherever in it."""
    package = list(path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: -node.level] if node.level else [])
            source = ".".join(filter(None, (base, node.module)))
            yield from (f"{source}.{name.name}" for name in node.names)


def unit(path: Path) -> str:
    """The module or folder right below the package that a file belongs to."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    own = unit(path)
    assert own in LEVEL, f"{own} has no place in the order above: give it one"
    for name in imports(path):
        top, _, rest = name.partition(".")
        if top == "equivalences" and rest:
            other = rest.partition(".")[0]
            if other in LEVEL:  # else a name in the package itself
                assert LEVEL[other] <= LEVEL[own], f"{own} must not import {other}: arrows run one way"
        who = {own, path.relative_to(PACKAGE).as_posix()}
        assert who & TOOLS.get(top, who), f"{own} must not know {top}"


def test_no_dead_entry() -> None:
    there = {unit(path) for path in FILES}
    assert set(LEVEL) <= there


def test_a_rule_reads_arguments_by_name() -> None:
    """`Call` binds the arguments of an operation to the schema's names, and has them in no other way."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"arg", "args", "kwargs"}:
                read = isinstance(node.value, ast.Name) and node.value.id in {"call", "inner"}
                assert not read, f"{path.relative_to(ROOT)}:{node.lineno} reads an argument by position: name it"
