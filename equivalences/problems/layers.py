"""Affine layers, one or two, with or without a loss head."""

from __future__ import annotations

from typing import Any

import numpy as np

from equivalences.model import Domain
from equivalences.problems import regions
from equivalences.problems.recipes import check, domain, named
from equivalences.problems.rows import LABEL, LAYER_KINDS, TARGET, Rows
from equivalences.problems.targets import class_weights, ignored, smoothed, soft_targets


def layers(
    *,
    hidden: bool = False,
    labels: bool = False,
    soft: bool = False,
    weight: bool | str = False,
    ignore: bool = False,
    smoothing: bool = False,
    reduction: tuple[str, ...] = (),
    out: str | None = None,
    layouts: tuple[str, ...] = ("contiguous", "strided"),
    name: str = "",
    many: bool = False,
) -> Domain:
    """Affine layers, one or (`hidden`) two; with targets, under a loss head whose output has axes `out` ("" or "R").

    Items, in order: x "RD", W "KD", b "K", with hidden W2 "MK" and b2 "M", with labels y "R", with soft targets p,
    options of the loss as in `classes`, and g.  A shape (R, C) stands for R samples and C everywhere else.  With `many`
    there is an edge problem of more samples than a chunk of 128 has.
    """
    last = "M" if hidden else "K"
    head = labels or soft
    out = ("" if head else "R" + last) if out is None else out
    check(out, ("", "R") if head else ("R" + last,), reduction)
    axes = {"x": "RD", "W": "KD", "b": "K"}
    axes |= {"W2": "MK", "b2": "M"} if hidden else {}
    axes |= {"y": "R"} if labels else {}
    axes |= {"p": "R" + last} if soft else {}
    axes |= {"weight": last} if weight else {}
    axes["g"] = out

    def finish(rows: Rows) -> dict[str, Any]:
        x, recipe = rows.z, rows.recipe
        k, m = (width or x.shape[1] for width in recipe.widths)
        own = rows.shared(3, LABEL)
        v = rows.shared(k * (x.shape[1] + 1) + m * (k + 1))
        # Half of the layers reach far into saturation; the scale is a power of two.
        matrix, bias, matrix2, bias2 = (
            rows.exact(2 * part - 1) for part in np.split(v, np.cumsum([k * x.shape[1], k, m * k]))
        )
        matrix = matrix.reshape(k, -1) * (4.0 if own[0] < 0.5 else 1.0)
        if own[1] < 0.5:  # the bias cancels the first sample's first output
            bias[0] = rows.exact(-(x[0] @ matrix[0]))
        items: dict[str, Any] = {"x": x, "W": matrix, "b": bias}
        if hidden:
            items |= {"W2": matrix2.reshape(m, k), "b2": bias2}
        count = m if hidden else k
        y = (rows.uniform(1, LABEL)[:, 0] * count).astype(int)
        kept = np.ones(len(x), dtype=bool)
        if labels:
            items["y"] = y
        if ignore:
            items["y"], items["ignore_index"], kept = ignored(rows, y, count)
        if soft:
            items["p"] = rows.exact(soft_targets(rows.uniform(count + 1, TARGET), y, weights=True))
        if weight:
            spread = float((np.abs(x) @ np.abs(matrix).T + np.abs(bias)).max(axis=1).sum() * 2 + len(x) * count)
            used = items["y"][kept] if labels else None
            items["weight"] = class_weights(rows, count, used, spread, weight == "optional")
        if smoothing:
            items["label_smoothing"] = smoothed(rows)
        if reduction:
            items["reduction"] = recipe.reduction
        return items | {"g": rows.upstream(out, count)}

    choices = {"salt", "widths"} | ({"weights"} if weight else set()) | ({"ignored"} if ignore else set())
    choices |= {"smoothing"} if smoothing else set()
    small = tuple(range(1, 10))
    options: dict[str, Any] = {"hidden": hidden, "labels": labels, "soft": soft, "weight": weight, "ignore": ignore}
    options |= {"smoothing": smoothing, "reduction": "/".join(reduction), "out": out if head and out else None}
    return domain(
        name or named("layers", **options),
        axes,
        LAYER_KINDS,
        regions.layers(),
        finish,
        choices=choices,
        rows=small,
        columns=small,
        sizes=((1, 1), (2, 2), (4, 3), (7, 8), (20, 20), (9, 9), *(((129, 3),) if many else ())),
        reduction=reduction,
        layouts=layouts,
    )
