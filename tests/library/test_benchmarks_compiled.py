"""Work under torch.compile: what is timed is compiled code, however many cases came before."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

from benchmarks import compiled, loss_cases
from benchmarks.training import Recipe, Training
from benchmarks.versus.worker import Session

CASES = 10  # more than the versions that dynamo keeps of one code object


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts the calls of compiled code: traced by dynamo, and run without inductor."""
    made: list[int] = []

    def counting(graph: torch.fx.GraphModule, inputs: object) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            made.append(1)
            return graph.forward(*arguments)

        return run

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: real(function, backend=counting, **options))
    with torch._dynamo.config.patch(fail_on_recompile_limit_hit=False):  # as it was, afterwards
        yield made
    compiled._works.cache_clear()
    torch.compiler.reset()


def test_every_case_runs_compiled(calls: list[int]) -> None:
    axes = loss_cases.Axes("CrossEntropyLoss", "16", "2", "forward", execution="compile")
    kept = []
    for _ in range(CASES):
        kept.append(loss_cases.LossOnly(axes, "cpu"))
        before = len(calls)
        kept[-1].run()
        assert len(calls) == before + 1


def test_what_would_run_eagerly_after_all_raises(calls: list[int]) -> None:
    """One function in too many versions."""
    function = compiled.compiled(torch.exp, "cpu")
    with pytest.raises(Exception, match="limit"):
        list(map(function, map(torch.zeros, range(2, 2 + CASES))))


class Miscompiled:
    """Work that is wrong only where it is compiled."""

    def __init__(self) -> None:
        self.x = torch.arange(3.0)

    def prepare(self, device: str) -> Miscompiled:
        return self

    def reset(self) -> None: ...

    def run(self) -> None:
        self.result = self.x.cos() if torch.compiler.is_compiling() else self.x.sin()

    def check(self) -> None:
        self.run()
        assert torch.equal(self.result, self.x.sin())


@pytest.mark.usefixtures("calls")
def test_what_the_driver_compiles_is_checked_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    registry = ModuleType("miscompiled")
    case = Miscompiled()
    registry.CASES = [case]  # type: ignore[attr-defined]
    case.id = "wrong"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "miscompiled", registry)
    session = Session(["miscompiled"])
    session._compile = "on"
    with pytest.raises(AssertionError):
        session.prepare("wrong", "cpu", check=True)
    gc.enable()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own parts
def test_a_reset_needs_no_new_compilation() -> None:
    """Once two steps from a reset have run, another reset finds all code of the next two."""
    work = Training(Recipe("synthetic", "CrossEntropyLoss", "Adam", batch="full", loading="slices"), "cpu")
    torch.compiler.reset()
    step, frames = torch.compile(work.step, backend="eager"), []
    for _ in range(5):
        work.reset()
        step(work.x, work.target)
        step(work.x, work.target)
        frames.append(torch._dynamo.utils.counters["frames"]["total"])
    torch.compiler.reset()
    assert 0 < frames[2] == frames[-1], frames
