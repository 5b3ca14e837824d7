"""Which operations of the installed torch the analysis follows, by torch's own registry."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch

from equivalences.rounding.call import RULES
from equivalences.rounding.tracker import described


class Coverage(Enum):
    """What the analysis makes of an operation, from best to worst."""

    EXACT = "exact"  # a view, or a question without a tensor for an answer: geometry says all
    FOLLOWED = "followed"  # it has a rule
    COMPOSITE = "composite"  # made of other operations: followed through what it calls
    WITHOUT = "without a rule"


@dataclass(frozen=True)
class Operation:
    """An operation of ATen, in place or not, and its overloads by what the analysis makes of them.

    `written` are those that write into an argument (``out=``) instead of giving a result.
    """

    name: str
    overloads: dict[Coverage, tuple[str, ...]]
    written: frozenset[str]

    @property
    def coverage(self) -> Coverage:
        """The worst of its overloads that give a result, if it has any."""
        giving = [each for each, some in self.overloads.items() if not self.written.issuperset(some)]
        return max(giving or self.overloads, key=list(Coverage).index)

    @property
    def without(self) -> tuple[str, ...]:
        """The overloads without a rule."""
        return self.overloads.get(Coverage.WITHOUT, ())


def overloads() -> Iterator[Any]:
    """Every overload of every operation of ATen that the dispatcher knows (torch._ops.OpOverload)."""
    for full in torch._C._dispatch_get_all_op_names():
        namespace, _, name = full.partition("::")
        if namespace == "aten":
            packet, _, overload = name.partition(".")
            yield getattr(getattr(torch.ops.aten, packet), overload or "default")


def _of(what: Any) -> Coverage:
    if what.rule in RULES:
        return Coverage.FOLLOWED
    if what.composite:
        return Coverage.COMPOSITE
    return Coverage.EXACT if what.views or what.asks else Coverage.WITHOUT


def operations() -> tuple[Operation, ...]:
    """All operations, by name."""
    found: defaultdict[str, defaultdict[Coverage, set[str]]] = defaultdict(lambda: defaultdict(set))
    written = set()
    for overload in overloads():
        what, name = described(overload), str(overload).removeprefix("aten.")
        found[what.name][_of(what)].add(name)
        if what.mutates and not what.in_place:
            written.add(name)
    return tuple(
        Operation(name, {each: tuple(sorted(some)) for each, some in kinds.items()}, frozenset(written))
        for name, kinds in sorted(found.items())
    )
