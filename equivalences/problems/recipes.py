"""Recipes: what Hypothesis draws, the deterministic edge recipes, and the domains made of both.

Hypothesis pays per choice, so it draws a `Recipe`, not numbers: sizes, a few row codes and one choice an option;
`rows` expands it.  The price: the numbers of a dense row do not shrink one by one.  Three things make up for it:
entropy below 8 gives multiples of 1/8, kind 0 repeats a small pool of drawn floats, and kinds are listed from plain to
strange.  Nothing is filtered: numbers are truncated into the format.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from hypothesis import strategies as st

from equivalences.formats import FORMATS
from equivalences.model import Domain, Problem
from equivalences.problems.options import combinations
from equivalences.problems.regions import Regions
from equivalences.problems.rows import PATTERNS, PERIODS, POSITIVE, SMOOTHING, WEIGHTS, Kind, Recipe, Rows, expand
from equivalences.problems.wide import Maker

# Vector bodies and tails of 4 to 64 lanes; small sizes first, to which shrinking goes.  Most problems have as many
# rows as they have codes.  One class comes twice: sizes come in clumps.
COLUMNS = (2, 3, 5, 1, 4, 6, 7, 8, 9, 10, 12, 15, 16, 17, 22, 24, 31, 1, 32, 33, 48, 64, 67, 100, 128)
ROWS = (1,) * 10 + (7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 67, 300)
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
    """Finished recipes; without a shape, or of items without one, sizes are drawn, in one choice, and as many codes."""
    if not shape:
        row, column = divmod(draw(st.integers(0, len(sizes[0]) * len(sizes[1]) - 1)), len(sizes[1]))
        shape, most = (sizes[0][row], sizes[1][column]), CODES
    else:
        most = min(shape[0], CODES)
    codes = draw(st.lists(_CODE, min_size=1, max_size=most))
    return finish(
        Recipe(
            rows=max(shape[0], len(codes)),
            columns=(*shape, sizes[1][0])[1],
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
    located: Regions,
    finish: Callable[[Rows], dict[str, Any]],
    *,
    choices: set[str],
    rows: tuple[int, ...] = ROWS,
    columns: tuple[int, ...],
    sizes: tuple[tuple[int, int], ...],
    reduction: tuple[str, ...],
    layouts: tuple[str, ...],
    many_columns: bool = False,
) -> Domain:
    """The domain whose problems are recipes over `kinds`, each made into items by `finish`.

    With `many_columns`, its problems may have very many classes.
    """
    drawn = {key: CHOICES[key] for key in CHOICES if key in choices}
    if reduction:
        drawn["reduction"] = st.sampled_from(reduction)

    def problem(format: str, recipe: Recipe) -> Problem:
        return Problem(format, finish(expand(recipe, FORMATS[format], kinds)))

    def draw(format: str, shape: tuple[int, ...] | None = None) -> st.SearchStrategy[Problem]:
        free = {key: drawn[key] for key in drawn if shape is None or key != "widths"}
        return _problems(partial(problem, format), len(kinds), (rows, columns), free, shape)

    def edges(format: str) -> list[Problem]:
        mild = combinations(choices, reduction, tuple(kinds).index("dense"), columns)
        return [problem(format, recipe) for recipe in (*_edge_recipes(len(kinds), sizes, reduction), *mild)]

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
