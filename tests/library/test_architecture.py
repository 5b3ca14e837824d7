"""Arrows run one way, and each tool has its place: read from the imports, so that it stays so."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "equivalences"

# From the bottom up: a module imports what stands before it, or beside it in its own line.  A folder stands for all of
# its modules, except for those that have a place of their own.
LAYERS = (
    ("model", "formats", "devices", "files", "schema"),
    ("oracle/enclosure",),
    ("rounding", "oracle/exact"),
    ("oracle",),
    ("problems",),
    ("catalogue",),
    ("findings", "evidence/faults"),
    ("running", "findings/invariance"),
    ("judging", "findings/outcomes"),
    ("entries", "choices"),
    ("gate",),
    ("evidence",),
    ("report",),
    ("own",),
    ("commands", "__init__"),
    ("__main__",),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

# Who may know a tool; everybody else must not.
TOOLS = {
    "hypothesis": {"problems/strategies", "gate/plugin"},
    "flint": {"oracle", "formats"},
    "pytest": {"gate/plugin"},
    "rich": {"report", "commands", "__main__"},
    "pylatexenc": {"report"},
    "torch": {
        "formats", "devices", "schema", "rounding", "running", "judging", "gate", "evidence", "report", "own",
        "choices", "findings/programs", "findings/known_defects/actual", "findings/outcomes", "findings/invariance",
        "commands", "files", "__init__", "__main__",
    },
}  # fmt: skip


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


FILES = sorted(PACKAGE.rglob("*.py"))
NAMES = {
    path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__"): path
    for path in FILES
}


def rooms(path: Path) -> list[str]:
    """A module and the folders that it is in, from the inside out, as the tables above write them."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ["/".join(parts[:count]) for count in range(len(parts), 0, -1)]


def imported(path: Path) -> set[Path]:
    """The files of the package that a file imports."""
    found = set()
    for name in imports(path):
        module = name if name in NAMES else name.rpartition(".")[0]  # else a name in a module
        if module in NAMES and module != "equivalences":
            found.add(NAMES[module])
    return found - {path}


def level(path: Path) -> int:
    place = next((room for room in rooms(path) if room in LEVEL), None)
    assert place is not None, f"{path.relative_to(PACKAGE)} has no place in the order above: give it one"
    return LEVEL[place]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports(path: Path) -> None:
    for other in imported(path):
        said = f"{path.relative_to(PACKAGE)} must not import {other.relative_to(PACKAGE)}: arrows run one way"
        assert level(other) <= level(path), said
    for name in imports(path):
        who = set(rooms(path))
        tool = name.partition(".")[0]
        assert who & TOOLS.get(tool, who), f"{path.relative_to(PACKAGE)} must not know {tool}"


def test_no_cycle() -> None:
    """File by file, with what is imported inside of functions."""
    TopologicalSorter({path: imported(path) for path in FILES}).prepare()  # CycleError names the files


def test_no_dead_entry() -> None:
    assert set(LEVEL) <= {room for path in FILES for room in rooms(path)}


def test_a_rule_reads_arguments_by_name() -> None:
    """`Call` binds the arguments of an operation to the schema's names, and has them in no other way."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Attribute) and node.attr in {"arg", "args", "kwargs"}:
                read = isinstance(node.value, ast.Name) and node.value.id in {"call", "inner"}
                assert not read, f"{path.relative_to(ROOT)}:{node.lineno} reads an argument by position: name it"
