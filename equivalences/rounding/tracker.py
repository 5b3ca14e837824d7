"""Running error analysis: a dispatch mode that carries, beside every tensor, its exact value and an error bound.

While a formulation runs, `Tracker` sees every ATen operation, forward and backward, and keeps for each tensor a
*shadow*: the value `v` that exact arithmetic would have given (in float64) and a bound `e` on |computed - exact|
(Wilkinson; Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 3.3).  One rule an operation; a
composition, and its gradient, gets its bound for nothing.

Shadows are kept by storage and addressed by view geometry, not by Python object: a view shares its base's shadow,
and writing in place through either changes both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from equivalences import devices, formats
from equivalences.formats import Format
from equivalences.model import Array
from equivalences.rounding.arrays import held, numbers, spread, sure
from equivalences.rounding.assumptions import Assumptions, assumptions
from equivalences.rounding.coefficients import Book, Coefficient


class Shadow(NamedTuple):
    """The exact value `v` and the bound `e` on |computed - v|, float64 arrays of the tensor's shape (or spread to it).

    `e` is inf where the analysis gives no bound: an overflow, a pole, a branch that rounding may have decided.
    """

    v: Array
    e: Array


class Untracked(RuntimeError):
    """A bound was lost: an operation has no rule, or a tensor was never declared."""


Rule = Callable[["Call"], Any]
RULES: dict[str, Rule] = {}


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Registers one rule for ATen operations, by packet name ("add", "_log_softmax"); ``add_`` is ``add``."""

    def register(function: Rule) -> Rule:
        for operation in operations:
            if operation in RULES:
                raise ValueError(f"two rules for aten::{operation}")
            RULES[operation] = function
        return function

    return register


@dataclass(frozen=True)
class Step:
    """One operation as it ran: what came out (as float64; it was of `dtype`), what should have, and its bound."""

    operation: str
    dtype: torch.dtype
    computed: Array
    v: Array
    e: Array

    def excessive(self) -> bool:
        """Whether the result lies outside its bound."""
        # In float64 the shadow value is no better than the computed one: grant it the same bound again.
        slack = self.e * 2 if self.dtype == torch.float64 else self.e
        with np.errstate(invalid="ignore"):
            within = (np.abs(self.computed - self.v) <= slack) | np.isinf(slack)
        return not within.all()  # a nan is not within


class Call:
    """One operation seen by the tracker, as its rule sees it."""

    __slots__ = ("args", "arithmetic", "assume", "format", "func", "kwargs", "name", "out", "tracker")

    format: Format  # of the result (of the first floating-point result; integers are followed in float64)
    arithmetic: Format  # in which the kernel computes: float32 for 16-bit data (at::opmath_type), else the data's

    def __init__(
        self, tracker: Tracker, name: str, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any
    ) -> None:
        self.tracker, self.name, self.func = tracker, name, func
        self.args, self.kwargs, self.out = args, kwargs, out
        self.assume = tracker.assume
        self.format = self.arithmetic = formats.FORMATS["float64"]
        for tensor in _tensors(out):
            if tensor.is_floating_point():
                self.format, self.arithmetic = _FORMATS[tensor.dtype]
                break

    def arg(self, position: int, name: str, default: Any = None) -> Any:
        """An argument by position or by keyword, as the schema allows both."""
        if position < len(self.args):
            return self.args[position]
        return self.kwargs.get(name, default)

    def doubted(self, *places: Any) -> bool:
        """Whether rounding may have decided one of these indices or masks: then it is not known what they point to."""
        return any(np.any(self.tracker.shadow(x).e) for place in places for x in _tensors(place))

    def shadow(self, operand: Any) -> Shadow:
        """The shadow of a tensor, or of a Python number as the kernel takes it in (rounded to its arithmetic).

        A number of more than 24 bits and unknown origin may itself be rounded: ATen combines options in double, as
        in the 1 - a and a / K of label smoothing (LossNLL.cpp).
        """
        if isinstance(operand, Tensor):
            return self.tracker.shadow(operand)
        value = float(operand)
        short = not math.isfinite(value) or (math.frexp(value)[0] * 2**24).is_integer()
        e = self.tracker.coefficients.off.get(abs(value), 0.0 if short else formats.FORMATS["float64"].u * abs(value))
        if self.format.name != "float64" and math.isfinite(value):
            e += abs(held(value, self.arithmetic.dtype) - value)
        return Shadow(np.array(value), np.array(e))


_FORMATS = {  # of data, and in which a kernel computes
    fmt.dtype: (fmt, fmt if fmt.precision >= 24 else formats.FORMATS["float32"]) for fmt in formats.FORMATS.values()
}


def _tensors(tree: Any) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    found: list[Tensor] = []
    if isinstance(tree, (list, tuple)):
        for branch in tree:
            if isinstance(branch, Tensor):
                found.append(branch)
            elif isinstance(branch, (list, tuple)):
                found += _tensors(branch)
    return found


class _Described(NamedTuple):
    """What an operator is: namespace, packet name without the in-place underscore, whether it writes into an argument.

    composite   it is one only in name, made of others; autograd has taken it apart, unless it is left out.
    """

    namespace: str
    name: str
    mutates: bool
    composite: bool


@lru_cache(maxsize=4096)
def _described(func: Any) -> _Described:
    name, mutates = func._schema.name.partition("::")[2], func._schema.is_mutable
    name = name[:-1] if mutates and name.endswith("_") else name
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return _Described(func.namespace, name, mutates, bool(composite) and name not in RULES)


_FOLLOWED = ("aten", "prims", "profiler")

Geometry = tuple[torch.Size, tuple[int, ...], Any]


def _geometry(tensor: Tensor) -> Geometry:
    return tensor.size(), tensor.stride(), tensor.storage_offset()


def _view(whole: Array, geometry: Geometry) -> Array:
    """What a tensor of this geometry shows of its storage's shadow."""
    size, stride, offset = geometry
    if 0 in size:
        return np.empty(size)
    return np.ndarray(size, whole.dtype, whole, 8 * offset, [8 * step for step in stride])


@dataclass(slots=True)
class _Stored:
    storage: torch.UntypedStorage  # kept alive: its address is the key
    v: Array  # as the numbers lie in the storage, contiguous, in the shape of `whole` if there is one
    e: Array
    whole: Geometry | None  # of a tensor that covers the storage


@dataclass(eq=False)
class Tracker(TorchDispatchMode):
    """The mode itself; enter it, `declare` the inputs, run, and ask for `shadow(out)`.

    mode      "compiled" if the bounds are for code that a compiler makes of what is run here.
    as_is     rules that replace the registered ones for this run (see `model.KnownDefect`).
    history   keep every step, to name the first operation that exceeded its bound.
    """

    device: str = "cpu"
    mode: str = "eager"
    as_is: Mapping[str, Rule] = field(default_factory=dict)
    history: bool = False

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated in torch
        self.kind = devices.kind(self.device)
        self.assume: Assumptions = assumptions(self.device, self.mode)
        self.operations: set[str] = set()
        self.steps: list[Step] = []
        self._stored: dict[int, _Stored] = {}
        self.coefficients = Book()  # Python floats known to be inexact, and by how much

    def coefficient(self, number: float) -> Coefficient:
        """An exact option of the problem, as a float whose arithmetic in Python is followed."""
        return Coefficient(number, self.coefficients)

    def declare(self, tensor: Tensor) -> Tensor:
        """Says that `tensor` holds exact data: an input or a constant."""
        if not tensor.is_floating_point():
            return tensor  # integers and booleans are exact until a comparison says otherwise
        self.write(tensor, Shadow(numbers(tensor), np.zeros(())))
        return tensor

    def shadow(self, tensor: Tensor) -> Shadow:
        """The shadow of a tensor.  Raises Untracked for floating-point data that was never declared or computed."""
        stored = self._stored.get(tensor.untyped_storage()._cdata)
        if stored is None:
            if tensor.is_floating_point():
                raise Untracked(
                    f"a {tuple(tensor.shape)} {tensor.dtype} tensor has no error bound: make it an item of the problem "
                    "or build it from exact constants inside the form"
                )
            v = numbers(tensor)
            return Shadow(v, np.zeros(v.shape))
        geometry = _geometry(tensor)
        if geometry == stored.whole:
            return Shadow(stored.v, stored.e)
        return Shadow(_view(stored.v, geometry), _view(stored.e, geometry))

    def write(self, tensor: Tensor, shadow: Shadow) -> None:
        """Says that `tensor` has been written, and with what."""
        v, e = shadow
        storage, geometry = tensor.untyped_storage(), _geometry(tensor)
        stored = self._stored.get(storage._cdata)
        if stored is None and not tensor.is_floating_point() and not np.any(e):
            return
        v, e = spread(v, geometry[0]), spread(sure(v, e), geometry[0])
        if stored is None:
            whole = tensor.is_contiguous() and tensor.numel() * tensor.element_size() == storage.nbytes()
        else:
            whole = geometry == stored.whole
        if whole:
            self._stored[storage._cdata] = _Stored(
                storage, np.asarray(v, order="C"), np.asarray(e, order="C"), geometry
            )
            return
        if stored is None:
            size = storage.nbytes() // tensor.element_size()
            stored = _Stored(storage, np.zeros(size), np.full(size, math.inf), None)
            self._stored[storage._cdata] = stored
        else:  # a stored shadow may be shared with the one it was copied from
            stored.v, stored.e = stored.v.copy(), stored.e.copy()
        once = tuple(slice(0, 1 if stride == 0 else None) for stride in geometry[1])  # of what is expanded
        _view(stored.v, geometry)[once] = v[once]
        _view(stored.e, geometry)[once] = e[once]

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would wrap what follows, to keep it out of compiled code, where no tracker ever is

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        what = _described(func)
        if what.namespace not in _FOLLOWED:
            return self._inside(func, args, kwargs)
        if what.composite:
            with self:
                return func.decompose(*args, **kwargs)
        out = func(*args, **kwargs)
        self._follow(func, what, args, kwargs, out)  # below autograd: nothing here is recorded
        return out

    def _inside(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """An operator of another library, followed through the ATen operations that its kernel calls.

        If it calls none its results are unknown, and asking for their shadow says so.
        """
        if func._schema.is_mutable:
            raise Untracked(f"{func} is not an ATen operation and writes into its arguments: it cannot be followed")
        backend = torch._C._dispatch_key_for_device(torch.device(self.device).type)
        with self:
            return func.redispatch(torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, backend)), *args, **kwargs)

    def _follow(self, func: Any, what: _Described, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        name, mutates = what.name, what.mutates
        if what.namespace == "profiler":
            return
        results = _tensors(out)
        if results and results[0].is_meta:
            return  # no numbers: forward mode tries the shapes of a decomposition out before it first uses it
        inputs = [*_tensors(args), *_tensors(tuple(kwargs.values()))] if kwargs else _tensors(args)
        if not mutates and results and name != "lift_fresh":  # a new constant is a view of nothing declared
            known = {t.untyped_storage()._cdata for t in inputs}
            if known.issuperset(t.untyped_storage()._cdata for t in results):
                if any(t.is_floating_point() != inputs[0].is_floating_point() for t in results):
                    raise Untracked(f"aten::{name} reinterprets bits: no error bound survives that")
                return  # a view: geometry does the rest
        for t in (*results, *inputs):
            if t.is_floating_point() or t.untyped_storage()._cdata in self._stored:
                break
        else:
            return  # exact data only
        if mutates:
            if func._schema.name[-1] == "_":
                results, out = _tensors(args[0]), args[0]
            elif "out" not in kwargs:
                raise Untracked(f"{func} writes into arguments: let it return its result, so that the bound can follow")
        found = self.as_is.get(name) or RULES.get(name)
        if found is None:
            raise Untracked(f"aten::{name} has no rounding rule: add one with @rule({name!r}) in equivalences/rounding")
        call = Call(self, name, func, args, kwargs, out)
        try:
            with np.errstate(all="ignore"):  # inf and nan are what a bound becomes where there is none
                shadows = found(call)
        except NotImplementedError as error:  # the rule is one of other options
            raise Untracked(f"aten::{name}: {error}") from None
        if shadows is None:
            return
        self.operations.add(name)
        if isinstance(shadows, Shadow):
            shadows = [shadows]
        for tensor, shadow in zip(results, shadows, strict=True):
            if shadow is not None:
                self.write(tensor, shadow)
                if self.history:
                    kept = self.shadow(tensor)
                    self.steps.append(Step(f"aten::{name}", tensor.dtype, numbers(tensor), kept.v, kept.e))
