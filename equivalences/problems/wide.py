"""Few rows of very many classes: what kernels do that read a row in blocks.

Every column is independent of every other.  The entries of `ROLES` say where the largest logit of a row, the second and
the label lie, and how the row runs from its first class to its last; the entries of `SHAPES` say which rows stand in a
problem of how many classes.  Each number of classes is on a border of blocks, or the size of a vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from equivalences.formats import FORMATS, Format, truncate
from equivalences.model import Array, Domain, Problem
from equivalences.problems import options, regions
from equivalences.problems.draw import Choose
from equivalences.problems.rows import WIDE_ROW, Ignored, Recipe, Rows

# Where a class lies in its row, as a part of the way from the first to the last.
FIRST, EARLY, MIDDLE, LAST = 0.0, 1 / 64, 0.5, 1.0


@dataclass(frozen=True)
class Row:
    """A row before its largest logits are set: n classes."""

    u: Array  # in [-1, 1)
    way: Array  # from 0, the first class, to 1, the last
    fmt: Format

    @property
    def over(self) -> float:
        """Where exp overflows in the format, and in float32, in which kernels compute those of 16 bits."""
        return max(map(regions.overflow, (self.fmt, FORMATS["float32"])))

    @property
    def under(self) -> float:
        """Where exp underflows, in both."""
        return max(map(regions.underflow, (self.fmt, FORMATS["float32"])))


@dataclass(frozen=True)
class Role:
    """What a row is there for.

    rest    the logits, but for the largest.
    label   where the label lies.
    top     where the largest lies, if one stands out: as high as gives it about half of the row's probability.
    second  where another lies that is lower by 1/2, or as high if `tie`.
    height  of the largest, where it is not to share with the rest.
    """

    rest: Callable[[Row], Array]
    label: float
    top: float | None = None
    second: float | None = None
    tie: bool = False
    height: float = 0.0


def _low_dense(row: Row) -> Array:
    """So low that the largest, which stands out of 200,000, is below the logarithm of float16's largest number."""
    return row.u - 4


# At most 16: a recipe's code has four bits for it.
ROLES: dict[str, Role] = {
    "last": Role(_low_dense, label=LAST, top=LAST, second=FIRST),
    "first": Role(_low_dense, label=LAST, top=FIRST, second=LAST),
    "middle": Role(_low_dense, label=FIRST, top=MIDDLE, second=EARLY),
    "tie": Role(_low_dense, label=LAST, top=FIRST, second=LAST, tie=True),
    "rising": Role(lambda row: 8 * row.way - 4 + row.u, label=LAST),
    "falling": Role(lambda row: 4 - 8 * row.way + row.u, label=LAST),
    "climbing": Role(lambda row: 4 * row.under * (row.way - 0.5) + row.u, label=LAST),
    "plunging": Role(lambda row: 4 * row.under * (0.5 - row.way) + row.u, label=LAST),
    # exp overflows, or underflows, in every class.
    "high": Role(lambda row: 1.3 * row.over + 2 * row.u, label=FIRST),
    "low": Role(lambda row: -1.3 * row.under + 2 * row.u, label=LAST),
    # Beyond any bound that somebody may clamp logits to; and finite masks over every third part of the way.
    "far": Role(lambda row: 4 * row.u - 55 * (row.way == 0), label=FIRST, top=MIDDLE, second=LAST, height=60.0),
    "valley": Role(
        lambda row: np.where(row.way * 9 % 3 < 1, -8192.0, row.u - 4), label=0.9, top=LAST, second=EARLY + 1 / 3
    ),
}


@dataclass(frozen=True)
class Shape:
    """A number of classes and the rows that stand in one problem, in some formats."""

    classes: int
    roles: tuple[str, ...]
    formats: tuple[str, ...] = tuple(FORMATS)


_SHORT = ("float32", "bfloat16", "float16")  # float64 is decided by balls, number by number

# Cheap ones first.  But for float64 every role is there beyond 8192 classes; the most rows are those of few classes.
SHAPES = (
    Shape(129, ("last", "falling", "low", "middle")),
    Shape(257, ("rising", "middle", "high")),
    Shape(127, ("last", "rising", "far", "valley")),
    Shape(128, ("first", "climbing", "high", "tie")),
    Shape(255, ("rising", "plunging", "tie")),
    Shape(256, ("last", "climbing", "far")),
    Shape(1025, ("last", "rising", "tie", "high", "climbing", "low")),
    Shape(1023, ("last", "low", "valley")),
    Shape(1024, ("climbing", "first", "far")),
    Shape(4097, ("last", "rising")),
    Shape(4095, ("rising",), _SHORT),
    Shape(4096, ("middle",), _SHORT),
    Shape(8193, ("last", "low", "far", "climbing")),
    Shape(8193, ("high",), _SHORT),
    Shape(8191, ("falling",), _SHORT),
    Shape(8192, ("rising",), _SHORT),
    Shape(16_385, ("rising", "plunging")),
    Shape(16_385, ("valley", "tie"), _SHORT),
    Shape(32_767, ("last",), ("bfloat16",)),
    Shape(32_768, ("middle",), ("float16",)),
    Shape(32_769, ("falling",), _SHORT),
    Shape(50_257, ("first",), _SHORT),
    Shape(65_535, ("rising",), ("bfloat16",)),
    Shape(65_536, ("middle",), ("float16",)),
    Shape(65_537, ("last",)),
    Shape(65_537, ("high",), _SHORT),
    Shape(128_256, ("rising",), ("float16",)),
    Shape(131_073, ("middle", "high"), ("float32", "bfloat16")),
)
MOST = max(shape.classes for shape in SHAPES)
# Where every combination of options is met once: beyond a block of 4096, and so few that in float16 the loss under full
# label smoothing, a sum over all classes before it is divided by their number, is finite.
COMBINED = Shape(5003, ("rising", "falling"), _SHORT), Shape(5003, ("rising",), ("float64",))
SMOOTHED = 257  # classes up to which that sum is finite in float16 in nearly every role
IGNORED = 1025  # classes up to which rows are ignored, in problems of several: beyond, each is the only one of its role
BEYOND = Shape(200_003, ("last",), ("float32",))  # for the gate alone
DRAWN = ((3, 127), (2, 256), (2, 1000))  # rows and classes


@dataclass(frozen=True, eq=False)
class Maker:
    """How a domain makes a problem of rows, and which of its options a recipe chooses."""

    finish: Callable[[Rows], dict[str, Any]]
    choices: frozenset[str]
    reduction: tuple[str, ...]

    def combinations(self) -> list[Recipe]:
        """A recipe for each combination of options, or one."""
        found = options.combinations(self.choices, self.reduction, 0, (options.COLUMNS,))
        several = [recipe for recipe, role in found if role == options.COMBINATION]
        return several or [Recipe(1, 1, (0,), reduction=each) for each in self.reduction or ("",)]


def _place(where: float, count: int) -> int:
    return round(where * (count - 1))


def _logits(role: Role, row: Row) -> Array:
    count = len(row.u)
    z = role.rest(row)
    if role.top is not None:
        height = role.height or float(np.log(np.exp(z).sum()))
        if role.second is not None:
            z[_place(role.second, count)] = height - (0.0 if role.tie else 0.5)
        z[_place(role.top, count)] = height
    return z


def expand(recipe: Recipe, fmt: Format) -> Rows:
    """The rows of a recipe whose codes name one role each, in the low four bits, and its entropy above them."""
    code, roles = np.array(recipe.codes, dtype=np.uint64), tuple(ROLES.values())
    rows = Rows(recipe, fmt, code // np.uint64(16), np.empty((recipe.rows, recipe.columns)))
    played = [roles[int(each)] for each in code % np.uint64(16)]
    way = np.linspace(0, 1, recipe.columns)
    u = 2 * rows.uniform(recipe.columns, WIDE_ROW) - 1
    z = np.array([_logits(role, Row(one, way, fmt)) for role, one in zip(played, u, strict=True)])
    y = np.array([_place(role.label, recipe.columns) for role in played])
    return replace(rows, z=truncate(z, fmt), y=y)


def _made(maker: Maker, format: str, shape: Shape, recipe: Recipe, turn: int) -> Problem:
    """The problem of one shape with a recipe's options; no upstream gradient in it is zero."""
    names = tuple(ROLES)
    codes = tuple(16 * (389 * turn + 16 * row + 11) + names.index(role) for row, role in enumerate(shape.roles))
    recipe = replace(recipe, rows=len(codes), columns=shape.classes, codes=codes, salt=recipe.salt + turn)
    items = maker.finish(expand(recipe, FORMATS[format]))
    items["g"] = np.where(items["g"] == 0, 1.0, items["g"])
    return Problem(format, items, options.ALONE if len(codes) == 1 else "")


def problems(domain: Domain, format: str, shapes: tuple[Shape, ...] = SHAPES) -> list[Problem]:
    """The problems of `shapes` in a format, cheap ones first; none if the domain's number of classes is fixed.

    Options are met in turn.
    """
    maker: Maker | None = domain.wide
    found: list[Problem] = []
    every = maker.combinations() if maker else []
    for turn, shape in enumerate(shapes):
        if maker is None or format not in shape.formats:
            continue
        recipe = every[turn * 5 % len(every)]
        if len(shape.roles) < 4 or shape.classes > IGNORED:
            recipe = replace(recipe, ignored=Ignored())
        if format == "float16" and shape.classes > SMOOTHED:
            recipe = replace(recipe, smoothing=0.0)
        found.append(_made(maker, format, shape, recipe, turn))
    return found


def vocabularies(base: Domain) -> Domain:
    """The problems of `SHAPES` and one of more classes as edge problems; drawn ones of `base` have some hundreds.

    Every combination of options is met once, with thousands of classes.
    """

    def draw(choose: Choose, format: str, shape: tuple[int, ...] | None = None) -> Problem:
        return base.draw(choose, format, shape or choose.of(DRAWN))

    def edges(format: str) -> list[Problem]:
        return problems(base, format, (*SHAPES, BEYOND))

    def exhaustive(format: str) -> list[Problem]:
        every = enumerate(base.wide.combinations() if base.wide.choices else ())
        (shape,) = (shape for shape in COMBINED if format in shape.formats)
        return [_made(base.wide, format, shape, recipe, turn) for turn, recipe in every]

    return replace(base, name=f"vocabularies({base.name})", draw=draw, edges=edges, exhaustive=exhaustive, wide=None)
