"""`check` comes back whatever an implementation does, and whatever the state of the process is."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import islice
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from equivalences import check
from equivalences.catalogue import IDENTITIES
from equivalences.model import MODES
from equivalences.own import problems, state
from equivalences.own.losses import LOSSES
from equivalences.own.report import CheckFailed
from equivalences.own.special import asked
from equivalences.running.forms import NAMES, exists, function_source

BRIEF: dict[str, Any] = {"formats": ("float32",), "layouts": ("contiguous",), "examples": 0}
ONE: dict[str, Any] = {**BRIEF, "shape": (42, 3)}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two problems, in a layout each."""
    monkeypatch.setattr("equivalences.own.work.todo", lambda *given: islice(problems.todo(*given), 2))


def right(z: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(z, y)


# --- the backward pass that a user makes ------------------------------------------------------------------------------


class Donating(torch.autograd.Function):
    """As compiled code that gives its buffers away: it refuses a graph that is kept."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *g: Tensor) -> Tensor:
        if torch._C._autograd._get_current_graph_task_keep_graph():
            raise RuntimeError("its buffers are donated")
        return g[0]


def through(function: type[torch.autograd.Function]) -> Callable[[Tensor, Tensor], Tensor]:
    apply: Callable[..., Tensor] = function.apply
    return lambda z, y: apply(F.cross_entropy(z, y))


class Reentrant(nn.Module):
    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        value: Tensor = checkpoint(F.cross_entropy, z, y, use_reentrant=True)
        return value


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # of the checkpoint, without gradients
@pytest.mark.parametrize(
    ("fn", "limit"),
    [(through(Donating), "second backward"), (Reentrant(), "autograd.grad")],
    ids=["donated", "reentrant"],
)
def test_what_backward_gives_is_judged_and_what_else_it_cannot_do_is_told(fn: Any, limit: str) -> None:
    report = check(fn, **ONE)
    report.raise_if_failed()
    assert [each.kind for each in report.limits] == [limit]
    assert f"limit, which is no failure: {limit}: torch.autograd.grad(..." in str(report)
    assert any(cell.quantity == "gradient z" for cell in report.cells)


def test_a_gradient_that_only_autograd_grad_gets_wrong_fails() -> None:
    class Keeping(Donating):
        @staticmethod
        def backward(ctx: Any, *g: Tensor) -> Tensor:
            return g[0] * (2 if torch._C._autograd._get_current_graph_task_keep_graph() else 1)

    report = check(through(Keeping), **ONE)
    assert report.failures() == ("second backward",)


@pytest.mark.usefixtures("few")
def test_compiled_code_is_asked_for_special_values_too() -> None:
    report = check(torch.compile(right, backend="aot_eager"), **BRIEF)
    report.raise_if_failed()
    assert report.special_values


def test_a_function_with_compiled_code_inside_is_followed_and_stays_compiled() -> None:
    ran = []

    def backend(graph: Any, inputs: Any) -> Callable[..., Any]:
        def call(*given: Any) -> Any:
            ran.append(graph)
            return graph(*given)

        return call

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(z, y)

    inner = torch.compile(loss, backend=backend, dynamic=False)
    report = check(lambda z, y: inner(z, y), **ONE)
    report.raise_if_failed()
    assert not report.opaque
    before = len(ran)
    inner(torch.zeros(42, 3), torch.zeros(42, dtype=torch.int64))
    assert len(ran) == before + 1 > 1


# --- a call that does not come back -----------------------------------------------------------------------------------


class Unspeakable(BaseException):
    def __str__(self) -> str:
        raise ValueError("no text")


def raises(error: BaseException) -> Callable[[Tensor, Tensor], Tensor]:
    def loss(z: Tensor, y: Tensor) -> Tensor:
        raise error

    return loss


@pytest.mark.parametrize(
    ("fn", "kind", "said"),
    [
        (lambda z, y: sys.exit(0), "exited", "it ends the process: SystemExit: 0"),
        (lambda z, y: os._exit(0), "exited", r"os._exit\(0\)"),
        (raises(KeyboardInterrupt()), "raised", "raised KeyboardInterrupt"),
        (raises(GeneratorExit()), "raised", "raised GeneratorExit"),
        (raises(Unspeakable()), "raised", r"raised Unspeakable: \(its text raises ValueError\)"),
    ],
)
def test_whatever_a_call_raises_is_a_finding(fn: Any, kind: str, said: str) -> None:
    exits = os._exit
    report = check(fn, **ONE)
    assert os._exit is exits
    assert report.failures() == (kind,)
    assert report.verdict == f"nothing could be judged: {kind}"
    with pytest.raises(CheckFailed, match=said):
        report.raise_if_failed()
    (incident,) = report.incidents
    assert incident.at.startswith(f"{__file__}:")


def test_what_one_line_raises_is_said_once() -> None:
    report = check(raises(ZeroDivisionError("none")), **BRIEF, many_rows=False, many_classes=False)
    assert report.special_values > 1
    assert [each.kind for each in report.incidents] == ["raised"]


def test_a_person_can_still_interrupt() -> None:
    def interrupted(z: Tensor, y: Tensor) -> Tensor:
        try:
            signal.raise_signal(signal.SIGINT)
        except BaseException:  # it would go on
            return F.cross_entropy(z, y)
        raise AssertionError

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        check(interrupted, **ONE)
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timers that interrupt a call")
def test_a_call_that_hangs_is_a_finding_and_the_last_call() -> None:
    calls = []

    def hangs(z: Tensor, y: Tensor) -> Tensor:
        calls.append(z)
        while len(calls) == 3:
            pass
        return F.cross_entropy(z, y)

    report = check(hangs, **{**BRIEF, "many_rows": False, "many_classes": False}, seconds=5)
    assert len(calls) == 3
    assert report.failures() == ("hung",)
    assert report.unasked
    assert f"not asked: {report.unasked}" in str(report)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.slow
def test_a_call_that_cannot_be_interrupted_ends_the_process_with_status_1() -> None:
    program = """
import time
from equivalences.own.conduct import Conduct
def hangs():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
Conduct(1.0).call(hangs)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "equivalences: hung: a call did not return within seconds=1" in done.stderr
    assert "in hangs" in done.stderr


# --- the state of the process -----------------------------------------------------------------------------------------

SETTINGS: dict[str, tuple[Callable[[], Any], str]] = {
    "anomaly": (lambda: torch.autograd.set_detect_anomaly(True), "anomaly detection"),
    "denormals": (lambda: torch.set_flush_denormal(True), "whether denormals are flushed"),
    "grad": (lambda: torch.set_grad_enabled(False), "whether gradients are recorded"),
    "device": (lambda: torch.set_default_device("meta"), "the default device"),
    "float64": (lambda: torch.set_default_dtype(torch.float64), "the default dtype"),
    "bfloat16": (lambda: torch.set_default_dtype(torch.bfloat16), "the default dtype"),
    "numpy": (lambda: np.seterr(all="raise"), "NumPy's errors"),
    "autocast": (lambda: torch.set_autocast_enabled("cpu", True), "autocast on cpu"),
}


@pytest.fixture
def undone() -> Any:
    """Whatever a test sets."""
    before = state.snapshot()
    yield
    before.undo()


@pytest.mark.usefixtures("undone", "few")
@pytest.mark.parametrize("name", SETTINGS)
def test_what_the_person_has_set_changes_nothing_and_stays(name: str) -> None:
    put, changed = SETTINGS[name]
    before = state.snapshot()
    put()
    set_so = state.snapshot()
    right_too, wrong = check(right, **BRIEF), check(lambda z, y: F.cross_entropy(z, y) * 1.5, **BRIEF)
    assert set_so.undo() == ()
    assert right_too.ok
    assert wrong.failures()[-1] != "raised"
    assert "wrong" in wrong.failures()
    assert before.undo() == (changed,)


@pytest.mark.usefixtures("undone")
@pytest.mark.parametrize("name", [*SETTINGS, "seed"])
def test_what_an_implementation_sets_is_told_and_undone(name: str) -> None:
    put, changed = SETTINGS.get(name, (lambda: torch.manual_seed(3), state.SEED))

    def sets(z: Tensor, y: Tensor) -> Tensor:
        value = F.cross_entropy(z, y)
        put()
        return value

    before = state.snapshot()
    report = check(sets, **ONE)
    assert before.undo() == ()
    assert report.failures() == ("state",)
    assert report.incidents[0].sentence == f"it changes {changed}, for all that runs after it"


@pytest.mark.usefixtures("undone", "few")
def test_a_replaced_function_of_pytorch_is_what_the_implementation_calls_and_not_what_judges_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    genuine = F.cross_entropy
    monkeypatch.setattr(F, "cross_entropy", lambda z, y: genuine(z, y) * 1.5)
    replaced = F.cross_entropy
    assert "wrong" in check(right, **BRIEF).failures()
    assert F.cross_entropy is replaced
    monkeypatch.setattr(F, "cross_entropy", lambda z, y: genuine(z, y))
    check(right, **BRIEF).raise_if_failed()


@pytest.mark.usefixtures("undone")
def test_what_is_drawn_in_a_check_moves_no_generator_of_the_person() -> None:
    def numbers() -> tuple[float, ...]:
        return torch.rand(()).item(), np.random.rand(), random.random()

    generators = torch.get_rng_state(), np.random.get_state(), random.getstate()
    expected = numbers()
    torch.set_rng_state(generators[0])
    np.random.set_state(generators[1])
    random.setstate(generators[2])
    report = check(lambda z, y: F.cross_entropy(z, y) + 0 * sum(numbers()), **ONE)
    report.raise_if_failed()
    assert numbers() == expected


# --- odd results ------------------------------------------------------------------------------------------------------


class Lies(Tensor):
    """Says that it is a scalar, whatever it is."""

    @property
    def shape(self) -> Any:  # type: ignore[override]
        return torch.Size(())


@pytest.mark.parametrize(
    ("result", "kind", "said"),
    [
        (lambda loss: loss.to(torch.float8_e5m2), "result", "it returned torch.float8_e5m2, not a floating-point"),
        (lambda loss: loss[None].to_sparse(), "result", "of layout torch.sparse_coo, not a dense tensor on cpu"),
        (lambda loss: loss.to("meta"), "result", "on meta, not a dense tensor on cpu"),
        (lambda loss: loss.to(torch.complex64), "result", "it returned torch.complex64"),
        (lambda loss: loss.expand(3).as_subclass(Lies), "shape", r"the result has shape \(3,\), expected \(\)"),
        (lambda loss: Mock(spec=Tensor), "result", "it returned Mock, not"),
        (lambda loss: loss.detach().numpy(), "result", "it returned ndarray, not"),
        (lambda loss: "1.0", "result", "it returned str, not"),
        (lambda loss: None, "result", "it returned NoneType, not"),
    ],
)
def test_an_odd_result_is_a_finding(result: Callable[[Tensor], Any], kind: str, said: str) -> None:
    report = check(lambda z, y: result(F.cross_entropy(z, y)), **ONE)
    assert report.failures() == (kind,)
    with pytest.raises(CheckFailed, match=said):
        report.raise_if_failed()


@pytest.mark.usefixtures("few")
def test_odd_callables_are_judged_like_any_other() -> None:
    cache: dict[Any, Tensor] = {}

    def cached(z: Tensor, y: Tensor) -> Tensor:
        return cache.setdefault((z.data_ptr(), z.shape), F.cross_entropy(z, y))

    assert check(Mock(), **BRIEF).failures()[0] == "result"
    assert isinstance(str(check(cached, **BRIEF)), str)


# --- examples, and every identity -------------------------------------------------------------------------------------


def test_shrinking_ends_after_some_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked_for: dict[str, Any] = {**BRIEF, "many_rows": False, "many_classes": False}

    def lengths() -> list[int]:
        report = check(lambda z, y: F.cross_entropy(z, y) * 1.5, **asked_for)
        return [len(str(example.program)) for example in report.examples]

    shrunk = lengths()
    monkeypatch.setattr("equivalences.own.examples.SECONDS", -1.0)
    assert sum(lengths()) > sum(shrunk)


def test_no_entry_of_the_special_values_needs_more_names_than_there_are() -> None:
    for loss in LOSSES.values():
        for case in loss.cases(loss.supports, ("none", "mean", "sum"), loss.layouts):
            for mode in MODES:
                assert list(asked(case, "float32", mode))


def as_function(name: str) -> Callable[..., Any]:
    """The reference form of an identity as a person would write it."""
    identity = IDENTITIES[name]
    if not isinstance(identity.reference.code, str):
        return identity.reference.code
    items = {**identity.domain.axes, **identity.domain.edges("float32")[0].items, "dim": ""}
    names = tuple(each for each in items if each != "g" or not identity.wrt)
    space: dict[str, Any] = dict(NAMES)
    used = compile(function_source(identity.reference, names), "<reference>", "exec")
    exec(used, space)
    code = space["form"].__code__
    taken = tuple(each for each in names if each in _read(code))
    exec(compile(function_source(identity.reference, taken), "<reference>", "exec"), space)
    function: Callable[..., Any] = space["form"]
    return function


def _read(code: Any) -> set[str]:
    """The names that a function reads, in the functions inside it too."""
    import dis

    read = {str(each.argval) for each in dis.get_instructions(code) if each.opname.startswith("LOAD")}
    for pair in (each.argval for each in dis.get_instructions(code) if "FAST" in each.opname):
        read |= set(pair) if isinstance(pair, tuple) else {str(pair)}
    inner = (_read(each) for each in code.co_consts if hasattr(each, "co_code"))
    return read.union(*inner)


@pytest.mark.parametrize("name", IDENTITIES)
@pytest.mark.usefixtures("few")
def test_the_reference_of_every_identity_is_right(name: str) -> None:
    identity = IDENTITIES[name]
    if not exists(identity.reference):
        pytest.skip(f"this torch has no {identity.reference.needs}, or means something else by it")
    fmt = "float32" if "float32" in identity.formats else identity.formats[0]
    reduction = "none" if name in LOSSES else "mean"
    report = check(as_function(name), name, reduction=reduction, formats=(fmt,), examples=0)
    report.raise_if_failed()
    assert report.numbers
