"""Every combination of a loss's options, each in a small problem of its own: code may take another path in any one."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from equivalences.problems.rows import INDICES, Ignored, Recipe, Weights

ROWS, COLUMNS = 12, 3  # a row alone is met as well, where a row may stand without a batch

# Roles of edge problems (`Problem.role`): one combination of options, in a few rows or in one; one row without such;
# rows of every kind.  Others have their size as a role, or "rows alike", or "rows equal".
COMBINATION, COMBINATION_ALONE = "combination of options", "combination of options, one row"
ALONE, KINDS = "one row", "every kind of row"
EVERYWHERE = frozenset({COMBINATION, COMBINATION_ALONE, ALONE, KINDS})  # those judged in every layout

# A field of the recipe -> a value for each case that code may tell apart.
SETTINGS: dict[str, tuple[Any, ...]] = {
    # None where they are optional, all different, and one of them 0 (a number for each of three classes).
    "weights": (
        Weights(("one", "one", "one"), given=False),
        Weights(("dense", "dense", "dense"), given=True),
        Weights(("zero", "dense", "dense"), given=True),
    ),
    # No row, and the first two, by each kind of index.
    "ignored": (Ignored("none"), *(Ignored("prefix", 2, index) for index in INDICES)),
    "smoothing": (0.0, 0.1, 1.0),
    "positive": (1.0, 2.0, 0.5),
}


def combinations(
    choices: Iterable[str], reduction: tuple[str, ...], dense: int, columns: tuple[int, ...]
) -> Iterator[tuple[Recipe, str]]:
    """A recipe of a few mild rows, of the kind number `dense`, for each combination of the options among `choices`.

    Each with its role.  (Reductions alone are met by the other edge problems in turn.)  Mild, since one row without a
    bound leaves a total without one, and few, since every form is judged on each of them.
    """
    options: dict[str, tuple[Any, ...]] = {name: cases for name, cases in SETTINGS.items() if name in choices}
    if not options:
        return
    if reduction:
        options["reduction"] = reduction
    for rows, role in ((ROWS, COMBINATION), (1, COMBINATION_ALONE)):
        cases = (choice[:1] if rows == 1 and name == "ignored" else choice for name, choice in options.items())
        for turn, chosen in enumerate(itertools.product(*cases)):
            recipe = Recipe(
                rows,
                COLUMNS if COLUMNS in columns else columns[0],
                tuple(16 * (4 * 89 * (ROWS * turn + row) + 1) + dense for row in range(rows)),
                salt=1000 + turn,
                **dict(zip(options, chosen, strict=True)),
            )
            yield recipe, role
