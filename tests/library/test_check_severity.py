"""How grave a report of `check` is: another function, fewer digits, a convention, special values, or not judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences import check
from equivalences.own.conventions import CONVENTIONS
from equivalences.own.report import KINDS
from equivalences.own.severity import SEVERITIES, Severity

ONE: dict[str, Any] = {"formats": ("float32",), "layouts": ("contiguous",), "examples": 6, "shape": (7, 3)}
FEW: dict[str, Any] = {
    "formats": ("float32",), "layouts": ("contiguous",), "examples": 0, "many_rows": False, "many_classes": False,
}  # fmt: skip
BINARY = "binary_cross_entropy_with_logits"


class Opaque(torch.autograd.Function):
    """A loss whose numbers pass through Python, as through a kernel that nobody can follow."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        with torch.enable_grad():
            x = z.detach().clone().requires_grad_()
            value = loss(x, y)
            (gradient,) = torch.autograd.grad(value, x)
        ctx.save_for_backward(torch.tensor(gradient.tolist(), dtype=z.dtype).reshape(z.shape))
        return torch.tensor(value.tolist(), dtype=value.dtype)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None, None]:
        return ctx.saved_tensors[0] * g[0], None, None


def opaque(loss: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    apply: Callable[..., Tensor] = Opaque.apply
    return lambda z, y: apply(z, y, loss)


def unshifted(z: Tensor, y: Tensor) -> Tensor:
    return (torch.logsumexp(z, 1) - z.gather(1, y[:, None])[:, 0]).mean()


# --- wrong, or less accurate -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fn", [unshifted, opaque(lambda z, y: F.cross_entropy(z, y) * (1 + 2.0**-21))], ids=["followed", "opaque"]
)
def test_a_little_beyond_the_contract_never_looks_like_garbage(fn: Any) -> None:
    report = check(fn, **ONE)
    assert report.severity is Severity.LESS_ACCURATE
    worst = max(report.beyond, key=lambda each: each.ratio)
    assert 1 < worst.ratio < 20
    assert report.headline.startswith(f"less accurate: at most {worst.ratio:.3g} times the contract, ")
    assert f"{worst.digits:.1f} digits left, at float32 {'value' if worst.quantity == 'value' else 'gradient'}s, " in (
        report.headline
    )
    assert str(report).splitlines()[0].endswith(report.headline)
    assert not any(word in str(report) for word in ("something else", "WRONG", "another function"))
    report.raise_if_failed(accept={"less accurate"})


def test_wrong_says_how_far_it_is_off_and_where() -> None:
    report = check(opaque(lambda z, y: F.cross_entropy(z, y) * 1.25), **ONE)
    assert report.severity is Severity.WRONG
    assert report.headline.startswith("wrong: another function, off by up to 25 % (")
    assert " times the contract) at float32 values, " in report.headline
    assert report.failures(accept={"less accurate", "unstable"}) == ("outside",)
    assert not report.failures(accept={"wrong", "less accurate"})


def softplus_to_ten(z: Tensor) -> Tensor:
    return torch.where(z > 10, z, torch.log1p(torch.exp(z)))


@pytest.mark.parametrize(
    ("softplus", "fmt"),
    [(softplus_to_ten, "bfloat16"), (lambda z: F.softplus(z, threshold=10), "float64")],
    ids=["where", "threshold"],
)
def test_another_function_is_wrong_though_rounding_could_be_as_far_off(softplus: Any, fmt: str) -> None:
    asked: dict[str, Any] = {**FEW, "formats": (fmt,)}
    report = check(lambda z, t: (softplus(z) - t * z).mean(), BINARY, **asked)
    assert not report.opaque
    assert report.severity is Severity.WRONG
    assert "wrong" in report.failures(accept={"unstable", "unbounded", "special value"})


@pytest.mark.parametrize("through", [lambda loss: loss, opaque], ids=["followed", "opaque"])
def test_float64_that_is_computed_in_float32_is_not_merely_unstable(through: Any) -> None:
    asked: dict[str, Any] = {**ONE, "formats": ("float64", "float32")}
    report = check(through(lambda z, y: F.cross_entropy(z.float(), y).to(z.dtype)), **asked)
    assert report.failures(accept={"unstable", "outside"}) == ("narrower format",)
    assert report.severity is Severity.LESS_ACCURATE
    assert report.headline.startswith("less accurate: leave out float64: it computes in float32; ")
    poor = check(unshifted, **asked)  # what loses digits in its own formula computes in float64 all the same
    assert "narrower format" not in poor.failures()


# --- conventions -----------------------------------------------------------------------------------------------------


def smoothed(z: Tensor, y: Tensor, label_smoothing: float) -> Tensor:
    """Shares the smoothing among the other classes."""
    log, others = F.log_softmax(z, 1), z.shape[1] - 1
    q = torch.full_like(log, label_smoothing / others).scatter(1, y[:, None], 1 - label_smoothing)
    return -torch.where(q == 0, 0.0, q * log).sum(1).mean()


def over(count: Callable[[Tensor, Tensor], float]) -> Callable[..., Tensor]:
    return lambda z, y, **more: F.cross_entropy(z, y, reduction="sum", **more) / count(z, y)


@pytest.mark.parametrize(
    ("name", "fn", "asked"),
    [
        ("divides by the kept rows, not by their weights", over(lambda z, y: len(y)), {"supports": {"weight"}}),
        ("divides by all rows, ignored ones too", over(lambda z, y: len(y)), {"supports": {"ignore_index"}}),
        ("divides by N C, rows times classes", over(lambda z, y: z.numel()), {}),
        ("the sum, not the mean", over(lambda z, y: 1), {}),
        ("the mean, not the sum", F.cross_entropy, {"reduction": "sum"}),
        ("in bits, by the logarithm to base 2", lambda z, y: F.cross_entropy(z, y) / math.log(2), {}),
        ("times log 2, as if it were given in bits", lambda z, y: F.cross_entropy(z, y) * math.log(2), {}),
        ("by the logarithm to base 10", lambda z, y: F.cross_entropy(z, y) / math.log(10), {}),
        ("with the opposite sign", lambda z, y: -F.cross_entropy(z, y), {}),
        ("two-sided: twice as much", lambda z, y: 2 * F.cross_entropy(z, y), {}),
        ("one-sided: half as much", lambda z, y: F.cross_entropy(z, y) / 2, {}),
        ("smoothing shared among the K - 1 other classes", smoothed, {"supports": {"label_smoothing"}}),
        ("labels shifted by one class", lambda z, y: F.cross_entropy(z, (y + 1) % 3), {}),
        ("labels shifted back by one class", lambda z, y: F.cross_entropy(z, (y - 1) % 3), {}),
        ("labels shifted by one row", lambda z, y: F.cross_entropy(z, y.roll(-1)), {}),
    ],
)
def test_a_convention_is_recognised_by_name(name: str, fn: Any, asked: dict[str, Any]) -> None:
    report = check(fn, **{**ONE, "formats": ("float32", "float64"), **asked})
    assert name in {each.name for each in CONVENTIONS}
    assert {each.name for each in report.conventions} == {name}
    assert report.severity is Severity.CONVENTION
    assert report.headline == f"convention: {name}; right otherwise"
    assert set(report.failures()) <= {"wrong", "outside", "unstable"}
    report.raise_if_failed(accept={"convention"})


def test_weights_of_rows_are_a_convention_of_binary_losses() -> None:
    def loss(z: Tensor, t: Tensor, weight: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(z, t, weight, reduction="sum") / weight.sum()

    report = check(loss, BINARY, supports={"weight"}, **{**ONE, "shape": (9,)})
    assert report.headline == "convention: divides by the weights, not by the rows; right otherwise"


@pytest.mark.parametrize(
    "fn",
    [
        lambda z, y: F.cross_entropy(z, y, reduction="sum") / (len(y) + 1),
        lambda z, y: F.cross_entropy(z, y) * (2 if (z[0] > 0).all() else 1),
        lambda z, y: F.cross_entropy(z, y) * (1.0 if z.sum() > 0 else -1.0) * 2,
    ],
    ids=["one row too many", "twice at times", "either sign"],
)
def test_what_follows_no_convention_is_wrong(fn: Any) -> None:
    report = check(fn, **{**ONE, "examples": 12})
    assert not report.conventions
    assert report.severity is Severity.WRONG


def test_special_values_are_read_by_the_convention_too() -> None:
    report = check(over(lambda z, y: z.numel()), **FEW)
    assert report.special_values
    assert report.headline == "convention: divides by N C, rows times classes; right otherwise"
    kept = check(lambda z, y: F.cross_entropy(torch.where(z.isnan(), 0.0, z), y) / 2, **FEW)
    assert kept.headline == "convention: one-sided: half as much; also special values"


# --- special values, not judged, right -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "severity", "headline"),
    [
        (F.cross_entropy, Severity.RIGHT, "right: every number is within the contract"),
        (
            lambda z, y: F.cross_entropy(torch.where(z.isnan(), 0.0, z), y),
            Severity.SPECIAL_VALUES,
            "special values: 2 kinds of 31 are not as they should be; right otherwise",
        ),
        (lambda z, y: F.cross_entropy(z, y).item(), Severity.NOT_JUDGED, "not judged: nothing could be judged: result"),
    ],
    ids=["right", "special values", "not judged"],
)
def test_what_is_no_number_beyond_the_contract(fn: Any, severity: Severity, headline: str) -> None:
    report = check(lambda z, y: fn(z, y), **FEW)
    assert report.severity is severity
    assert report.headline.replace(f" of {report.special_values} ", " of 31 ") == headline
    assert json.loads(report.to_json())["severity"] == severity.word


def test_what_raises_at_times_is_not_judged_in_part() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        if z.shape[1] == 67:
            raise ValueError("too many classes")
        return F.cross_entropy(z, y)

    report = check(loss, **FEW)
    assert report.headline == "not judged: in part: raised"
    assert report.severity is Severity.NOT_JUDGED
    report.raise_if_failed(accept={"not judged"})


def test_every_kind_of_incident_has_a_severity_and_a_word() -> None:
    assert {kind.severity for kind in KINDS.values()} <= {*Severity} - {Severity.RIGHT}
    assert [SEVERITIES[each.word] for each in Severity] == [*Severity]
    assert np.all(np.diff([*Severity]) > 0)
    report = check(lambda z, y: F.cross_entropy(z, y) * (1 + torch.rand(()) / 4), **ONE)
    with pytest.raises(AssertionError, match="not deterministic"):
        report.raise_if_failed(accept={"special values", "convention", "less accurate"})
