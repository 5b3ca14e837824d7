"""Domains of regressions, probabilities and random outcomes."""

from dataclasses import replace
from typing import Any

import numpy as np

from equivalences.formats import FORMATS, Format, every_finite
from equivalences.model import Array, Domain, Problem
from equivalences.problems.derived import labelled
from equivalences.problems.recipes import domain
from equivalences.problems.rows import CLASS_KINDS, LABEL, SCALAR_KINDS, TARGET, Block, Kind, Rows


def _near(k: Block) -> Array:
    """Both columns alike but for an ulp."""
    return 4 * k.a * k.sign * (1 + 2 * k.fmt.u * np.rint(k.u))


REGRESSION_KINDS: dict[str, Kind] = {
    **{name: CLASS_KINDS[name] for name in ("pool", "round", "dense", "tiny")},
    "near": _near,
    "far": lambda k: k.u * k.fmt.max**0.25,
}


def regression(*, reduction: tuple[str, ...] = (), out: str = "R") -> Domain:
    """Predictions `z` and real targets `t` "R", reduction, g (axes `out`)."""

    def finish(rows: Rows) -> dict[str, Any]:
        items: dict[str, Any] = {"z": rows.z[:, 0], "t": rows.z[:, 1]}
        if reduction:
            items["reduction"] = rows.recipe.reduction
        return items | {"g": rows.upstream(out, 1)}

    def locate(problem: Problem) -> Array:
        z, t = problem["z"], problem["t"]
        return labelled({"equal": z == t, "cancellation": 64 * np.abs(z - t) < np.abs(z)})

    return domain(
        f"regression({'/'.join(reduction)})",
        {"z": "R", "t": "R", "g": out},
        REGRESSION_KINDS,
        (("equal", "cancellation", "core"), locate),
        finish,
        choices={"salt"},
        columns=(2,),
        sizes=((1, 2), (2, 2), (12, 2), (17, 2), (67, 2)),
        everywhere=((12, 2),),  # every kind of row twice
        reduction=reduction,
        layouts=("contiguous", "strided"),
    )


def epsilon(fmt: Format) -> float:
    """``torch.finfo(dtype).eps``: torch.distributions moves probabilities into [eps, 1 - eps]."""
    return 2 * fmt.u


def _clamped(fmt: Format, p: Array) -> Array:
    return (p < epsilon(fmt)) | (p > 1 - epsilon(fmt))


PROBABILITY_KINDS: dict[str, Kind] = {
    "dense": lambda k: (k.u + 1) / 2,
    "eighths": lambda k: np.rint(3 * k.u) / 8 + 0.5,
    "small": lambda k: np.exp2((2 - k.fmt.precision) * k.a) * (1 + np.abs(k.u)) / 2,
    "high": lambda k: 1 - np.exp2((2 - k.fmt.precision) * k.a) * (1 + np.abs(k.u)) / 2,
    "edge": lambda k: np.where(k.a < 0.5, 2 * k.fmt.u * (1 + np.rint(k.u)), 1 - 2 * k.fmt.u * (1 + np.rint(k.u) / 2)),
}


def _every_probability(format: str) -> Array:
    """Every number of a 16-bit format from 0 to 1, and none of a wider one."""
    fmt = FORMATS[format]
    p = every_finite(fmt) if fmt.dtype.itemsize == 2 else np.empty(0)
    return np.asarray(p[(p >= 0) & (p <= 1)])


def _against(format: str, p: Array, targets: tuple[float, ...]) -> list[Problem]:
    """All of `p` against each target, or against themselves where nothing else can be: at 0 and at 1."""
    every = [{"p": p, "t": np.where((p == 0) | (p == 1), p, t), "g": np.ones(len(p))} for t in targets]
    return [Problem(format, items) for items in every if len(p)]


def probabilities() -> Domain:
    """Probabilities `p` strictly between 0 and 1, and outcomes `t`, 0 or 1, "R"; g "R"."""

    def finish(rows: Rows) -> dict[str, Any]:
        p = np.clip(rows.z[:, 0], rows.fmt.u, 1 - rows.fmt.u)
        t = (rows.uniform(1, TARGET)[:, 0] < 0.5).astype(float)
        return {"p": p, "t": t, "g": rows.upstream("R", 1)}

    def locate(problem: Problem) -> Array:
        p = problem["p"]
        clamped = _clamped(FORMATS[problem.format], p)
        return labelled({"clamped": clamped, "rare": p < 1 / 64, "sure": p > 63 / 64})

    def exhaustive(format: str) -> list[Problem]:
        p = _every_probability(format)
        return _against(format, p[(p > 0) & (p < 1)], (0.0, 1.0))

    found = domain(
        "probabilities()",
        {"p": "R", "t": "R", "g": "R"},
        PROBABILITY_KINDS,
        (("clamped", "rare", "sure", "core"), locate),
        finish,
        choices=set(),
        columns=(1,),
        sizes=((1, 1), (5, 1), (17, 1), (67, 1)),
        reduction=(),
        layouts=("contiguous", "strided"),
    )
    return replace(found, exhaustive=exhaustive)


def certainties() -> Domain:
    """Probabilities `p` of any size, 0 and 1 among them, and targets `t` in [0, 1], which are p where p is 0 or 1.

    No loss is above 100, at which torch.nn.BCELoss documents a clamp.
    """
    smallest = 2.0**-144

    def finish(rows: Rows) -> dict[str, Any]:
        z = np.clip(rows.z[:, 0], -800, 800)
        p = rows.exact(np.exp(np.minimum(z, 0)) / (1 + np.exp(-np.abs(z))))
        p[p < smallest] = 0.0
        v = rows.uniform(2, TARGET)
        t = np.where(v[:, 0] < 0.75, v[:, 0] < 0.375, rows.exact(v[:, 1]))
        return {"p": p, "t": np.where((p == 0) | (p == 1), p, t), "g": rows.upstream("R", 1)}

    def locate(problem: Problem) -> Array:
        p, tiny = problem["p"], max(1e-12, FORMATS[problem.format].tiny)
        return labelled({"certain": (p == 0) | (p == 1), "extreme": p < tiny, "rare": p < 1 / 64, "sure": p > 63 / 64})

    def exhaustive(format: str) -> list[Problem]:
        return _against(format, _every_probability(format), (0.0, 1.0, 0.25))

    found = domain(
        "certainties()",
        {"p": "R", "t": "R", "g": "R"},
        SCALAR_KINDS,
        (("certain", "extreme", "rare", "sure", "core"), locate),
        finish,
        choices=set(),
        columns=(1,),
        sizes=((1, 1), (5, 1), (18, 1), (67, 1), (144, 1)),
        reduction=(),
        layouts=("contiguous", "strided", "unbatched"),
    )
    return replace(found, exhaustive=exhaustive)


WEIGHT_KINDS: dict[str, Kind] = {
    "dense": lambda k: k.u + 1 + 2.0**-6,
    "eighths": lambda k: np.rint(3 * k.u) / 8 + 0.5,
    "equal": lambda k: 0.5 + k.a + 0 * k.u,
    "winner": lambda k: np.where(k.top, 1.0, np.exp2(-k.fmt.precision * k.a) * (1.5 + k.u)),
    "loser": lambda k: np.where(k.top, np.exp2(-k.fmt.precision * k.a), 1.5 + k.u),
}


def outcomes() -> Domain:
    """Rows of positive weights `p` "RC", not normalised, and an outcome `y` "R" of each; g "R"."""

    def finish(rows: Rows) -> dict[str, Any]:
        v = rows.uniform(1, LABEL)[:, 0]
        return {"p": rows.z, "y": (v * rows.z.shape[1]).astype(int), "g": rows.upstream("R", 1)}

    def locate(problem: Problem) -> Array:
        p, y = problem["p"], problem["y"]
        share = p[np.arange(len(y)), y] / p.sum(1)
        clamped = _clamped(FORMATS[problem.format], np.where(share < 0.5, share / 2, (1 + share) / 2))
        return labelled({"clamped": clamped, "rare": share < 1 / 16})

    return domain(
        "outcomes()",
        {"p": "RC", "y": "R", "g": "R"},
        WEIGHT_KINDS,
        (("clamped", "rare", "core"), locate),
        finish,
        choices=set(),
        columns=(2, 3, 5, 8, 9, 17),
        sizes=((1, 2), (5, 3), (17, 5), (17, 9), (33, 17)),
        reduction=(),
        layouts=("contiguous", "strided", "transposed"),
    )
