"""The words for what PyTorch gets wrong: known defects, unstable forms, special values.  Plain data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from equivalences.model import EVERY_FORMAT, Problem, Raises


class Severity(IntEnum):
    """How much a known defect matters where it is worst; the larger, the worse."""

    LAST_DIGITS = 1  # a few units in the last place
    DIGITS = 2  # more than half of the format's digits are lost somewhere
    SERIOUS = 3  # results that hurt a training or a decision


@dataclass(frozen=True, eq=False)
class KnownDefect:
    """PyTorch breaks a rule: which operation, where, and what it really does instead.

    `as_is` replaces the operation's rule by what the kernel is known to do, so that the gate stays sharp
    beside the defect: an error beyond even that is a failure.  `witness` must be outside the rule and inside
    `as_is` on every torch version listed in `seen`; where it no longer is, the entry is to be deleted.  `fixed` is the
    first release without the defect, from which on the entry excuses nothing ("": none so far).  `module` is the module
    of torch that calls the operation, where the operation itself is right ("torch.distributions"; "": any caller).
    For those who meet it: its `severity`, how far `off` a number was measured, whom it `hurts`, what to do `instead`.
    """

    name: str
    operation: str
    formats: tuple[str, ...]
    as_is: Callable[..., Any]
    identity: str
    form: str
    layout: str
    witness: Problem
    why: str
    severity: Severity
    off: str
    hurts: str
    instead: str
    link: str
    devices: tuple[str, ...] = ("cpu",)
    modes: tuple[str, ...] = ("eager", "compiled")
    seen: tuple[str, ...] = ()
    fixed: str = ""
    module: str = ""


@dataclass(frozen=True, eq=False)
class Witness:
    """A problem that loses a form its digits: one number that it gives, and the exact one, both to three digits."""

    problem: Problem
    got: float
    exact: float


@dataclass(frozen=True, eq=False)
class Unstable:
    """A form of PyTorch's that is faithful and unstable: within what its own arithmetic allows, beyond the contract.

    No failure of the gate, and no known defect: the kernel does what it documents, and loses the digits of what is
    small.  At every witness (on the CPU, eager) that is so for the number `at` of `quantity` ("value", "gradient z"),
    while the reference has it to half of the format's digits at least; an entry of which that no longer holds is to be
    deleted, or `fixed` to be the first release in which it does not.

    who      is hurt by it.
    instead  what to compute instead.
    """

    name: str
    identity: str
    form: str
    quantity: str
    at: tuple[int, ...]
    witnesses: tuple[Witness, ...]
    why: str
    who: str
    instead: str
    link: str
    fixed: str = ""

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(witness.problem.format for witness in self.witnesses))


@dataclass(frozen=True, eq=False)
class Gives:
    """The outcome of an operation on special values that PyTorch accepts: exactly these numbers (-0 equals 0).

    value     a number or a nested list; every finite number is exact in every format of the entry.
    gradient  of the value, with respect to the entry's first item, under the upstream gradient ``g`` (1 without
              one); None: it is not defined, or not asked for.
    dtype     of the value: that of the first item unless named.
    """

    value: Any
    gradient: Any = None
    dtype: str = ""


@dataclass(frozen=True, eq=False)
class Deviation:
    """What PyTorch does instead of what is right, in some formats, modes and releases.

    `seen` are the releases in which it was seen; in those that do not have it any more the entry is to be deleted.
    """

    outcome: Gives | Raises
    link: str
    why: str = ""
    formats: tuple[str, ...] = EVERY_FORMAT
    modes: tuple[str, ...] = ("eager", "compiled")
    seen: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class SpecialValue:
    """An operation at inf, nan, nothing or nonsense, and what is right there: by its limit, else by its documentation.

    operation  the table's heading: entries of one operation stand together.
    name       what is special, in a few words: unique for the operation.
    call       an expression as in `Form`, over the names of `items`.
    items      as in `Problem`: lists of real numbers are taken in the format, of integers as they are.
    deviations what PyTorch does instead (at most one applies to a format, mode and release).
    rows       what is special of each row of the first item, where there are many ((): the name says it).
    """

    operation: str
    name: str
    call: str
    items: Mapping[str, Any]
    outcome: Gives | Raises
    why: str
    source: str = ""
    deviations: tuple[Deviation, ...] = ()
    formats: tuple[str, ...] = EVERY_FORMAT
    needs: str = ""
    rows: tuple[str, ...] = ()
