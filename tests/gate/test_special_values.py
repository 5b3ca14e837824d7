"""Special values: every operation does at inf, nan, nothing and nonsense what the table says, in every format."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from equivalences import choices
from equivalences.findings import outcomes
from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values import SPECIAL_VALUES, masks
from equivalences.findings.special_values.cross_entropy import CALL
from equivalences.formats import FORMATS, truncate
from equivalences.model import Form, Raises
from equivalences.report import special
from equivalences.running.forms import exists, torch_version

PAGE = Path(__file__).parents[2] / "docs" / "special_values.md"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entry" in metafunc.fixturenames:
        formats = choices.formats(metafunc.config.getoption("format"))
        cells = [(entry, fmt) for entry in SPECIAL_VALUES for fmt in formats if fmt in entry.formats]
        ids = [f"{entry.operation}: {entry.name}-{fmt}" for entry, fmt in cells]
        metafunc.parametrize(("entry", "fmt"), cells, ids=ids)


def test_special_value(entry: SpecialValue, fmt: str, device: str, mode: str) -> None:
    if not exists(Form(entry.call, needs=entry.needs)):
        pytest.skip(f"this torch has no torch.{entry.needs}")
    if outcomes.ends_the_process(entry, device):
        pytest.skip("on CUDA an assertion in the kernel, after which this process could run nothing else there")
    found = outcomes.broken(entry, fmt, device, mode, torch_version())
    assert not found, f"{entry.operation}, {entry.name}: {special.outcome(entry.outcome)} is right, and this {found}"


def test_eager_distributions_validate_whoever_compiled_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributions.Distribution, "_validate_args", False)  # as torch.compile leaves it
    entry = next(entry for entry in SPECIAL_VALUES if (entry.operation, entry.name) == ("Bernoulli", "a logit nan"))
    assert not outcomes.broken(entry, "float32", "cpu", "eager", torch_version())
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


def test_masks_are_of_every_pattern_and_exact_in_every_format() -> None:
    for classes in masks.WIDTHS:
        (batch,) = masks.batches(masks.ROWS, classes)
        patterns = masks.patterns(classes)
        assert set(batch.names) == set(patterns)
        assert all((masked == patterns[name]).all() for name, masked in zip(batch.names, batch.masked, strict=True))
        assert (np.isneginf(batch.z) == batch.masked).all()
        assert (batch.z[batch.rows, batch.largest] == batch.z.max(1)).all()
        several = (~batch.masked).sum(1) > 1
        assert (several == (batch.other != batch.largest)).all(), "a row that can lose something does"
        assert batch.masked[batch.rows, batch.hidden].all()
        for fmt in FORMATS.values():
            assert (truncate(batch.z, fmt)[~batch.masked] == batch.z[~batch.masked]).all()
    lost = {entry.name: entry.outcome for entry in masks.entries(8, 1024) if entry.call == CALL}
    assert isinstance(right := lost["masks, 8 x 1024, 1, mean"], Gives)
    assert right.value > 0, "the mean of a power of two of rows is exact, and so asked"
    assert all(np.shape(entry.items["z"]) == (3, 7) for entry in masks.entries(3, 7))
    assert not list(masks.entries(8, 1)), "a row of one class cannot be masked"


def test_of_many_numbers_the_first_that_differs_is_shown() -> None:
    entry = next(entry for entry in masks.entries(8, 100) if entry.call == "F.softmax(z, 1)")
    broken = replace(entry, call="F.softmax(z + 0 * z[:, :1], 1)")  # nan where the first class is masked
    said = outcomes.broken(broken, "float32", "cpu", "eager", "1.0")
    row = next(row for row, masked in enumerate(np.isneginf(entry.items["z"])) if masked[0])
    assert f"gives nan at [{row}, 0] of the value instead of 0.0" in said
    assert f"; row {row} masks {entry.rows[row]})" in said


def test_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == special.page(), (
        "docs/special_values.md is out of date: python -m equivalences special > docs/special_values.md"
    )
