"""An operation as its rule sees it, and the rules by operation.

A rule names the operation's arguments as ATen's schema does, and takes those that it needs:

    @rule("sigmoid_backward")
    def _sigmoid_backward(call: Call, grad_output: Tensor, output: Tensor) -> Shadow: ...

The tracker binds arguments to names (`Schema`), once for each call.  A parameter with a default may be missing from
the schema of an overload: then it has that default.  Where one rule serves operations whose schemas differ in a word
only, a keyword of the decorator says so: ``@rule("mv", mat2="vec")`` passes the argument `vec` as the parameter `mat2`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, NamedTuple, TypeVar

import numpy as np
from torch import Tensor

from equivalences import formats
from equivalences.formats import Format
from equivalences.rounding.arrays import held
from equivalences.rounding.assumptions import Assumptions
from equivalences.rounding.shadows import Shadow, Shadows, Untracked


class Schema(NamedTuple):
    """The arguments of one overload: their names in order, and the defaults of those that have one."""

    names: tuple[str, ...]
    defaults: Mapping[str, Any]

    @classmethod
    def of(cls, func: Any) -> Schema:
        """The schema of an operator (torch._ops.OpOverload)."""
        arguments = func._schema.arguments
        defaults = {each.name: each.default_value for each in arguments if each.has_default_value()}
        return cls(tuple(each.name for each in arguments), defaults)

    def bind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of one call by name; autograd leaves out those that have their default."""
        return {**self.defaults, **dict(zip(self.names, args, strict=False)), **kwargs}


class Call:
    """One operation seen by the tracker, as its rule sees it."""

    __slots__ = ("arguments", "arithmetic", "assume", "format", "func", "name", "out", "shadows")

    format: Format  # of the result (of the first floating-point result; integers are followed in float64)
    arithmetic: Format  # in which the kernel computes: float32 for 16-bit data (at::opmath_type), else the data's

    def __init__(
        self, shadows: Shadows, assume: Assumptions, name: str, func: Any, arguments: Mapping[str, Any], out: Any
    ) -> None:
        self.shadows, self.assume, self.name, self.func = shadows, assume, name, func
        self.arguments, self.out = arguments, out
        self.format = self.arithmetic = formats.FORMATS["float64"]
        for tensor in tensors(out):
            if tensor.is_floating_point():
                self.format, self.arithmetic = _FORMATS[tensor.dtype]
                break

    def giving(self, out: Any) -> Call:
        """The same call with another result."""
        return Call(self.shadows, self.assume, self.name, self.func, self.arguments, out)

    def like(self, name: str, arguments: Mapping[str, Any], out: Any) -> Call:
        """A call of another operation, of which this one is made."""
        return Call(self.shadows, self.assume, name, self.func, arguments, out)

    def doubted(self, *places: Any) -> bool:
        """Whether rounding may have decided one of these indices or masks: then it is not known what they point to."""
        return any(np.any(self.shadows.read(x).e) for place in places for x in tensors(place))

    def shadow(self, operand: Any) -> Shadow:
        """The shadow of a tensor, or of a Python number as the kernel takes it in (rounded to its arithmetic).

        A number of more than 24 bits and unknown origin may itself be rounded: ATen combines options in double, as
        in the 1 - a and a / K of label smoothing (LossNLL.cpp).
        """
        if isinstance(operand, Tensor):
            return self.shadows.read(operand)
        value = float(operand)
        short = not math.isfinite(value) or (math.frexp(value)[0] * 2**24).is_integer()
        e = self.shadows.coefficients.off.get(abs(value), 0.0 if short else formats.FORMATS["float64"].u * abs(value))
        if self.format.name != "float64" and math.isfinite(value):
            e += abs(held(value, self.arithmetic.dtype) - value)
        return Shadow(np.array(value), np.array(e))


_FORMATS = {  # of data, and in which a kernel computes
    fmt.dtype: (fmt, fmt if fmt.precision >= 24 else formats.FORMATS["float32"]) for fmt in formats.FORMATS.values()
}


def tensors(tree: Any) -> list[Tensor]:
    """The tensors of an argument or a result, which may be a list (of lists) of them."""
    if isinstance(tree, Tensor):
        return [tree]
    found: list[Tensor] = []
    if isinstance(tree, (list, tuple)):
        for branch in tree:
            if isinstance(branch, Tensor):
                found.append(branch)
            elif isinstance(branch, (list, tuple)):
                found += tensors(branch)
    return found


def in_registers(call: Call) -> Call:
    """The call as its inner operations see it: results stay in the kernel's arithmetic."""
    inner = call.giving(call.out)
    inner.format = inner.arithmetic = call.arithmetic
    return inner


# --- rules -----------------------------------------------------------------------------------------------------------

Rule = Callable[[Call], Any]  # gives a Shadow, one for each result, or None where there is nothing to say
RULES: dict[str, Rule] = {}
F = TypeVar("F", bound=Callable[..., Any])


def by_schema(function: Callable[..., Any], **words: str) -> Rule:
    """A rule written in the schema's names, as a function of the call alone.

    words   parameter = the schema's name for it, where that is another one.
    Raises Untracked where the schema of the operation has no argument of a name that the rule asks for.
    """
    parameters = list(inspect.signature(function).parameters.values())[1:]
    names = tuple(words.get(each.name, each.name) for each in parameters)
    defaults = {
        name: each.default for name, each in zip(names, parameters, strict=True) if each.default is not each.empty
    }
    if not words.keys() <= {each.name for each in parameters}:
        raise ValueError(f"{function.__name__} has no parameter {', '.join(words)}")

    @wraps(function)
    def follow(call: Call) -> Any:
        given = {**defaults, **call.arguments} if defaults else call.arguments
        try:
            taken = [given[name] for name in names]
        except KeyError as missing:
            raise Untracked(
                f"the rule {function.__name__} asks for the argument {missing} of aten::{call.name}, "
                f"whose arguments are {', '.join(call.arguments)}: use the schema's name, or give it a default"
            ) from None
        return function(call, *taken)

    follow.__dict__.update(names=frozenset(names), optional=frozenset(defaults))  # a test compares them with schemas
    return follow


def rule(*operations: str, **words: str) -> Callable[[F], F]:
    """Registers one rule for ATen operations, by packet name ("add", "_log_softmax"); ``add_`` is ``add``.

    An operation of another namespace, whose arguments have other names, is named with it ("prims::where").

    `words` are those of `by_schema`.
    """

    def register(function: F) -> F:
        followed = by_schema(function, **words)
        for operation in operations:
            if operation in RULES:
                raise ValueError(f"two rules for aten::{operation}")
            RULES[operation] = followed
        return function

    return register
