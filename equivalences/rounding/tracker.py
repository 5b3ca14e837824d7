"""Running error analysis: a dispatch mode that carries each tensor's exact value and an error bound along with it.

While a formulation runs, `Tracker` sees every ATen operation, forward and backward, and keeps for each tensor a
*shadow*: the value `v` that exact arithmetic would have given (in float64) and a bound `e` on |computed - exact|
(Wilkinson; Higham, *Accuracy and Stability of Numerical Algorithms*, 2nd ed., 3.3).  There is one rule for each
operation; the bound of a composition, and of its gradient, follows from them.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from equivalences.model import Array
from equivalences.rounding.arrays import numbers
from equivalences.rounding.assumptions import Assumptions, assumptions
from equivalences.rounding.call import RULES, Call, Rule, Schema, tensors
from equivalences.rounding.coefficients import Coefficient
from equivalences.rounding.shadows import Shadow, Shadows, Untracked


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


def _on_the_stack(modules: frozenset[str]) -> set[str]:
    """Those of the modules (or packages) whose code is being run."""
    found, frame = set(), sys._getframe()
    while (before := frame.f_back) is not None:
        frame = before
        name = str(frame.f_globals.get("__name__", ""))
        found |= {module for module in modules if name == module or name.startswith(f"{module}.")}
    return found


class Described(NamedTuple):
    """What an operator is.

    name       its packet name without the in-place underscore.
    mutates    it writes into an argument: the first one (`in_place`), or ``out=``.
    composite  it is made of other operations; autograd has taken it apart, unless it is left out.
    rule       the name of its rule: that of another namespace than ATen's may have one of its own.
    asks       it gives no tensor and writes into none: a question of Python's.
    views      it gives views of its arguments alone.
    """

    namespace: str
    name: str
    rule: str
    mutates: bool
    in_place: bool
    composite: bool
    asks: bool
    views: bool
    schema: Schema


@lru_cache(maxsize=4096)
def described(func: Any) -> Described:
    name, mutates = func._schema.name.partition("::")[2], func._schema.is_mutable
    in_place = mutates and name.endswith("_")
    name = name[:-1] if in_place else name
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    own = f"{func.namespace}::{name}"
    rule = own if own in RULES else name
    made = bool(composite) and rule not in RULES
    given = [each for each in func._schema.returns if "Tensor" in str(each.type)]
    views = bool(given) and not mutates and all(each.alias_info is not None for each in given)
    return Described(
        func.namespace, name, rule, mutates, in_place, made, not given and not mutates, views, Schema.of(func)
    )


_FOLLOWED = ("aten", "prims", "profiler")


@dataclass(eq=False)
class Tracker(TorchDispatchMode):
    """The mode itself; enter it, `declare` the inputs, run, and ask for `shadow(out)`.

    mode      "compiled" if the bounds are for the code that a compiler makes of the operations run here.
    as_is     rules that replace the registered ones for this run (see `findings.model.KnownDefect`).
    history   keep every step, to name the first operation that exceeded its bound.
    outside   take tensors that were never declared for constants, exact as they are (else they are an error).
    modules   operation -> modules of which it is noted whether they call it (see `callers`).
    """

    device: str = "cpu"
    mode: str = "eager"
    as_is: Mapping[str, Rule] = field(default_factory=dict)
    history: bool = False
    outside: bool = False
    modules: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # not annotated in torch
        self.assume: Assumptions = assumptions(self.device, self.mode)
        self.operations: set[str] = set()
        self.callers: set[tuple[str, str]] = set()  # operation, and a module below which it was called
        self.steps: list[Step] = []
        self.shadows = Shadows()

    def coefficient(self, number: float) -> Coefficient:
        """An exact option of the problem, as a float whose arithmetic in Python is followed."""
        return self.shadows.coefficient(number)

    def declare(self, tensor: Tensor) -> Tensor:
        """Says that `tensor` holds exact data: an input or a constant."""
        return self.shadows.declare(tensor)

    def taken(self, item: Any) -> Any:
        """An input as the run takes it: a tensor of exact data, a number whose arithmetic is followed, else itself."""
        if isinstance(item, Tensor):
            return self.declare(item)
        return self.coefficient(item) if type(item) is float else item

    def shadow(self, tensor: Tensor) -> Shadow:
        """The shadow of a tensor.  Raises Untracked for floating-point data that was never declared or computed."""
        return self.shadows.read(tensor)

    def write(self, tensor: Tensor, shadow: Shadow) -> None:
        """Says that `tensor` has been written, and with what."""
        self.shadows.write(tensor, shadow)

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # torch would wrap what follows, to keep it out of compiled code, where no tracker ever is

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        what = described(func)
        if what.namespace not in _FOLLOWED:
            return self._inside(func, args, kwargs)
        if what.composite:
            with self:
                return func.decompose(*args, **kwargs)
        if self.outside:
            for tensor in (*tensors(args), *tensors(tuple(kwargs.values()))):
                if tensor.is_floating_point() and not tensor.is_meta and not self.shadows.known(tensor):
                    self.shadows.take(tensor)  # before it may be written into
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

    def _follow(self, func: Any, what: Described, args: tuple[Any, ...], kwargs: Mapping[str, Any], out: Any) -> None:
        name = what.name
        if what.namespace == "profiler":
            return
        results = tensors(out)
        if results and results[0].is_meta:
            return  # no numbers: forward mode tries the shapes of a decomposition out before it first uses it
        if not results and what.asks and what.rule not in RULES:
            return
        inputs = [*tensors(args), *tensors(tuple(kwargs.values()))] if kwargs else tensors(args)
        if not what.mutates and results and self._views(name, inputs, results):
            return  # geometry does the rest
        real = doubt = False
        for t in (*results, *inputs):
            if real := t.is_floating_point():
                break
            doubt = doubt or (self.shadows.known(t) and (what.mutates or not self.shadows.certain(t)))
        if not real and not doubt:
            return  # exact data only
        arguments = what.schema.bind(args, kwargs)
        if what.in_place:
            out = arguments[what.schema.names[0]]
            results = tensors(out)
        elif what.mutates and "out" not in kwargs:
            raise Untracked(f"{func} writes into arguments: let it return its result, so that the bound can follow")
        found = self.as_is.get(what.rule) or RULES.get(what.rule)
        if found is None and not real:
            found = _integers
        if found is None:
            raise Untracked(f"aten::{name} has no rounding rule: add one with @rule({name!r}) in equivalences/rounding")
        call = Call(self.shadows, self.assume, name, func, arguments, out)
        try:
            with np.errstate(all="ignore"):  # inf and nan are what a bound becomes where there is none
                shadows = found(call)
        except NotImplementedError as error:  # the rule is one of other options
            raise Untracked(f"aten::{name}: {error}") from None
        if shadows is None:
            return
        self.operations.add(name)
        if name in self.modules:
            self.callers |= {(name, module) for module in _on_the_stack(self.modules[name])}
        self._note(name, results, [shadows] if isinstance(shadows, Shadow) else shadows)

    def _views(self, name: str, inputs: list[Tensor], results: list[Tensor]) -> bool:
        """Whether the results are views, of which nothing else need be known; bits read as numbers are constants."""
        if not _view_of(name, inputs, results):
            return False
        for each in results:
            if each.is_floating_point() and not inputs[0].is_floating_point() and not self.shadows.known(each):
                self.shadows.declare(each)
        return True

    def _note(self, name: str, results: list[Tensor], shadows: Any) -> None:
        """Writes the shadows of an operation's results, and keeps the step."""
        for tensor, shadow in zip(results, shadows, strict=True):
            if shadow is not None:
                self.shadows.write(tensor, shadow)
                if self.history:
                    kept = self.shadows.read(tensor)
                    self.steps.append(Step(f"aten::{name}", tensor.dtype, numbers(tensor), kept.v, kept.e))


def _integers(call: Call) -> list[Shadow]:
    """Whole numbers and masks by any operation without a rule: of what rounding may have decided, nothing is known."""
    doubt = math.inf if call.doubted(*call.arguments.values()) else 0.0
    return [Shadow(numbers(each), np.full(each.shape, doubt)) for each in tensors(call.out)]


def _view_of(name: str, inputs: list[Tensor], results: list[Tensor]) -> bool:
    """Whether all results lie in the storage of inputs.  Raises Untracked for complex numbers."""
    if name == "lift_fresh":  # a new constant is a view of nothing declared
        return False
    storages = {t.untyped_storage()._cdata for t in inputs}
    if not storages.issuperset(t.untyped_storage()._cdata for t in results):
        return False
    if any(t.is_complex() != inputs[0].is_complex() for t in results):
        raise Untracked(f"aten::{name}: complex numbers are not followed")
    return True
