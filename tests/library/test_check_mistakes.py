"""What `check` says of a likely mistake, from where an implementation fails; and that it stops where it is asked to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import _get_current_dispatch_mode

from equivalences import check
from equivalences.own.mistakes import Seen, likely
from equivalences.own.severity import Severity

FEW: dict[str, Any] = {"formats": ("float32",), "examples": 0, "many_rows": False, "many_classes": False}


def seen(fails: Callable[[Seen], bool]) -> list[Seen]:
    """Problems of many sizes, layouts and features, and which of them fail."""
    found = []
    for turn, (classes, rows) in enumerate(
        [(c, r) for c in (2, 5, 64, 1024, 1025, 4097, 8193) for r in (1, 4, 33, 65)]
    ):
        for layout in ("contiguous", "strided", "transposed", "offset", "expanded"):
            features = frozenset(
                name for name, part in (("ignored", 2), ("weights", 3), ("late", 5)) if turn % part == 0
            )
            one = Seen(rows, classes, layout, "float32", features, False)
            found.append(Seen(rows, classes, layout, "float32", features, fails(one)))
    return found


@pytest.mark.parametrize(
    ("fails", "line"),
    [
        (lambda s: s.classes > 1024, "wrong only beyond 1,024 classes: right up to there, wrong first at 1,025"),
        (lambda s: s.rows > 33, "wrong only beyond 33 rows: right up to there, wrong first at 65"),
        (lambda s: "ignored" in s.features, "fails only where rows are ignored: "),
        (lambda s: "weights" in s.features, "fails only with class weights that differ"),
        (
            lambda s: "late" in s.features and s.classes > 128,
            "fails only where the largest logit is not among the first",
        ),
        (lambda s: s.layout == "offset", "the storage offset is ignored, or vectors are read as if aligned"),
        (lambda s: s.layout == "expanded", "rows are read as if each had memory of its own"),
        (lambda s: s.layout == "strided", "labels (or weights) are read as if contiguous; logits are not"),
        (lambda s: s.layout in ("strided", "transposed"), "logits are read as if contiguous"),
    ],
)
def test_where_it_fails_says_what_is_likely(fails: Any, line: str) -> None:
    (said,) = likely(seen(fails))
    assert said.startswith(line)


@pytest.mark.parametrize(
    "fails", [lambda s: False, lambda s: True, lambda s: s.classes % 2 == 1 and s.rows == 4, lambda s: s.rows == 4]
)
def test_nothing_is_said_where_nothing_is_likely(fails: Any) -> None:
    assert likely(seen(fails)) == ()


def test_one_failure_says_nothing() -> None:
    every = seen(lambda s: False)
    last = every[-1]
    assert likely([*every, Seen(99, 9999, last.layout, last.format, last.features, True)]) == ()


def test_a_kernel_that_reads_its_labels_as_if_contiguous_is_told() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y.as_strided(y.shape, (1,)))

    asked: dict[str, Any] = {**FEW, "layouts": ("contiguous", "strided", "transposed")}
    report = check(loss, **asked)
    assert report.mistakes == ("labels (or weights) are read as if contiguous; logits are not",)
    assert "\n  likely    labels (or weights) are read as if contiguous; logits are not\n" in str(report)


def test_a_second_call_that_is_wrong_is_told() -> None:
    last: dict[str, Tensor] = {}

    def loss(z: Tensor, y: Tensor) -> Tensor:
        key = f"{z.detach().tolist()}"
        value = F.cross_entropy(z, y) * (2 if key in last else 1)
        last.clear()
        last[key] = z
        return value

    report = check(loss, **{**FEW, "layouts": ("contiguous",), "shape": (7, 3), "examples": 4})
    assert report.failures() == ("not deterministic", "no_grad")
    assert report.mistakes == ("right in the first call and wrong in the second: something is kept from call to call",)
    assert report.severity is Severity.WRONG


# --- stopping --------------------------------------------------------------------------------------------------------


def test_it_stops_at_the_first_problem_that_fails_and_reports_it() -> None:
    calls = []

    def loss(z: Tensor, y: Tensor) -> Tensor:
        calls.append(z.numel())
        return F.cross_entropy(z, y) * (1.5 if z.shape[1] > 2 else 1)

    report = check(loss, stop=True, examples=0, layouts=("contiguous",), formats=("float32", "bfloat16"))
    assert report.stopped
    assert report.severity is Severity.WRONG
    assert report.unasked > 100
    assert f"not asked: {report.unasked:,} more, after the first failure" in str(report)
    assert report.examples
    assert max(calls) < 1000  # of many rows or classes none was tried
    assert not report.mistakes


def test_small_problems_come_first_across_formats() -> None:
    sizes: list[tuple[int, torch.dtype]] = []

    def loss(z: Tensor, y: Tensor) -> Tensor:
        plain = _get_current_dispatch_mode() is None  # else it is followed
        if plain and z.requires_grad and z.isfinite().all() and z.numel():
            sizes.append((z.numel(), z.dtype))
        return F.cross_entropy(z, y)

    report = check(loss, **{**FEW, "formats": ("float32", "float16"), "layouts": ("contiguous",)}, stop=True)
    assert report.ok
    assert not report.unasked
    problems = [size for size, _ in sizes[: 2 * report.problems]]  # each is run twice
    assert (np.diff(problems) >= 0).all()
    first = {dtype for _, dtype in sizes[: len(sizes) // 4]}
    assert first == {torch.float32, torch.float16}


def test_a_special_value_stops_it_too() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(torch.where(z.isnan(), 0.0, z), y)

    report = check(loss, stop=True, **{**FEW, "layouts": ("contiguous",)})
    assert report.failures() == ("special value",)
    assert len(report.incidents) == 1
