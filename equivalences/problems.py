"""Problems: Hypothesis strategies that draw them, deterministic edge problems, and the domains made of both.

Hypothesis pays per choice, so it draws a `Recipe`, not numbers: sizes, a few row *codes* and one choice an option.
A code is one integer: the low four bits choose a row kind, an entry of a table; the rest is entropy, hashed
(splitmix64, a counter per column) into full significands.  A row depends on its code alone, not on its place or on the batch: deleting rows, which is what
shrinking does first, leaves the others as they were.  The price: the numbers of a dense row do not shrink one by one.
Three things make up for it: entropy below 8 gives multiples of 1/8, kind 0 repeats a small pool of drawn floats, and
kinds are listed from plain to strange.  Nothing is filtered: numbers are truncated into the format.

The regions that `Domain.locate` tells apart are defined in `equivalences.regions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import hypothesis
import numpy as np
from hypothesis import strategies as st

from equivalences import regions
from equivalences.formats import FORMATS, Format, truncate
from equivalences.model import Array, Domain, Problem

# -- numbers from entropy ---------------------------------------------------------------------------------------------

Z, ROW, LABEL, TARGET, UPSTREAM, SHARED = range(6)  # independent streams of one entropy


def _mix(x: Array) -> Array:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): a bijection of 64-bit integers that looks random."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


def _uniform(entropy: Array, count: int, stream: int) -> Array:
    """Numbers in [0, 1), `count` for each entropy: multiples of 2**-53, or of 1/8 where the entropy is below 8."""
    counter = np.arange(1, count + 1, dtype=np.uint64) + np.uint64(stream << 32)
    bits = _mix(_mix(entropy)[:, None] + counter * np.uint64(0x9E3779B97F4A7C15))
    numbers = (bits >> np.uint64(11)) * 2.0**-53
    return np.asarray(np.where(entropy[:, None] < 8, np.floor(8 * numbers) / 8, numbers))


# -- row kinds --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """All rows of one kind, before the kind shapes them: n rows x C columns."""

    u: Array  # n x C, in [-1, 1)
    a: Array  # n x 1, in [0, 1)
    b: Array  # n x 1, in [0, 1)
    top: Array  # n x C, bool: one column of each row
    pool: Array  # n x C, each one of the drawn floats
    fmt: Format

    @property
    def rival(self) -> Array:
        """The column beside `top` (`top` itself where there is one column)."""
        return np.roll(self.top, 1, axis=1)

    @property
    def sign(self) -> Array:
        return np.where(self.b < 0.5, -1.0, 1.0)

    @property
    def over(self) -> float:
        return regions.overflow(self.fmt)

    @property
    def under(self) -> float:
        return regions.underflow(self.fmt)

    @property
    def huge(self) -> float:
        """Large, and yet the total of 300 such losses is finite, also in float16."""
        return min(2.0**20, self.fmt.max / 1024)


Kind = Callable[[Block], Array]


def _between(low: float, high: float, where: Array) -> Array:
    return low + (high - low) * where


CLASS_KINDS: dict[str, Kind] = {
    "pool": lambda k: k.pool,
    "round": lambda k: np.rint(4 * k.u),
    "equal": lambda k: 8 * k.a - 4 + 0 * k.u,
    "dense": lambda k: k.u * 2.0 ** (2 - 10 * k.a),
    "ties": lambda k: np.where(k.top | k.rival, 0.0, -np.abs(k.u) * 4 * k.a) + 2 * k.b,
    "winner": lambda k: np.where(k.top, _between(9.1, 0.95 * k.over, k.a), k.u),
    "loser": lambda k: -np.where(k.top, _between(9.1, 0.95 * k.over, k.a), k.u),
    # Two close at the top, the others far below: the second term decides, and a label below is a long way off.
    "rivals": lambda k: np.where(
        k.top, 0.0, np.where(k.rival, -(2.0 ** (-1 - 30 * k.b)), -_between(8.1, 0.9 * k.over, k.a * np.abs(k.u)))
    ),
    "ladder": lambda k: (
        k.sign * _between(4.2, 0.45 * min(k.under, 2 * k.over), k.a**2) * np.linspace(-1, 1, k.u.shape[1])
    ),
    "offset": lambda k: k.sign * _between(4.5, 0.9 * k.over, k.a) * (1 + k.u * 2.0 ** (-5 - 20 * np.abs(2 * k.b - 1))),
    # Every term is half an ulp of the sum: n u is attained (Higham 2002, ch. 4).
    "lost": lambda k: (np.where(k.top, 0.5, -0.5) + 2 * k.fmt.u * k.u) * k.fmt.precision * math.log(2),
    # exp of the gap is subnormal.
    "brink": lambda k: np.where(k.top, 0.5, -0.5) * _between(-math.log(k.fmt.tiny), k.under, k.a),
    "tiny": lambda k: k.u * 2.0 ** (k.fmt.min_exponent + 8 - 30 * k.a),
    "extreme": lambda k: (
        k.sign
        * (1.01 * k.over + np.where(k.b % 0.5 < 0.4, k.under * k.a, k.huge - 1.1 * k.over))
        * np.where(k.top, 1.0, np.where(k.b % 0.25 < 0.125, k.u, 1 + k.u / 64))
    ),
}

# One logit a row: C = 1.  `brink` has the points at which a kernel, or a formulation, changes its way.
SCALAR_KINDS: dict[str, Kind] = {
    "pool": lambda k: k.pool,
    "round": lambda k: np.rint(8 * k.u),
    "dense": lambda k: 4 * k.u,
    "small": lambda k: k.u * 2.0 ** (-k.fmt.precision * k.a),
    "zero": lambda k: np.where(k.b < 0.3, 0.0, k.u * k.fmt.u * 2.0 ** (k.fmt.min_exponent * k.a)),
    "wide": lambda k: k.sign * _between(4, regions.saturation(k.fmt), k.a),
    "saturated": lambda k: k.sign * _between(regions.saturation(k.fmt), k.over, k.a),
    "brink": lambda k: (
        k.sign
        * (1 + 4 * k.fmt.u * k.u)
        * np.array([-math.log(k.fmt.u), k.over, -math.log(k.fmt.tiny), k.under, -math.log(1e-12), 100.0])[
            (6 * k.a).astype(int)
        ]
    ),
    "extreme": lambda k: k.sign * _between(1.01 * k.over, k.huge, k.a**4),
}

# The samples of an affine layer, moderate; cancellation is made by its bias.
LAYER_KINDS: dict[str, Kind] = {name: CLASS_KINDS[name] for name in ("pool", "round", "equal", "dense", "tiny")}

# Which rows are ignored: (row, number of rows, period) -> bool.  Token batches have such patterns.
PATTERNS: dict[str, Callable[[Array, int, int], Array]] = {
    "none": lambda r, n, k: r < 0,
    "prefix": lambda r, n, k: r < k,
    "suffix": lambda r, n, k: r >= n - k,
    "column": lambda r, n, k: r % (k + 1) == 0,
    "all but a column": lambda r, n, k: r % (k + 1) != 0,
    "blocks": lambda r, n, k: r // k % 2 == 1,
}

# Uniform numbers in [0, 1) -> weights.
WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "one": lambda v: 1 + 0 * v,
    "dense": lambda v: 0.1 + 1.9 * v,
    "heavy": lambda v: 50 + 0 * v,
    "tiny": lambda v: 2.0**-10 + 0 * v,
    "zero": lambda v: 0 * v,
}

SMOOTHING = (0.0, 0.1, 0.5, 1.0, None)  # None: any number
POSITIVE = (1.0, 2.0, 0.5, 3.0, 50.0, None)
# Vector bodies and tails of 4 to 64 lanes; small sizes first, to which shrinking goes.  Most problems have as many
# rows as they have codes.
COLUMNS = (2, 3, 5, 1, 4, 7, 8, 9, 10, 15, 16, 17, 31, 33, 64, 67)
ROWS = (1,) * 10 + (8, 9, 16, 17, 33, 67, 300)
CODES = 6

# -- recipes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What is drawn: the structure of a problem, and few numbers; all else follows from it."""

    rows: int
    columns: int
    codes: tuple[int, ...]  # 16 entropy + kind (modulo the number of kinds); further rows follow from these
    pool: tuple[float, ...] = (0.0,)
    salt: int = 0  # the entropy of what is no row's own: weights, a scalar upstream gradient ...
    ignored: int = 0  # digits: pattern, period - 1 (of 9), index (of 3: -100, -1, a class)
    weights: int = 0  # three digits, repeated along the weights
    smoothing: int = 0
    positive: int = 0
    widths: tuple[int, int] = (0, 0)  # of the layers, 0: as many as columns
    reduction: str = ""


CHOICES: dict[str, st.SearchStrategy[Any]] = {
    "salt": st.integers(0, 2**32 - 1),
    "ignored": st.integers(0, 27 * len(PATTERNS) - 1),
    "weights": st.integers(0, len(WEIGHTS) ** 3 - 1),
    "smoothing": st.integers(0, len(SMOOTHING) - 1),
    "positive": st.integers(0, len(POSITIVE) - 1),
    "widths": st.tuples(st.integers(1, 9), st.integers(1, 9)),
}
_POOL = st.tuples(st.floats(-8, 8), st.floats(-8, 8))
_CODE = st.integers(0, 2**36 - 1)  # Hypothesis shrinks by dropping high bits: the kind stays, the entropy goes


@st.composite
def _recipes(
    draw: st.DrawFn,
    kinds: int,
    rows: tuple[int, ...],
    columns: tuple[int, ...],
    choices: Mapping[str, st.SearchStrategy[Any]],
    fixed: bool,
) -> Recipe:
    """Recipes of the given sizes; unless `fixed`, there are at least as many rows as codes."""
    count = draw(st.sampled_from(rows))
    codes = draw(st.lists(_CODE, min_size=1, max_size=min(count, CODES) if fixed else CODES))
    return Recipe(
        rows=max(count, len(codes)),
        columns=draw(st.sampled_from(columns)),
        codes=tuple(codes),
        pool=draw(_POOL) if any(code % 16 % kinds == 0 for code in codes) else (0.0,),
        **{name: draw(choice) for name, choice in choices.items()},
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
                ignored=27 * (turn % len(PATTERNS)) + 3 * turn + turn % 3,
                weights=31 * turn % len(WEIGHTS) ** 3,
                smoothing=turn % len(SMOOTHING),
                positive=turn % len(POSITIVE),
                reduction=reduction[turn % len(reduction)] if reduction else "",
            )
        )
    return recipes


@dataclass(frozen=True)
class _Rows:
    """A recipe's rows, expanded: their entropy and their exact numbers."""

    recipe: Recipe
    fmt: Format
    entropy: Array
    z: Array

    def uniform(self, count: int, stream: int) -> Array:
        return _uniform(self.entropy, count, stream)

    def shared(self, count: int, stream: int = SHARED) -> Array:
        return _uniform(np.array([self.recipe.salt], dtype=np.uint64), count, stream)[0]

    def exact(self, numbers: Array) -> Array:
        return truncate(numbers, self.fmt)

    def weights(self, count: int, kept: Array | None = None) -> Array:
        """Non-negative weights whose total over the indices `kept` (None: all) is positive."""
        v = self.shared(count)
        kinds = np.resize([self.recipe.weights // len(WEIGHTS) ** i % len(WEIGHTS) for i in range(3)], count)
        weight = np.choose(kinds, [make(v) for make in WEIGHTS.values()])
        kept = np.arange(count) if kept is None else kept
        if not weight[kept].any():
            weight[kept[0]] = 1.0
        return weight

    def upstream(self, out: str, columns: int) -> Array:
        """The gradient of something with respect to the output: signs, ones, some zeros (never for a scalar)."""
        v = self.uniform(columns, UPSTREAM) if out else self.shared(1, UPSTREAM)
        g = np.select([v < 0.1 * bool(out), v < 0.3], [0.0, 1.0], np.where(v < 0.65, -1.0, 1.0) * (v + 0.5))
        return self.exact(g.reshape([len(g), -1][: len(out)]) if len(out) != 1 else g[:, 0])


def _expand(recipe: Recipe, fmt: Format, kinds: dict[str, Kind]) -> _Rows:
    """The rows that the codes give; beyond the last code the kinds come again, most of them with fresh entropy."""
    turn, place = np.divmod(np.arange(recipe.rows), len(recipe.codes))
    code = np.array(recipe.codes, dtype=np.uint64)[place]
    kind, entropy = code % np.uint64(16) % np.uint64(len(kinds)), code // np.uint64(16)
    fresh = (turn > 0) & (entropy % np.uint64(4) != 0)
    entropy = np.where(fresh, _mix(entropy + (turn.astype(np.uint64) << np.uint64(32))), entropy)
    v, own = _uniform(entropy, recipe.columns, Z), _uniform(entropy, 3, ROW)
    pool = np.array(recipe.pool)
    z = np.empty((recipe.rows, recipe.columns))
    for index, make in enumerate(kinds.values()):
        rows = np.flatnonzero(kind == index)
        if rows.size:
            top = np.arange(recipe.columns) == (own[rows, 2:] * recipe.columns).astype(int)
            picked = pool[(v[rows] * len(pool)).astype(int)]
            z[rows] = make(Block(2 * v[rows] - 1, own[rows, :1], own[rows, 1:2], top, picked, fmt))
    return _Rows(recipe, fmt, entropy, truncate(z, fmt))


def _moderated(factor: Array, total: float, fmt: Format) -> Array:
    """`factor`, divided by a power of two where the total of the losses, at most `total`, could overflow."""
    excess = total / (fmt.max / 4)
    return truncate(factor * 2.0 ** -max(0, math.ceil(math.log2(excess))) if excess > 1 else factor, fmt)


def _domain(
    name: str,
    axes: dict[str, str],
    kinds: dict[str, Kind],
    located: regions.Regions,
    finish: Callable[[_Rows], dict[str, Any]],
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

    def problem(recipe: Recipe, format: str) -> Problem:
        return Problem(format, finish(_expand(recipe, FORMATS[format], kinds)))

    def draw(format: str, shape: tuple[int, ...] | None = None) -> st.SearchStrategy[Problem]:
        size = (rows, columns) if shape is None else (shape[:1], shape[1:] or (1,))
        free = {key: drawn[key] for key in drawn if shape is None or key != "widths"}
        return _recipes(len(kinds), *size, free, shape is not None).map(lambda recipe: problem(recipe, format))

    def edges(format: str) -> list[Problem]:
        return [problem(recipe, format) for recipe in _edge_recipes(len(kinds), sizes, reduction)]

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
        raise ValueError(f"out={out!r} does not fit every reduction in {reduction}: declare one domain per output shape")


# -- domains ----------------------------------------------------------------------------------------------------------


def classes(
    *,
    labels: bool = False,
    soft: bool = False,
    weight: bool = False,
    ignore: bool = False,
    smoothing: bool = False,
    reduction: tuple[str, ...] = (),
    out: str = "R",
    columns: int | None = None,
    layouts: tuple[str, ...] = ("contiguous", "strided", "inner"),
    name: str = "",
) -> Domain:
    """Rows of class logits `z`, with whichever targets and options are asked for.

    Items, in order: z "RC", y "R" (labels), ignore_index, p "RC" (soft targets), weight "C", label_smoothing,
    reduction, g (axes `out`).  With `columns`, every problem has that many classes.
    """
    _check(out, ("R", "RC", ""), reduction)
    if ignore and not labels:
        raise ValueError("ignore needs labels")
    axes = {"z": "RC"}
    axes |= {"y": "R"} if labels else {}
    axes |= {"p": "RC"} if soft else {}
    axes |= {"weight": "C"} if weight else {}
    axes["g"] = out

    def finish(rows: _Rows) -> dict[str, Any]:
        recipe, z = rows.recipe, rows.z
        number, count = z.shape
        items: dict[str, Any] = {"z": z}
        v = rows.uniform(2, LABEL)
        y = np.select([v[:, 0] < 0.25, v[:, 0] < 0.5], [z.argmax(1), z.argmin(1)], (v[:, 1] * count).astype(int))
        kept = np.ones(number, dtype=bool)
        if ignore:
            (pattern, period), which = divmod(recipe.ignored // 3, 9), recipe.ignored % 3
            index = (-100, -1, int(rows.shared(1, LABEL)[0] * count))[which if count > 1 else 0]
            kept = ~tuple(PATTERNS.values())[pattern](np.arange(number), number, period + 1)
            kept[-1] |= not kept.any()
            y = np.where(kept, np.where(y == index, (y + 1) % count, y), index)  # exactly the pattern is ignored
            items |= {"y": y, "ignore_index": index}
        if labels:
            items["y"] = y
        if soft:
            items["p"] = rows.exact(_soft(rows.uniform(count + 1, TARGET), np.where(kept, y, 0)))
        if weight:
            w = rows.weights(count, y[kept] if labels else None)
            total = float(w.max() * (np.ptp(z, axis=1) + math.log(count) + 1).sum())
            items["weight"] = _moderated(w, total, rows.fmt)
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
    several = ((1, 2), (size, 1), (3 * size, 2), (3 * size, 3), (17, 17), (2 * size, 67))
    options = {"labels": labels, "soft": soft, "weight": weight, "ignore": ignore, "smoothing": smoothing}
    return _domain(
        name or _named("classes", **options, reduction="/".join(reduction), columns=columns, out=out != "R" and out),
        axes,
        CLASS_KINDS,
        regions.classes(labels=labels, columns=columns),
        finish,
        choices=choices,
        columns=(columns,) if columns else COLUMNS,
        sizes=((1, columns), (17, columns), (3 * size, columns), (67, columns)) if columns else several,
        reduction=reduction,
        layouts=layouts,
    )


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

    def finish(rows: _Rows) -> dict[str, Any]:
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
            items["weight"] = _moderated(w, total * float(w.max()), fmt)
        if pos_weight:
            items["pos_weight"] = _moderated(positive, 0.0 if weight else total, fmt)
        if reduction:
            items["reduction"] = rows.recipe.reduction
        return items | {"g": rows.upstream(out, 1)}

    choices = ({"weights"} if weight else set()) | ({"positive"} if pos_weight else set())
    choices |= {"salt"} if choices or out == "" else set()
    size = len(SCALAR_KINDS)
    options = {"target": target, "weight": weight, "pos_weight": pos_weight, "reduction": "/".join(reduction)}
    return _domain(
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


def layers(
    *,
    hidden: bool = False,
    labels: bool = False,
    out: str | None = None,
    layouts: tuple[str, ...] = ("contiguous", "strided"),
    name: str = "",
) -> Domain:
    """Affine layers, one or (`hidden`) two; with `labels`, under a loss head whose output has axes `out` ("" or "R").

    Items, in order: x "RD", W "KD", b "K", with hidden W2 "MK" and b2 "M", with labels y "R", and g.
    A shape (R, C) stands for R samples and C everywhere else.
    """
    last = "M" if hidden else "K"
    out = ("" if labels else "R" + last) if out is None else out
    _check(out, ("", "R") if labels else ("R" + last,), ())
    axes = {"x": "RD", "W": "KD", "b": "K"}
    axes |= {"W2": "MK", "b2": "M"} if hidden else {}
    axes |= {"y": "R"} if labels else {}
    axes["g"] = out

    def finish(rows: _Rows) -> dict[str, Any]:
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
        if labels:
            items["y"] = (rows.uniform(1, LABEL)[:, 0] * (m if hidden else k)).astype(int)
        return items | {"g": rows.upstream(out, m if hidden else k)}

    small = tuple(range(1, 10))
    options = {"hidden": hidden, "labels": labels, "out": out if labels and out else None}
    return _domain(
        name or _named("layers", **options),
        axes,
        LAYER_KINDS,
        regions.layers(),
        finish,
        choices={"salt", "widths"},
        rows=small,
        columns=small,
        sizes=((1, 1), (2, 2), (4, 3), (7, 8), (9, 9)),
        reduction=(),
        layouts=layouts,
    )


# -- without pytest ---------------------------------------------------------------------------------------------------


def sample(
    domain: Domain, format: str, examples: int, seed: int, shape: tuple[int, ...] | None = None
) -> list[Problem]:
    """The domain's edge problems, then `examples` drawn ones; the same for the same seed.

    With a shape, the edge problems of other shapes are left out: every problem has the shape.
    """
    found = [p for p in domain.edges(format) if shape is None or next(iter(p.items.values())).shape == shape]

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

    if examples:
        collect()
    return found
