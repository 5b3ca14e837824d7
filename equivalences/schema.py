"""What a results file holds: the types of its JSON, its checksum, and the one way to read it.

Neither torch nor the catalogue is needed to read one.  docs/results.md explains the fields.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, field

SCHEMA = 3
SEVERITIES = ("last digits", "digits", "serious")  # from the least to the worst

Number = float | Literal["inf", "nan"]  # a number that is not finite is a string
Count = Annotated[int, Meta(ge=0)]
Kind = Literal["value", "gradient"]


class Worst(msgspec.Struct):
    """The largest error/allowance of a quantity, and what reached it."""

    form: str
    region: str
    problem: str | None
    ratio: Number = field(name="error/allowance")


class Cell(msgspec.Struct):
    """What was seen of one form's value or gradient in one region."""

    form: str
    quantity: Kind
    region: str
    numbers: Count
    informative: Count
    bounded: Count
    stable: Count = field(name="within contract")
    known: Count = field(name="known defect")
    ratio: Number = field(name="error/allowance")
    contract_ratio: Number = field(name="error/contract")


class Met(msgspec.Struct):
    """A known defect in one form: how many of its numbers, and how far off they are at most."""

    name: str
    form: str
    numbers: Count
    share: float
    ratio: Number = field(name="error/allowance")
    ulps: Number = field(name="error in ulp")


class Fingerprint(msgspec.Struct):
    """CRC-32 of all that one form computed."""

    form: str
    quantity: str
    crc32: str


class Failure(msgspec.Struct):
    """One judgement that failed: numbers outside, or an exception."""

    form: str
    layout: str
    device: str
    mode: str
    problem: str
    quantity: str = ""
    verdicts: Any = None
    raised: str = ""
    message: str = ""


class Tally(msgspec.Struct):
    """All that was seen of one identity in one format: a cell of the catalogue."""

    identity: str
    statement: str
    format: str
    complete: bool
    problems: Count
    numbers: Count
    worst: dict[Kind, Worst]
    cells: list[Cell]
    met: list[Met] = field(name="known defects")
    problems_crc32: str = field(name="problems crc32")
    fingerprints: list[Fingerprint]
    never_tested: list[str] = field(name="never tested")
    failures: list[Failure]


class Defect(msgspec.Struct):
    """A known defect that was met: how much it matters where it is worst, and what to do instead."""

    name: str
    severity: Literal["last digits", "digits", "serious"]
    off: str
    hurts: str
    instead: str


class Torch(msgspec.Struct):
    """The build of torch, as far as it is compared."""

    version: str
    capability: str = field(name="cpu capability")


class Device(msgspec.Struct):
    """Where it ran."""

    type: str
    name: str


class Environment(msgspec.Struct):
    """The machine and the software, as far as they are compared; the file says more."""

    torch: Torch
    device: Device


class Plan(msgspec.Struct):
    """What was asked for."""

    identities: list[str]
    formats: list[str]
    device: str
    mode: str
    examples: Count
    seed: Count


class Results(msgspec.Struct):
    """One run of `verify`."""

    schema: int
    complete: bool
    environment: Environment
    plan: Plan
    defects: list[Defect] = field(name="known defects")
    tallies: list[Tally]
    sha256: str


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content with a checksum of it: SHA-256 of its JSON with sorted keys and without blanks."""
    rest = {name: part for name, part in content.items() if name != "sha256"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return {**rest, "sha256": hashlib.sha256(text.encode()).hexdigest()}


def read(path: str | Path) -> Results:
    """The results in a file.  Raises ValueError, in one line, for a file that holds something else."""
    again = f"write it again with `verify --json {path}`"
    try:
        content = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path} is no JSON: {again}") from None
    if not isinstance(content, dict) or "schema" not in content or "tallies" not in content:
        raise ValueError(f"{path} holds no results of `verify --json`")
    if content["schema"] != SCHEMA:
        raise ValueError(f"{path} has the schema {content['schema']!r:.20} and not {SCHEMA}: {again}")
    if content.get("sha256") != sealed(content)["sha256"]:
        raise ValueError(f"{path} was changed or damaged since it was written (its checksum is another): {again}")
    try:
        results = msgspec.convert(content, Results)
        _check(results)
    except ValueError as error:
        raise ValueError(
            f"{path} holds no results that can be read ({' '.join(str(error).split())}): {again}"
        ) from None
    return results


def _check(results: Results) -> None:
    """What types do not say."""
    cells = [(t.identity, t.format) for t in results.tallies]
    if len(set(cells)) < len(cells):
        raise ValueError("two tallies of one identity in one format")
    described = {defect.name for defect in results.defects}
    if unknown := {met.name for t in results.tallies for met in t.met} - described:
        raise ValueError(f"known defect {min(unknown)} is not described")
