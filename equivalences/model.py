"""The words of the suite, as frozen data without behaviour.  Imports nothing of ours.

A *problem* is plain numbers.  A *form* computes something from them with PyTorch.  An *identity* says, exactly,
what every one of its forms must compute.  Everything else in the library runs these, judges them or lists them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Problem:
    """One concrete input, as plain numbers that `format` represents exactly.

    `items` maps a name to a float64 array (real data), an int64 or bool array (labels, masks), or a plain Python
    scalar or string (an option such as ``reduction``).  Arrays are made read-only.  Equal numbers give equal
    problems; a problem prints as runnable code.
    """

    format: str
    items: Mapping[str, Any]

    def __post_init__(self) -> None:
        frozen = {}
        for name, item in self.items.items():
            if isinstance(item, np.ndarray):
                item = np.array(item)  # a copy: whoever drew it may go on writing to theirs
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
        return self._hash

    @cached_property
    def _hash(self) -> int:
        return hash(self._key())

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
    draw      (format, shape or None) -> Hypothesis strategy of `Problem`; with a shape, all its problems have it.
    edges     format -> deterministic problems that together reach every region.
    locate    problem -> array of int, one a row (axis ``R``), or one number for the whole: index into `regions`.
    exhaustive  format -> problems that together hold every finite input (16-bit formats; elsewhere, and where there are
              too many inputs: none).
    """

    name: str
    axes: Mapping[str, str]
    draw: Callable[[str, tuple[int, ...] | None], Any]
    edges: Callable[[str], list[Problem]]
    regions: tuple[str, ...]
    locate: Callable[[Problem], Array]
    layouts: tuple[str, ...] = ("contiguous", "strided", "inner")
    exhaustive: Callable[[str], list[Problem]] = lambda format: []


@dataclass(frozen=True, eq=False)
class Form:
    """One formulation: a PyTorch expression over the problem's item names, or a callable taking them by name.

    An expression may use ``torch``, ``F``, ``nn``, ``math``, the items of the problem and ``dim`` (the class
    dimension of the layout at hand); it may be several lines, the last of which is the value.
    `regions`, `formats` and `layouts` narrow what the form claims (None: all that its identity has).
    `needs` names an attribute below ``torch`` without which the form does not exist
    ("nn.functional.linear_cross_entropy").
    """

    code: str | Callable[..., Any]
    label: str = ""
    regions: tuple[str, ...] | None = None
    formats: tuple[str, ...] | None = None
    layouts: tuple[str, ...] | None = None
    needs: str = ""

    def __post_init__(self) -> None:
        if not self.label:
            text = self.code if isinstance(self.code, str) else getattr(self.code, "__qualname__", repr(self.code))
            object.__setattr__(self, "label", " ; ".join(line.strip() for line in text.strip().splitlines()))


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
    regions: tuple[str, ...] | None = None
    formats: tuple[str, ...] = ("float64", "float32", "bfloat16", "float16")
    layouts: tuple[str, ...] | None = None

    @property
    def reference(self) -> Form:
        return self.forms[0]


@dataclass(frozen=True, eq=False)
class Raises:
    """The outcome of a pitfall that PyTorch refuses: the exception and a pattern of its message."""

    error: type[BaseException]
    match: str


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
class KnownDefect:
    """PyTorch breaks a rule: which operation, where, and what it really does instead.

    `as_is` replaces the operation's rule by what the kernel is known to do, so that the gate stays sharp
    beside the defect: an error beyond even that is a failure.  `witness` must be outside the rule and inside
    `as_is` on every torch version listed in `seen`; where it no longer is, the entry is to be deleted.  `fixed` is the
    first release without the defect, from which on the entry excuses nothing ("": none so far).
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
    link: str
    devices: tuple[str, ...] = ("cpu",)
    modes: tuple[str, ...] = ("eager", "compiled")
    seen: tuple[str, ...] = ()
    fixed: str = ""
