"""What many judgements of one identity in one format add up to: counts by form and region, the worst, the failures."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from equivalences.formats import FORMATS, ulp
from equivalences.judging.facts import EXCUSED, INSIDE, UNBOUNDED, Fact, pairs
from equivalences.judging.judge import Crash, Judgement, Measurement
from equivalences.model import Array, Identity, Problem
from equivalences.running.forms import exists

MIXED = "mixed"  # the region of a number that mixes several


@dataclass
class Worst:
    """The largest error/bound seen, and what reached it."""

    ratio: float = 0.0
    form: str = ""
    region: str = ""
    problem: Problem | None = None


_LARGEST = np.finfo(np.float64).max


def _counted(ratio: Array) -> Array:
    """Ratios as they are added up, in one dimension: nan is none, and the largest number is large enough."""
    return np.minimum(np.fmax(ratio, 0.0), _LARGEST).ravel()


def _nothing() -> Array:
    return np.zeros((len(Fact), len(Fact)), dtype=np.int64)


@dataclass
class Cell:
    """What was seen of one form, quantity and region: how many numbers have which two facts, and the worst ratios.

    `facts` are counts by contract and own; `informative` counts the numbers whose own bound says something.
    """

    facts: Array = field(default_factory=_nothing)
    informative: int = 0
    ratio: float = 0.0
    contract_ratio: float = 0.0

    @property
    def judged(self) -> int:
        """All numbers."""
        return int(self.facts.sum())

    @property
    def bounded(self) -> int:
        """Numbers whose own bound is finite."""
        return self.judged - int(self.facts[:, UNBOUNDED].sum())

    @property
    def stable(self) -> int:
        """Numbers within the contract, or where it has no bound."""
        return int(self.facts[[INSIDE, UNBOUNDED]].sum())

    @property
    def known(self) -> int:
        """Numbers that a known defect excuses."""
        return int(self.facts[:, EXCUSED].sum())

    def add(self, other: Cell) -> None:
        """Takes in what was seen elsewhere."""
        self.facts = self.facts + other.facts
        self.informative += other.informative
        self.ratio = max(self.ratio, other.ratio)
        self.contract_ratio = max(self.contract_ratio, other.contract_ratio)


@dataclass
class Met:
    """What was seen of one known defect in one form: the numbers that it explains, and how far off they are at most.

    `ratio` is error/bound, of the bound that the form would have without the defect; `ulps` is the error in units in
    the last place (both inf where no number came out, or nothing is allowed).
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
    known = m.own.fact == EXCUSED
    error, own, exact = m.error[known], m.own.bound[known], m.exact[known]
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        far = np.stack([error / own, error / ulp(exact, FORMATS[m.problem.format])])
    ratio, ulps = np.where(np.isnan(far), np.inf, far).max(axis=1, initial=0.0).tolist()
    return Met(int(known.sum()), ratio, ulps)


Regions = Callable[[Measurement], Iterator[tuple[str, Array]]]


def every_region(m: Measurement) -> Iterator[tuple[str, Array]]:
    """Each region with its numbers: one that mixes several belongs to all of them."""
    bits, present = m.region.ravel(), int(np.bitwise_or.reduce(m.region, axis=None))
    for index, region in enumerate(m.identity.domain.regions):
        if present >> index & 1:
            yield region, (bits & 1 << index).astype(bool)


def one_region(m: Measurement) -> Iterator[tuple[str, Array]]:
    """Each region with the numbers that belong to it alone, and `MIXED` with the others."""
    bits = m.region.ravel()
    for found in np.unique(bits):
        alone = found & (found - 1) == 0
        name = m.identity.domain.regions[int(found).bit_length() - 1] if alone else MIXED
        yield name, bits == found


@dataclass
class Tally:
    """The sum of many judgements of one identity in one format.

    cells         by form label, quantity ("value", "gradient z") and region.
    worst         by kind of quantity ("value", "gradient").
    met           by form label and known defect.
    sizes         form label -> numbers judged.
    seen          CRC-32 of the problems, in their order.
    fingerprints  by form label and quantity: CRC-32 of all numbers that came out.
    """

    identity: Identity
    format: str
    problems: int = 0
    numbers: int = 0
    cells: dict[tuple[str, str, str], Cell] = field(default_factory=dict)
    worst: dict[str, Worst] = field(default_factory=lambda: {"value": Worst(), "gradient": Worst()})
    met: dict[tuple[str, str], Met] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    failures: list[Judgement] = field(default_factory=list)
    seen: int = 0
    fingerprints: dict[tuple[str, str], int] = field(default_factory=dict)

    @property
    def defects(self) -> dict[str, int]:
        """Known defects that were met, each with the numbers that it explains."""
        found: dict[str, int] = {}
        for (_, name), met in self.met.items():
            found[name] = found.get(name, 0) + met.numbers
        return found

    def add(self, judgement: Judgement) -> None:
        """Takes in one judgement of the gate; failures are kept (the first few of a form), all else is counted."""
        if judgement.failed:
            self._keep(judgement)
        if isinstance(judgement, Measurement):
            self.count(judgement)

    def count(self, m: Measurement, regions: Regions = every_region) -> None:
        """Counts what is known of the numbers of one measurement."""
        label, kind = m.form.label, m.quantity.partition(" ")[0]
        self.numbers += m.got.size
        self.sizes[label] = self.sizes.get(label, 0) + m.got.size
        got = np.where(np.isnan(m.got), np.nan, m.got).tobytes()  # one nan is as good as another
        self.fingerprints[label, m.quantity] = zlib.crc32(got, self.fingerprints.get((label, m.quantity), 0))
        for defect in m.defects:
            self.met.setdefault((label, defect), Met()).add(_met(m))
        ratio = _counted(np.where(m.own.fact == INSIDE, m.ratio, 0.0))
        of_contract = _counted(m.contract_ratio)
        own, contract, informative = m.own.fact.ravel(), m.contract.fact.ravel(), m.informative.ravel()
        for region, here in regions(m):
            top, beyond = (float(np.maximum.reduce(x, where=here, initial=0.0)) for x in (ratio, of_contract))
            cell = Cell(pairs(contract, own, here), int(np.count_nonzero(informative & here)), top, beyond)
            self.cells.setdefault((label, m.quantity, region), Cell()).add(cell)
            self._reach(kind, Worst(top, label, region, m.problem))

    def _keep(self, failure: Judgement) -> None:
        if sum(kept.form is failure.form for kept in self.failures) < 3:
            self.failures.append(failure)

    def _reach(self, kind: str, worst: Worst) -> None:
        if worst.ratio > self.worst[kind].ratio:
            self.worst[kind] = worst

    def by_kind(self) -> dict[tuple[str, str, str], Cell]:
        """The cells by form label, kind of quantity and region: gradients by several items are one kind."""
        found: dict[tuple[str, str, str], Cell] = {}
        for (form, quantity, region), cell in self.cells.items():
            found.setdefault((form, quantity.partition(" ")[0], region), Cell()).add(cell)
        return found

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
        for at, met in other.met.items():
            self.met.setdefault(at, Met()).add(met)
        for label, size in other.sizes.items():
            self.sizes[label] = self.sizes.get(label, 0) + size
        for failure in other.failures:
            self._keep(failure)

    def vacuous(self) -> list[str]:
        """What was declared and never tested: form and region without one informative number.

        Not of a form that raised: it fails as it is, and that says why.
        """
        missing, cells = [], self.by_kind()
        raised = {failure.form.label for failure in self.failures if isinstance(failure, Crash)}
        for form in self.identity.forms:
            if not exists(form) or self.format not in (form.formats or self.identity.formats):
                continue
            if form.label in raised:
                continue
            for region in form.regions or self.identity.regions or self.identity.domain.regions:
                for kind in ("value", "gradient") if self.identity.wrt else ("value",):
                    cell = cells.get((form.label, kind, region))
                    if cell is None or not cell.informative:
                        missing.append(f"{form.label}: {kind}, region {region}")
        return missing
