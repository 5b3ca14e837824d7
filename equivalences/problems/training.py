"""Domains of layers, networks, and the steps of their optimizers."""

import itertools
from typing import Any

import numpy as np

from equivalences.formats import FORMATS, truncate
from equivalences.model import Array, Domain, Problem
from equivalences.problems.derived import Pick, derived, labelled
from equivalences.problems.draw import Choose
from equivalences.problems.layers import layers
from equivalences.problems.recipes import domain
from equivalences.problems.rows import LABEL, SCALAR_KINDS, TARGET, Kind, Rows
from equivalences.problems.scalars import scalars

RATES = (0.1, 0.01, 1.0, 0.5, 0.001)


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


ADAM = ("beta1", "beta2", "eps")


def _rates(pick: Pick) -> dict[str, Any]:
    return {"lr": pick(*RATES), "beta1": pick(0.9, 0.5, 0.8), "beta2": pick(0.999, 0.5, 0.95), "eps": pick(1e-8, 1e-6)}


def networks(*, hidden: bool = False, binary: bool = False) -> Domain:
    """A classifier, a batch and the options of an optimizer.

    Items: x "RD", W "KD", b "K", with `hidden` W2 "MK" and b2 "M", labels y "R", batch (samples a mini-batch), lr,
    beta1, beta2, eps.  With `binary` the last layer has two columns, and t "R" holds the labels as floats.
    """
    base = layers(hidden=hidden, labels=True)
    axes = {name: letters for name, letters in base.axes.items() if name != "g"} | ({"t": "R"} if binary else {})
    last, bias = ("W2", "b2") if hidden else ("W", "b")

    def make(problem: Problem, pick: Pick) -> dict[str, Any]:
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
        pick = Pick(rows.shared(12, LABEL))
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
        return labelled({"lost": change < u * np.abs(w), "cancellation": np.abs(change - np.abs(w)) < np.abs(w) / 64})

    def of_adam(problem: Problem) -> Array:
        d, m, fmt = problem["d"], problem["m"], FORMATS[problem.format]
        square = (1 - problem["beta2"]) * d**2 + problem["beta2"] * problem["v"]
        return labelled({"still": (d == 0) & (m == 0), "underflow": (square < 4 * fmt.tiny / fmt.u)})

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
