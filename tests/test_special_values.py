"""Special values: every operation does at inf, nan, nothing and nonsense what the table says, in every format."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from equivalences import choices, execute, outcomes
from equivalences.model import Deviation, Form, Gives, Raises, SpecialValue
from equivalences.report import special
from equivalences.special_values import SPECIAL_VALUES

PAGE = Path(__file__).parent.parent / "docs" / "special_values.md"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entry" in metafunc.fixturenames:
        formats = choices.formats(metafunc.config.getoption("format"))
        cells = [(entry, fmt) for entry in SPECIAL_VALUES for fmt in formats if fmt in entry.formats]
        ids = [f"{entry.operation}: {entry.name}-{fmt}" for entry, fmt in cells]
        metafunc.parametrize(("entry", "fmt"), cells, ids=ids)


def test_special_value(entry: SpecialValue, fmt: str, device: str, mode: str) -> None:
    if not execute.exists(Form(entry.call, needs=entry.needs)):
        pytest.skip(f"this torch has no torch.{entry.needs}")
    if outcomes.ends_the_process(entry, device):
        pytest.skip("on CUDA an assertion in the kernel, after which this process could run nothing else there")
    found = outcomes.broken(entry, fmt, device, mode, execute.torch_version())
    assert not found, f"{entry.operation}, {entry.name}: {special.outcome(entry.outcome)} is right, and this {found}"


def test_eager_distributions_validate_whoever_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)  # as torch.compile leaves it
    entry = next(entry for entry in SPECIAL_VALUES if (entry.operation, entry.name) == ("Bernoulli", "a logit nan"))
    assert not outcomes.broken(entry, "float32", "cpu", "eager", execute.torch_version())
    assert not torch.distributions.Distribution._validate_args, "what was set before stays so"


def test_names_are_unique() -> None:
    names = [(entry.operation, entry.name) for entry in SPECIAL_VALUES]
    assert len(set(names)) == len(names)


ENTRY = SpecialValue("sigmoid", "+inf", "torch.sigmoid(z)", {"z": [float("inf")]}, Gives([1], [0]), why="limit")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (replace(ENTRY, outcome=Gives([float("nan")], [0])), r"gives \[1.0\]"),
        (replace(ENTRY, outcome=Gives([1], [float("nan")])), r"gradient \[0.0\]"),
        (replace(ENTRY, outcome=Gives(1, [0])), r"gives \[1.0\]"),
        (replace(ENTRY, outcome=Gives([1], [0], dtype="float64")), "float32"),
        (replace(ENTRY, outcome=Raises(ValueError, "")), "raises nothing"),
        (replace(ENTRY, call="torch.sigmoid(z, 1)"), "raises TypeError"),
        (replace(ENTRY, call="z[2]", outcome=Raises(IndexError, "of another kind")), "raises IndexError: index 2"),
        (replace(ENTRY, deviations=(Deviation(Gives([0]), "", seen=("1.0",)),)), "fixed: delete"),
        (replace(ENTRY, outcome=Gives([2]), deviations=(Deviation(Gives([3]), "", seen=("1.0",)),)), "gives"),
    ],
    ids=["value", "gradient", "shape", "dtype", "no exception", "an exception", "its message", "fixed", "neither"],
)
def test_the_table_can_fail(wrong: SpecialValue, says: str) -> None:
    assert not outcomes.broken(ENTRY, "float32", "cpu", "eager", "1.0")
    assert re.search(says, outcomes.broken(wrong, "float32", "cpu", "eager", "1.0"))


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == special.page(), (
        "docs/special_values.md is out of date: python -m equivalences special > docs/special_values.md"
    )
