"""What the report of `check` says beside its verdicts: what was tried, where it fails, and how to repeat it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences import check
from equivalences.choices import Unknown
from equivalences.own.losses import WrongCall

BRIEF: dict[str, Any] = {"formats": ("float32",), "layouts": ("contiguous",), "examples": 0}


def test_the_report_says_which_sizes_were_tried() -> None:
    met = set()

    def loss(z: Tensor, y: Tensor) -> Tensor:
        if len(z):  # a special value has no row
            met.add(tuple(z.shape))
        return F.cross_entropy(z, y)

    report = check(loss, **{**BRIEF, "examples": 5})
    sizes = {"rows": [rows for rows, _ in met], "classes": [classes for _, classes in met]}
    assert report.tried == {what: (min(each), max(each)) for what, each in sizes.items()}
    (low, high), (fewest, most) = report.tried["rows"], report.tried["classes"]
    assert f"  tried     rows {low}-{high}, classes {fewest}-{most}\n" in str(report)
    one = check(loss, formats=("float32",), examples=1, shape=(3, 130))
    assert "  tried     rows 3, classes 130\n" in str(one)
    binary = check(F.binary_cross_entropy_with_logits, "binary_cross_entropy_with_logits", **BRIEF)
    assert list(binary.tried) == ["rows"]


def test_formats_may_be_dtypes() -> None:
    report = check(
        F.cross_entropy, **{**BRIEF, "formats": (torch.float32,), "shape": (42, 3)}, result_format=torch.float32
    )
    assert report.ok
    assert report.declared["formats"] == ["float32"]
    assert report.declared["result_format"] == "float32"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"formats": (torch.int64,)}, "unknown format 'int64': did you mean 'float64'"),
        ({"formats": torch.float32}, r"formats takes several names: formats=\('float32',\), got torch.float32"),
        ({"formats": (32,)}, "formats takes names, such as 'float32', got 32"),
        ({"result_format": 32}, "result_format takes names, such as 'float32', got 32"),
        ({"layouts": 7}, "layouts takes several names: "),
        ({"reduction": None}, "reduction takes several names: "),
        ({"supports": None}, r"supports takes several names: supports=\('weight',\), got None"),
        ({"of": None}, "of takes the name of a loss or of an identity: of='cross_entropy', got None"),
        ({"device": 7}, "device '7' is not available here"),
        ({"examples": "x"}, "examples must be a number of 0, 1, 2, ..., got 'x'"),
        ({"examples": 1.5}, "examples must be a number of 0, 1, 2, ..., got 1.5"),
        ({"seed": -1}, "seed must be a number of 0, 1, 2, ..., got -1"),
        ({"gradient": "no"}, "gradient must be True or False, got 'no'"),
        ({"deterministic": None}, "deterministic must be True or False, got None"),
        ({"shape": 7}, r"shape must be a tuple of numbers of 1, 2, ..., as \(rows, classes\), got 7"),
        ({"shape": (4,)}, r"shape of cross_entropy has rows and classes, got \(4,\)"),
        ({"shape": (0, 3)}, r"shape must be a tuple of numbers of 1, 2, "),
    ],
)
def test_an_argument_of_another_kind_is_one_helpful_line(call: dict[str, Any], said: str) -> None:
    with pytest.raises((WrongCall, Unknown), match=said) as caught:
        check(**{"fn": F.cross_entropy, **call})
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_what_fails_in_some_layouts_only_is_said_to() -> None:
    asked: dict[str, Any] = {**BRIEF, "layouts": ("contiguous", "strided", "transposed"), "examples": 3}

    def elsewhere(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y) * (1 if z.is_contiguous() else 1.001)

    report = check(elsewhere, **asked)
    assert {(e.layouts, e.spared) for e in report.examples} == {(("strided", "transposed"), ("contiguous",))}
    assert "  layouts   fails in strided, transposed; right in contiguous\n" in str(report)
    everywhere = check(lambda z, y: F.cross_entropy(z, y) * 1.001, **asked)
    assert not any(e.spared for e in everywhere.examples)
    assert "fails in" not in str(everywhere)


def test_the_headline_counts_the_numbers_of_each_verdict() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        if z.shape[1] == 67:
            raise ValueError("too many classes")
        if not (z > -(2**14)).all() or not z.isfinite().all():  # special values
            return F.cross_entropy(z, y)
        return -torch.log(F.softmax(z, 1) + 1e-8).gather(1, y[:, None]).mean()

    report = check(loss, **BRIEF)
    counts = {name: sum(cell.counts.get(name, 0) for cell in report.cells) for name in ("wrong", "unstable")}
    assert all(counts.values())
    assert report.verdict == (
        f"not right: wrong {counts['wrong']:,}, unstable {counts['unstable']:,} of {report.numbers:,} numbers; raised"
    )
    assert {e.verdict for e in report.examples} == set(counts)
    assert check(lambda z, y: F.cross_entropy(z, y).item(), **BRIEF).verdict == "nothing could be judged: result"


def test_an_example_holds_a_program_that_repeats_it() -> None:
    def loss(z: Tensor, y: Tensor, weight: Tensor, reduction: str) -> Tensor:
        if z.shape[1] > 50 and z.dim() == 3:
            raise ValueError("too many classes")
        return F.cross_entropy(z, y, weight, reduction=reduction) * 1.001

    asked: dict[str, Any] = {**BRIEF, "layouts": ("contiguous", "inner"), "formats": ("float16",)}
    report = check(loss, supports={"weight"}, reduction=("none", "mean"), **asked)
    assert report.examples
    for example in report.examples:
        space: dict[str, Any] = {"fn": loss}
        exec(example.program, space)
        made = space[example.quantity.replace(" ", "_")]
        assert example.got in made.flatten().tolist()
    (incident, *_) = (i for i in report.incidents if i.kind == "raised")
    assert any("in full in `program`" in line for line in incident.problem)
    with pytest.raises(ValueError, match="too many classes"):
        exec(incident.program, {"fn": loss})
    assert report.as_dict()["examples"][0]["program"] == report.examples[0].program
    assert report.examples[0].program not in repr(report)


def test_the_program_of_an_identity_calls_by_name() -> None:
    def loss(z: Tensor, dim: int) -> Tensor:
        return F.softmax(z, dim) * 1.001

    report = check(loss, "softmax", **{**BRIEF, "layouts": ("contiguous", "inner")})
    for example in report.examples:
        assert "return fn(z=z, dim=dim)" in example.program
        space: dict[str, Any] = {"fn": loss}
        exec(example.program, space)
        assert example.got in space[example.quantity.replace(" ", "_")].flatten().tolist()


def test_every_row_is_judged_in_whatever_layout_is_asked_for() -> None:
    def first(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z[:1], y[:1])

    asked: dict[str, Any] = {**BRIEF, "layouts": ("transposed",), "gradient": False}
    assert "wrong" in check(first, **asked).failures()
    assert check(F.cross_entropy, **asked).ok


def test_binary_losses_have_a_shape_of_rows() -> None:
    report = check(
        F.binary_cross_entropy_with_logits,
        of="binary_cross_entropy_with_logits",
        **{**BRIEF, "examples": 2},
        shape=(40,),
    )
    assert report.tried == {"rows": (40, 40)}
    assert report.ok
