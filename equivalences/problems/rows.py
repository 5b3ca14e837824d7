"""The rows of a problem: a `Recipe` (few choices) expanded, without further choice, into exact numbers.

A row is given by a code, one integer: the low four bits choose a row kind, an entry of a table; the rest is entropy,
hashed (splitmix64, a counter per column) into full significands.  A row depends on its code alone, not on its place
or on the batch, so deleting other rows, which is what shrinking does first, leaves it as it was.
A new row kind is one entry of `CLASS_KINDS` or `SCALAR_KINDS` (at most 16 each).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from equivalences.formats import Format, truncate
from equivalences.model import Array, Problem
from equivalences.problems import regions

# -- numbers from entropy ---------------------------------------------------------------------------------------------

Z, ROW, LABEL, TARGET, UPSTREAM, SHARED, WIDE_ROW = range(7)  # independent streams of one entropy


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
LAYER_KINDS: dict[str, Kind] = {name: CLASS_KINDS[name] for name in ("pool", "dense", "equal", "tiny", "ties", "round")}

# Which rows are ignored: (row, number of rows, period) -> bool.  Token batches have such patterns.
PATTERNS: dict[str, Callable[[Array, int, int], Array]] = {
    "none": lambda r, n, k: r < 0,
    "prefix": lambda r, n, k: r < k,
    "suffix": lambda r, n, k: r >= n - k,
    "column": lambda r, n, k: r % (k + 1) == 0,
    "all but a column": lambda r, n, k: r % (k + 1) != 0,
    "blocks": lambda r, n, k: r // k % 2 == 1,
}
PERIODS = (1, 2, 3, 5, 7, 9, 15, 16, 31)  # many one below a power of two: a column of sequences of 2, 4, 8 ... tokens
INDICES = ("-100", "another", "a class")  # the default, one that is no class either, or a class


@dataclass(frozen=True)
class Ignored:
    """Which rows are ignored (a key of `PATTERNS`, one of `PERIODS`), and by which kind of index (of `INDICES`)."""

    pattern: str = "none"
    period: int = 1
    index: str = "-100"


IGNORED = tuple(itertools.starmap(Ignored, itertools.product(PATTERNS, PERIODS, INDICES)))

# Uniform numbers in [0, 1) -> weights.
WEIGHTS: dict[str, Callable[[Array], Array]] = {
    "one": lambda v: 1 + 0 * v,
    "dense": lambda v: 0.1 + 1.9 * v,
    "heavy": lambda v: 50 + 0 * v,
    "tiny": lambda v: 2.0**-10 + 0 * v,
    "zero": lambda v: 0 * v,
}


@dataclass(frozen=True)
class Weights:
    """Kinds of weights (keys of `WEIGHTS`), repeated along them; where they are optional, they may not be `given`."""

    kinds: tuple[str, str, str] = ("one", "one", "one")
    given: bool = False


# Where they are optional, a third is without.
WEIGHTINGS = tuple(
    Weights((a, b, c), given=number % 3 != 0) for number, (c, b, a) in enumerate(itertools.product(WEIGHTS, repeat=3))
)

DISTINCT = 32  # rows of a problem, about: all others repeat them

SMOOTHING = (0.0, 0.1, 0.5, 1.0, None)  # None: any number
POSITIVE = (1.0, 2.0, 0.5, 3.0, 50.0, None)

# -- recipes ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """What is drawn: the structure of a problem, and few numbers; all else follows from it."""

    rows: int
    columns: int
    codes: tuple[int, ...]  # 16 entropy + kind (modulo the number of kinds); further rows follow from these
    pool: tuple[float, ...] = (0.0,)
    salt: int = 0  # the entropy of what is no row's own: weights, a scalar upstream gradient ...
    ignored: Ignored = Ignored()
    weights: Weights = Weights()
    smoothing: float | None = 0.0  # None: any number
    positive: float | None = 1.0
    widths: tuple[int, int] = (0, 0)  # of the layers, 0: as many as columns
    reduction: str = ""


@dataclass(frozen=True)
class Rows:
    """A recipe's rows, expanded: their entropy, their exact numbers, and their labels where the rows decide them."""

    recipe: Recipe
    fmt: Format
    entropy: Array
    z: Array
    y: Array | None = None

    def uniform(self, count: int, stream: int) -> Array:
        return _uniform(self.entropy, count, stream)

    def shared(self, count: int, stream: int = SHARED) -> Array:
        return np.asarray(_uniform(np.array([self.recipe.salt], dtype=np.uint64), count, stream)[0])

    def exact(self, numbers: Array) -> Array:
        return np.asarray(truncate(numbers, self.fmt))  # numpy makes a scalar of a 0-d array

    def weights(self, count: int, kept: Array | None = None) -> Array:
        """Non-negative weights whose total over the indices `kept` (None: all) is positive."""
        v = self.shared(count)
        kinds = np.resize([tuple(WEIGHTS).index(kind) for kind in self.recipe.weights.kinds], count)
        weight: Array = np.choose(kinds, [make(v) for make in WEIGHTS.values()])
        kept = np.arange(count) if kept is None else kept
        if not weight[kept].any():
            weight[kept[0]] = 1.0
        return weight

    def upstream(self, out: str, columns: int) -> Array:
        """The gradient of something with respect to the output: ones, zeros (not for a scalar), small and large."""
        v = self.uniform(columns, UPSTREAM) if out else self.shared(1, UPSTREAM)
        g = np.select([v < 0.1 * bool(out), v < 0.3], [0.0, 1.0], np.where(v < 0.65, -1.0, 1.0) * (v + 0.5))
        g = g * 2.0 ** np.array([0, 0, 0, -12, 6])[(v[..., :1] * 997 % 1 * 5).astype(int)]  # divided, or scaled
        return self.exact(g if len(out) == 2 else g[..., 0])


def expand(recipe: Recipe, fmt: Format, kinds: dict[str, Kind]) -> Rows:
    """The rows that the codes give; beyond the last code the kinds come again, most of them with fresh entropy.

    After `DISTINCT` rows they are the same again: that many are cheap to draw, and few of them to ask the oracle about.
    """
    turn, place = np.divmod(np.arange(recipe.rows), len(recipe.codes))
    turn = turn % -(-DISTINCT // len(recipe.codes))
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
    return Rows(recipe, fmt, entropy, truncate(z, fmt))


def moderated(factor: Array, total: float, fmt: Format) -> Array:
    """`factor`, divided by a power of two where the total of the losses, at most `total`, could overflow."""
    excess = max(1.0, total / (fmt.max / 4))
    return np.asarray(truncate(factor * 2.0 ** -math.ceil(math.log2(excess)), fmt))


def some_rows(problem: Problem, axes: Mapping[str, str], rows: Array) -> Problem:
    """The problem of some of its rows alone, in this order."""
    return Problem(
        problem.format,
        {name: item[rows] if axes.get(name, "").startswith("R") else item for name, item in problem.items.items()},
    )
