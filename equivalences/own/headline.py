"""The first line of a report: how grave the worst is, in words; how far off, where, and what it is otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from equivalences.own.accepted import Failure
from equivalences.own.severity import Beyond, Severity, place, said, times


@dataclass(frozen=True)
class Needed:
    """A formula of `like` whose contract was needed: by how many numbers, and how far these are beyond the reference's.

    `ratio` is error / the reference's contract where that is worst, `region` where it is; of `unbounded` numbers the
    formula itself has no bound; `special` special values are as the formula has them.
    """

    formula: str
    numbers: int
    ratio: float
    region: str
    unbounded: int = 0
    special: int = 0

    def beside(self, other: Needed) -> Needed:
        """The same formula, over two cases."""
        worst = self if self.ratio >= other.ratio else other
        return replace(
            worst,
            numbers=self.numbers + other.numbers,
            unbounded=self.unbounded + other.unbounded,
            special=self.special + other.special,
        )

    def said(self, total: int) -> str:
        """In a line."""
        parts = []
        if self.numbers:
            parts.append(
                f"{self.numbers:,} of {total:,} numbers (worst {times(self.ratio)} times, {place(self.region)})"
            )
        if self.unbounded:
            parts.append(f"of {self.unbounded:,} of them it has no bound")
        if self.special:
            parts.append(f"{self.special:,} special values are not finite, as with it")
        return f"the contract of {self.formula}: {'; '.join(parts)}"


@dataclass(frozen=True)
class Recognised:
    """A convention that explains every wrong number of one quantity of a case."""

    case: str
    quantity: str
    name: str


@dataclass(frozen=True)
class Found:
    """All that a first line may speak of.

    asked     special values.
    computes  what is said of code that computes in a narrower format ("": it does not).
    """

    of: str
    verdict: str
    severity: Severity
    numbers: int
    asked: int
    failures: Sequence[Failure]
    beyond: Sequence[Beyond]
    needed: Sequence[Needed]
    conventions: Sequence[Recognised]
    computes: str

    @property
    def worst(self) -> list[Beyond]:
        """The numbers that are as grave as the whole."""
        return [each for each in self.beyond if each.severity == self.severity]

    @property
    def others(self) -> str:
        """What else is as grave: kinds of incidents."""
        verdicts = {each.verdict for each in self.beyond}
        kinds = dict.fromkeys(each.kind for each in self.failures if each.severity == self.severity)
        return ", ".join(kind for kind in kinds if kind not in verdicts)


def line(found: Found) -> str:
    """The first line, without the names of the implementation and of what it is judged as."""
    if found.severity == Severity.RIGHT:
        return _right(found)
    text = _WORST[found.severity](found)
    lesser = sorted({f.severity for f in found.failures if f.severity < found.severity}, reverse=True)
    if lesser and found.numbers:
        text += f"; also {', '.join(each.word for each in lesser)}"
    elif found.severity in (Severity.CONVENTION, Severity.SPECIAL_VALUES):
        text += "; right otherwise"
    return f"{found.severity.word}: {text}"


def _right(found: Found) -> str:
    formulas = [each for each in found.needed if each.numbers or each.special]
    if not formulas:
        return found.verdict
    text = f"right, as {' and '.join(each.formula for each in formulas)} {'is' if len(formulas) == 1 else 'are'}"
    numbers = sum(each.numbers for each in formulas)
    if not numbers:
        return f"{text}: {sum(each.special for each in formulas):,} special values are as with it"
    worst = max(formulas, key=lambda each: each.ratio)
    return (
        f"{text}; beyond {found.of}'s own contract in {numbers:,} of {found.numbers:,} numbers "
        f"(worst {times(worst.ratio)} times, {place(worst.region)})"
    )


def _not_judged(found: Found) -> str:
    return f"{'in part' if found.numbers else 'nothing could be judged'}: {found.others}"


def _special(found: Found) -> str:
    count = len({each.special for each in found.failures if each.kind == "special value"})
    asked = f" of {found.asked:,}" if found.asked else ""
    return (
        f"{count:,} kinds{asked} are not as they should be" if count != 1 else f"one kind{asked} is not as it should be"
    )


def _convention(found: Found) -> str:
    names = [each.name for each in found.conventions]
    everywhere = {each.name for each in found.conventions if each.quantity == "value"}
    said_ = [f"{name}{'' if name in everywhere else ' in the gradient'}" for name in dict.fromkeys(names)]
    return ", ".join([*said_, *filter(None, (found.others,))])


def _numbers(found: Found) -> str:
    parts = [said(found.worst, found.numbers)] if found.worst else []
    if found.severity == Severity.LESS_ACCURATE and found.computes:
        return "; ".join((found.computes, *parts))
    return "; ".join((*parts, *filter(None, (found.others,))))


_WORST = {
    Severity.NOT_JUDGED: _not_judged,
    Severity.SPECIAL_VALUES: _special,
    Severity.CONVENTION: _convention,
    Severity.LESS_ACCURATE: _numbers,
    Severity.WRONG: _numbers,
}
