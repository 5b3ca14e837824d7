"""One logit a row, with whichever targets and weights are asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from equivalences.formats import FORMATS, every_finite, truncate
from equivalences.model import Domain, Problem
from equivalences.problems import regions
from equivalences.problems.options import ALONE
from equivalences.problems.recipes import check, domain, named
from equivalences.problems.rows import SCALAR_KINDS, TARGET, Rows, moderated, some_rows


def scalars(
    *,
    target: str | None = None,
    weight: bool = False,
    pos_weight: bool = False,
    reduction: tuple[str, ...] = (),
    out: str = "R",
    layouts: tuple[str, ...] = ("contiguous", "strided"),
    name: str = "",
) -> Domain:
    """One logit `z` a row, with targets `t`: 0 or 1 ("index"), in [0, 1] ("soft"), -1 or 1 ("sign").

    Items, in order: z "R", t "R", weight "R", pos_weight "" (0-d, positive), reduction, g (axes `out`).
    """
    check(out, ("R", ""), reduction)
    if target not in (None, "index", "soft", "sign"):
        raise ValueError(f"target must be None, 'index', 'soft' or 'sign', got {target!r}")
    axes = {"z": "R"}
    axes |= {"t": "R"} if target else {}
    axes |= {"weight": "R"} if weight else {}
    axes |= {"pos_weight": ""} if pos_weight else {}
    axes["g"] = out

    def finish(rows: Rows) -> dict[str, Any]:
        z, fmt = rows.z[:, 0], rows.fmt
        items: dict[str, Any] = {"z": z}
        v = rows.uniform(2, TARGET)
        hit = (v[:, 0] < 0.5).astype(float)
        if target == "soft":
            inner = np.select([v[:, 1] < 0.2, v[:, 1] < 0.3], [np.full_like(z, 0.5), 1 - fmt.u * 2], v[:, 1])
            items["t"] = rows.exact(np.where(v[:, 0] % 0.5 < 0.25, hit, inner))
        elif target:
            items["t"] = 2 * hit - 1 if target == "sign" else hit
        positive = np.array(1.0)
        if pos_weight:
            fixed = rows.recipe.positive
            positive = np.array(0.1 + 2 * rows.shared(1, TARGET)[0] if fixed is None else fixed)
        total = float((np.abs(z) + 1).sum() * max(1.0, positive))
        if weight:
            w = rows.weights(len(z))
            items["weight"] = moderated(w, total * float(w.max()), fmt)
        if pos_weight:
            items["pos_weight"] = moderated(positive, 0.0 if weight else total, fmt)
        if reduction:
            items["reduction"] = rows.recipe.reduction
        return items | {"g": rows.upstream(out, 1)}

    def exhaustive(format: str) -> list[Problem]:
        fmt = FORMATS[format]
        if fmt.dtype.itemsize > 2 or out == "":
            return []
        z = every_finite(fmt)
        targets = {None: (), "index": (0.0, 1.0), "sign": (-1.0, 1.0), "soft": (0.25,)}[target]
        fixed: dict[str, Any] = {"weight": truncate(np.resize([0.7, 1.0, 0.3], len(z)), fmt)} if weight else {}
        fixed |= {"pos_weight": truncate(np.array(1.7), fmt)} if pos_weight else {}
        fixed |= ({"reduction": reduction[0]} if reduction else {}) | {"g": np.ones(len(z))}
        each: list[dict[str, Any]] = [{"t": np.full(len(z), t)} for t in targets] or [{}]
        return [Problem(format, {"z": z, **items, **fixed}) for items in each]

    choices = ({"weights"} if weight else set()) | ({"positive"} if pos_weight else set())
    choices |= {"salt"} if choices or out == "" else set()
    size = len(SCALAR_KINDS)
    options = {"target": target, "weight": weight, "pos_weight": pos_weight, "reduction": "/".join(reduction)}
    found = domain(
        name or named("scalars", **options, out="''" if out == "" else None),
        axes,
        SCALAR_KINDS,
        regions.scalars(target=target),
        finish,
        choices=choices,
        columns=(1,),
        sizes=((1, 1), (2, 1), (size, 1), (17, 1), (67, 1), (1100, 1), (16 * size, 1)),
        reduction=reduction,
        layouts=layouts,
    )
    edges = found.edges if out else lambda format: _with_lone_rows(found, found.edges(format))
    return replace(found, edges=edges, exhaustive=exhaustive)


def _with_lone_rows(domain: Domain, edges: list[Problem]) -> list[Problem]:
    """The mildest row of each region, a problem of its own: a total's allowance is that of its worst row."""
    problem = max(edges, key=lambda edge: len(edge["z"]))
    at, size = domain.locate(problem), np.abs(problem["z"])
    for region in np.unique(at):
        mildest = np.argmin(np.where(at == region, size, np.inf), keepdims=True)
        edges.append(replace(some_rows(problem, domain.axes, mildest), role=ALONE))
    return edges
