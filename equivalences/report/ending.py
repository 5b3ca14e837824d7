"""How `verify` ends, in three sentences: passed or not, what was met, what next."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.model import KnownDefect
from equivalences.judging.tally import Tally


def _met(tallies: Sequence[Tally]) -> list[tuple[KnownDefect, int]]:
    """The known defects that were met, the severest first, each with how many numbers it hurt."""
    counts: Counter[str] = Counter()
    for t in tallies:
        counts.update(t.defects)
    met = [(defect, counts[defect.name]) for defect in KNOWN_DEFECTS if defect.name in counts]
    return sorted(met, key=lambda each: -each[0].severity)


def severity(defect: KnownDefect) -> str:
    """How much the defect matters, in words."""
    return defect.severity.name.lower().replace("_", " ")


def _many(count: int, one: str, several: str = "") -> str:
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def sentences(
    tallies: Sequence[Tally],
    cells: tuple[int, int],
    seconds: float,
    vacuous: Sequence[Tally],
    interrupted: bool,
) -> Iterator[str]:
    """Three sentences; `cells` are how many are complete, and how many there were to judge."""
    failing = [t for t in tallies if t.failures]
    numbers, runs = sum(t.numbers for t in tallies), sum(t.problems for t in tallies)
    verdict = "Failed" if failing or vacuous else "Interrupted" if interrupted else "Passed"
    yield (
        f"{verdict}: {_many(numbers, 'number')} of {_many(runs, 'problem')} judged in {seconds:.0f} s: "
        f"{_many(len({t.identity.name for t in tallies}), 'identity', 'identities')}, "
        f"{cells[0]} of {cells[1]} cells complete; {len(failing)} with failures, {len(vacuous)} not fully tested."
    )
    met = _met(tallies)
    if met:
        worst = [defect for defect, _ in met if defect.severity == met[0][0].severity]
        names = ", ".join(defect.name for defect in worst)
        yield f"{_many(len(met), 'known bug')} of PyTorch met; the severest ({severity(worst[0])}): {names}."
    else:
        yield "No known bug of PyTorch was met."
    yield f"Next: {_next(failing, vacuous, met, interrupted)}."


def _next(failing: Sequence[Tally], vacuous: Sequence[Tally], met: Sequence[object], interrupted: bool) -> str:
    if failing:
        name = failing[0].identity.name
        return f"each report above ends in a program that repeats it; `equivalences show {name}` says what should hold"
    if interrupted:
        return "run the same command again; with `--resume FILE` it keeps what is finished"
    if vacuous:
        return "more problems may reach what was never tested: `--examples 100`"
    if met:
        return "`equivalences show NAME` says what a bug does, who is hurt and what to do instead"
    return "`--json FILE` keeps the result, and `equivalences compare` says what another PyTorch changes"
