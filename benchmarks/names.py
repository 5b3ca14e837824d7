"""Ids of cases spell out every axis; tables and pictures need only what tells one case from its neighbours."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable


def axes(case: str) -> tuple[str, dict[str, str]]:
    """An id in its parts: "loss-rows:16-format:float32" is ("loss", {"rows": "16", "format": "float32"})."""
    suite, *parts = re.split(r"-(?=\w+:)", case)
    return suite, dict(part.split(":", 1) for part in parts)


def short(cases: Iterable[str]) -> dict[str, str]:
    """For each id, its suite and where it differs from what more than half of that suite's cases share here."""
    parts = {case: axes(case) for case in cases}
    sizes = Counter(suite for suite, _ in parts.values())
    counts = Counter((suite, *axis) for suite, found in parts.values() for axis in found.items())
    return {
        case: " ".join(
            (suite, *(":".join(axis) for axis in found.items() if 2 * counts[(suite, *axis)] <= sizes[suite]))
        )
        for case, (suite, found) in parts.items()
    }
