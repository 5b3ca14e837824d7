"""Every combination of a loss's options, each in a small problem of its own: code may take another path in any one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from equivalences.problems.rows import PATTERNS, PERIODS, POSITIVE, SMOOTHING, WEIGHTS, Recipe

ROWS, COLUMNS = 12, 3  # a row alone is met as well, where a row may stand without a batch
_DENSE, _ZERO = map(tuple(WEIGHTS).index, ("dense", "zero"))
_PREFIX = tuple(PATTERNS).index("prefix")

# A field of the recipe -> a value for each case that code may tell apart.
SETTINGS: dict[str, tuple[int, ...]] = {
    # None where they are optional, all different, and one of them 0 (a number for each of three classes).
    "weights": (0, *(kind + _DENSE * (len(WEIGHTS) + len(WEIGHTS) ** 2) for kind in (_DENSE, _ZERO))),
    # No row, and the first two, by each kind of index (targets.ignored).
    "ignored": (0, *(3 * (len(PERIODS) * _PREFIX + PERIODS.index(2)) + kind for kind in range(3))),
    "smoothing": tuple(map(SMOOTHING.index, (0.0, 0.1, 1.0))),
    "positive": tuple(map(POSITIVE.index, (1.0, 2.0, 0.5))),
}


def combinations(
    choices: Iterable[str], reduction: tuple[str, ...], dense: int, columns: tuple[int, ...]
) -> Iterator[Recipe]:
    """A recipe of a few mild rows, of the kind number `dense`, for each combination of the options among `choices`.

    (Reductions alone are met by the other edge problems in turn.)  Mild, since one row without a bound leaves a total
    without one, and few, since every form is judged on each of them.
    """
    options: dict[str, tuple[Any, ...]] = {name: cases for name, cases in SETTINGS.items() if name in choices}
    if not options:
        return
    if reduction:
        options["reduction"] = reduction
    for rows in (ROWS, 1):
        cases = (choice[:1] if rows == 1 and name == "ignored" else choice for name, choice in options.items())
        for turn, chosen in enumerate(itertools.product(*cases)):
            yield Recipe(
                rows,
                COLUMNS if COLUMNS in columns else columns[0],
                tuple(16 * (4 * 89 * (ROWS * turn + row) + 1) + dense for row in range(rows)),
                salt=1000 + turn,
                **dict(zip(options, chosen, strict=True)),
            )


def is_combination(rows: int) -> bool:
    """Whether an edge problem of so many rows is there for its options: it is judged in every layout."""
    return rows in (ROWS, 1)
