"""Recipes: what is drawn, the deterministic edge recipes, and the domains made of both.

Hypothesis pays per choice, so a `Recipe` is drawn, not numbers: sizes, a few row codes and one choice an option;
`rows` expands it.  The price: the numbers of a dense row do not shrink one by one.  Three things make up for it:
entropy below 8 gives multiples of 1/8, kind 0 repeats a small pool of drawn floats, and kinds are listed from plain to
strange.  Nothing is filtered: numbers are truncated into the format.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from equivalences.formats import FORMATS
from equivalences.model import Domain, Problem
from equivalences.problems import options
from equivalences.problems.draw import Choose
from equivalences.problems.regions import Regions
from equivalences.problems.rows import (
    IGNORED,
    INDICES,
    PATTERNS,
    PERIODS,
    POSITIVE,
    SMOOTHING,
    WEIGHTINGS,
    Ignored,
    Kind,
    Recipe,
    Rows,
    expand,
)
from equivalences.problems.wide import Maker

# Vector bodies and tails of 4 to 64 lanes; small sizes first, to which shrinking goes.  Most problems have as many
# rows as they have codes.  One class comes twice: sizes come in clumps.
COLUMNS = (2, 3, 5, 1, 4, 6, 7, 8, 9, 10, 12, 15, 16, 17, 22, 24, 31, 1, 32, 33, 48, 64, 67, 100, 128)
ROWS = (1,) * 10 + (7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 67, 300)
CODES = 6  # at most, drawn one by one
WIDTHS = range(1, 10)

# A field of the recipe -> how it is drawn, in this order.
CHOICES: dict[str, Callable[[Choose], Any]] = {
    "salt": lambda choose: choose.entropy(),
    "ignored": lambda choose: choose.of(IGNORED),
    "weights": lambda choose: choose.of(WEIGHTINGS),
    "smoothing": lambda choose: choose.of(SMOOTHING),
    "positive": lambda choose: choose.of(POSITIVE),
    "widths": lambda choose: (choose.of(WIDTHS), choose.of(WIDTHS)),
}


def _drawn(
    choose: Choose,
    kinds: int,
    sizes: Sequence[tuple[int, int]],
    fields: dict[str, Callable[[Choose], Any]],
    shape: tuple[int, ...] | None,
) -> Recipe:
    """A recipe; without a shape, or of items without one, its size is drawn, in one choice, and as many codes."""
    if shape:
        most = min(shape[0], CODES)
    else:
        shape, most = choose.of(sizes), CODES
    codes = choose.codes(most)
    pooled = any(code % 16 % kinds == 0 for code in codes)
    return Recipe(
        rows=max(shape[0], len(codes)),
        columns=(*shape, sizes[0][1])[1],
        codes=codes,
        pool=(choose.number(-8, 8), choose.number(-8, 8)) if pooled else (0.0,),
        **{name: draw(choose) for name, draw in fields.items()},
    )


def _in_turn(options: Sequence[Any], turn: int) -> Any:
    return options[turn % len(options)]


def _edge_recipes(
    kinds: int,
    sizes: tuple[tuple[int, int], ...],
    everywhere: tuple[tuple[int, int], ...],
    reduction: tuple[str, ...],
) -> Iterator[tuple[Recipe, str]]:
    """One recipe a size, with every kind in turn and every option in turn; then all rows alike, and all rows equal.

    Each with its role, `options.KINDS` for the sizes `everywhere`.
    """
    for turn, (rows, columns) in enumerate([*sizes, (17, sizes[-1][1]), (9, sizes[0][1])]):
        codes = tuple(16 * (4 * 97 * row + 1) + row % kinds for row in range(rows))
        role = options.KINDS if (rows, columns) in everywhere else f"{rows} x {columns}" if rows > 1 else options.ALONE
        if turn == len(sizes):
            codes, role = (16 * 101 + 3,), "rows alike"
        elif turn > len(sizes):
            codes, role = (16 * 100 + 2,), "rows equal"  # entropy divisible by four: every repetition is the same row
        recipe = Recipe(
            rows,
            columns,
            codes,
            pool=(0.0, 1.0, -2.5),
            salt=turn,
            ignored=Ignored(_in_turn(tuple(PATTERNS), turn), _in_turn(PERIODS, turn + 8), _in_turn(INDICES, turn)),
            weights=_in_turn(WEIGHTINGS, 31 * turn),
            smoothing=_in_turn(SMOOTHING, turn),
            positive=_in_turn(POSITIVE, turn),
            # Out of step with the rest, so that a mean meets ignored rows with weights and without.
            reduction=_in_turn(reduction, turn + turn // 4) if reduction else "",
        )
        yield recipe, role


def domain(
    name: str,
    axes: dict[str, str],
    kinds: dict[str, Kind],
    located: Regions,
    finish: Callable[[Rows], dict[str, Any]],
    *,
    choices: set[str],
    rows: tuple[int, ...] = ROWS,
    columns: tuple[int, ...],
    sizes: tuple[tuple[int, int], ...],
    everywhere: tuple[tuple[int, int], ...] = (),
    reduction: tuple[str, ...],
    layouts: tuple[str, ...],
    many_columns: bool = False,
) -> Domain:
    """The domain whose problems are recipes over `kinds`, each made into items by `finish`.

    `sizes` are those of edge problems; beside single rows, those `everywhere` are judged in every layout.
    With `many_columns`, its problems may have very many classes.
    """
    drawn = {key: CHOICES[key] for key in CHOICES if key in choices}
    if reduction:
        drawn["reduction"] = lambda choose: choose.of(reduction)
    shapes = tuple(itertools.product(rows, columns))

    def problem(format: str, recipe: Recipe, role: str = "") -> Problem:
        return Problem(format, finish(expand(recipe, FORMATS[format], kinds)), role)

    def draw(choose: Choose, format: str, shape: tuple[int, ...] | None = None) -> Problem:
        free = {key: drawn[key] for key in drawn if shape is None or key != "widths"}
        return problem(format, _drawn(choose, len(kinds), shapes, free, shape))

    def edges(format: str) -> list[Problem]:
        mild = options.combinations(choices, reduction, tuple(kinds).index("dense"), columns)
        turns = _edge_recipes(len(kinds), sizes, everywhere, reduction)
        return [problem(format, recipe, role) for recipe, role in (*turns, *mild)]

    names, locate = located
    maker = Maker(finish, frozenset(choices), reduction) if many_columns else None
    return Domain(name, axes, draw, edges, names, locate, layouts, wide=maker)


def named(base: str, **options: Any) -> str:
    """`base(option, option=value)`, with the options that are set."""
    shown = [key if value is True else f"{key}={value!r}" for key, value in options.items() if value]
    return f"{base}({', '.join(shown)})"


def check(out: str, outs: tuple[str, ...], reduction: tuple[str, ...]) -> None:
    """Raises ValueError where an output's axes are none of `outs`, or do not fit the reductions."""
    if out not in outs:
        raise ValueError(f"out must be one of {outs}, got {out!r}")
    if reduction and any((each == "none") != (out != "") for each in reduction):
        raise ValueError(f"out={out!r} does not fit all of {reduction}: declare one domain per output shape")
