"""What can be said of a callable before it is called: its name, and what it was compiled from, if it was."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any
from unittest.mock import Mock


def eager(fn: Callable[..., Any]) -> Callable[..., Any]:
    """What `torch.compile` was given, if it made this: compiled code cannot be followed.

    Nor must it be tried: torch would from then on run that code eagerly.
    """
    made: Callable[..., Any] = fn if isinstance(fn, Mock) else getattr(fn, "_torchdynamo_orig_callable", fn)
    return made


def compiles(fn: Callable[..., Any]) -> bool:
    """Whether a function is compiled code, or names compiled code in its own text."""
    if eager(fn) is not fn:
        return True
    try:
        seen = inspect.getclosurevars(fn)
    except Exception:  # a callable of another kind
        return False
    return any(eager(each) is not each for each in (*seen.nonlocals.values(), *seen.globals.values()))


def name_of(fn: Callable[..., Any]) -> str:
    """What a callable calls itself (a custom operator by its qualified name), else its type."""
    try:
        return str(getattr(fn, "__name__", "") or getattr(fn, "_qualname", "") or type(fn).__name__)
    except Exception:  # its own code
        return type(fn).__name__
