"""Whether the results of a format have only the digits of a narrower one: code that computes in float32 inside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

import numpy as np
from torch import Tensor

from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.judging.contract import contract
from equivalences.judging.facts import INSIDE, Verdict
from equivalences.model import Form, Identity
from equivalences.own.judged import Judged
from equivalences.running.execute import Place
from equivalences.running.forms import function

NARROWER: Mapping[str, tuple[str, ...]] = {"float64": ("float32",), "float32": ("bfloat16", "float16")}


@lru_cache(maxsize=64)
def narrowed(identity: Identity, fmt: str) -> Identity:
    """The identity whose reference takes its inputs in a narrower format, computes there, and widens its result."""
    dtype = FORMATS[fmt].dtype

    def narrow(**items: Any) -> Tensor:
        wide = next(x.dtype for x in items.values() if isinstance(x, Tensor) and x.is_floating_point())
        taken = {
            name: x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x for name, x in items.items()
        }
        found: Tensor = function(identity.reference, tuple(items))(**taken)
        return found.to(wide)

    return replace(identity, forms=(Form(narrow, label=identity.reference.label),))


@dataclass(eq=False)
class Digits:
    """What the results of one format say of the format in which they were computed.

    short   results that have lost more than half of the digits between the two formats, of so many `counted`.
    alive   the narrower formats that may still explain every number beyond the contract.
    """

    identity: Identity
    alive: list[str]
    counted: int = 0
    short: dict[str, int] = field(default_factory=dict)
    example: Judged | None = None  # of what is beyond the contract

    def see(self, found: Judged, place: Place) -> None:
        """Takes in one quantity of one run."""
        m = found.m
        if not self.alive or self.identity.bitwise:
            return
        told = np.isfinite(m.exact) & (m.exact != 0) & np.isfinite(m.error)
        relative = m.error[told] / np.abs(m.exact[told])
        self.counted += relative.size
        for name in self.alive:
            half = (FORMATS[m.problem.format].u * FORMATS[name].u) ** 0.5
            self.short[name] = self.short.get(name, 0) + int((relative > half).sum())
        if found.fails:
            self.example = self.example or found
            self.alive = [name for name in self.alive if self._explains(name, found, place)]

    def _explains(self, name: str, found: Judged, place: Place) -> bool:
        """Whether all that is beyond the contract is within that of the narrower format, or its own arithmetic."""
        beyond = found.verdict > Verdict.UNSTABLE
        if not beyond.any():
            return True
        try:
            bound = contract(narrowed(self.identity, name), found.problem, place)[found.quantity]
            fact = judge.decide(self.identity, found.problem, found.quantity, found.m.got, bound)[0]
        except Exception:  # it overflows in the narrower format, say
            return False
        return bool((fact[beyond] == INSIDE).all())

    @property
    def computes_in(self) -> str:
        """The narrower format in which it computes ("": it does not)."""
        if self.example is None:
            return ""
        return next((name for name in self.alive if 2 * self.short.get(name, 0) > self.counted), "")
