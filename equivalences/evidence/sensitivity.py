"""How small an error the gate notices: the smallest relative one, by form, format, quantity and region.

A scale factor 1 +- k u is planted on every number that a form gave on the edge problems, in the first layout that it
claims, and the number is judged again by the enclosure and the allowance that it was judged by: no form runs twice.
`k` is found by bisection: the smallest at which at least one number of the region is surely outside, whichever the
sign.  Other layouts, and problems that are drawn beside the edge problems, can only lower it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from equivalences.formats import FORMATS
from equivalences.judging import judge, plan
from equivalences.judging.facts import INSIDE
from equivalences.judging.judge import Measurement
from equivalences.model import Array, Form, Identity

STEPS = 24  # halvings, of the exponent: k is known to a part in 2**17 and printed to two digits
LEAST, MOST = 2.0**-10, 2.0**60


@dataclass(frozen=True)
class Sensitivity:
    """Region by region: the smallest k at which a factor 1 +- k u is noticed (inf: none is)."""

    identity: Identity
    form: Form
    format: str
    kind: str  # "value" or "gradient"
    by_region: dict[str, float]


def measured(identity: Identity, fmt: str, forms: Sequence[Form] = ()) -> list[Sensitivity]:
    """What the gate notices of the value of each of the `forms` (none: all), and of its gradient if one is judged."""
    smallest: dict[tuple[Form, str], dict[str, float]] = {}
    for problem in (each.problem for each in plan.edges(identity, fmt)):
        first: dict[Form, str] = {}
        for layout in plan.layouts(identity, problem, "eager"):
            claimed = [form for form in judge.forms(identity, fmt, layout) if not forms or form in forms]
            first |= {form: layout for form in claimed if form not in first}
        for form, layout in first.items():
            for m in judge.measure(identity, form, problem, layout=layout):
                if isinstance(m, Measurement):
                    _take(smallest.setdefault((form, m.quantity.partition(" ")[0]), {}), m)
    return [Sensitivity(identity, form, fmt, kind, found) for (form, kind), found in smallest.items()]


def _take(found: dict[str, float], m: Measurement) -> None:
    k = _thresholds(m)
    for index, region in enumerate(m.identity.domain.regions):
        here = (m.region >> index & 1).astype(bool)
        if here.any():
            found[region] = min(found.get(region, np.inf), float(k[here].min()))


def _thresholds(m: Measurement) -> Array:
    """For each number, the smallest k at which it is noticed (inf: at none, or the number was not inside before)."""
    enclosure = judge.enclosure(m)
    u = FORMATS[m.problem.format].u

    def noticed(k: Array) -> Array:
        with np.errstate(all="ignore"):
            up, down = (enclosure.decide(m.got * (1 + sign * k * u), m.own.bound)[1] for sign in (1, -1))
        return np.asarray(up & down)

    low, high = np.full(m.got.shape, np.log2(LEAST)), np.full(m.got.shape, np.log2(MOST))
    ever = noticed(np.exp2(high)) & (m.own.fact == INSIDE)
    for _ in range(STEPS):
        middle = (low + high) / 2
        outside = noticed(np.exp2(middle))
        low, high = np.where(outside, low, middle), np.where(outside, middle, high)
    return np.asarray(np.where(ever, np.exp2(high), np.inf))
