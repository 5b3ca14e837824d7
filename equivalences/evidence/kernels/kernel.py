"""A kernel of a stranger, and what is true of it: data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from equivalences.formats import FORMATS


@dataclass(frozen=True)
class Kernel:
    """An implementation as its author would hand it to `check`.

    name      unique among all kernels, in words that its author would use.
    build     makes a fresh function or module; what it needs and is not there raises ImportError.
    of        what it is, as `check(of=...)` takes it.
    wrong     what is wrong with it, in one line; "" for one that is right.
    formats   those that its author claims; a wrong one is wrong in each of them.
    said      what its author declares: other arguments of `check`.
    seen_in   where kernels of this kind are found (a project, an issue, a benchmark's submissions).
    """

    name: str
    build: Callable[[], Callable[..., Any]]
    of: str = "cross_entropy"
    wrong: str = ""
    formats: tuple[str, ...] = tuple(FORMATS)
    said: Mapping[str, Any] = field(default_factory=dict)
    seen_in: str = ""
