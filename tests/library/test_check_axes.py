"""`check` on every axis that it claims: layouts, many rows, threads, special values.  Each fault is on one alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivalences import check
from equivalences.judging.plan import FEW, VERY_MANY
from equivalences.own.losses import LOSSES
from equivalences.own.run import Expected, ran
from equivalences.own.special import asked
from equivalences.problems import wide
from equivalences.running.execute import Place

SHORT: dict[str, Any] = {"formats": ("float32",), "examples": 0}
PLAIN: dict[str, Any] = {**SHORT, "layouts": ("contiguous",)}
BINARY = "binary_cross_entropy_with_logits"
ALL: dict[str, Any] = {**SHORT, "reduction": ("none", "mean", "sum")}


def wrong_where(fault: Callable[[Tensor], bool]) -> Callable[[Tensor, Tensor], Tensor]:
    """One and a half times the loss, of logits for which the fault holds."""
    return lambda z, y: F.cross_entropy(z, y) * (1.5 if fault(z) else 1.0)


@pytest.mark.parametrize(
    ("layout", "fault"),
    [
        ("expanded", lambda z: z.stride(0) == 0),
        ("offset", lambda z: z.storage_offset() % 4 != 0),
        ("movedim", lambda z: z.dim() == 3 and z.stride(1) == 1 and z.shape[2] > 1),
    ],
)
def test_a_layout_alone_is_enough(layout: str, fault: Callable[[Tensor], bool]) -> None:
    # By default too, where the logits have two dimensions.
    for asked_for in ({"layouts": (layout,)}, {} if layout != "movedim" else {"layouts": ("inner", "movedim")}):
        report = check(wrong_where(fault), **{**SHORT, **asked_for})
        assert "wrong" in report.failures()
        assert {e.layouts for e in report.examples} == {(layout,)}


@pytest.mark.parametrize("layout", ["expanded", "offset"])
def test_binary_losses_have_these_layouts(layout: str) -> None:
    def loss(z: Tensor, t: Tensor) -> Tensor:
        fault = {"expanded": z.stride() == (0,), "offset": z.storage_offset() % 4 != 0}[layout]
        return F.binary_cross_entropy_with_logits(z, t) + (1.0 if fault else 0.0)

    assert check(loss, BINARY, **SHORT).failures() == ("wrong",)


def test_many_rows_are_tried_unless_there_is_a_shape() -> None:
    fn = wrong_where(lambda z: len(z) > 1500)
    report = check(fn, **PLAIN)
    assert report.failures() == ("wrong",)
    assert report.tried["rows"] == (1, VERY_MANY)
    assert check(fn, **PLAIN, shape=(42, 3)).ok
    assert check(fn, **PLAIN, many_rows=False).ok


def test_vocabularies_are_tried_unless_there_is_a_shape() -> None:
    def one_block(z: Tensor, y: Tensor) -> Tensor:
        """Knows no class beyond its one block of 65,536, but that of the label."""
        total = torch.logsumexp(z[:, : 2**16], dim=1)
        return (total - z.gather(1, y[:, None]).squeeze(1)).mean()

    plain = {**PLAIN, "layouts": ("contiguous", "transposed")}
    report = check(one_block, **plain)
    assert "wrong" in report.failures()
    assert report.tried["classes"] == (1, wide.MOST)
    wrong = [e for e in report.examples if e.verdict == "wrong"]
    space: dict[str, Any] = {"fn": one_block}
    exec(wrong[0].program, space)
    assert space["z"].shape[1] > 65_536
    narrow = check(one_block, **plain, many_classes=False)
    assert "wrong" not in narrow.failures()
    assert narrow.tried["classes"][1] <= FEW
    assert "wrong" not in check(one_block, **plain, shape=(42, 3)).failures()


def online(z: Tensor, y: Tensor, rescales: bool = True, guarded: bool = True, size: int = 1024) -> Tensor:
    """Cross entropy in one pass over blocks of classes; unguarded, it is nan while all of them are masked."""
    top, total = torch.full_like(z[:, 0], -torch.inf).detach(), torch.zeros_like(z[:, 0])
    for block in z.split(size, 1):
        new = torch.maximum(top, block.amax(1).detach())
        shift = new.masked_fill(new.isneginf(), 0) if guarded else new
        total = total * (torch.exp(top - shift) if rescales else 1.0) + torch.exp(block - shift[:, None]).sum(1)
        top = new
    return (top - z.gather(1, y[:, None]).squeeze(1) + torch.log(total)).mean()


def test_an_online_softmax_is_right_if_it_rescales_its_sum() -> None:
    declared: dict[str, Any] = {**PLAIN, "examples": 0, "layouts": ("contiguous",), "many_rows": False}
    assert check(online, **declared).ok
    assert "wrong" in check(partial(online, rescales=False, guarded=False), **declared).failures()


@pytest.mark.slow
def test_one_thread_and_two_are_tried_and_left_as_they_were() -> None:
    before, here = torch.get_num_threads(), 3
    torch.set_num_threads(here)
    try:
        # A kernel shares work only where there is much of it.
        fn = wrong_where(lambda z: len(z) > 30000 and torch.get_num_threads() == 2)
        report = check(fn, **PLAIN, gradient=False)
        assert torch.get_num_threads() == here
    finally:
        torch.set_num_threads(before)
    assert report.failures() == ("wrong",)
    assert {e.threads for e in report.examples} == {2}
    assert "  threads   fails with 2; right with 1\n" in str(report)
    for example in report.examples:
        assert "torch.set_num_threads(2)" in example.program


def swallowed(z: Tensor, y: Tensor, **options: Any) -> Tensor:
    return F.cross_entropy(torch.where(z.isnan(), 0.0, z), y, **options)


def nothing_left(z: Tensor, y: Tensor, ignore_index: int) -> Tensor:
    if (y == ignore_index).all() and len(y):
        return z.sum() * 0
    return F.cross_entropy(z, y, ignore_index=ignore_index)


def in_evaluation(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z if z.requires_grad else torch.where(z.isnan(), 0.0, z), y)


def refuses(z: Tensor, y: Tensor) -> Tensor:
    if not len(z):
        raise ZeroDivisionError("no row")
    return F.cross_entropy(z, y)


@pytest.mark.parametrize(
    ("fn", "supports", "names"),
    [
        (swallowed, (), {"the target's logit nan", "another logit nan"}),
        (nothing_left, ("ignore_index",), {"every row ignored, mean"}),
        (in_evaluation, (), {"the target's logit nan", "another logit nan"}),
        (refuses, (), {"no row, mean"}),
    ],
)
def test_special_values_are_asked_for(fn: Any, supports: tuple[str, ...], names: set[str]) -> None:
    report = check(fn, **PLAIN, supports=supports)
    assert report.failures() == ("special value",)
    assert {i.sentence.partition(":")[0] for i in report.incidents} == names
    assert all(", expected nan, gradient [" in i.sentence for i in report.incidents)
    assert check(fn, **PLAIN, supports=supports, shape=(42, 3)).ok
    report.raise_if_failed(accept={"special value"})
    value: Any = None
    for incident in report.incidents:
        space: dict[str, Any] = {"fn": fn}
        if fn is refuses:
            with pytest.raises(ZeroDivisionError):
                exec(incident.program, space)
        else:
            exec(incident.program, space)
            value = space["value"].item()
    assert fn in (refuses, in_evaluation) or value == value  # no nan


@pytest.mark.parametrize("fmt", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [None, (4, 33), (3, 33)])
def test_masks_are_asked_for_in_every_shape(fmt: str, shape: tuple[int, int] | None) -> None:
    (case,) = LOSSES["cross_entropy"].cases((), "mean", ("contiguous",))
    for guarded in (True, False):
        form = case.form(partial(online, guarded=guarded, size=16), "online")
        wrong = set()
        for each in asked(case, fmt, "eager", shape, many_classes=False):
            if each.entry.rows and each.differs(ran(case.identity, form, each.problem, Place(), Expected())):
                wrong |= {each.entry.why}
        assert wrong == (set() if guarded else {"as without the masked classes", "limit"})


@pytest.mark.parametrize("of", ["softmax", "log_softmax", "logsumexp"])
def test_identities_are_asked_for_masks(of: str) -> None:
    functions: dict[str, Callable[[Tensor, int], Tensor]]
    functions = {"softmax": F.softmax, "log_softmax": F.log_softmax, "logsumexp": torch.logsumexp}
    function = functions[of]
    asked_for: dict[str, Any] = {**PLAIN, "examples": 1, "shape": (4, 33)}

    def from_the_first_class(z: Tensor, dim: int) -> Tensor:
        first = z.narrow(dim, 0, 1).detach()
        return function(z + (first - first), dim)

    right = check(lambda z, dim: function(z, dim), of, **asked_for)
    assert right.ok
    assert right.special_values
    report = check(from_the_first_class, of, **asked_for)
    assert report.failures() == ("special value",)
    (incident, *_) = report.incidents
    assert "of the value instead of" in incident.sentence


def test_no_mask_is_wider_than_the_classes_that_are_declared() -> None:
    (case,) = LOSSES["cross_entropy"].cases((), "mean", ("contiguous",))
    wide = {each.problem["z"].shape[1] for each in asked(case, "float32", "eager")}
    few = {each.problem["z"].shape[1] for each in asked(case, "float32", "eager", many_classes=False)}
    most = max(problem["z"].shape[1] for problem in case.identity.domain.edges("float32"))
    assert {classes for classes in wide if classes <= most} == few < wide


def test_no_special_value_is_asked_for_that_is_not_declared() -> None:
    def names(supports: tuple[str, ...], reduction: str, of: str = "cross_entropy") -> set[str]:
        cases = LOSSES[of].cases(supports, reduction, ("contiguous",))
        return {each.entry.name for case in cases for each in asked(case, "float32", "eager")}

    few = names((), "mean")
    assert {"no row, mean", "another logit nan"} <= few
    assert not few & {"every row ignored, mean", "no row, sum", "weights of 2, mean", "a target too large"}
    assert "every row ignored, mean" in names(("ignore_index",), "mean")
    assert {"weights of 2, mean", "probabilities, weights of 2, mean"} - names(("weight",), "mean") == {
        "probabilities, weights of 2, mean"
    }
    assert "probabilities, weights of 2, mean" in names(("weight", "soft_targets"), "mean")
    assert "a row of nan beside a good one" in names((), "sum") - few
    assert "-inf for target 0.5" in names(("soft_targets",), "none", BINARY) - names((), "none", BINARY)


@pytest.mark.parametrize(
    ("fn", "of", "asked_for"),
    [
        (F.cross_entropy, "cross_entropy", {**ALL, "supports": (*LOSSES["cross_entropy"].supports,)}),
        (F.binary_cross_entropy_with_logits, BINARY, {**ALL, "supports": (*LOSSES[BINARY].supports,)}),
        (nn.CrossEntropyLoss(), "cross_entropy", SHORT),
        (nn.BCEWithLogitsLoss(), BINARY, SHORT),
    ],
    ids=["cross_entropy", "binary", "module", "binary module"],
)
def test_the_losses_of_pytorch_are_right_on_every_axis(fn: Any, of: str, asked_for: dict[str, Any]) -> None:
    def called(z: Tensor, t: Tensor, **options: Any) -> Tensor:
        loss: Tensor = fn(z, t, **options)
        return loss

    report = check(called, of, **asked_for)
    report.raise_if_failed()
    assert report.special_values
    assert f", and {report.special_values} special values, in" in str(report)
