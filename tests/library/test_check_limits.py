"""`Limits`: what is declared is not asked, is listed and counted; and what an author accepts, one by one."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import equivalences
from equivalences import Limits, check
from equivalences.own.losses import WrongCall
from equivalences.own.report import CheckFailed
from equivalences.own.severity import Severity

BRIEF: dict[str, Any] = {"formats": ("float32",), "layouts": ("contiguous",), "examples": 4, "many_rows": False}
FEW: dict[str, Any] = {**BRIEF, "many_classes": False, "examples": 0}
ONE: dict[str, Any] = {**BRIEF, "shape": (7, 3)}


def refusing(refuses: Callable[[Tensor, Tensor], bool]) -> Callable[[Tensor, Tensor], Tensor]:
    """Cross entropy that raises where a condition holds."""

    def loss(z: Tensor, y: Tensor, **more: Any) -> Tensor:
        if refuses(z, y):
            raise ValueError("not claimed")
        return F.cross_entropy(z, y, **more)

    return loss


@pytest.mark.parametrize(
    ("limits", "refuses", "why"),
    [
        (Limits(most_classes=64), lambda z, y: z.shape[1] > 64, "another number of classes"),
        (Limits(least_classes=8), lambda z, y: z.shape[1] < 8, "another number of classes"),
        (
            Limits(multiple_of_classes=8, most_classes=1024),
            lambda z, y: bool(z.shape[1] % 8 or z.shape[1] > 1024),
            "another number of classes",
        ),
        (Limits(most_rows=40), lambda z, y: len(z) > 40, "more rows"),
        (Limits(finite_inputs=True), lambda z, y: not z.isfinite().all(), "inputs that are not finite"),
    ],
)
def test_what_is_outside_is_not_asked_and_is_counted(limits: Limits, refuses: Any, why: str) -> None:
    fn = refusing(refuses)
    assert set(check(fn, **FEW).failures()) & {"raised", "special value"}
    report = check(fn, limits=limits, **FEW)
    report.raise_if_failed()
    assert report.left_out[why] > 0
    assert f"  left out  problems outside of these limits: {why} {report.left_out[why]:,}" in str(report)
    assert report.declared["limits"] == limits.declared()
    assert report.numbers


def test_a_kernel_of_1024_classes_is_asked_for_1024_and_no_more() -> None:
    met = set()

    def loss(z: Tensor, y: Tensor) -> Tensor:
        met.add(z.shape[1])
        return F.cross_entropy(z, y)

    report = check(loss, limits=Limits(most_classes=1024, least_classes=2), **BRIEF)
    report.raise_if_failed()
    assert max(met) == 1024
    assert min(met) == 2
    assert report.tried["classes"] == (2, 1024)
    narrow = check(loss, **FEW)
    assert "limits" not in narrow.declared


def test_smoothing_and_probabilities_are_limits() -> None:
    def smooth(z: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
        if label_smoothing >= 1:
            raise ValueError("not claimed")
        return F.cross_entropy(z, y, label_smoothing=label_smoothing)

    asked: dict[str, Any] = {**FEW, "supports": {"label_smoothing"}}
    assert "raised" in check(smooth, **asked).failures()
    assert check(smooth, limits=Limits(smoothing_below_one=True), **asked).ok

    def of_probabilities(z: Tensor, t: Tensor) -> Tensor:
        if ((t < 0) | (t > 1)).any():
            raise ValueError("not claimed")
        return F.binary_cross_entropy_with_logits(z, t)

    binary: dict[str, Any] = {**FEW, "of": "binary_cross_entropy_with_logits", "supports": {"soft_targets"}}
    report = check(of_probabilities, limits=Limits(probabilities=True), **binary)
    report.raise_if_failed()


class Overwriting(torch.autograd.Function):
    """Writes its gradient into the logits, and can give it once."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        value = F.cross_entropy(z, y)
        gradient = (F.softmax(z, 1) - F.one_hot(y, z.shape[1])) / len(y)
        z.data.copy_(gradient)
        ctx.gradient = z.data
        return value

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None]:
        gradient: Tensor = ctx.gradient.mul_(g[0])
        return gradient, None


def test_a_kernel_may_overwrite_its_logits_and_have_one_backward() -> None:
    apply: Callable[..., Tensor] = Overwriting.apply
    assert set(check(apply, **ONE, name="x").failures()) >= {"in place", "second backward"}
    report = check(apply, limits=Limits(in_place=True, one_backward=True), **ONE, name="x")
    report.raise_if_failed()


def test_subnormal_results_may_be_flushed() -> None:
    def flush(gradient: Tensor) -> Tensor:
        return torch.where(gradient.abs() < torch.finfo(gradient.dtype).tiny, 0.0, gradient)

    def loss(z: Tensor, y: Tensor) -> Tensor:
        if z.requires_grad:
            z = z.clone()
            z.register_hook(flush)
        return F.cross_entropy(z, y)

    asked: dict[str, Any] = {**FEW, "formats": ("float16",)}
    assert not check(loss, stop=True, **asked).ok
    check(loss, limits=Limits(flushes_subnormals=True), **asked).raise_if_failed()

    def coarser(gradient: Tensor) -> Tensor:
        return torch.where(gradient.abs() < 4 * torch.finfo(gradient.dtype).tiny, 0.0, gradient)

    def more(z: Tensor, y: Tensor) -> Tensor:
        if z.requires_grad:
            z = z.clone()
            z.register_hook(coarser)
        return F.cross_entropy(z, y)

    assert not check(more, limits=Limits(flushes_subnormals=True), stop=True, **asked).ok


def test_a_result_has_the_format_that_is_declared_for_its_logits() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        value = F.cross_entropy(z.float(), y)
        return value if z.dtype == torch.bfloat16 else value.to(torch.float16)

    asked: dict[str, Any] = {**ONE, "formats": ("float32", "bfloat16")}
    assert "dtype" in check(loss, **asked).failures()
    declared = Limits(result_format={"bfloat16": "float32", "float32": "float16"})
    report = check(loss, limits=declared, **asked)
    report.raise_if_failed()
    assert report.declared["limits"] == {"result_format": {"bfloat16": "float32", "float32": "float16"}}


def empty_is_zero(z: Tensor, y: Tensor, ignore_index: int) -> Tensor:
    if (y == ignore_index).all():
        return z.sum() * 0
    return F.cross_entropy(z, y, ignore_index=ignore_index)


def test_what_nothing_gives_is_declared() -> None:
    asked: dict[str, Any] = {**FEW, "supports": {"ignore_index"}}
    assert check(empty_is_zero, **asked).failures() == ("special value",)
    check(empty_is_zero, limits=Limits(empty=0, all_ignored=0), **asked).raise_if_failed()
    pytorch = check(lambda z, y, ignore_index: F.cross_entropy(z, y, ignore_index=ignore_index), **asked)
    assert pytorch.ok
    wrong = check(empty_is_zero, limits=Limits(empty=math.nan, all_ignored=math.nan), **asked)
    assert wrong.failures() == ("special value",)


@pytest.mark.parametrize(
    ("normaliser", "count"),
    [
        ("rows", lambda z, y, i: len(y)),
        ("kept rows", lambda z, y, i: (y != i).sum()),
        ("numbers", lambda z, y, i: z.numel()),
    ],
)
def test_another_mean_is_declared(normaliser: str, count: Any) -> None:
    def loss(z: Tensor, y: Tensor, weight: Tensor | None, ignore_index: int) -> Tensor:
        total = F.cross_entropy(z, y, weight, ignore_index=ignore_index, reduction="sum")
        mean: Tensor = total / count(z, y, ignore_index)
        return mean

    asked: dict[str, Any] = {**ONE, "examples": 12, "supports": {"ignore_index", "weight"}}
    check(loss, limits=Limits(normaliser=normaliser), **asked).raise_if_failed()
    assert check(loss, **asked).severity is Severity.CONVENTION


def test_special_values_have_the_mean_that_is_declared() -> None:
    def loss(z: Tensor, y: Tensor, ignore_index: int) -> Tensor:
        return F.cross_entropy(z, y, ignore_index=ignore_index, reduction="sum") / len(y)

    report = check(loss, limits=Limits(normaliser="rows"), supports={"ignore_index"}, **FEW)
    report.raise_if_failed()
    assert report.special_values


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"most_classes": 0}, "most_classes must be a number of 1, 2, ..., got 0"),
        (
            {"most_classes": 100, "multiple_of_classes": 128},
            "no number of classes is at least 1, at most 100 and a mult",
        ),
        ({"empty": 1}, "empty must be None, 0 or nan, got 1"),
        ({"normaliser": "batch"}, "unknown normaliser 'batch': choose from rows, kept rows, numbers, weights"),
        ({"result_format": "float32"}, "result_format takes format: format"),
        ({"result_format": {"float31": "float32"}}, "unknown format 'float31'"),
    ],
)
def test_a_limit_that_is_none_is_one_clear_line(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Limits(**given)


def test_limits_are_limits() -> None:
    assert equivalences.Limits is Limits
    with pytest.raises(WrongCall, match=r"limits takes Limits, as in limits=equivalences\.Limits"):
        check(F.cross_entropy, limits={"most_classes": 3})  # type: ignore[arg-type]
    with pytest.raises(WrongCall, match="has a mean of its own"):
        check(lambda z, dim: F.softmax(z, dim), "softmax", limits=Limits(normaliser="rows"))


# --- accepted one by one ---------------------------------------------------------------------------------------------


def swallowed(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(torch.where(z.isnan(), 0.0, z), y)


def test_one_special_value_is_accepted_with_a_reason_and_no_other() -> None:
    report = check(swallowed, **FEW)
    names = {"the target's logit nan", "another logit nan"}
    assert {each.name for each in report.incidents} == names
    accept = {f"special value: {name}": "logits are checked before" for name in names}
    report.raise_if_failed(accept=accept)
    with pytest.raises(CheckFailed, match="is not accepted as cross_entropy: special value"):
        report.raise_if_failed(accept={"special value: another logit nan": "checked before"})


def test_one_layout_and_one_format_are_accepted() -> None:
    asked: dict[str, Any] = {**ONE, "layouts": ("contiguous", "transposed"), "formats": ("float32", "float16")}
    report = check(lambda z, y: F.cross_entropy(z, y) * (1 if z.is_contiguous() else 1.5), **asked)
    report.raise_if_failed(accept={"layout: transposed": "never met"})
    with pytest.raises(CheckFailed):
        report.raise_if_failed(accept={"layout: contiguous": "never met"})
    half = check(lambda z, y: F.cross_entropy(z, y) * (1.5 if z.dtype == torch.float16 else 1), **asked)
    half.raise_if_failed(accept={"format: float16": "never met"})
    assert half.failures(accept={"format: float32"})


def test_an_acceptance_that_is_no_longer_needed_fails() -> None:
    report = check(swallowed, **FEW)
    accept = {"special value": "checked before", "layout: strided": "never met"}
    with pytest.raises(CheckFailed, match="expected failures that pass: layout: strided"):
        report.raise_if_failed(accept=accept)
    report.raise_if_failed(accept={*accept})  # a plain set is a permission, as ever
    right = check(F.cross_entropy, **{**ONE, "name": "right"})
    with pytest.raises(CheckFailed, match="expected failures that pass: unstable"):
        right.raise_if_failed(accept={"unstable": "by design"})


@pytest.mark.parametrize(
    "accept", [{"layout"}, {"layout: "}, {"lay: strided"}, {"right"}, {"unstable": " "}, "unstable"], ids=repr
)
def test_an_acceptance_that_says_nothing_is_refused(accept: Any) -> None:
    report = check(F.cross_entropy, **{**ONE, "examples": 1, "name": "right"})
    with pytest.raises(ValueError, match="accept"):
        report.raise_if_failed(accept=accept)
