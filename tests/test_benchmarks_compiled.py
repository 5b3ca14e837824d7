"""Work under torch.compile: what is timed is compiled code, however many cases came before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from benchmarks import compiled, loss_cases

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
