"""What `check` found, as data, as text and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from equivalences.judging.facts import WORDS, Verdict
from equivalences.own import accepted, headline
from equivalences.own.accepted import Failure
from equivalences.own.audit import plain_data
from equivalences.own.headline import Found, Needed, Recognised
from equivalences.own.severity import Beyond, Severity, times
from equivalences.report import plain

VERDICTS = tuple(WORDS.values())  # what is said of a number, from harmless to worst
FAILURES = VERDICTS[Verdict.UNSTABLE :]

MEANING = {
    "unstable": "beyond the contract, within what rounding can do to this formulation: it loses digits",
    "unbounded": "beyond the contract, and its own arithmetic has no bound here: it may overflow, or lose every digit",
    "outside": "beyond the contract; the implementation is opaque, so that no analysis of its own can excuse it",
    "wrong": "beyond the contract, and beyond what rounding can do to this formulation: it computes something else",
}


class CheckFailed(AssertionError):
    """What `Report.raise_if_failed` raises; the message is the report."""


@dataclass(frozen=True)
class Cell:
    """How many numbers of a case, format, quantity and region got which verdict, and the worst error/contract."""

    case: str
    format: str
    quantity: str
    region: str
    counts: Mapping[str, int]
    ratio: float

    @property
    def numbers(self) -> int:
        return sum(self.counts.values())


@dataclass(frozen=True)
class Example:
    """The smallest problem found for one verdict: what came out, what should have, what was allowed, and why not.

    Errors and allowances are in ULP of the format at the exact value; `own` is None for an opaque implementation.
    `program` leaves the result in `value` and `gradient_z`, of the problem in full: ``exec(program, {"fn": fn})``.
    `layouts` are those in which the quantity fails, `spared` those in which it never does, nor on this problem;
    `threads` with how many it fails, if with one it does not (0: it does).
    """

    verdict: str
    case: str
    format: str
    layout: str
    quantity: str
    index: tuple[int, ...]
    region: str
    problem: tuple[str, ...]
    got: float
    exact: float
    error: float
    contract: float
    own: float | None
    why: str
    layouts: tuple[str, ...]
    spared: tuple[str, ...]
    threads: int
    program: str = field(repr=False)
    severity: Severity = Severity.WRONG
    digits: float = 0.0


@dataclass(frozen=True)
class Incident:
    """Something other than a number: an exception, a wrong shape, no gradient ... and where it was met.

    `program` repeats the run of the problem: ``exec(program, {"fn": fn})``; `at` is the file and line that raised;
    `name` that of the special value.
    """

    kind: str
    sentence: str
    case: str
    formats: tuple[str, ...]
    layouts: tuple[str, ...]
    count: int
    problem: tuple[str, ...]
    program: str = field(repr=False)
    at: str = ""
    name: str = ""


@dataclass(frozen=True)
class Defect:
    """A known defect of PyTorch that explains numbers outside the contract: not the implementation's doing."""

    name: str
    numbers: int
    why: str
    link: str


@dataclass(frozen=True)
class Report:
    """The judgement of one implementation.  `opaque` says why its operations could not be followed ("": they were).

    `tried` holds the fewest and the most "rows" and "classes" of a problem.  `limits` is what it cannot do and its user
    need not ask for, which is no failure; `unasked` is how many runs were left out after a call that hung, or after the
    first failure if it was `stopped` there.  `beyond` are the numbers beyond the contract, by where and how grave;
    `needed` the formulas whose contract was needed, `conventions` those that are recognised, `mistakes` the likely
    ones.  `left_out` counts the problems outside of the declared limits, by reason.
    """

    name: str
    of: str
    statement: str
    declared: Mapping[str, Any]
    tried: Mapping[str, tuple[int, int]]
    opaque: str
    cells: tuple[Cell, ...]
    examples: tuple[Example, ...]
    incidents: tuple[Incident, ...]
    defects: tuple[Defect, ...]
    problems: int
    special_values: int
    seconds: float
    environment: Mapping[str, Any] = field(repr=False)
    limits: tuple[Incident, ...] = ()
    unasked: int = 0
    beyond: tuple[Beyond, ...] = ()
    needed: tuple[Needed, ...] = ()
    conventions: tuple[Recognised, ...] = ()
    mistakes: tuple[str, ...] = ()
    left_out: Mapping[str, int] = field(default_factory=dict)
    stopped: bool = False

    @property
    def numbers(self) -> int:
        return sum(cell.numbers for cell in self.cells)

    @property
    def _failures(self) -> tuple[Failure, ...]:
        numbers = sorted(self.beyond, key=lambda each: FAILURES.index(each.verdict))
        of_numbers = [Failure(b.verdict, b.severity, "", (b.layout,), (b.format,)) for b in numbers]
        incidents = [Failure(i.kind, KINDS[i.kind].severity, i.name, i.layouts, i.formats) for i in self.incidents]
        return (*of_numbers, *incidents)

    def failures(self, accept: Collection[str] = ()) -> tuple[str, ...]:
        """The kinds of failure met: verdicts from "unstable" on and the kinds of incidents, but those accepted."""
        return tuple(dict.fromkeys(each.kind for each in accepted.left(self._failures, accept)))

    @property
    def ok(self) -> bool:
        return not self.failures()

    @property
    def severity(self) -> Severity:
        """How grave the worst of what was found is."""
        if not self.numbers and self.incidents:
            return Severity.NOT_JUDGED
        return max((each.severity for each in self._failures), default=Severity.RIGHT)

    @property
    def headline(self) -> str:
        """How grave it is, in words: how far off, where, by which convention, or by whose contract it is right."""
        narrow = next((i.sentence for i in self.incidents if i.kind == "narrower format"), "")
        return headline.line(
            Found(
                self.of, self.verdict, self.severity, self.numbers, self.special_values, self._failures, self.beyond,
                self.needed, self.conventions, narrow,
            )
        )  # fmt: skip

    @property
    def verdict(self) -> str:
        """The judgement in one line."""
        found = self.failures()
        if not found:
            return "right: every number is within the contract" + (
                " or a known defect of PyTorch" if self.defects else ""
            )
        if found == ("unstable",):
            return "unstable: within its own arithmetic, beyond the contract"
        if not self.numbers:
            return f"nothing could be judged: {', '.join(found)}"
        total = {name: sum(cell.counts.get(name, 0) for cell in self.cells) for name in reversed(VERDICTS)}
        counted = ", ".join(f"{name} {count:,}" for name, count in total.items() if name in found)
        said = [f"{counted} of {self.numbers:,} numbers"] if counted else []
        return f"not right: {'; '.join((*said, *(kind for kind in found if kind in KINDS)))}"

    def raise_if_failed(self, accept: Collection[str] | Mapping[str, str] = ()) -> None:
        """Raises CheckFailed, with the whole report, unless all is right or `accept` names what is not.

        `accept` is a set of kinds of failure or of severities ("unstable", "less accurate"); or a mapping of these, or
        of one special value, layout or format ("layout: strided"), to a reason.  What a mapping accepts must fail: what
        passes is raised too.
        """
        accepted.known(accept, (*FAILURES, *KINDS))
        if found := self.failures(accept):
            raise CheckFailed(f"{self.name} is not accepted as {self.of}: {', '.join(found)}\n\n{self}")
        if passed := accepted.unneeded(self._failures, accept):
            raise CheckFailed(
                f"{self.name} as {self.of}: expected failures that pass: {', '.join(passed)}.  "
                f"Accept them no longer\n\n{self}"
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain data; numbers that are not finite become the strings "inf" and "nan"."""
        said = {"verdict": self.verdict, "headline": self.headline, "severity": self.severity, "ok": self.ok}
        made = plain_data(_worded({**asdict(self), **said, "numbers": self.numbers}))
        assert isinstance(made, dict)
        return made

    def to_json(self) -> str:
        """`as_dict` as strict JSON."""
        return json.dumps(self.as_dict(), indent=1, allow_nan=False)

    def __str__(self) -> str:
        lines = [f"{self.name} as {self.of}: {self.headline}"]
        lines += [] if self.ok else [f"  verdict   {self.verdict}"]
        lines += [f"  likely    {each}" for each in self.mistakes]
        lines += _declared(self)
        lines += ["", _table(self.cells)] if self.cells else []
        for example in self.examples:
            lines += ["", *_example(example)]
        for incident in self.incidents:
            lines += ["", *_incident(incident)]
        for limit in self.limits:
            lines += ["", *_incident(limit, "limit, which is no failure: ")]
        for defect in self.defects:
            lines += ["", f"known defect of PyTorch, {defect.name} ({defect.numbers:,} numbers): {defect.why}"]
            lines += [f"  {defect.link}"] if defect.link else []
        tried = f"{self.numbers:,} numbers of {self.problems:,} problems"
        tried += f", and {self.special_values:,} special values," if self.special_values else ""
        lines += ["", f"{tried} in {self.seconds:.0f} s"]
        if self.unasked:
            after = "the first failure" if self.stopped else "a call that hung"
            lines += [f"not asked: {self.unasked:,} more, after {after}"]
        return "\n".join(lines)


@dataclass(frozen=True)
class Kind:
    """A kind of incident: how grave it is, and what to declare where it is meant ("": nothing)."""

    severity: Severity
    declare: str = ""


KINDS = {
    "raised": Kind(Severity.NOT_JUDGED),
    "exited": Kind(Severity.WRONG),
    "hung": Kind(Severity.NOT_JUDGED, "a longer limit with seconds="),
    "state": Kind(Severity.WRONG),
    "result": Kind(Severity.NOT_JUDGED),
    "shape": Kind(Severity.NOT_JUDGED),
    "dtype": Kind(Severity.CONVENTION, "it with result_format="),
    "no gradient": Kind(Severity.NOT_JUDGED, "gradient=False"),
    "in place": Kind(Severity.WRONG, "limits=Limits(in_place=True), if only the logits are"),
    "second backward": Kind(Severity.WRONG, "limits=Limits(one_backward=True)"),
    "autograd.grad": Kind(Severity.WRONG),
    "not deterministic": Kind(Severity.WRONG, "deterministic=False"),
    "no_grad": Kind(Severity.WRONG),
    "special value": Kind(Severity.SPECIAL_VALUES),
    "narrower format": Kind(Severity.LESS_ACCURATE),
}


def _worded(x: Any) -> Any:
    """Nested data with severities in words."""
    if isinstance(x, Severity):
        return x.word
    if isinstance(x, Mapping):
        return {key: _worded(item) for key, item in x.items()}
    return [_worded(item) for item in x] if isinstance(x, (list, tuple)) else x


def _declared(report: Report) -> list[str]:
    said = ", ".join(f"{name}={value!r}" for name, value in report.declared.items())
    how = (
        f"opaque ({report.opaque}): judged against the contract alone" if report.opaque else "followed, each operation"
    )
    tried = ", ".join(f"{what} {f'{low}-{high}' if low < high else low}" for what, (low, high) in report.tried.items())
    left = ", ".join(f"{why} {count:,}" for why, count in report.left_out.items())
    return [
        f"  declared  {said}",
        *([f"  left out  problems outside of these limits: {left}"] if left else []),
        *(f"  needed    {each.said(report.numbers)}" for each in report.needed),
        f"  tried     {tried}",
        f"  insides   {how}",
    ]


def _table(cells: Iterable[Cell]) -> str:
    cells = list(cells)
    regions = list(dict.fromkeys(cell.region for cell in cells))
    rows: dict[tuple[str, str, str], dict[str, str]] = {}
    for cell in cells:
        rows.setdefault((cell.case, cell.format, cell.quantity), {})[cell.region] = _said(cell)
    lines = [(case, fmt, what, *(row.get(each, "") for each in regions)) for (case, fmt, what), row in rows.items()]
    return plain.table(("case", "format", "quantity", *regions), lines, left=3)


def _said(cell: Cell) -> str:
    worst = max((name for name in VERDICTS if cell.counts.get(name)), key=VERDICTS.index)
    if worst in ("right", "free"):
        return "right" if cell.counts.get("right") else "no bound"
    share = 100 * cell.counts[worst] / cell.numbers
    shown = "<1" if share < 1 else f"{share:.0f}"
    return f"{worst.upper() if worst == 'wrong' else 'known' if worst == 'known defect' else worst} {shown} %"


def _ulps(x: float | None) -> str:
    return "none" if x is None else f"{x:.3g}"


def _head(e: Example) -> str:
    """What was met, in a line: its verdict, and how grave it is where the verdict alone does not say it."""
    if e.severity == Severity.LESS_ACCURATE and e.verdict != "unstable":
        ratio = e.error / e.contract if e.contract else math.inf
        return (
            f"{e.verdict}, less accurate: {times(ratio)} times the contract, {e.digits:.1f} digits left; "
            "fewer than half of the format's digits are lost"
        )
    return f"{e.verdict}: {MEANING[e.verdict]}"


def _example(e: Example) -> list[str]:
    at = f"{e.quantity} {list(e.index)}" if e.index else e.quantity
    own = "" if e.own is None else f", its own arithmetic {_ulps(e.own)}"
    return [
        _head(e),
        f"  where     {e.case}, {e.format}, layout {e.layout}, region {e.region}",
        *(f"  {'problem' if not index else '':9} {line}" for index, line in enumerate(e.problem)),
        f"  {at} = {e.got:.9g}, exact {e.exact:.9g}: off by {_ulps(e.error)} ULP; the contract allows "
        f"{_ulps(e.contract)}{own}",
        f"  why       {e.why}",
        *([f"  layouts   fails in {', '.join(e.layouts)}; right in {', '.join(e.spared)}"] if e.spared else []),
        *([f"  threads   fails with {e.threads}; right with 1"] if e.threads else []),
    ]


def _incident(i: Incident, head: str = "") -> list[str]:
    declare = KINDS[i.kind].declare
    hint = f" (where that is meant, declare {declare})" if declare else ""
    often = "once" if i.count == 1 else f"{i.count} times"
    return [
        f"{head}{i.kind}: {i.sentence}{hint}",
        *([f"  at        {i.at}"] if i.at else []),
        f"  where     {i.case}, {', '.join(i.formats)}, layouts {', '.join(i.layouts)}; {often}",
        *(f"  {'problem' if not index else '':9} {line}" for index, line in enumerate(i.problem)),
    ]
