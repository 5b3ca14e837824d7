"""The table of special values as a page of Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values import SHOWN, SPECIAL_VALUES, masks
from equivalences.formats import FORMATS
from equivalences.model import Raises
from equivalences.report import markdown

_FORMATS = tuple(FORMATS)


def page() -> str:
    """The whole table: a section an operation."""
    return "\n".join(_lines()) + "\n"


def outcome(said: Gives | Raises) -> str:
    """An outcome in a few words: value and gradient, or exception."""
    if isinstance(said, Raises):
        return f"`{said.error.__name__}`"
    dtype = f", {said.dtype}" if said.dtype else ""
    return f"{_number(said.value)}{dtype}" + ("" if said.gradient is None else f"; gradient {_number(said.gradient)}")


def _number(item: Any) -> str:
    if isinstance(item, np.ndarray):
        few = 0 < item.size <= SHOWN
        return _number(item.tolist()) if few else f"shape {item.shape}"
    if isinstance(item, list):
        return "[" + ", ".join(map(_number, item)) + "]"
    return str(item) if isinstance(item, str) or item is None or not math.isfinite(item) else f"{item:g}"


def _lines() -> Iterator[str]:
    deviating = sum(bool(entry.deviations) for entry in SPECIAL_VALUES)
    yield "# Special values"
    yield ""
    yield "Made by `python -m equivalences special` from `equivalences/findings/special_values/`; run by"
    yield "`tests/gate/test_special_values.py`, eager and (`--mode compiled`) compiled. [Back to the pages](README.md)."
    yield ""
    yield f"{len(SPECIAL_VALUES)} entries, {deviating} of which PyTorch does otherwise (last column)."
    yield "Right is the limit where there is one (0 times what grows without bound is 0 while the factor stays 0), else"
    yield "what is documented, else nan.  The gradient is that of the first input, under the upstream gradient g, or 1."
    yield ""
    yield masks.ABOUT
    for operation in dict.fromkeys(entry.operation for entry in SPECIAL_VALUES):
        rows = [entry for entry in SPECIAL_VALUES if entry.operation == operation]
        yield ""
        yield f"## {operation}"
        yield ""
        yield from (f"<{source}>" for source in dict.fromkeys(entry.source for entry in rows))
        yield ""
        head = ("what", "call", "inputs", "right", "why", "PyTorch instead")
        yield from markdown.table(head, (tuple(_cells(entry)) for entry in rows))[:-1]


def _cells(entry: SpecialValue) -> Iterator[str]:
    yield entry.name + ("" if entry.formats == _FORMATS else f" ({', '.join(entry.formats)})")
    yield f"`{' ; '.join(entry.call.splitlines())}`"
    yield inputs(entry)
    yield outcome(entry.outcome)
    yield entry.why
    yield "<br>".join(map(_deviation, entry.deviations))


def inputs(entry: SpecialValue) -> str:
    """The inputs in a line."""
    return ", ".join(f"{name} = {_number(item)}" for name, item in entry.items.items() if item is not None)


def _deviation(made: Deviation) -> str:
    link = f" [#{made.link.rpartition('/')[2]}]({made.link})" if made.link else ""
    return deviation(made, link)


def deviation(deviation: Deviation, link: str | None = None) -> str:
    """What PyTorch does instead, where and why; with its link as it is unless told otherwise."""
    where = [] if deviation.formats == _FORMATS else list(deviation.formats)
    where += [] if len(deviation.modes) == 2 else list(deviation.modes)
    shown = f"{', '.join(where)}: " if where else ""
    why = f" ({deviation.why})" if deviation.why else ""
    if link is None:
        link = f" {deviation.link}" if deviation.link else ""
    return f"{shown}{outcome(deviation.outcome)}{why}{link}; torch {', '.join(deviation.seen)}"
