"""How the tensors of a problem lie in memory.  A layout is a snippet of torch code: a report prints what ran."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from equivalences.model import Array, Identity, Problem


@dataclass(frozen=True)
class Layout:
    """How rows x classes stand in memory: an expression in ``x`` for each kind of axes, and the class dimension."""

    name: str
    what: str
    rows_classes: str = "x"  # x has shape (R, C)
    rows: str = "x"  # x has shape (R,)
    other: str = "x"
    dim: int = 1
    gaps: bool = False  # between the numbers
    back: Callable[[Tensor, int], Tensor] = lambda x, rows: x  # an output's rows-classes tensor to (R, C)


def _divisor(rows: int) -> int:
    """The largest divisor of `rows` that is at most its square root."""
    return next(d for d in range(math.isqrt(max(rows, 1)), 0, -1) if rows % d == 0)


LAYOUTS = {
    layout.name: layout
    for layout in (
        Layout("contiguous", "rows x classes, contiguous"),
        Layout(
            "strided",
            "every second number of a larger storage",
            *3 * ("torch.stack((x, x), -1)[..., 0]",),
            gaps=True,
        ),
        Layout(
            "transposed",
            "rows x classes, the rows adjacent in memory",
            rows_classes="x.mT.contiguous().mT",
            other="x.mT.contiguous().mT if x.dim() > 1 else x",
        ),
        Layout(
            "offset",
            "from the second number of a storage on, so that no vector is aligned",
            *3 * ("torch.cat((x.new_zeros(1), x.reshape(-1)))[1:].reshape(x.shape)",),
        ),
        Layout(
            "expanded",
            "one row (or one weight) for all, with stride 0, wherever they are equal",
            *3 * ("x[:1].expand_as(x) if x.dim() and (x == x[:1]).all() else x",),
        ),
        Layout(
            "movedim",
            "(N, C, d), the classes adjacent in memory",
            rows_classes="x.reshape({a}, -1, x.shape[1]).movedim(-1, 1)",
            rows="x.reshape({a}, -1)",
            back=lambda x, rows: x.mT.reshape(rows, -1),
        ),
        Layout(
            "inner",
            "(N, C, d): the class dimension is not the last",
            rows_classes="x.reshape({a}, -1, x.shape[1]).mT.contiguous()",
            rows="x.reshape({a}, -1)",
            back=lambda x, rows: x.mT.reshape(rows, -1),
        ),
        Layout(
            "first",
            "(C, N): the class dimension is the first",
            rows_classes="x.t().contiguous()",
            dim=0,
            back=lambda x, rows: x.t(),
        ),
        Layout(
            "unbatched",
            "(C,): one row without a batch dimension",
            rows_classes="x[0]",
            rows="x[0]",
            dim=0,
            back=lambda x, rows: x[None],
        ),
    )
}


def rows_of(identity: Identity, problem: Problem) -> int:
    """The number of rows of a problem (1 if nothing in it has rows)."""
    for name, axes in identity.domain.axes.items():
        if axes.startswith("R") and name in problem.items:
            return int(problem[name].shape[0])
    return 1


def applies(identity: Identity, problem: Problem, layout: str) -> bool:
    """Whether a problem can be laid out so: "unbatched" takes a single row, "expanded" several equal ones."""
    if layout == "expanded":
        first = next(iter(problem.items.values()))
        return len(first) > 1 and bool((first == first[:1]).all())
    return layout != "unbatched" or rows_of(identity, problem) == 1


def layout_code(identity: Identity, problem: Problem, layout: Layout, name: str) -> str:
    """The expression that lays out item `name`, in terms of ``x``."""
    axes = identity.out if name == "g" else identity.domain.axes.get(name, "")
    code = {"RC": layout.rows_classes, "R": layout.rows, "": "x"}.get(axes, layout.other)
    return code.replace("{a}", str(_divisor(rows_of(identity, problem)))) if "{a}" in code else code


def canonical(identity: Identity, layout: Layout, rows: int, axes: str, tensor: Tensor) -> Array:
    x = tensor.detach().to("cpu", torch.float64)
    if axes == "RC":
        x = layout.back(x, rows)
    elif axes == "R":
        x = x.reshape(rows)
    return x.numpy()
