"""torch.compile for work that is timed: never the eager code that dynamo silently falls back to."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import ParamSpec, TypeVar

import torch

from benchmarks.work import Unsupported

P = ParamSpec("P")
R = TypeVar("R")


def compiled(function: Callable[P, R], device: str, dynamic: bool | None = False) -> Callable[P, R]:
    """The function through torch.compile, with a cache of its own.

    Dynamo keeps a few compiled versions a code object, and closures made by one function share theirs: case after case
    would fill the cache, and the next would run eagerly.  What still meets the limit raises.  What was compiled before
    compiles again when it is next called.
    """
    _works(device)
    torch.compiler.reset()
    torch._dynamo.config.fail_on_recompile_limit_hit = True
    return torch.compile(function, dynamic=dynamic)


@lru_cache(maxsize=4)
def _works(device: str) -> None:
    """Raises `Unsupported` where torch.compile cannot work (no C++ compiler, no Triton)."""
    try:
        torch.compile(lambda x: x + 1)(torch.zeros(1, device=device))
    except Exception as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise Unsupported(f"torch.compile does not work here: {first}") from None
