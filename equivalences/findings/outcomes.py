"""Runs an entry of the table of special values, and says how what came of it differs from what is said there."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from equivalences import devices
from equivalences.findings.model import Deviation, Gives, SpecialValue
from equivalences.findings.special_values import SHOWN
from equivalences.formats import FORMATS
from equivalences.model import Array, Form, Raises
from equivalences.running.forms import compiled, function, running


@lru_cache(maxsize=1024)
def form(call: str) -> Form:
    """The one form of an expression: entries that share it share its compiled code."""
    return Form(call)


def _tensor(item: Any, fmt: str, device: str) -> torch.Tensor:
    array = np.asarray(item)
    return torch.tensor(array, device=device, dtype=FORMATS[fmt].dtype if array.dtype.kind == "f" else None)


def _array(tensor: torch.Tensor) -> Array:
    return np.asarray(tensor.detach().to("cpu", torch.float64).numpy())


def run(entry: SpecialValue, fmt: str, device: str = "cpu", mode: str = "eager") -> Gives | Exception:
    """What the entry's operation gives on this torch: value, gradient and dtype, or the exception it raises."""
    items = {
        name: _tensor(item, fmt, device) if isinstance(item, list | np.ndarray) else item
        for name, item in entry.items.items()
    }
    upstream = items.pop("g", None)
    leaf = next(iter(items.values()))
    leaf.requires_grad_(leaf.is_floating_point())
    names = tuple(items)
    static = tuple(str(item.shape if isinstance(item, torch.Tensor) else item) for item in items.values())
    made = function if mode == "eager" else compiled
    try:
        with running(mode):
            value = made(form(entry.call), names, (fmt, device, *static))(**items)
            gradient = None
            if value.requires_grad:
                start = torch.ones_like(value) if upstream is None else upstream
                gradient = _array(torch.autograd.grad(value, leaf, start)[0])
    except Exception as error:
        return error
    return Gives(_array(value), gradient, str(value.dtype).removeprefix("torch."))


def differs(got: Gives | Exception, said: Gives | Raises, fmt: str, rows: Sequence[str] = ()) -> str:
    """How `got` differs from what was `said`, in a line ("": not at all); `rows` say what is special of each.

    An exception that dynamo wraps while it traces counts as the one that it wraps, told by its message.
    """
    if isinstance(got, Exception):
        wrapped = type(got).__module__ == "torch._dynamo.exc"
        if isinstance(said, Raises) and (isinstance(got, said.error) or wrapped) and re.search(said.match, str(got)):
            return ""
        return f"raises {type(got).__name__}: {' / '.join(str(got).splitlines())}"
    if isinstance(said, Raises):
        return f"gives {shown(got)} and raises nothing"
    same = _equal(got.value, said.value) and got.dtype == (said.dtype or fmt)
    if same and (said.gradient is None or (got.gradient is not None and _equal(got.gradient, said.gradient))):
        return ""
    return f"gives {_first(got, said, rows) or shown(got)}"


def _equal(got: Any, said: Any) -> bool:
    got, said = np.asarray(got, dtype=np.float64), np.asarray(said, dtype=np.float64)
    return got.shape == said.shape and bool(np.array_equal(got, said, equal_nan=True))


def _first(got: Gives, said: Gives, rows: Sequence[str]) -> str:
    """The first number that differs, where there are too many to show them all ("": there are not)."""
    if max(np.size(got.value), np.size(got.gradient)) <= SHOWN:
        return ""
    for what in ("value", "gradient"):
        mine, right = (np.asarray(getattr(each, what), dtype=np.float64) for each in (got, said))
        if mine.shape == right.shape:
            places = np.argwhere((mine != right) & ~(np.isnan(mine) & np.isnan(right)))
            for place in places[:1]:
                at = tuple(place.tolist())
                row = f"; row {at[0]} masks {rows[at[0]]}" if rows and at else ""
                many = f" ({len(places)} of {mine.size} numbers differ{row})"
                return f"{mine[at]} at {list(at)} of the {what} instead of {right[at]}{many}"
    return ""


def shown(got: Gives) -> str:
    """The outcome in a line; of many numbers the shape."""
    value, gradient = map(_part, (got.value, got.gradient))
    return f"{value}, gradient {gradient}, {got.dtype}"


def _part(part: Any) -> Any:
    array = None if part is None else np.asarray(part)
    if array is None or array.size <= SHOWN:
        return array if array is None else array.tolist()
    return f"of shape {array.shape}"


def deviation(entry: SpecialValue, fmt: str, mode: str, version: str) -> Deviation | None:
    """The deviation that is recorded for this format, mode and release of torch, if any."""
    found = [d for d in entry.deviations if fmt in d.formats and mode in d.modes and version in d.seen]
    assert len(found) < 2, f"{entry.operation}, {entry.name}: {len(found)} deviations apply to {fmt}, {mode}, {version}"
    return found[0] if found else None


def accepted(entry: SpecialValue, fmt: str, mode: str) -> list[Gives | Raises]:
    """What is right, and then what PyTorch does instead in some release."""
    return [entry.outcome, *(d.outcome for d in entry.deviations if fmt in d.formats and mode in d.modes)]


def ends_the_process(entry: SpecialValue, device: str) -> bool:
    """Whether, on this device, the entry's exception is an assertion in a kernel that no process survives."""
    refused = entry.outcome
    return devices.kind(device) == "cuda" and isinstance(refused, Raises) and refused.asserted


def broken(entry: SpecialValue, fmt: str, device: str, mode: str, version: str) -> str:
    """What is not as the table says, in a line ("": everything is).

    In a release that no deviation names, what is right and what older releases do are both accepted.
    """
    got = run(entry, fmt, device, mode)
    known = deviation(entry, fmt, mode, version)
    if known is not None:
        if not differs(got, entry.outcome, fmt, entry.rows):
            return f"fixed: delete this deviation, or take {version}, {mode}, {fmt} out of it"
        return differs(got, known.outcome, fmt, entry.rows)
    named = any(version in each.seen for each in entry.deviations)
    possible = [entry.outcome] if named else accepted(entry, fmt, mode)
    found = [differs(got, each, fmt, entry.rows) for each in possible]
    return found[0] if all(found) else ""
