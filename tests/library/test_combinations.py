"""Every combination of a loss's options is met, in few rows and in many."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from test_problems import drawn, ignored, named, reached

from equivalences.catalogue import FAMILY_OF, IDENTITIES
from equivalences.formats import FORMATS, truncate
from equivalences.model import Domain, Problem


def combination(problem: Problem) -> dict[str, str]:
    """The case of each option that a loss may treat on a path of its own."""
    found, items = {}, problem.items
    if "weight" in items:
        found["weight"] = "none" if items["weight"] is None else "given" if items["weight"].all() else "one is 0"
    if "pos_weight" in items:
        found["pos_weight"] = "1" if items["pos_weight"] == 1 else "above 1" if items["pos_weight"] > 1 else "below 1"
    if "label_smoothing" in items:
        found["smoothing"] = {0.0: "0", 1.0: "1"}.get(items["label_smoothing"], "between")
    if "ignore_index" in items:
        kinds = {-100: "-100", -1: "another", -2: "another", 255: "another"}
        some = (items["y"] == items["ignore_index"]).any()
        found["ignored"] = kinds.get(items["ignore_index"], "a class") if some else "no row"
    if "reduction" in items:
        found["reduction"] = items["reduction"]
    return found


CASES = {
    "pos_weight": {"1", "above 1", "below 1"},
    "smoothing": {"0", "between", "1"},
    "ignored": {"-100", "another", "a class", "no row"},
}


OPTIONAL = {
    identity.domain.name: identity.domain
    for identity in IDENTITIES.values()
    if FAMILY_OF[identity.name] != "large" and combination(identity.domain.edges("float32")[0])
}


MANY = {
    identity.domain.name: identity.domain for identity in IDENTITIES.values() if identity.domain.name.startswith("many")
}


def missing(domain: Domain, some: list[Problem]) -> set[tuple[tuple[str, str], ...]]:
    """The combinations of options that none of the problems has."""
    cases = CASES | {
        "weight": {"given", "one is 0"} | ({"none"} if "weight='optional'" in domain.name else set()),
        "reduction": {each for each in ("none", "mean", "sum") if each in domain.name},
    }
    kept = combination(some[0])
    every = {tuple(zip(kept, each, strict=True)) for each in itertools.product(*map(cases.__getitem__, kept))}
    return every - {tuple(combination(problem).items()) for problem in some}


@pytest.mark.parametrize("format", FORMATS)
@named(list(OPTIONAL.values()))
def test_edges_hold_every_combination_of_options(domain: Domain, format: str) -> None:
    # An extreme row may leave a total without a bound: what it holds, it does not test.
    mild = [p for p in domain.edges(format) if "extreme" not in reached(domain, [p])]
    assert missing(domain, mild) == set()


@pytest.mark.parametrize("format", FORMATS)
@named(list(MANY.values()))
def test_large_batches_hold_every_combination_of_options(domain: Domain, format: str) -> None:
    beyond = 65536 if format == "float32" else 4096
    every = domain.exhaustive(format)
    mild = [problem for problem in every if reached(domain, [problem]) <= {"core", "tie", "zero"}]
    assert missing(domain, [problem for problem in mild if len(problem["z"]) > beyond]) == set()
    assert domain.exhaustive(format) == every


def total_weight(problem: Problem) -> float:
    return float(problem["weight"][problem["y"][~ignored(problem)]].sum())


@named([domain for domain in MANY.values() if "labels" in domain.name])
def test_float16_class_weights_weigh_more_than_float16_holds(domain: Domain) -> None:
    weighted = [p for p in domain.exhaustive("float16") if p["weight"] is not None]
    for low, high in ((0, 16_376), (16_376, 65_504), (65_520, math.inf)):
        there = [problem for problem in weighted if low < total_weight(problem) < high]
        assert missing(domain, there) == missing(domain, weighted), (low, high)
    fmt = FORMATS["float16"]
    for problem in weighted:
        assert np.array_equal(truncate(problem["weight"], fmt), problem["weight"])
        assert np.array_equal(truncate(problem["z"], fmt), problem["z"])
    found = [p for p in drawn(domain, "float16") if p["weight"] is not None]
    assert {np.searchsorted((16_376, 65_504), total_weight(problem)) for problem in found} == {0, 1, 2}


def test_some_domains_have_options() -> None:
    assert max(len(combination(domain.edges("float32")[0])) for domain in OPTIONAL.values()) == 4
