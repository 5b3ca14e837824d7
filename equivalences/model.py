"""The words of the suite, as frozen data without behaviour.  Imports nothing of ours.

A *problem* is plain numbers.  A *form* computes something from them with PyTorch.  An *identity* says, exactly,
what every one of its forms must compute.  Everything else in the library runs these, judges them or lists them.
"""

from __future__ import annotations

import ast
import inspect
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
MODES = ("eager", "compiled")
EVERY_FORMAT = ("float64", "float32", "bfloat16", "float16")  # what holds in all of them, unless it says otherwise


@dataclass(frozen=True, eq=False)
class Problem:
    """One concrete input, as plain numbers that `format` represents exactly.

    `items` maps a name to a float64 array (real data), an int64 or bool array (labels, masks), or a plain Python
    scalar or string (an option such as ``reduction``).  Arrays are made read-only.  Equal numbers give equal
    problems; a problem prints as runnable code.  `role` says what an edge problem is there for ("": it is none).
    """

    format: str
    items: Mapping[str, Any]
    role: str = ""

    def __post_init__(self) -> None:
        frozen = {}
        for name, item in self.items.items():
            if isinstance(item, np.ndarray):
                # A copy, since whoever drew it may go on writing to theirs; row by row, as torch.tensor then is too.
                item = np.array(item, order="C")
                item.setflags(write=False)
            frozen[name] = item
        object.__setattr__(self, "items", MappingProxyType(frozen))

    def __getitem__(self, name: str) -> Any:
        return self.items[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.items)

    def _key(self) -> tuple[Any, ...]:
        return self.format, *(
            (name, item.tobytes(), item.shape, item.dtype.str) if isinstance(item, np.ndarray) else (name, item)
            for name, item in self.items.items()
        )

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Problem) and self._key() == other._key())

    def __hash__(self) -> int:
        return self.digest

    @cached_property
    def digest(self) -> int:
        """CRC-32 of the numbers: the same in every process."""
        crc = 0
        for part in self._key():
            for piece in part if isinstance(part, tuple) else (part,):
                crc = zlib.crc32(piece if isinstance(piece, bytes) else repr(piece).encode(), crc)
        return crc

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(repr(self))  # Hypothesis ignores __repr__ on dataclasses

    def __repr__(self) -> str:
        items = ", ".join(
            f"{name}={item.tolist() if isinstance(item, np.ndarray) else item!r}" for name, item in self.items.items()
        )
        return f"Problem({self.format!r}, dict({items}))"


@dataclass(frozen=True, eq=False)
class Domain:
    """Where problems come from, how their arrays are laid out, and the named parts (regions) of the whole.

    axes      item name -> axis letters, outermost first: ``"RC"`` rows x classes, ``"R"`` a number a row, ``"C"`` a
              number a class, ``""`` a scalar.  Layouts permute ``R`` and ``C``; every other letter stays where it is.
    draw      (choices, format, shape or None) -> one `Problem`, made of choices (problems.draw), of the shape if given.
    edges     format -> deterministic problems that together reach every region, and hold every combination of options.
    locate    problem -> array of int, one a row (axis ``R``), or one number for the whole: index into `regions`.
    exhaustive  format -> problems that leave nothing out, each judged in one layout: every finite input (of 16-bit
              formats, where there are not too many), or every combination of options in a batch of many rows.
    wide      makes problems of very many classes (problems/wide.py); None where there cannot be many.
    """

    name: str
    axes: Mapping[str, str]
    draw: Callable[[Any, str, tuple[int, ...] | None], Problem]
    edges: Callable[[str], list[Problem]]
    regions: tuple[str, ...]
    locate: Callable[[Problem], Array]
    layouts: tuple[str, ...] = ("contiguous", "strided", "inner")
    exhaustive: Callable[[str], list[Problem]] = lambda format: []
    wide: Any = None


@dataclass(frozen=True, eq=False)
class Form:
    """One formulation: a PyTorch expression over the problem's item names, or a callable taking them by name.

    An expression may use ``torch``, ``F``, ``nn``, ``math``, the items of the problem and ``dim`` (the class
    dimension of the layout at hand); it may be several lines, the last of which is the value.
    `name` is permanent, and an entry of another table refers to the form by it ("": none does); the label is for
    readers.  `regions`, `formats`, `layouts` and `modes` narrow what the form claims (None: all that its identity has).
    On the devices `dense_on` it is no form of tensors with gaps between their numbers.
    `needs` names an attribute below ``torch`` without which the form does not exist; `since` is the first release in
    which the form is the identity's, `until` the first in which it no longer is ("": always, never).
    """

    code: str | Callable[..., Any]
    label: str = ""
    name: str = ""
    regions: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    layouts: tuple[str, ...] | None = None
    needs: str = ""
    since: str = ""
    until: str = ""
    dense_on: tuple[str, ...] = ()
    modes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not self.label:
            text = self.code if isinstance(self.code, str) else getattr(self.code, "__qualname__", repr(self.code))
            object.__setattr__(self, "label", " ; ".join(line.strip() for line in text.strip().splitlines()))
        if isinstance(self.code, str):
            try:
                ast.parse(inspect.cleandoc(self.code))
            except SyntaxError as error:
                raise ValueError(f"the form {self.label!r} is no Python: {error.msg}") from None


@dataclass(frozen=True, eq=False)
class Identity:
    """One function of the real numbers, and every formulation that claims to compute it.

    spec      problem of exact numbers -> the exact output, a (nested) list in the order of axes `out`.
    forms     the first is the reference: the stable one, whose allowance is the contract.
    out       axis letters of the output (see `Domain.axes`).
    wrt       items with respect to which the gradient is judged, under the upstream gradient ``g`` (axes `out`).
    bitwise   the outputs must equal the specification exactly: no allowance at all.
    counts_rows  the specification, a total over rows, takes ``times``, how often each occurs: the oracle is asked about
              one row of each only, and batches of many rows are cheap to judge.
    mixes_rows   a row of the output depends on other rows too, or on how many there are (if `out` has rows at all).
    """

    name: str
    statement: str
    source: str
    domain: Domain
    spec: Callable[..., Any]
    forms: tuple[Form, ...]
    out: str = "R"
    wrt: tuple[str, ...] = ("z",)
    bitwise: bool = False
    counts_rows: bool = False
    mixes_rows: bool = False
    regions: tuple[str, ...] | None = None
    formats: tuple[str, ...] = EVERY_FORMAT
    layouts: tuple[str, ...] | None = None

    @property
    def reference(self) -> Form:
        return self.forms[0]

    def form(self, name: str) -> Form:
        """The form of that permanent name ("reference": the first of them).  Raises KeyError."""
        return {"reference": self.reference, **{form.name: form for form in self.forms if form.name}}[name]

    @property
    def by_row(self) -> bool:
        """Whether every row's output, and its gradients, are its own affair: the oracle may be asked row by row."""
        if self.mixes_rows:
            return False
        return all(axes.startswith("R") for axes in (self.out, *map(self.domain.axes.__getitem__, self.wrt)))


@dataclass(frozen=True, eq=False)
class Raises:
    """The outcome of a pitfall that PyTorch refuses: the exception and a pattern of its message.

    asserted   on CUDA, an assertion in the kernel: no process can use the device any more after it.
    """

    error: type[BaseException]
    match: str
    asserted: bool = False


@dataclass(frozen=True, eq=False)
class Warns:
    """The outcome of a pitfall that PyTorch warns about, while its value is still the identity's."""

    category: type[Warning]
    match: str


@dataclass(frozen=True, eq=False)
class Differs:
    """The outcome of a pitfall that PyTorch accepts without a word: a different number."""


@dataclass(frozen=True, eq=False)
class Pitfall:
    """Two things that look equal and are not: the mistake, what it does, and the relation that does hold.

    mistake    judged as a form of `of`.
    outcome    what it does on the problems where `when` holds (Differs: outside on some of them, and on no other).
    relations  identities that say what the mistake really computes (none for an error).
    """

    name: str
    statement: str
    source: str
    of: Identity
    mistake: Form
    outcome: Raises | Warns | Differs
    when: Callable[[Problem], bool] = lambda problem: True
    relations: tuple[Identity, ...] = ()


@dataclass(frozen=True, eq=False)
class Fault:
    """A formulation broken on purpose: what the gate must refuse.

    broken     the wrong form of `of`; its formats and layouts say where the fault exists (layouts None: the first).
    breaks     what is wrong: "value", "gradient", or both.
    why        how one comes to write it.
    hidden     inside a kernel, where the analysis cannot follow: judged by the allowance of the identity's reference.
    invisible  the arithmetic that shows why nothing can see it ("": it is caught).
    """

    name: str
    of: Identity
    broken: Form
    breaks: tuple[str, ...]
    why: str
    hidden: bool = False
    invisible: str = ""

    @property
    def formats(self) -> tuple[str, ...]:
        return self.broken.formats or self.of.formats


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


@dataclass(frozen=True, eq=False)
class SpecialFault:
    """A call of the table of special values, broken on purpose at some of them: what the table must refuse.

    call    as in the entries that must refuse it (one of them is enough).
    broken  what stands in its place, over the same items.
    why     how one comes to write it.
    of      an identity whose problems have these items: its ordinary numbers are shown to the peers (None: none has).
    """

    name: str
    call: str
    broken: str
    why: str
    of: Identity | None = None
