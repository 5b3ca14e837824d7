"""One quantity of one problem, judged number by number; which of several is the better example."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from equivalences.formats import FORMATS
from equivalences.model import Array, Problem
from equivalences.own.problems import is_large


@dataclass(frozen=True, eq=False)
class Judged:
    """One quantity of one problem: everything that an example needs."""

    problem: Problem
    layout: str
    quantity: str
    got: Array
    error: Array
    exact: Array
    contract: Array
    own: Array | None
    verdict: Array
    region: Array  # indices, -1: several
    threads: int
    defects: tuple[str, ...] = ()

    @property
    def ratio(self) -> Array:
        with np.errstate(all="ignore"):
            ratio = self.error / self.contract
        return np.where(
            self.error == 0, 0.0, np.where(np.isfinite(self.contract), np.nan_to_num(ratio, nan=np.inf), 0.0)
        )


def focus(found: Judged, verdict: int) -> tuple[int, float]:
    """The most usual region (listed from strange to usual; -1: several) that has the verdict, the worst ratio there."""
    region = int(found.region[found.verdict == verdict].max())
    return region, float(found.ratio[(found.verdict == verdict) & (found.region == region)].max())


def plainness(found: Judged, verdict: int) -> tuple[bool, int, bool, int, float]:
    """What makes a better example: not many rows or classes, a usual format, a usual region, a large error."""
    order = ("float32", *FORMATS)
    region, ratio = focus(found, verdict)
    return is_large(found.problem), order.index(found.problem.format), region < 0, -region, -ratio
