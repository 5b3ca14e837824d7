"""Domains of the identities about distributions, layers and training.

Options (learning rate, momentum, dropout probability ...) are picked from short tables by the entropy of what is no
row's own, so that they are no choice to draw.  Python floats among them are exact: they are the doubles they are.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from equivalences.formats import FORMATS, Format, every_finite, truncate
from equivalences.model import Array, Domain, Problem
from equivalences.problems.draw import Choose
from equivalences.problems.layers import layers
from equivalences.problems.recipes import domain
from equivalences.problems.rows import CLASS_KINDS, LABEL, SCALAR_KINDS, TARGET, Block, Kind, Rows
from equivalences.problems.scalars import scalars

RATES = (0.1, 0.01, 1.0, 0.5, 0.001)


class _Pick:
    """Picks options: each call takes the next of a stream of numbers in [0, 1)."""

    def __init__(self, stream: Array) -> None:
        self._next = iter(stream.tolist())

    def __call__(self, *options: Any) -> Any:
        return options[int(next(self._next) * len(options))]


def _of_problem(problem: Problem) -> _Pick:
    """Options that follow from the numbers of a problem, reproducibly."""
    digest = zlib.crc32(b"".join(item.tobytes() for item in problem.items.values() if isinstance(item, np.ndarray)))
    # As `default_rng(digest).random(16)` has it, whose method may change; the raw words may not (NEP 19).
    return _Pick((np.random.PCG64(digest).random_raw(16) >> np.uint64(11)) * 2.0**-53)


def derived(
    base: Domain,
    name: str,
    axes: Mapping[str, str],
    make: Callable[[Problem, _Pick], dict[str, Any]],
    layouts: tuple[str, ...] = ("contiguous", "strided"),
) -> Domain:
    """The problems of `base` with other items; where they lie is decided by `base`, from items that must remain."""

    def remade(problem: Problem) -> Problem:
        return Problem(problem.format, make(problem, _of_problem(problem)), problem.role)

    def draw(choose: Choose, format: str, shape: tuple[int, ...] | None = None) -> Problem:
        return remade(base.draw(choose, format, shape))

    def edges(format: str) -> list[Problem]:
        return [remade(problem) for problem in base.edges(format)]

    def exhaustive(format: str) -> list[Problem]:
        return [remade(problem) for problem in base.exhaustive(format)]

    return Domain(name, axes, draw, edges, base.regions, base.locate, layouts, exhaustive)


def _labelled(conditions: Mapping[str, Array], rest: str = "core") -> Array:
    """The index of the first condition that holds in each row; the one after the last is `rest`."""
    return np.select(list(conditions.values()), list(range(len(conditions))), len(conditions))


# -- distributions ----------------------------------------------------------------------------------------------------


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
        return _labelled({"equal": z == t, "cancellation": 64 * np.abs(z - t) < np.abs(z)})

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
        return _labelled({"clamped": clamped, "rare": p < 1 / 64, "sure": p > 63 / 64})

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
        return _labelled({"certain": (p == 0) | (p == 1), "extreme": p < tiny, "rare": p < 1 / 64, "sure": p > 63 / 64})

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
        return _labelled({"clamped": clamped, "rare": share < 1 / 16})

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


# -- layers -----------------------------------------------------------------------------------------------------------


def activations() -> Domain:
    """One number `z` a row, a slope for its negative part, and `g` "R"."""
    return derived(
        scalars(),
        "activations()",
        {"z": "R", "g": "R"},
        lambda p, pick: {"z": p["z"], "slope": pick(0.1, 0.01, 0.25, 0.0), "g": p["g"]},
    )


def dropouts() -> Domain:
    """One number `z` a row, a probability of dropping it, the seed of the mask, and `g` "R"."""
    return derived(
        scalars(),
        "dropouts()",
        {"z": "R", "g": "R"},
        lambda p, pick: {
            "z": p["z"],
            "drop": pick(0.5, 0.1, 0.2, 0.75, 0.0),
            "seed": pick(*range(97)),
            "g": p["g"],
        },
    )


def sizes() -> Domain:
    """Widths of a network of two layers: inputs `d`, hidden `h`, outputs `k`."""

    def remade(problem: Problem) -> Problem:
        x, w, w2 = problem["x"], problem["W"], problem["W2"]
        return Problem(problem.format, {"d": x.shape[1], "h": len(w), "k": len(w2)})

    base = layers(hidden=True)
    figures = ((3072, 512, 2), (784, 32, 1), (784, 32, 2))

    def draw(choose: Choose, format: str, shape: tuple[int, ...] | None = None) -> Problem:
        return remade(base.draw(choose, format, shape))

    def edges(format: str) -> list[Problem]:
        return [Problem(format, dict(zip("dhk", widths, strict=True))) for widths in figures]

    return Domain("sizes()", {}, draw, edges, ("any",), lambda problem: np.zeros(1, dtype=np.int64), ("contiguous",))


# -- training ---------------------------------------------------------------------------------------------------------

ADAM = ("beta1", "beta2", "eps")


def _rates(pick: _Pick) -> dict[str, Any]:
    return {"lr": pick(*RATES), "beta1": pick(0.9, 0.5, 0.8), "beta2": pick(0.999, 0.5, 0.95), "eps": pick(1e-8, 1e-6)}


def networks(*, hidden: bool = False, binary: bool = False) -> Domain:
    """A classifier, a batch and the options of an optimizer.

    Items: x "RD", W "KD", b "K", with `hidden` W2 "MK" and b2 "M", labels y "R", batch (samples a mini-batch), lr,
    beta1, beta2, eps.  With `binary` the last layer has two columns, and t "R" holds the labels as floats.
    """
    base = layers(hidden=hidden, labels=True)
    axes = {name: letters for name, letters in base.axes.items() if name != "g"} | ({"t": "R"} if binary else {})
    last, bias = ("W2", "b2") if hidden else ("W", "b")

    def make(problem: Problem, pick: _Pick) -> dict[str, Any]:
        items = {name: problem[name] for name in problem if name != "g"}
        if binary:
            items["y"] = problem["y"] % 2
            items["t"] = items["y"].astype(float)
            items[last] = np.resize(problem[last], (2, problem[last].shape[1])) * [[1.0], [-0.5]]
            items[bias] = np.resize(problem[bias], 2) * [1.0, 0.75]
            items |= {name: truncate(items[name], FORMATS[problem.format]) for name in (last, bias)}
        batch = pick(1, 2, 3, 4, 5, 8)
        return items | {"batch": min(batch, len(problem["y"]))} | _rates(pick)

    kind = ", ".join(name for name, on in (("hidden", hidden), ("binary", binary)) if on)
    return derived(base, f"networks({kind})", axes, make)


GRADIENT_KINDS: dict[str, Kind] = {
    **{name: SCALAR_KINDS[name] for name in ("pool", "round", "dense", "small", "zero")},
    "squared": lambda k: k.u * 2.0 ** (k.fmt.min_exponent / 2 + 4 - 12 * k.a),  # the square underflows
    "large": lambda k: k.sign * (1 + np.abs(k.u)) * k.fmt.max**0.25,
}


# Steps that Adam has done, with each decay rate of the second moment: the edge problems have them in turn.
STEPS = tuple(itertools.product((0.999, 0.95, 0.5), (2999, 0, 1, 2, 9, 299, 999, 99_999)))


def steps(*, adam: bool) -> Domain:
    """Parameters `w` with gradients `d` "R", the state and the options of an optimizer.

    SGD: m "R" (momentum buffer), first (whether there is none yet), lr, momentum, dampening, nesterov, weight_decay,
    maximize.  Adam: m, v and top "R" (moments, and the largest second moment), step (those done), lr, beta1, beta2,
    eps, weight_decay, maximize.
    """

    def finish(rows: Rows) -> dict[str, Any]:
        d, v = rows.z[:, 0], rows.uniform(6, TARGET)
        pick = _Pick(rows.shared(12, LABEL))
        options = _rates(pick)
        lr = options["lr"]
        momentum, dampening = pick((0.9, 0.0), (0.5, 0.25), (0.9, 0.1), (0.99, 0.0), (0.8, 0.0))
        kept, taken = (options["beta1"], 1 - options["beta1"]) if adam else (momentum, 1 - dampening)
        decay = {"weight_decay": pick(0.0, 0.0, 0.01, 0.1), "maximize": pick(False, False, True)}
        w = np.select([v[:, 0] < 0.15, v[:, 0] < 0.3], [lr * d, 256 * (1 + v[:, 3])], 2 * v[:, 3] - 1)
        # No momentum yet, one that the gradient cancels (the rounding of either shows), or any.
        gradient = (-d if decay["maximize"] else d) + decay["weight_decay"] * w
        scale = np.abs(d) + 2.0**-6 * (v[:, 5] < 0.5)
        m = np.select([v[:, 1] < 0.2, v[:, 1] > 0.7], [0.0, -gradient * taken / kept], (2 * v[:, 2] - 1) * scale)
        items = {"w": w, "d": d, "m": m}
        if adam:
            options["beta2"], step = STEPS[rows.recipe.salt * 7 % len(STEPS)]
            second = np.where(v[:, 1] < 0.3, m**2 * (1 + v[:, 4]), v[:, 4] * scale**2)
            items |= {"v": second, "top": second * (1 + (v[:, 3] < 0.5))}
            if not step:
                items |= dict.fromkeys(("m", "v", "top"), 0 * d)
            options["step"] = step
        else:
            options = {"lr": lr, "first": pick(False, True), "momentum": momentum, "dampening": dampening}
            options["nesterov"] = dampening == 0 and pick(False, True)
        return {name: rows.exact(item) for name, item in items.items()} | options | decay

    def of_sgd(problem: Problem) -> Array:
        w, change = problem["w"], problem["lr"] * np.abs(problem["d"])
        u = FORMATS[problem.format].u
        return _labelled({"lost": change < u * np.abs(w), "cancellation": np.abs(change - np.abs(w)) < np.abs(w) / 64})

    def of_adam(problem: Problem) -> Array:
        d, m, fmt = problem["d"], problem["m"], FORMATS[problem.format]
        square = (1 - problem["beta2"]) * d**2 + problem["beta2"] * problem["v"]
        return _labelled({"still": (d == 0) & (m == 0), "underflow": (square < 4 * fmt.tiny / fmt.u)})

    axes = dict.fromkeys(("w", "d", "m", *(("v", "top") if adam else ())), "R")
    return domain(
        f"steps({'adam' if adam else 'sgd'})",
        axes,
        GRADIENT_KINDS,
        (("still", "underflow", "core"), of_adam) if adam else (("lost", "cancellation", "core"), of_sgd),
        finish,
        choices={"salt"},
        columns=(1,),
        sizes=((1, 1), (2, 1), (7, 1), (16, 1), (17, 1), (33, 1), (67, 1), (67, 1), (1100, 1)),
        reduction=(),
        layouts=("contiguous", "strided"),
    )
