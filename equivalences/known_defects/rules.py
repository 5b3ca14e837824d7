"""Rules of `equivalences.rounding`, named here and imported when one is applied: they need torch, a list does not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class Rules:
    """The rules of one module below `equivalences.rounding`, as its attributes."""

    module: str

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):  # what `copy` and `pickle` look for
            raise AttributeError(name)
        return partial(_apply, self.module, name)


def rule_of(module: str, name: str) -> Callable[..., Any]:
    """The rule itself."""
    found: Callable[..., Any] = getattr(import_module(f"equivalences.rounding.{module}"), name)
    return found


def _apply(module: str, name: str, call: Any) -> Any:
    return rule_of(module, name)(call)
