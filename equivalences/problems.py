"""Problems: Hypothesis strategies that draw them, deterministic edge problems, and the domains made of both.

Hypothesis pays per choice, so it draws a `Recipe`, not numbers: sizes, a few row codes and one choice an option;
`equivalences.rows` expands it.  The price: the numbers of a dense row do not shrink one by one.  Three things make up
for it: entropy below 8 gives multiples of 1/8, kind 0 repeats a small pool of drawn floats, and kinds are listed from
plain to strange.  Nothing is filtered: numbers are truncated into the format.

The regions that `Domain.locate` tells apart are defined in `equivalences.regions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from equivalences import regions
from equivalences.formats import FORMATS, every_finite
from equivalences.model import Array, Domain, Problem
from equivalences.rows import (
    CLASS_KINDS,
    LABEL,
    LAYER_KINDS,
    PATTERNS,
    PERIODS,
    POSITIVE,
    SCALAR_KINDS,
    SMOOTHING,
    TARGET,
    WEIGHTS,
    Kind,
    Recipe,
    Rows,
    expand,
    moderated,
)

# -- recipes ----------------------------------------------------------------------------------------------------------

# Vector bodies and tails of 4 to 64 lanes; small sizes first, to which shrinking goes.  Most problems have as many
# rows as they have codes.
COLUMNS = (2, 3, 5, 1, 4, 7, 8, 9, 10, 15, 16, 17, 31, 1, 33, 64, 67)  # 1 twice: Hypothesis draws in clumps
ROWS = (1,) * 10 + (8, 9, 16, 17, 33, 67, 300)
CODES = 6  # at most, drawn one by one

CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "salt": st.integers(0, 2**32 - 1),
    "ignored": st.integers(0, 3 * len(PERIODS) * len(PATTERNS) - 1),
    "weights": st.integers(0, len(WEIGHTS) ** 3 - 1),
    "smoothing": st.integers(0, len(SMOOTHING) - 1),
    "positive": st.integers(0, len(POSITIVE) - 1),
    "widths": st.tuples(st.integers(1, 9), st.integers(1, 9)),
}
_POOL = st.tuples(st.floats(-8, 8), st.floats(-8, 8))
_CODE = st.integers(0, 2**36 - 1)  # Hypothesis shrinks by dropping high bits: the kind stays, the entropy goes


@st.composite
def _problems(
    draw: st.DrawFn,
    finish: Callable[[Recipe], Problem],
    kinds: int,
    sizes: tuple[tuple[int, ...], tuple[int, ...]],
    choices: Mapping[str, st.SearchStrategy[Any]],
    shape: tuple[int, ...] | None,
) -> Problem:
    """Finished recipes; without a shape, their sizes are drawn (one choice) and there is a row for each code."""
    if shape is None:
        row, column = divmod(draw(st.integers(0, len(sizes[0]) * len(sizes[1]) - 1)), len(sizes[1]))
        shape, most = (sizes[0][row], sizes[1][column]), CODES
    else:
        most = min(shape[0], CODES)
    codes = draw(st.lists(_CODE, min_size=1, max_size=most))
    return finish(
        Recipe(
            rows=max(shape[0], len(codes)),
            columns=(*shape, 1)[1],
            codes=tuple(codes),
            pool=draw(_POOL) if any(code % 16 % kinds == 0 for code in codes) else (0.0,),
            **{name: draw(choice) for name, choice in choices.items()},
        )
    )


def _edge_recipes(kinds: int, sizes: tuple[tuple[int, int], ...], reduction: tuple[str, ...]) -> list[Recipe]:
    """One recipe a size, with every kind in turn and every option in turn; then all rows alike, and all rows equal."""
    recipes = []
    for turn, (rows, columns) in enumerate([*sizes, (17, sizes[-1][1]), (9, sizes[0][1])]):
        codes = tuple(16 * (4 * 97 * row + 1) + row % kinds for row in range(rows))
        if turn == len(sizes):
            codes = (16 * 101 + 3,)
        elif turn > len(sizes):
            codes = (16 * 100 + 2,)  # entropy divisible by four: every repetition is the same row
        recipes.append(
            Recipe(
                rows,
                columns,
                codes,
                pool=(0.0, 1.0, -2.5),
                salt=turn,
                ignored=27 * (turn % len(PATTERNS)) + 3 * ((turn + 8) % 9) + turn % 3,
                weights=31 * turn % len(WEIGHTS) ** 3,
                smoothing=turn % len(SMOOTHING),
                positive=turn % len(POSITIVE),
                # Out of step with the rest, so that a mean meets ignored rows with weights and without.
                reduction=reduction[(turn + turn // 4) % len(reduction)] if reduction else "",
            )
        )
    return recipes


def domain(
    name: str,
    axes: dict[str, str],
    kinds: dict[str, Kind],
    located: regions.Regions,
    finish: Callable[[Rows], dict[str, Any]],
    *,
    choices: set[str],
    rows: tuple[int, ...] = ROWS,
    columns: tuple[int, ...],
    sizes: tuple[tuple[int, int], ...],
    reduction: tuple[str, ...],
    layouts: tuple[str, ...],
) -> Domain:
    """The domain whose problems are recipes over `kinds`, each made into items by `finish`."""
    drawn = {key: CHOICES[key] for key in CHOICES if key in choices}
    if reduction:
        drawn["reduction"] = st.sampled_from(reduction)

    def problem(format: str, recipe: Recipe) -> Problem:
        return Problem(format, finish(expand(recipe, FORMATS[format], kinds)))

    def draw(format: str, shape: tuple[int, ...] | None = None) -> st.SearchStrategy[Problem]:
        free = {key: drawn[key] for key in drawn if shape is None or key != "widths"}
        return _problems(partial(problem, format), len(kinds), (rows, columns), free, shape)

    def edges(format: str) -> list[Problem]:
        return [problem(format, recipe) for recipe in _edge_recipes(len(kinds), sizes, reduction)]

    names, locate = located
    return Domain(name, axes, draw, edges, names, locate, layouts)


def _named(base: str, **options: Any) -> str:
    """`base(option, option=value)`, with the options that are set."""
    shown = [key if value is True else f"{key}={value!r}" for key, value in options.items() if value]
    return f"{base}({', '.join(shown)})"


def _check(out: str, outs: tuple[str, ...], reduction: tuple[str, ...]) -> None:
    if out not in outs:
        raise ValueError(f"out must be one of {outs}, got {out!r}")
    if reduction and any((each == "none") != (out != "") for each in reduction):
        raise ValueError(f"out={out!r} does not fit all of {reduction}: declare one domain per output shape")


# -- domains ----------------------------------------------------------------------------------------------------------


def classes(
    *,
    labels: bool = False,
    soft: bool = False,
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
    weight of a third of the problems is None.  `rows` are the numbers of rows to choose from.
    """
    _check(out, ("R", "RC", ""), reduction)
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
        kept = np.ones(number, dtype=bool)
        if labels:
            items["y"] = y
        if ignore:
            y, items["ignore_index"], kept = _ignored(rows, y, count)
            items["y"] = y
        if soft:
            items["p"] = rows.exact(_soft(rows.uniform(count + 1, TARGET), np.where(kept, y, 0)))
        if weight:
            spread = float((np.ptp(z, axis=1) + math.log(count) + 1).sum())
            items["weight"] = _class_weights(rows, count, y[kept] if labels else None, spread, weight == "optional")
        if smoothing:
            fixed = SMOOTHING[recipe.smoothing]
            items["label_smoothing"] = float(rows.shared(1, TARGET)[0]) if fixed is None else fixed
        if reduction:
            items["reduction"] = recipe.reduction
        return items | {"g": rows.upstream(out, count)}

    choices = {"weights"} if weight else set()
    choices |= {"ignored"} if ignore else set()
    choices |= {"smoothing"} if smoothing else set()
    choices |= {"salt"} if choices or out == "" else set()
    size = len(CLASS_KINDS)
    sizes: tuple[tuple[int, int], ...] = ((1, 2), (size, 1), (3 * size, 2), (3 * size, 3), (17, 17), (2 * size, 67))
    if rows != ROWS:
        sizes = tuple((count, columns or 3) for count in rows)
    elif columns:
        sizes = ((1, columns), (17, columns), (3 * size, columns), (67, columns))
    options: dict[str, Any] = {"labels": labels, "soft": soft, "weight": weight, "ignore": ignore}
    options |= {"smoothing": smoothing, "rows": rows if rows != ROWS else None}
    return domain(
        name or _named("classes", **options, reduction="/".join(reduction), columns=columns, out=out != "R" and out),
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
    )


def _ignored(rows: Rows, y: Array, count: int) -> tuple[Array, int, Array]:
    """Labels of which exactly a pattern is the ignored index, that index, and which rows are kept (never none)."""
    number = len(y)
    (pattern, period), which = divmod(rows.recipe.ignored // 3, len(PERIODS)), rows.recipe.ignored % 3
    index = (-100, -1, int(rows.shared(1, LABEL)[0] * count))[which if count > 1 else 0]
    kept = ~tuple(PATTERNS.values())[pattern](np.arange(number), number, PERIODS[period])
    kept[-1] |= not kept.any()
    return np.where(kept, np.where(y == index, (y + 1) % count, y), index), index, kept


def _class_weights(rows: Rows, count: int, used: Array | None, spread: float, optional: bool) -> Array | None:
    """A weight for each class, not all zero among the classes `used`; or, if `optional`, at times none."""
    if optional and rows.recipe.weights % 3 == 0:
        return None
    w = rows.weights(count, used)
    return moderated(w, spread * float(w.max()), rows.fmt)


def _soft(v: Array, y: Array) -> Array:
    """Rows of probabilities, from uniform numbers (the first of a row chooses its kind) and a favoured class each."""
    kind, v = 5 * v[:, :1], v[:, 1:]
    count = v.shape[1]
    hot = (np.arange(count) == y[:, None]).astype(float)
    sparse = np.where(v < 0.5, 0.0, v) + 2.0**-10 * hot  # never all zero
    dense = v + 2.0**-10
    uniform = np.full(v.shape, 1 / count)
    chosen = [hot, uniform, 0.9 * hot + 0.1 * uniform, sparse / sparse.sum(1, keepdims=True)]
    return np.select([kind < i + 1 for i in range(4)], chosen, dense / dense.sum(1, keepdims=True))


def pairs(**options: Any) -> Domain:
    """`classes` with exactly two columns, for two-column identities."""
    return classes(columns=2, **options)


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
    _check(out, ("R", ""), reduction)
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
            fixed = POSITIVE[rows.recipe.positive]
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
        if FORMATS[format].dtype.itemsize > 2 or weight or pos_weight or out == "":
            return []
        z = every_finite(FORMATS[format])
        targets = {None: (), "index": (0.0, 1.0), "sign": (-1.0, 1.0), "soft": (0.25,)}[target]
        fixed = {"g": np.ones(len(z))} | ({"reduction": reduction[0]} if reduction else {})
        each: list[dict[str, Any]] = [{"t": np.full(len(z), t)} for t in targets] or [{}]
        return [Problem(format, {"z": z, **items, **fixed}) for items in each]

    choices = ({"weights"} if weight else set()) | ({"positive"} if pos_weight else set())
    choices |= {"salt"} if choices or out == "" else set()
    size = len(SCALAR_KINDS)
    options = {"target": target, "weight": weight, "pos_weight": pos_weight, "reduction": "/".join(reduction)}
    found = domain(
        name or _named("scalars", **options, out="''" if out == "" else None),
        axes,
        SCALAR_KINDS,
        regions.scalars(target=target),
        finish,
        choices=choices,
        columns=(1,),
        sizes=((1, 1), (2, 1), (size, 1), (17, 1), (67, 1), (16 * size, 1)),
        reduction=reduction,
        layouts=layouts,
    )
    edges = found.edges if out else lambda format: _with_lone_rows(found, found.edges(format))
    return replace(found, edges=edges, exhaustive=exhaustive, elementwise=out == "R")


def _with_lone_rows(domain: Domain, edges: list[Problem]) -> list[Problem]:
    """The mildest row of each region, a problem of its own: a total's allowance is that of its worst row."""
    problem = max(edges, key=lambda edge: len(edge["z"]))
    at, size = domain.locate(problem), np.abs(problem["z"])
    for region in np.unique(at):
        row = int(np.argmin(np.where(at == region, size, np.inf)))
        alone = {name: problem[name][row : row + 1] for name, axes in domain.axes.items() if axes == "R"}
        edges.append(Problem(problem.format, {**problem.items, **alone}))
    return edges


def layers(
    *,
    hidden: bool = False,
    labels: bool = False,
    soft: bool = False,
    weight: bool | str = False,
    ignore: bool = False,
    reduction: tuple[str, ...] = (),
    out: str | None = None,
    layouts: tuple[str, ...] = ("contiguous", "strided"),
    name: str = "",
) -> Domain:
    """Affine layers, one or (`hidden`) two; with targets, under a loss head whose output has axes `out` ("" or "R").

    Items, in order: x "RD", W "KD", b "K", with hidden W2 "MK" and b2 "M", with labels y "R", with soft targets p,
    options of the loss as in `classes`, and g.  A shape (R, C) stands for R samples and C everywhere else.
    """
    last = "M" if hidden else "K"
    head = labels or soft
    out = ("" if head else "R" + last) if out is None else out
    _check(out, ("", "R") if head else ("R" + last,), reduction)
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
            items["y"], items["ignore_index"], kept = _ignored(rows, y, count)
        if soft:
            items["p"] = rows.exact(_soft(rows.uniform(count + 1, TARGET), y))
        if weight:
            spread = float((np.abs(x) @ np.abs(matrix).T + np.abs(bias)).max(axis=1).sum() * 2 + len(x) * count)
            used = items["y"][kept] if labels else None
            items["weight"] = _class_weights(rows, count, used, spread, weight == "optional")
        if reduction:
            items["reduction"] = recipe.reduction
        return items | {"g": rows.upstream(out, count)}

    choices = {"salt", "widths"} | ({"weights"} if weight else set()) | ({"ignored"} if ignore else set())
    small = tuple(range(1, 10))
    options: dict[str, Any] = {"hidden": hidden, "labels": labels, "soft": soft, "weight": weight, "ignore": ignore}
    options |= {"reduction": "/".join(reduction), "out": out if head and out else None}
    return domain(
        name or _named("layers", **options),
        axes,
        LAYER_KINDS,
        regions.layers(),
        finish,
        choices=choices,
        rows=small,
        columns=small,
        sizes=((1, 1), (2, 2), (4, 3), (7, 8), (9, 9)),
        reduction=reduction,
        layouts=layouts,
    )


# -- without pytest ---------------------------------------------------------------------------------------------------


def sample(
    domain: Domain, format: str, examples: int, seed: int, shape: tuple[int, ...] | None = None
) -> list[Problem]:
    """`examples` drawn problems of the domain, of one shape if it is given; the same for the same seed."""
    found: list[Problem] = []
    if not examples:
        return found

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        phases=[hypothesis.Phase.generate],
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(domain.draw(format, shape))
    def collect(problem: Problem) -> None:
        found.append(problem)

    collect()
    return found
