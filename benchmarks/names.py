"""Ids of cases spell out every axis; tables and pictures need only what tells one case from its neighbours."""

from __future__ import annotations

import re
from collections.abc import Iterable


def axes(case: str) -> tuple[str, dict[str, str]]:
    """An id in its parts: "loss-rows:16-format:float32" is ("loss", {"rows": "16", "format": "float32"})."""
    suite, *parts = re.split(r"-(?=\w+:)", case)
    return suite, dict(part.split(":", 1) for part in parts)


def short(cases: Iterable[str]) -> dict[str, str]:
    """For each id, its suite and the axes in which the cases of that suite differ here."""
    parts = {case: axes(case) for case in cases}
    values: dict[tuple[str, str], set[str | None]] = {}
    for suite, _ in parts.values():
        of_suite = [found for other, found in parts.values() if other == suite]
        for name in {name for found in of_suite for name in found}:
            values[suite, name] = {found.get(name) for found in of_suite}
    return {
        case: " ".join((suite, *(f"{name}:{value}" for name, value in found.items() if len(values[suite, name]) > 1)))
        for case, (suite, found) in parts.items()
    }
