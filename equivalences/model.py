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

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of its first item, which stands for that of all."""
        return np.shape(next(iter(self.items.values())))

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
