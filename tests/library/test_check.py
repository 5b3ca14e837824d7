"""`check` tells right from wrong from unstable, from outside, and says nothing that it was not asked to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivalences import check
from equivalences.choices import Unknown
from equivalences.formats import FORMATS
from equivalences.judging.contract import contract
from equivalences.model import MODES, Problem
from equivalences.own import run
from equivalences.own.losses import LOSSES, WrongCall
from equivalences.own.report import CheckFailed, Report
from equivalences.running import execute
from equivalences.running.execute import Place

SHORT: dict[str, Any] = {"formats": ("float32", "bfloat16"), "examples": 0}
BRIEF: dict[str, Any] = {"formats": ("float32",), "layouts": ("contiguous",), "examples": 0}

ONE: dict[str, Any] = {**BRIEF, "shape": (42, 3)}  # one problem, which has every region but "single"


# --- implementations -------------------------------------------------------------------------------------------------


class Fused(torch.autograd.Function):
    """As a fused kernel does it: float32 inside, the gradient made in the forward pass, stored, and scaled."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        x = z.to(torch.promote_types(z.dtype, torch.float32))
        x = x - x.amax(1, keepdim=True)
        e = torch.exp(x)
        total = e.sum(1, keepdim=True)
        gradient = (e / total - F.one_hot(y, z.shape[1])) / len(y)
        ctx.save_for_backward(gradient.to(z.dtype))
        return (torch.log(total) - x.gather(1, y[:, None])).mean().to(z.dtype)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * g[0], None


class Spoiled(torch.autograd.Function):
    """The identity, whose gradient is spoiled by a function."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, spoil: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.spoil = spoil
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None]:
        return ctx.spoil(g[0]), None


def fused(z: Tensor, y: Tensor) -> Tensor:
    apply: Callable[..., Tensor] = Fused.apply
    return apply(z, y)


def spoiled(spoil: Callable[[Tensor], Tensor]) -> Callable[[Tensor, Tensor], Tensor]:
    apply: Callable[..., Tensor] = Spoiled.apply

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return apply(F.cross_entropy(z, y), spoil)

    return loss


@torch.library.custom_op("equivalences_tests::cross_entropy", mutates_args=())
def opaque(z: Tensor, y: Tensor) -> Tensor:
    """A kernel that calls no ATen operation that matters: numpy stands for C++ or Triton."""
    x = z.double().numpy()
    with np.errstate(all="ignore"):  # of infinite logits, and of no row
        x = x - x.max(1, keepdims=True)
        total = (np.log(np.exp(x).sum(1)) - x[np.arange(len(x)), y.numpy()]).sum()
        return torch.from_numpy(np.array(np.divide(total, len(x)))).to(z.dtype)


def _opaque_backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
    z, y = ctx.saved_tensors
    with np.errstate(all="ignore"):
        e = np.exp(z.double().numpy() - z.double().numpy().max(1, keepdims=True))
        e = e / e.sum(1, keepdims=True)
    e[np.arange(len(e)), y.numpy()] -= 1
    return (g.double() * torch.from_numpy(e / max(len(e), 1))).to(z.dtype), None


opaque.register_autograd(_opaque_backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))


def by_log_softmax(z: Tensor, y: Tensor) -> Tensor:
    return -F.log_softmax(z, 1).gather(1, y[:, None]).mean()


def unshifted_lse(z: Tensor, y: Tensor) -> Tensor:
    return (torch.logsumexp(z, 1) - z.gather(1, y[:, None])[:, 0]).mean()


def unshifted_exp(z: Tensor, y: Tensor) -> Tensor:
    return (torch.log(torch.exp(z).sum(1)) - z.gather(1, y[:, None])[:, 0]).mean()


def log_of_softmax(z: Tensor, y: Tensor) -> Tensor:
    return -torch.log(F.softmax(z, 1)).gather(1, y[:, None]).mean()


# --- right -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "followed"),
    [(by_log_softmax, True), (nn.CrossEntropyLoss(), True), (fused, True), (opaque, False)],
    ids=["function", "module", "fused", "operator"],
)
def test_right_is_right_in_every_region(fn: Any, followed: bool) -> None:
    report = check(fn, **SHORT, layouts=("contiguous", "transposed"))
    report.raise_if_failed()
    assert report.ok
    assert bool(report.opaque) is not followed
    regions = LOSSES["cross_entropy"].cases((), "mean", ())[0].identity.domain.regions
    for fmt in SHORT["formats"]:
        for quantity in ("value", "gradient z"):
            met = {
                c.region for c in report.cells if (c.format, c.quantity) == (fmt, quantity) and c.counts.get("right")
            }
            assert met >= set(regions), (fmt, quantity)


@pytest.mark.slow
def test_compiled_code_is_what_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    # One graph with gradients, and one without.  What the compiler makes of such graphs is judged in test_compiled.py.
    from torch._dynamo.utils import counters

    torch._dynamo.reset()
    counters.clear()
    held, granted = set(), contract

    def seen(*args: Any) -> Any:
        held.add(args[-1].mode)
        return granted(*args)

    monkeypatch.setattr("equivalences.own.verdict.contract", seen)
    fn = torch.compile(by_log_softmax, backend="aot_eager")
    report = check(fn, **{**BRIEF, "examples": 2}, shape=(42, 3))
    assert counters["stats"]["unique_graphs"] == 2
    report.raise_if_failed()
    assert not report.opaque
    assert held == {"compiled"}


def test_a_compiled_sum_may_be_added_up_in_the_order_of_the_compiler() -> None:
    (case,) = LOSSES["cross_entropy"].cases((), "mean", ())
    few = case.identity.domain.edges("float32")[4]
    order = np.arange(3000) % len(few["z"])
    problem = Problem("float32", {**few.items, "z": few["z"][order], "y": few["y"][order]})
    eager, compiled = (contract(case.identity, problem, Place(mode=mode)) for mode in MODES)
    assert (compiled["value"] > eager["value"]).all()


def test_binary_and_identities() -> None:
    def binary(z: Tensor, t: Tensor, weight: Tensor, reduction: str) -> Tensor:
        rows = weight * torch.where(t > 0, -F.logsigmoid(z), -F.logsigmoid(-z))
        return rows if reduction == "none" else getattr(torch, reduction)(rows)

    options: dict[str, Any] = {"supports": {"weight"}, "reduction": ("none", "mean", "sum")}
    check(binary, "binary_cross_entropy_with_logits", **options, **SHORT).raise_if_failed()
    softmax = check(lambda z, dim: F.softmax(z, dim), "softmax", layouts=("contiguous", "inner"), **SHORT)
    softmax.raise_if_failed()
    assert [d.name for d in softmax.defects] == ["softmax-16bit-tail"]


def test_a_gradient_that_is_stored_and_scaled_is_granted_one_rounding_more() -> None:
    (case,) = LOSSES["cross_entropy"].cases((), "none", ())
    wider = 0
    for problem in case.identity.domain.edges("float16"):
        alone = execute.run(case.identity, case.identity.reference, problem).bound
        granted = contract(case.identity, problem, Place())
        assert (granted["value"] >= alone["value"]).all()
        assert (granted["gradient z"] >= alone["gradient z"]).all()
        wider += int((granted["gradient z"] > alone["gradient z"]).sum())
        lost = np.abs(problem["g"])[:, None] * FORMATS["float16"].eta  # below the smallest number, before it is scaled
        lost = lost + FORMATS["float16"].eta  # and once more after it: a grant of its own
        assert (granted["gradient z"] <= 3 * alone["gradient z"] + lost).all()
    assert wider


# --- wrong, unstable, outside ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fn", "quantities"),
    [
        (lambda z, y: -torch.log(F.softmax(z, 1) + 1e-6).gather(1, y[:, None]).mean(), {"value", "gradient z"}),
        (lambda z, y: F.cross_entropy(z, (y + 1) % z.shape[1]), {"value", "gradient z"}),
        (lambda z, y: F.cross_entropy(z, y, reduction="sum") / (len(y) + 1), {"value", "gradient z"}),
        (spoiled(lambda g: torch.ones_like(g)), {"gradient z"}),
        (spoiled(lambda g: g * 1.03125), {"gradient z"}),
    ],
    ids=["eps inside the log", "label off by one", "one row too many", "upstream ignored", "gradient scaled"],
)
def test_wrong_is_wrong(fn: Any, quantities: set[str]) -> None:
    report = check(fn, **BRIEF)
    assert {c.quantity for c in report.cells if c.counts.get("wrong")} == quantities
    assert {e.quantity for e in report.examples if e.verdict == "wrong"} == quantities
    if "value" in quantities:
        assert any("the identity says" in e.why for e in report.examples)


@pytest.mark.parametrize(
    ("fn", "met", "region", "operation"),
    [
        (unshifted_lse, {"unstable"}, "offset", "logsumexp"),
        (unshifted_exp, {"unstable", "unbounded"}, "offset", "log"),
        (log_of_softmax, {"unbounded"}, "extreme", "log"),
    ],
    ids=["lse - z", "unshifted", "log(softmax)"],
)
def test_unstable_is_told_from_wrong_and_the_operation_is_named(
    fn: Any, met: set[str], region: str, operation: str
) -> None:
    report = check(fn, **BRIEF)
    poor = {*met, "special value"}  # it is inf or nan where a logit is infinite, too
    assert set(report.failures()) == poor
    assert {e.verdict for e in report.examples} == met
    value = next(e for e in report.examples if e.quantity == "value" and e.region == region)
    assert f"aten::{operation} (operation" in value.why
    assert value.own is not None
    assert value.contract < value.error <= value.own
    core = [c for c in report.cells if c.region == "core"]
    assert core
    assert all(set(c.counts) == {"right"} for c in core)
    report.raise_if_failed(accept=poor)
    assert not report.verdict.startswith("right")


def test_what_overflows_is_not_accepted_as_unstable() -> None:
    report = check(lambda z, y: F.cross_entropy(z, y) * 1e5 / 1e5, **{**ONE, "formats": ("float16",)})
    assert report.failures(accept={"unstable"}) == ("unbounded",)
    (value,) = (e for e in report.examples if e.quantity == "value")
    assert (value.verdict, value.got, value.own) == ("unbounded", np.inf, np.inf)
    assert value.contract < np.inf
    assert "its own arithmetic has no bound here: it may overflow" in str(report)


def test_an_opaque_implementation_is_held_to_the_contract_alone() -> None:
    def behind_the_back(z: Tensor, y: Tensor) -> Tensor:
        said = torch.tensor(float(log_of_softmax(z.detach(), y).numpy()))
        return F.cross_entropy(z, y) * 0 + said

    report = check(behind_the_back, **BRIEF)
    assert report.opaque == "numbers are made outside of PyTorch"
    assert "outside" in report.failures()
    assert not any(c.counts.get("wrong") or c.counts.get("unstable") for c in report.cells)


def test_defects_of_pytorch_are_not_blamed_on_the_user(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {"formats": ("bfloat16",), "layouts": ("contiguous",), "examples": 0}
    report = check(by_log_softmax, **asked)
    assert report.ok
    assert [d.name for d in report.defects] == ["log_softmax-16bit-sum"]
    assert "log_softmax-16bit-sum" in str(report)
    monkeypatch.setattr("equivalences.judging.known.KNOWN_DEFECTS", ())
    assert check(by_log_softmax, **asked).failures() == ("wrong",)


# --- what is declared ------------------------------------------------------------------------------------------------


def test_only_what_is_declared_is_asked_for() -> None:
    calls = []

    def loss(logits: Tensor, target: Tensor, **options: Any) -> Tensor:
        calls.append(
            (logits.dtype, logits.dim(), target.dtype.is_floating_point, logits.is_contiguous(), frozenset(options))
        )
        return F.cross_entropy(logits, target, **options)

    check(loss, **ONE).raise_if_failed()
    assert set(calls) == {(torch.float32, 2, False, True, frozenset())}
    calls.clear()
    every = frozenset(LOSSES["cross_entropy"].options)
    asked = {**ONE, "formats": ("float64",), "layouts": ("inner",)}
    check(loss, supports={*every, "soft_targets"}, reduction=("mean", "sum"), **asked).raise_if_failed()
    assert {(call[1], call[2], call[4]) for call in calls} == {
        (3, False, every | {"reduction"}),
        (3, True, (every | {"reduction"}) - {"ignore_index"}),
    }


def test_an_option_that_is_declared_and_ignored_is_wrong() -> None:
    def loss(z: Tensor, y: Tensor, weight: Tensor | None = None) -> Tensor:
        return F.cross_entropy(z, y)

    assert check(loss, **ONE).ok
    assert "wrong" in check(loss, supports={"weight"}, **{**ONE, "examples": 4}).failures()


@pytest.mark.parametrize("reduction", ["none", "sum"])
def test_a_fixed_reduction_is_not_asked_for(reduction: str) -> None:
    assert check(lambda z, y: F.cross_entropy(z, y, reduction=reduction), reduction=reduction, **ONE).ok


# --- what is no number -----------------------------------------------------------------------------------------------


def refuses(z: Tensor, y: Tensor) -> Tensor:
    if z.shape[1] == 1:
        raise ZeroDivisionError("one class is none")
    return F.cross_entropy(z, y)


def in_place(z: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        z.sub_(z.amax(1, keepdim=True))
    return F.cross_entropy(z, y)


class Once(torch.autograd.Function):
    """Scales its stored gradient in place: right the first time."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        ctx.gradient = (F.softmax(z, 1) - F.one_hot(y, z.shape[1])) / len(y)
        return F.cross_entropy(z, y)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None]:
        return ctx.gradient.mul_(g[0]), None


class InTraining(torch.autograd.Function):
    """Makes the gradient in the forward pass, and without one forgets what it is the mean of."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, y: Tensor) -> Tensor:
        if not ctx.needs_input_grad[0]:
            return F.cross_entropy(z, y, reduction="sum")
        ctx.save_for_backward((F.softmax(z, 1) - F.one_hot(y, z.shape[1])) / len(y))
        return F.cross_entropy(z, y)

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * g[0], None


def in_training(z: Tensor, y: Tensor) -> Tensor:
    if not z.requires_grad:
        raise RuntimeError("nothing to learn")
    return F.cross_entropy(z, y)


@pytest.mark.parametrize(
    ("kind", "fn", "said"),
    [
        ("raised", refuses, "raised ZeroDivisionError: one class is none"),
        ("result", lambda z, y: F.cross_entropy(z, y).item(), "it returned float"),
        ("shape", lambda z, y: F.cross_entropy(z, y)[None], r"shape \(1,\), expected \(\)"),
        ("dtype", lambda z, y: F.cross_entropy(z.double(), y), "is float64, expected float32"),
        ("no gradient", lambda z, y: F.cross_entropy(z.detach(), y), "detached"),
        ("in place", in_place, "its input z was modified in place"),
        ("second backward", Once.apply, "second backward pass"),
        ("not deterministic", lambda z, y: F.cross_entropy(z, y) * (1 + torch.rand(()) / 100), "two runs"),
        ("no_grad", InTraining.apply, r"under torch.no_grad\(\) the value is .*, exact .*: beyond the contract"),
        ("no_grad", lambda z, y: F.cross_entropy(z, y) * (1.01, 1)[z.requires_grad], "no_grad.* the value is"),
        ("no_grad", lambda z, y: F.cross_entropy(z, y) * (1.01, 1)[torch.is_grad_enabled()], "no_grad.* the value is"),
        ("no_grad", in_training, r"under torch.no_grad\(\): raised RuntimeError: nothing to learn"),
    ],
)
def test_incidents_are_reported_in_a_sentence(kind: str, fn: Any, said: str) -> None:
    # What refuses one class must meet it, and a second backward pass an upstream gradient that is not 1.
    asked = BRIEF if kind in ("raised", "second backward") else ONE
    report = check(fn, **asked, name="mine")
    assert kind in report.failures()
    (incident,) = (i for i in report.incidents if i.kind == kind)
    with pytest.raises(CheckFailed, match=said) as caught:
        report.raise_if_failed()
    assert str(caught.value).startswith("mine is not accepted as cross_entropy: ")
    assert incident.count >= 1


def test_a_crash_does_not_hide_the_rest() -> None:
    report = check(refuses, **BRIEF)
    assert report.failures(accept={"special value"}) == ("raised",)
    assert {c.region for c in report.cells} >= {"core", "tail"}


def test_what_is_meant_can_be_declared() -> None:
    assert check(lambda z, y: F.cross_entropy(z.double(), y), **ONE, result_format="float64").ok
    assert check(lambda z, y: F.cross_entropy(z.detach(), y), **ONE, gradient=False).ok
    noisy = check(lambda z, y: F.cross_entropy(z, y) * (1 + torch.rand(()) / 100), **ONE, deterministic=False)
    assert "not deterministic" not in noisy.failures()


def test_without_gradients_other_code_may_round_otherwise() -> None:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y) if z.requires_grad else F.cross_entropy(z.double(), y).to(z.dtype)

    (case,) = LOSSES["cross_entropy"].cases((), "mean", ("contiguous",))
    form, expected = case.form(loss, "loss"), run.Expected()
    edges = case.identity.domain.edges("float32")
    assert any(run.ran(case.identity, form, x, Place(), expected).without is not None for x in edges)
    assert check(loss, **BRIEF).ok


def test_a_gradient_is_not_asked_for_without_gradients() -> None:
    def gradient(z: Tensor, y: Tensor) -> Tensor:
        return torch.autograd.grad(F.cross_entropy(z, y), z, create_graph=True)[0]

    assert not check(gradient, "cross_entropy_gradient", **ONE).incidents


# --- the report, and wrong calls -------------------------------------------------------------------------------------


def test_the_report_is_plain_data() -> None:
    report = check(unshifted_exp, **ONE)

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    data = json.loads(report.to_json(), parse_constant=refuse)
    assert data["verdict"] == report.verdict
    assert sum(sum(cell["counts"].values()) for cell in data["cells"]) == report.numbers > 0
    assert data["environment"]["torch"]["version"] == torch.__version__
    with pytest.raises(ValueError, match="accept takes a set"):
        report.raise_if_failed(accept="unstable")
    with pytest.raises(CheckFailed):
        report.raise_if_failed(accept={"wrong"})


@pytest.mark.slow
def test_the_same_question_has_the_same_answer() -> None:
    def data(report: Report) -> dict[str, Any]:
        return {key: item for key, item in report.as_dict().items() if key != "seconds"}

    asked: dict[str, Any] = {**ONE, "examples": 3, "seed": 5}
    assert data(check(unshifted_lse, **asked)) == data(check(unshifted_lse, **asked))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"of": "cross_entropi"}, "did you mean 'cross_entropy'"),
        ({"of": "bce"}, "'binary_cross_entropy_with_logits' for a function of logits"),
        ({"of": "softmax"}, "this one also asks for y: wrap it, as in lambda z: "),
        ({"formats": ("float31",)}, "unknown format 'float31': did you mean 'float32'"),
        ({"formats": "float32"}, r"formats takes several names: formats=\('float32',\)"),
        ({"layouts": ("iner",)}, "unknown layout 'iner' of cross_entropy: choose from contiguous, "),
        ({"supports": {"pos_weight"}}, "unknown option 'pos_weight' in supports: cross_entropy has weight"),
        ({"supports": "weight"}, r"supports takes several names: supports=\('weight',\)"),
        ({"supports": {"weight"}}, r"cannot be called as fn\(logits, target, weight=...\): got an unexpected"),
        ({"reduction": ("mean", "average")}, "unknown reduction 'average'"),
        ({"reduction": ()}, "at least one of none, mean, sum"),
        ({"fn": 3}, "not int"),
        ({"fn": lambda z: z}, r"cannot be called as fn\(logits, target\)"),
        ({"device": "nowhere"}, "device 'nowhere' is not available here"),
        ({"examples": -1}, "examples must be"),
        ({"shape": (3, 3), "examples": 0}, "there is no problem to judge"),
    ],
)
def test_a_wrong_call_is_one_helpful_line(call: dict[str, Any], said: str) -> None:
    with pytest.raises((WrongCall, Unknown), match=said) as caught:
        check(**{"fn": unshifted_lse, **call})
    assert "\n" not in str(caught.value)
