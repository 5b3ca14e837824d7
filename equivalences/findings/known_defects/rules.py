"""The actual rules by name, imported when one is applied: they need torch, the list of known defects does not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any


class _Actual:
    """The rules of `equivalences.findings.known_defects.actual`, as attributes."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):  # what `copy` and `pickle` look for
            raise AttributeError(name)
        return partial(_apply, name)


actual = _Actual()


def rule_of(name: str) -> Callable[..., Any]:
    """The rule itself."""
    found: Callable[..., Any] = getattr(import_module("equivalences.findings.known_defects.actual"), name)
    return found


def _apply(name: str, call: Any) -> Any:
    return rule_of(name)(call)
