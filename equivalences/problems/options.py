"""Every combination of a loss's options, each in a small problem of its own: code may take another path in any one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from equivalences.problems.rows import PATTERNS, PERIODS, POSITIVE, SMOOTHING, WEIGHTS, Recipe

ROWS, COLUMNS = 5, 3
_DENSE = tuple(WEIGHTS).index("dense")
_PREFIX = tuple(PATTERNS).index("prefix")

# A field of the recipe -> a value for each case that code may tell apart.
SETTINGS: dict[str, tuple[int, ...]] = {
    "weights": (0, _DENSE * (1 + len(WEIGHTS) + len(WEIGHTS) ** 2)),  # none where they are optional, and all different
    "ignored": (0, 3 * (len(PERIODS) * _PREFIX + PERIODS.index(2))),  # no row, and the first two
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
    for turn, cases in enumerate(itertools.product(*options.values())):
        chosen = dict(zip(options, cases, strict=True))
        if chosen.get("ignored"):
            chosen["ignored"] += turn % 3  # which index it is
        yield Recipe(
            ROWS,
            COLUMNS if COLUMNS in columns else columns[0],
            tuple(16 * (4 * 89 * (ROWS * turn + row) + 1) + dense for row in range(ROWS)),
            salt=1000 + turn,
            **chosen,
        )
