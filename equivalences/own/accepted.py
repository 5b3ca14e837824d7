"""What a person accepts of a report: kinds of failure, and one special value, layout or format with a reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from equivalences.own.severity import SEVERITIES, Severity

ALONE = ("special value", "layout", "format")  # of which one may be accepted alone: "layout: strided"


@dataclass(frozen=True)
class Failure:
    """One failure by all the words that it may be accepted by: what it is, how grave, and where."""

    kind: str
    severity: Severity
    special: str = ""
    layouts: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()

    def words(self) -> set[str]:
        """What it may be accepted by."""
        special = {f"special value: {self.special}"} if self.special else set()
        return {self.kind, self.severity.word, *special}

    def accepted(self, accept: Collection[str]) -> bool:
        """Whether any of its words, or each of its layouts or of its formats, is among the accepted ones."""
        if self.words() & set(accept):
            return True
        for what, names in (("layout", self.layouts), ("format", self.formats)):
            if names and all(f"{what}: {name}" in accept for name in names):
                return True
        return False

    def needs(self, word: str) -> bool:
        """Whether that word, accepted, has to do with this failure."""
        where = {f"layout: {name}" for name in self.layouts} | {f"format: {name}" for name in self.formats}
        return word in self.words() | where


def known(accept: Collection[str] | Mapping[str, str], kinds: Collection[str]) -> None:
    """Raises ValueError for what is no set of kinds of failure, or no mapping of what is accepted to its reason."""
    words = (*kinds, *(word for word in SEVERITIES if word != Severity.RIGHT.word))
    strange = isinstance(accept, str)
    for each in () if strange else accept:
        head, colon, name = str(each).partition(": ")
        strange |= each not in words and not (colon and name and head in ALONE)
    if strange:
        raise ValueError(
            f"accept takes a set of kinds of failure, or a mapping of kinds to reasons, some of {', '.join(words)}, "
            f"'special value: NAME', 'layout: NAME', 'format: NAME'; got {accept!r}"
        )
    if isinstance(accept, Mapping) and (bare := [key for key, reason in accept.items() if not str(reason).strip()]):
        raise ValueError(f"accept[{bare[0]!r}] has no reason")


def left(failures: Iterable[Failure], accept: Collection[str]) -> tuple[Failure, ...]:
    """The failures that are not accepted."""
    return tuple(each for each in failures if not each.accepted(accept))


def unneeded(failures: Collection[Failure], accept: Collection[str] | Mapping[str, str]) -> tuple[str, ...]:
    """What a mapping accepts and no failure has any more: an expected failure that passes."""
    if not isinstance(accept, Mapping):
        return ()
    return tuple(word for word in accept if not any(each.needs(word) for each in failures))
