"""Smaller problems that fail in the same way: fewer rows and columns, then plainer numbers.

Hypothesis shrinks what it drew, and can do nothing for an edge problem or for the numbers of a dense row; this
works on the plain numbers of any problem.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from equivalences.formats import FORMATS, truncate
from equivalences.model import Array, Problem


def shrunk(problem: Problem, axes: dict[str, str], fails: Callable[[Problem], bool], attempts: int = 300) -> Problem:
    """The smallest problem found in so many attempts for which `fails` still holds (the problem itself if none)."""
    best, left = problem, attempts

    def accepted(candidate: Problem) -> bool:
        nonlocal best, left
        left -= 1
        if left < 0 or not fails(candidate):
            return False
        best = candidate
        return True

    letters = {letter for name in problem.items for letter in axes.get(name, "")}
    for letter in sorted(letters, key="CR".find, reverse=True):  # rows first, then classes
        size = _length(best, axes, letter) // 2
        while size:
            start = 0
            while left > 0 and start < (count := _length(best, axes, letter)) and size < count:
                keep = np.r_[0:start, min(start + size, count) : count]
                if not accepted(_kept(best, axes, letter, keep)):
                    start += size
            size //= 2
    again = True
    while again and left > 0:
        again = False
        for name, index in _numbers(problem=best):
            again |= any(accepted(candidate) for candidate in _plainer(best, name, index))
    return best


def _length(problem: Problem, axes: dict[str, str], letter: str) -> int:
    for name, item in problem.items.items():
        if letter in axes.get(name, "") and isinstance(item, np.ndarray):
            return int(item.shape[axes[name].index(letter)])
    return 0


def _kept(problem: Problem, axes: dict[str, str], letter: str, keep: Array) -> Problem:
    items: dict[str, Any] = {}
    last = next((each for each in "CMK" if any(each in spelled for spelled in axes.values())), "")
    for name, item in problem.items.items():
        spelled = axes.get(name, "")
        if isinstance(item, np.ndarray):
            if letter in spelled:
                item = item.take(keep, axis=spelled.index(letter))
            elif letter == last and item.dtype.kind == "i":  # labels count the classes that are left
                # ... and name one of them: out of range, they would end a GPU's process
                item = np.where(item < 0, item, np.minimum(np.searchsorted(keep, item), len(keep) - 1))
        items[name] = item
    return Problem(problem.format, items)


def _numbers(problem: Problem) -> list[tuple[str, tuple[int, ...]]]:
    """Where the numbers of a small problem stand."""
    return [
        (name, index)
        for name, item in problem.items.items()
        if isinstance(item, np.ndarray) and item.dtype.kind == "f" and item.size <= 64
        for index in np.ndindex(item.shape)
    ]


def _plainer(problem: Problem, name: str, index: tuple[int, ...]) -> Iterator[Problem]:
    """The problem with one number plainer: 0, 1, an integer, or a multiple of 1/16."""
    fmt, number = FORMATS[problem.format], float(problem[name][index])
    if not np.isfinite(number):
        return
    for plain in (0.0, 1.0, float(np.trunc(number)), float(np.trunc(number * 16)) / 16):
        if plain == number:
            return  # the rest is no plainer
        if np.isfinite(plain) and float(truncate(plain, fmt)) == plain:
            changed = np.array(problem[name])
            changed[index] = plain
            yield Problem(problem.format, {**problem.items, name: changed})
