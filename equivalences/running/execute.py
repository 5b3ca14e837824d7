"""The one run of a function on a problem: forward and backward, plain or followed by the error analysis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from types import CodeType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivalences.findings.known_defects import MODULES
from equivalences.formats import FORMATS
from equivalences.model import Array, Form, Identity, Problem
from equivalences.rounding import Rule, Step, Tracker
from equivalences.rounding.arrays import as_tensor
from equivalences.running.forms import compiled, function, running
from equivalences.running.layouts import LAYOUTS, canonical, layout_code, rows_of

Call = Callable[..., Any]


@dataclass(frozen=True)
class Place:
    """Where a form runs: the layout of its items, the device, and the mode ("eager" or "compiled")."""

    layout: str = "contiguous"
    device: str = "cpu"
    mode: str = "eager"


@dataclass(frozen=True)
class Follow:
    """How the error analysis follows a run.

    as_is    rules that replace the registered ones: what a known defect says that the kernel really does.
    history  keep every step, to name the first operation that exceeded its bound.
    outside  tensors that are no items of the problem are constants, exact as they are (else they are an error).
    """

    as_is: Mapping[str, Rule] = field(default_factory=dict)
    history: bool = False
    outside: bool = False


FOLLOW = Follow()


@dataclass(frozen=True, eq=False)
class Bench:
    """The items of a problem, ready for one call: tensors in their layout on the device, options as they are.

    leaves    the items with respect to which the gradient is asked, by name.
    upstream  the gradient of something with respect to the output; None if the identity judges no gradient.
    """

    items: Mapping[str, Any]
    leaves: Mapping[str, Tensor]
    upstream: Tensor | None


@dataclass(frozen=True)
class Outcome:
    """What one run gave, as float64 arrays in canonical axes: quantity ("value", "gradient z") -> numbers.

    `dtypes` are those of the results themselves; `exact` and `bound` are the running analysis' value and error bound,
    `operations` the ATen operations that it followed, `callers` some of these with the module that called them, where a
    known defect is one of that module, `constants` the bits of what came in from elsewhere (all empty for a plain run).
    """

    got: Mapping[str, Array]
    dtypes: Mapping[str, torch.dtype]
    exact: Mapping[str, Array] = field(default_factory=dict)
    bound: Mapping[str, Array] = field(default_factory=dict)
    operations: frozenset[str] = frozenset()
    callers: frozenset[tuple[str, str]] = frozenset()
    steps: tuple[Step, ...] = ()
    constants: tuple[bytes, ...] = ()

    @cached_property
    def excess(self) -> Step | None:
        """The first recorded step whose own result lies outside its bound; None if none does."""
        return next((step for step in self.steps if step.excessive()), None)


@lru_cache(maxsize=4096)
def _parsed(expression: str) -> CodeType:
    return compile(expression, "<layout>", "eval")


def arguments(
    identity: Identity, problem: Problem, layout: str, device: str = "cpu", fmt: str | None = None
) -> dict[str, Any]:
    """The items of a problem as a form takes them: tensors in their layout on the device, options as they are.

    Real data is converted to `fmt` (default: the problem's own format), which must represent it exactly.
    """
    dtype = FORMATS[fmt or problem.format].dtype
    plan = LAYOUTS[layout]
    taken: dict[str, Any] = {}
    for name, item in problem.items.items():
        if not isinstance(item, np.ndarray):
            taken[name] = item
            continue
        tensor = torch.tensor(item)
        if tensor.is_floating_point():
            tensor = tensor.to(dtype)
        code = layout_code(identity, problem, plan, name)
        with torch.no_grad():
            laid = tensor.to(device) if code == "x" else eval(_parsed(code), {"torch": torch, "x": tensor.to(device)})
        taken[name] = laid.detach()
    taken["dim"] = plan.dim
    return taken


def prepare(
    identity: Identity, problem: Problem, place: Place, *, fmt: str | None = None, gradient: bool = True
) -> Bench:
    """Fresh tensors for one call; without `gradient`, none of them asks for one."""
    items = arguments(identity, problem, place.layout, place.device, fmt)
    upstream = items.pop("g", None) if identity.wrt else None
    leaves = {name: items[name].requires_grad_() for name in identity.wrt if gradient}
    return Bench(items, leaves, upstream)


def followed(tracker: Tracker, bench: Bench) -> Bench:
    """The same bench with every tensor declared exact, and the arithmetic of Python numbers followed."""
    items = {name: tracker.taken(item) for name, item in bench.items.items()}
    return Bench(items, bench.leaves, None if bench.upstream is None else tracker.declare(bench.upstream))


def backward(value: Tensor, leaves: Mapping[str, Tensor], upstream: Tensor, **options: Any) -> dict[str, Tensor]:
    """The gradients of a value under `upstream`, by the names of their leaves; options as `torch.autograd.grad` has."""
    gradients = torch.autograd.grad(value, list(leaves.values()), upstream, **options)
    return dict(zip(leaves, gradients, strict=True))


def forward_backward(call: Call, bench: Bench) -> dict[str, Tensor]:
    """Quantity ("value", "gradient z") -> result.  Raises ValueError where the value has another shape than `g`."""
    value = call(**bench.items)
    results: dict[str, Tensor] = {"value": value}
    if bench.leaves and bench.upstream is not None:
        if bench.upstream.shape != value.shape:
            raise ValueError(f"the form returned shape {tuple(value.shape)}, not {tuple(bench.upstream.shape)}")
        gradients = backward(value, bench.leaves, bench.upstream.to(value.dtype))
        results |= {f"gradient {name}": gradient for name, gradient in gradients.items()}
    return results


def quantity_axes(identity: Identity, quantity: str) -> str:
    """The axis letters of a quantity: of the output, or of the item that a gradient is of."""
    return identity.out if quantity == "value" else identity.domain.axes[quantity.removeprefix("gradient ")]


def canonicals(identity: Identity, problem: Problem, layout: str, results: Mapping[str, Tensor]) -> dict[str, Array]:
    """Results as float64 arrays in canonical axes, whatever their layout was."""
    plan, rows = LAYOUTS[layout], rows_of(identity, problem)
    return {name: canonical(identity, plan, rows, quantity_axes(identity, name), x) for name, x in results.items()}


def callable_of(form: Form, bench: Bench, place: Place, fmt: str) -> Call:
    """The form as a function of the bench's items, in the mode of the place."""
    names = tuple(bench.items)
    if place.mode == "eager":
        return function(form, names)
    with running(place.mode):
        return compiled(form, names, (fmt, place.layout, place.device))


def run(
    identity: Identity,
    form: Form,
    problem: Problem,
    place: Place = Place(),  # frozen
    *,
    fmt: str | None = None,
    follow: Follow | None = FOLLOW,
) -> Outcome:
    """Runs a form on a problem: value, and gradient under the upstream gradient ``g`` if the identity judges one.

    Followed code is always eager, since compiled code cannot be traced: the mode of `place` then says for which code
    the bounds are.  With `follow=None` nothing is followed, and the code of that mode runs.
    """
    bench = prepare(identity, problem, place, fmt=fmt)
    if follow is None:
        call = callable_of(form, bench, place, fmt or problem.format)
        with running(place.mode):
            results = forward_backward(call, bench)
        dtypes = {quantity: tensor.dtype for quantity, tensor in results.items()}
        return Outcome(canonicals(identity, problem, place.layout, results), dtypes)
    tracker = Tracker(place.device, place.mode, follow.as_is, follow.history, follow.outside, MODULES)
    bench = followed(tracker, bench)
    call = function(form, tuple(bench.items))
    from torch import _dynamo  # noqa: F401  # functorch loads it when first used; that computes: not under the tracker

    with tracker:
        results = forward_backward(call, bench)
    return _outcome(identity, problem, place.layout, tracker, results)


def _outcome(
    identity: Identity, problem: Problem, layout: str, tracker: Tracker, results: Mapping[str, Tensor]
) -> Outcome:
    shadows = {quantity: tracker.shadow(tensor) for quantity, tensor in results.items()}
    values = {quantity: as_tensor(shadow.v) for quantity, shadow in shadows.items()}
    bounds = {quantity: as_tensor(shadow.e) for quantity, shadow in shadows.items()}
    return Outcome(
        canonicals(identity, problem, layout, results),
        {quantity: tensor.dtype for quantity, tensor in results.items()},
        canonicals(identity, problem, layout, values),
        canonicals(identity, problem, layout, bounds),
        frozenset(tracker.operations),
        frozenset(tracker.callers),
        tuple(tracker.steps),
        tuple(tracker.shadows.constants),
    )
