"""Drawn problems without pytest."""

from __future__ import annotations

import hypothesis

from equivalences.model import Domain, Problem


def sample(
    domain: Domain, format: str, examples: int, seed: int, shape: tuple[int, ...] | None = None
) -> list[Problem]:
    """`examples` drawn problems of the domain, of one shape if it is given; the same for the same seed."""
    found: list[Problem] = []
    if not examples:
        return found

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=examples,
        database=None,
        phases=[hypothesis.Phase.generate],
        deadline=None,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(domain.draw(format, shape))
    def collect(problem: Problem) -> None:
        found.append(problem)

    collect()
    return found
