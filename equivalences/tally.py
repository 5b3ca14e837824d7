"""What many judgements of one identity in one format add up to: counts by form and region, the worst, the failures."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

from equivalences import execute
from equivalences.formats import FORMATS, ulp
from equivalences.judge import INSIDE, KNOWN, Crash, Judgement, Measurement
from equivalences.model import Array, Identity, Problem


@dataclass
class Worst:
    """The largest error/allowance seen, and what reached it."""

    ratio: float = 0.0
    form: str = ""
    region: str = ""
    problem: Problem | None = None


_LARGEST = np.finfo(np.float64).max


def _counted(ratio: Array) -> Array:
    """Ratios as they are added up, in one dimension: nan is none, and the largest number is large enough."""
    return np.minimum(np.fmax(ratio, 0.0), _LARGEST).ravel()


COUNTS = ("judged", "informative", "bounded", "stable", "known")  # the first fields of a cell: what adds up


@dataclass
class Cell:
    """What was seen of one form in one format and region: numbers judged, informative, bounded, within contract."""

    judged: int = 0
    informative: int = 0
    bounded: int = 0
    stable: int = 0
    known: int = 0
    ratio: float = 0.0
    contract_ratio: float = 0.0

    def add(self, other: Cell) -> None:
        """Takes in what was seen elsewhere."""
        for name in COUNTS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.ratio = max(self.ratio, other.ratio)
        self.contract_ratio = max(self.contract_ratio, other.contract_ratio)


@dataclass
class Met:
    """What was seen of one known defect in one form: the numbers that it explains, and how far off they are at most.

    `ratio` is error/allowance, of the allowance that the form would have without the defect; `ulps` is the error in
    units in the last place (both inf where no number came out, or nothing is allowed).
    """

    numbers: int = 0
    ratio: float = 0.0
    ulps: float = 0.0

    def add(self, other: Met) -> None:
        """Takes in what was seen elsewhere."""
        self.numbers += other.numbers
        self.ratio, self.ulps = max(self.ratio, other.ratio), max(self.ulps, other.ulps)


def _met(m: Measurement) -> Met:
    """What a measurement says of the known defects that it has met."""
    known = m.verdict == KNOWN
    error, own, exact = m.error[known], m.own[known], m.exact[known]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        far = np.stack([error / own, error / ulp(exact, FORMATS[m.problem.format])])
    ratio, ulps = np.where(np.isnan(far), np.inf, far).max(axis=1, initial=0.0).tolist()
    return Met(int(known.sum()), ratio, ulps)


@dataclass
class Tally:
    """The sum of many judgements of one identity in one format."""

    identity: Identity
    format: str
    problems: int = 0
    numbers: int = 0
    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)  # (form label, quantity kind, region)
    worst: dict[str, Worst] = field(default_factory=lambda: {"value": Worst(), "gradient": Worst()})
    met: dict[tuple[str, str], Met] = field(default_factory=dict)  # (form label, known defect)
    sizes: dict[str, int] = field(default_factory=dict)  # form label -> numbers judged
    failures: list[Judgement] = field(default_factory=list)
    seen: int = 0  # CRC-32 of the problems, in their order
    fingerprints: dict[tuple[str, str], int] = field(default_factory=dict)  # (form label, quantity) -> CRC-32 of `got`

    @property
    def defects(self) -> dict[str, int]:
        """Known defects that were met, each with the numbers that it explains."""
        found: dict[str, int] = {}
        for (_, name), met in self.met.items():
            found[name] = found.get(name, 0) + met.numbers
        return found

    def add(self, judgement: Judgement) -> None:
        """Takes in one judgement; failures are kept (the first few of a form), everything else is counted."""
        if judgement.failed:
            self._keep(judgement)
        if isinstance(judgement, Crash):
            return
        m = judgement
        kind = m.quantity.partition(" ")[0]
        ratio = _counted(np.where(m.verdict == INSIDE, m.ratio, 0.0))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            contract = _counted(np.where(np.isfinite(m.contract), m.error / m.contract, 0.0))
        stable = (m.error <= m.contract) | np.isinf(m.contract)
        flags = np.ones((len(COUNTS), m.got.size), dtype=bool)  # judged: all of them
        for row, each in zip(flags[1:], (m.informative, np.isfinite(m.own), stable, m.verdict == KNOWN), strict=True):
            row[:] = each.ravel()
        self.numbers += m.got.size
        self.sizes[m.form.label] = self.sizes.get(m.form.label, 0) + m.got.size
        got = np.where(np.isnan(m.got), np.nan, m.got).tobytes()  # one nan is as good as another
        self.fingerprints[m.form.label, m.quantity] = zlib.crc32(
            got, self.fingerprints.get((m.form.label, m.quantity), 0)
        )
        for defect in m.defects:
            self.met.setdefault((m.form.label, defect), Met()).add(_met(m))
        bits, present = m.region.ravel(), int(np.bitwise_or.reduce(m.region, axis=None))
        for index, region in enumerate(m.identity.domain.regions):
            if not present >> index & 1:
                continue
            here = (bits & 1 << index).astype(bool)
            top, of_contract = (float(np.maximum.reduce(x, where=here, initial=0.0)) for x in (ratio, contract))
            judged, informative, bounded, within, known = np.count_nonzero(flags & here, axis=1).tolist()
            seen = Cell(judged, informative, bounded, within, known, top, of_contract)
            self.cells.setdefault((m.form.label, kind, region), Cell()).add(seen)
            self._reach(kind, Worst(top, m.form.label, region, m.problem))

    def _keep(self, failure: Judgement) -> None:
        if sum(kept.form is failure.form for kept in self.failures) < 3:
            self.failures.append(failure)

    def _reach(self, kind: str, worst: Worst) -> None:
        if worst.ratio > self.worst[kind].ratio:
            self.worst[kind] = worst

    def merge(self, other: Tally) -> None:
        """Takes in another tally of the same cell, of problems that come after its own."""
        self.problems += other.problems
        self.numbers += other.numbers
        self.seen = zlib.crc32(other.seen.to_bytes(4, "big"), self.seen)
        for of, fingerprint in other.fingerprints.items():
            self.fingerprints[of] = zlib.crc32(fingerprint.to_bytes(4, "big"), self.fingerprints.get(of, 0))
        for key, cell in other.cells.items():
            self.cells.setdefault(key, Cell()).add(cell)
        for kind, worst in other.worst.items():
            self._reach(kind, worst)
        for of_form, met in other.met.items():
            self.met.setdefault(of_form, Met()).add(met)
        for label, size in other.sizes.items():
            self.sizes[label] = self.sizes.get(label, 0) + size
        for failure in other.failures:
            self._keep(failure)

    def vacuous(self) -> list[str]:
        """What was declared and never tested: form and region without one informative number.

        Not of a form that raised: it fails as it is, and that says why.
        """
        missing = []
        raised = {failure.form.label for failure in self.failures if isinstance(failure, Crash)}
        for form in self.identity.forms:
            if not execute.exists(form) or self.format not in (form.formats or self.identity.formats):
                continue
            if form.label in raised:
                continue
            for region in form.regions or self.identity.regions or self.identity.domain.regions:
                for kind in ("value", "gradient") if self.identity.wrt else ("value",):
                    cell = self.cells.get((form.label, kind, region))
                    if cell is None or not cell.informative:
                        missing.append(f"{form.label}: {kind}, region {region}")
        return missing
