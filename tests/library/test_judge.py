"""The judge can say no: planted faults are outside, what raises is a crash, and no bound is ever lost in silence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.catalogue import IDENTITIES
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.model import KnownDefect
from equivalences.gate import sweep
from equivalences.judging import judge, known, plan
from equivalences.judging.facts import EXCUSED, INSIDE, OUTSIDE, UNDECIDED
from equivalences.judging.judge import Crash, Measurement
from equivalences.judging.tally import Tally
from equivalences.judging.trial import Trial
from equivalences.model import Form, Identity, Problem
from equivalences.oracle import exact
from equivalences.oracle.enclosure import Enclosure
from equivalences.rounding import RULES, Call, Shadow, Tracker, Untracked
from equivalences.running import execute

# identity, what is wrong, the wrong form.  Wrong by little: the judge must not need a disaster.
FAULTS = (
    ("cross_entropy", "label off by one", "F.cross_entropy(z, (y + 1) % z.shape[1], reduction='none')"),
    ("cross_entropy", "softmax twice", "F.cross_entropy(F.softmax(z, 1), y, reduction='none')"),
    ("cross_entropy", "the sign", "F.nll_loss(-F.log_softmax(z, 1), y, reduction='none')"),
    ("cross_entropy", "another base", "F.cross_entropy(z, y, reduction='none') / math.log(2)"),
    ("cross_entropy", "eps inside the log", "-torch.log(F.softmax(z, 1) + 1e-6).gather(1, y[:, None])[:, 0]"),
    ("cross_entropy", "the shift is lost", "(z - z.amax(1, True)).exp().sum(1).log() - z.gather(1, y[:, None])[:, 0]"),
    ("cross_entropy", "smoothed by a little", "F.cross_entropy(z, y, reduction='none', label_smoothing=0.02)"),
    (
        "cross_entropy",
        "softmax term of the gradient doubled",
        "extra = torch.logsumexp(z, 1)\nF.cross_entropy(z, y, reduction='none') + (extra - extra.detach())",
    ),
    (
        "cross_entropy",
        "no softmax term in the gradient",
        "lse = torch.logsumexp(z, 1).detach()\nlse - z.gather(1, y[:, None])[:, 0]",
    ),
    ("cross_entropy", "the first row for all", "F.cross_entropy(z, y, reduction='none')[:1].expand(len(y))"),
    ("cross_entropy_reduced", "1/N left out", "F.cross_entropy(z, y, reduction='sum')"),
    ("cross_entropy_reduced", "1/(N+1)", "F.cross_entropy(z, y, reduction='sum') / (len(y) + 1)"),
    ("softmax", "another dimension", "F.softmax(z, 0)"),
    ("softmax", "wrong in the last column", "s = F.softmax(z, 1)\ntorch.cat((s[:, :-1], s[:, -1:] * 1.0625), 1)"),
    ("softmax", "wrong in the last row", "s = F.softmax(z, 1)\ntorch.cat((s[:-1], s[-1:] * 1.0625), 0)"),
    ("softmax", "eps in the sum", "e = torch.exp(z - z.amax(1, True))\ne / (e.sum(1, keepdim=True) + 0.0625)"),
    ("softmax", "two columns swapped", "F.softmax(z, 1).flip(1)"),
    ("softmax", "the diagonal of the Jacobian alone", "s = F.softmax(z, 1).detach()\ns + (z - z.detach()) * s"),
    ("softmax_keeps_argmax", "argmin", "F.softmax(z, 1).argmin(1)"),
    ("sigmoid", "tanh", "torch.tanh(z)"),
    ("sigmoid", "half the slope in the gradient", "s = torch.sigmoid(z)\n(s + s.detach()) / 2"),
)  # fmt: skip


def outside(identity: Identity, form: Form, problem: Problem) -> bool:
    met = judge.measure(identity, form, problem)
    assert all(isinstance(m, Measurement) for m in met), met
    return any(isinstance(m, Measurement) and bool((m.own.fact == OUTSIDE).any()) for m in met)


@pytest.mark.parametrize(("name", "what", "code"), FAULTS, ids=[f"{name}-{what}" for name, what, _ in FAULTS])
def test_planted_faults_are_outside(name: str, what: str, code: str) -> None:
    identity = IDENTITIES[name]
    for fmt in ("float64", "float32", "bfloat16", "float16"):
        problems = [p for p in identity.domain.edges(fmt)[2:5] if p.items.get("reduction", "mean") in ("mean", "none")]
        assert any(outside(identity, Form(code), problem) for problem in problems), fmt


class _IgnoresUpstream(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor) -> Tensor:
        s = F.softmax(z, 1)
        ctx.save_for_backward(s)
        return s

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        (s,) = ctx.saved_tensors
        return torch._softmax_backward_data(torch.ones_like(s), s, 1, s.dtype)


def test_a_backward_pass_that_ignores_the_upstream_gradient_is_outside() -> None:
    apply: Callable[[Tensor], Tensor] = _IgnoresUpstream.apply
    form = Form(lambda z: apply(z), label="ignores g")
    assert outside(IDENTITIES["softmax"], form, IDENTITIES["softmax"].domain.edges("float32")[3])


def test_a_number_that_is_nan_is_outside() -> None:
    # The analysis has a bound there; the kernel's answer is replaced behind its back.
    class Nan(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, s: Tensor) -> Tensor:
            out = s.clone()
            memory = out.numpy()
            memory[0, 0] = np.nan
            return out

        @staticmethod
        def backward(ctx: Any, *g: Tensor) -> Tensor:
            return g[0]

    apply: Callable[[Tensor], Tensor] = Nan.apply
    form = Form(lambda z: apply(F.softmax(z, 1)), label="nan")
    problem = Problem("float32", {"z": np.array([[1.0, 2.0]]), "g": np.array([[1.0, 0.5]])})
    (value, gradient) = judge.measure(IDENTITIES["softmax"], form, problem)
    assert isinstance(value, Measurement)
    assert value.own.fact.tolist()[0][0] == OUTSIDE
    assert not gradient.failed


@pytest.mark.parametrize(
    ("code", "error", "said"),
    [
        ("F.softmax(z, 5)", IndexError, "Dimension out of range"),
        ("F.softmax(z, dim)[:1]", ValueError, "the form returned shape"),
        ("F.softmax(z.detach(), dim)", RuntimeError, "does not require grad"),
        ("torch.erfinv(F.softmax(z, dim))", Untracked, "aten::erfinv has no rounding rule"),
        ("F.softmax(z, dim).view(torch.int32).view(torch.float32)", RuntimeError, "does not require grad"),
    ],
)
def test_a_form_that_raises_is_a_crash(code: str, error: type[Exception], said: str) -> None:
    identity = IDENTITIES["softmax"]
    (met,) = judge.measure(identity, Form(code), identity.domain.edges("float32")[2])
    assert isinstance(met, Crash)
    assert met.failed
    assert isinstance(met.error, error)
    assert said in str(met.error)


def test_a_tensor_that_the_tracker_never_saw_has_no_bound() -> None:
    hidden = torch.ones(1)
    identity = IDENTITIES["softmax"]
    (met,) = judge.measure(identity, Form(lambda z: F.softmax(z, 1) * hidden), identity.domain.edges("float32")[2])
    assert isinstance(met, Crash)
    assert "has no error bound" in str(met.error)


def test_what_cannot_be_decided_never_passes() -> None:
    identity = IDENTITIES["logsumexp"]
    unknown = replace(identity, spec=lambda p: [exact.log(row[0] - row[0]) for row in p.z])
    problem = Problem("float64", {"z": np.array([[1.0, 2.0]]), "g": np.array([1.0])})
    value = judge.measure(unknown, identity.reference, problem)[0]
    assert isinstance(value, Measurement)
    assert value.own.fact.tolist() == [UNDECIDED]
    assert value.failed


def test_a_form_without_a_bound_in_a_region_that_it_claims_is_vacuous() -> None:
    identity = IDENTITIES["softmax"]
    # Of float32's extreme rows, whose logits are beyond 88, this overflows in every one.
    squared = Form("F.softmax(z, dim) + 0 * torch.exp((z * z).sum(dim, keepdim=True))", label="squared")
    bold = replace(identity, forms=(identity.reference, squared))
    tally = Tally(bold, "float32")
    for each in plan.edges(bold, "float32"):
        sweep.judged(tally, each.problem, ("contiguous",), "cpu", "eager")
    assert not tally.failures
    missing = tally.vacuous()
    assert "squared: value, region extreme" in missing
    assert all(each.startswith("squared: ") for each in missing)


def test_a_faithful_form_may_break_the_contract() -> None:
    identity = IDENTITIES["log_softmax"]
    naive = Form("torch.log(F.softmax(z, dim))")
    problem = Problem("float32", {"z": np.array([[50.0, -50.0]]), "g": np.array([[1.0, 1.0]])})
    tally = Tally(identity, "float32")
    for judgement in judge.measure(identity, naive, problem):
        tally.add(judgement)
    cell = tally.cells[naive.label, "value", "saturated"]
    assert not tally.failures
    assert cell.ratio <= 1 < cell.contract_ratio
    assert cell.stable < cell.judged


def test_a_known_defect_excuses_no_more_than_it_says() -> None:
    identity = IDENTITIES["log_softmax"]
    problem = Problem("bfloat16", {"z": np.array([[0.0, -6.0]]), "g": np.array([[1.0, 0.5]])})
    value = judge.measure(identity, identity.reference, problem)[0]
    assert isinstance(value, Measurement)
    assert (value.own.fact == EXCUSED).any()
    assert value.defects == ("log_softmax-16bit-sum",)
    assert not value.failed
    assert outside(identity, Form("F.log_softmax(z, dim) * 1.0625"), problem)


@pytest.mark.parametrize(
    ("off", "verdicts", "met"),
    [
        ((3, 0, 0, 0), [EXCUSED, INSIDE, INSIDE, INSIDE], ("wide exp",)),
        ((0, 3, 0, 0), [INSIDE, EXCUSED, INSIDE, INSIDE], ("wide tanh",)),
        ((3, 3, 0, 0), [EXCUSED, EXCUSED, INSIDE, INSIDE], ("wide exp", "wide tanh")),
        ((0, 0, 3, 0), [INSIDE, INSIDE, EXCUSED, INSIDE], ("wide exp", "wide tanh")),  # takes both of them
        ((3, 0, 0, 3), [EXCUSED, INSIDE, INSIDE, OUTSIDE], ("wide exp",)),
    ],
)
def test_a_known_defect_is_met_where_it_explains_a_number(
    off: tuple[int, ...], verdicts: list[int], met: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def entry(operation: str, wider: list[float]) -> KnownDefect:
        def as_is(call: Call) -> Shadow:
            shadow = RULES[operation](call)
            return Shadow(shadow.v, shadow.e + np.array(wider))

        return replace(
            KNOWN_DEFECTS[0], name=f"wide {operation}", operation=operation, formats=("float64",), as_is=as_is
        )

    entries = entry("exp", [4, 0, 2, 0]), entry("cos", [9, 9, 9, 9]), entry("tanh", [0, 4, 2, 0])
    other = replace(entry("exp", [0, 0, 0, 1]), name="other exp")  # a second one of an operation hides neither
    monkeypatch.setattr(known, "KNOWN_DEFECTS", (*entries, other))
    identity, form = IDENTITIES["sigmoid"], Form("torch.exp(z) + torch.tanh(z)")
    problem = Problem("float64", {"z": np.zeros(4), "g": np.ones(4)})
    run = execute.run(identity, form, problem)
    exactly = Enclosure(np.ones(4), np.zeros(4), np.zeros(4))
    got = 1.0 + np.array(off)
    beyond = np.array(off) > 0
    fact = np.where(beyond, OUTSIDE, INSIDE)
    found = known.excused(Trial(identity, form, problem), run, "value", exactly, got, beyond, fact)
    assert (found[0].tolist(), found[1]) == (verdicts, met)


# --- the tracker: a bound follows the storage, whoever writes to it --------------------------------------------------


def _written_before(x: Tensor) -> Tensor:
    view = x[1]
    x.mul_(1 / 3)
    return view + 0


def _kept_apart(x: Tensor) -> Tensor:
    kept = x.clone()
    x.zero_()
    return kept / 3


def _chunks(x: Tensor) -> Tensor:
    a, b = x.chunk(2, 1)
    a.div_(b)
    return x


def _rows(x: Tensor) -> Tensor:
    x[0] = x[1] / 7
    return x


def _column(x: Tensor) -> Tensor:
    x.t()[0] += x.t()[1] / 3
    return x


def _detached(x: Tensor) -> Tensor:
    x.detach().div_(3)
    return x


def _out(x: Tensor) -> Tensor:
    torch.div(x, 3, out=x[:, :])
    return x


def _same_storage(x: Tensor) -> Tensor:
    flat = x.view(-1)
    flat[2:6].div_(3)
    flat[0:2].copy_(flat[4:6])
    return x.as_strided((2, 2), (1, 3), 1) * 1


@pytest.mark.parametrize(
    "write",
    [_written_before, _kept_apart, _chunks, _rows, _column, _detached, _out, _same_storage],
    ids=lambda function: function.__name__.strip("_"),
)
def test_the_shadow_follows_the_storage(write: Callable[[Tensor], Tensor]) -> None:
    numbers = torch.tensor([[1.0, 2.0, 3.0, 5.0], [7.0, 11.0, 13.0, 17.0]], dtype=torch.float64)
    ideal = write(numbers.clone())
    x = numbers.float()
    tracker = Tracker()
    tracker.declare(x)
    with torch.no_grad(), tracker:
        got = write(x)
    v, e = tracker.shadow(got)
    exact = ideal.numpy()
    assert np.array_equal(v, exact)
    assert (abs(got.double().numpy() - exact) <= e).all()
    assert (e <= 8 * 2.0**-24 * abs(exact)).all()
    assert (e > 0).any()


def test_every_write_reaches_the_bound_of_every_view() -> None:
    x = torch.ones(3, 4)
    tracker = Tracker(as_is={"exp": lambda call: Shadow(np.ones(call.out.shape), np.ones(()))})
    tracker.declare(x)
    row, column = x[1], x[:, 1]
    with torch.no_grad(), tracker:
        x[1:2, 1:2].exp_()
    assert tracker.shadow(x).e.sum() == 1
    assert tracker.shadow(row).e.tolist() == [0, 1, 0, 0]
    assert tracker.shadow(column).e.tolist() == [0, 1, 0]


def test_a_rule_that_is_too_narrow_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    original = RULES["_softmax"]

    def narrow(call: Call) -> Shadow:
        v, e = original(call)
        return Shadow(v, e / 64)

    monkeypatch.setitem(RULES, "_softmax", narrow)
    identity = IDENTITIES["softmax"]
    assert outside(identity, Form("F.softmax(z, dim)"), identity.domain.edges("float32")[3])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_shadow_survives_its_tensor_being_overwritten(dtype: torch.dtype) -> None:
    x, tracker = torch.tensor([1.0, 2.0], dtype=dtype), Tracker()
    tracker.declare(x)
    with tracker:
        y = torch.zeros(2, dtype=dtype)
        y.add_(x)
        x.mul_(3)
    assert tracker.shadow(x).v.tolist() == [3.0, 6.0]  # in float64 too, where no conversion makes a copy
    assert tracker.shadow(y).v.tolist() == [1.0, 2.0]


def test_a_form_that_is_no_python_says_so_where_it_is_written() -> None:
    with pytest.raises(ValueError, match=r"the form 'F.softmin\(-z, dim' is no Python: '\(' was never closed"):
        Form("F.softmin(-z, dim")


def test_the_same_bits_in_another_layout_are_not_followed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = IDENTITIES["softmax"]
    wrong = Form("F.softmax(z, dim) if z.is_contiguous() else F.softmax(z, dim) * 1.0625", label="wrong when strided")
    both = replace(identity, forms=(identity.reference, wrong))
    problem = Problem("float32", {"z": np.array([[1.0, 2.0], [0.5, 4.0]]), "g": np.ones((2, 2))})
    followed: list[str] = []

    def measure(identity: Identity, form: Form, problem: Problem, **place: str) -> list[judge.Judgement]:
        followed.append(form.label)
        return original(identity, form, problem, **place)

    original = judge.measure
    monkeypatch.setattr(judge, "measure", measure)
    met = list(judge.judge(both, problem, ("contiguous", "strided")))
    assert followed.count(identity.reference.label) == 1
    assert followed.count(wrong.label) == 2
    assert {(m.form, m.layout) for m in met if m.failed} == {(wrong, "strided")}
    assert {m.layout for m in met if m.form is identity.reference} == {"contiguous", "strided"}
