"""Rows of class logits, with whichever targets and options are asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from equivalences.model import Domain
from equivalences.problems import regions
from equivalences.problems.recipes import COLUMNS, ROWS, check, domain, named
from equivalences.problems.rows import CLASS_KINDS, LABEL, TARGET, Rows
from equivalences.problems.targets import class_weights, ignored, smoothed, soft_targets


def classes(
    *,
    labels: bool = False,
    soft: bool | str = False,
    weight: bool | str = False,
    ignore: bool = False,
    smoothing: bool = False,
    reduction: tuple[str, ...] = (),
    out: str = "R",
    columns: int | None = None,
    rows: tuple[int, ...] = ROWS,
    layouts: tuple[str, ...] = ("contiguous", "strided", "inner"),
    name: str = "",
) -> Domain:
    """Rows of class logits `z`, with whichever targets and options are asked for.

    Items, in order: z "RC", y "R" (labels), ignore_index, p "RC" (soft targets), weight "C", label_smoothing,
    reduction, g (axes `out`).  With `columns`, every problem has that many classes; with weight="optional", the
    weight of a third of the problems is None; with soft="weights", soft targets are any weights of the classes.
    `rows` are the numbers of rows to choose from.
    """
    check(out, ("R", "RC", ""), reduction)
    if ignore and not labels:
        raise ValueError("ignore needs labels")
    axes = {"z": "RC"}
    axes |= {"y": "R"} if labels else {}
    axes |= {"p": "RC"} if soft else {}
    axes |= {"weight": "C"} if weight else {}
    axes["g"] = out

    def finish(rows: Rows) -> dict[str, Any]:
        recipe, z = rows.recipe, rows.z
        number, count = z.shape
        items: dict[str, Any] = {"z": z}
        v = rows.uniform(2, LABEL)
        y = np.select([v[:, 0] < 0.25, v[:, 0] < 0.5], [z.argmax(1), z.argmin(1)], (v[:, 1] * count).astype(int))
        y = y if rows.y is None else rows.y
        kept = np.ones(number, dtype=bool)
        if labels:
            items["y"] = y
        if ignore:
            y, items["ignore_index"], kept = ignored(rows, y, count)
            items["y"] = y
        if soft:
            items["p"] = rows.exact(
                soft_targets(rows.uniform(count + 1, TARGET), np.where(kept, y, 0), soft == "weights")
            )
        if weight:
            spread = float((np.ptp(z, axis=1) + math.log(count) + 1).sum())
            items["weight"] = class_weights(rows, count, y[kept] if labels else None, spread, weight == "optional")
        if smoothing:
            items["label_smoothing"] = smoothed(rows)
        if reduction:
            items["reduction"] = recipe.reduction
        return items | {"g": rows.upstream(out, count)}

    choices = {"weights"} if weight else set()
    choices |= {"ignored"} if ignore else set()
    choices |= {"smoothing"} if smoothing else set()
    choices |= {"salt"} if choices or out == "" else set()
    size = len(CLASS_KINDS)
    sizes: tuple[tuple[int, int], ...] = ((1, 2), (size, 1), (3 * size, 2), (3 * size, 3), (17, 17), (2 * size, 67))
    sizes += (31, 12), (13, 22), (7, 64), (16, 32), (3, 1030), (1100, 6)
    if rows != ROWS:
        sizes = tuple((count, columns or 3) for count in rows)
    elif columns:
        sizes = ((1, columns), (17, columns), (3 * size, columns), (67, columns))
    options: dict[str, Any] = {"labels": labels, "soft": soft, "weight": weight, "ignore": ignore}
    options |= {"smoothing": smoothing, "rows": rows if rows != ROWS else None}
    return domain(
        name or named("classes", **options, reduction="/".join(reduction), columns=columns, out=out != "R" and out),
        axes,
        CLASS_KINDS,
        regions.classes(labels=labels, columns=columns),
        finish,
        choices=choices,
        rows=rows,
        columns=(columns,) if columns else COLUMNS,
        sizes=sizes,
        reduction=reduction,
        layouts=layouts,
        many_columns=not columns and rows == ROWS,
    )


def pairs(**options: Any) -> Domain:
    """`classes` with exactly two columns, for two-column identities."""
    return classes(columns=2, **options)
