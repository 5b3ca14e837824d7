"""One run of an implementation as its user would run it, and the contract that its numbers are held to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from equivalences import execute, formats
from equivalences.execute import LAYOUTS
from equivalences.model import Array, Form, Identity, Problem
from equivalences.own.audit import Watch
from equivalences.rounding import Tracker
from equivalences.rounding.arrays import as_tensor


@dataclass(frozen=True, eq=False)
class Ran:
    """What one problem gave: quantity -> numbers in canonical axes, and what else was met, kind -> sentence.

    `without` is the value under torch.no_grad() if it differs: not wrong for that, it may come from another kernel.
    """

    got: Mapping[str, Array]
    incidents: Mapping[str, str]
    without: Array | None = None


@dataclass(frozen=True)
class Expected:
    """What a result must be like, beside its numbers: its format ("": that of the logits), the same in every run.

    no_grad  there must be one under torch.no_grad() as well (an identity may be about a gradient).
    """

    format: str = ""
    deterministic: bool = True
    no_grad: bool = True


class _Broken(Exception):
    """A run that gave nothing to judge: kind and sentence."""


def ran(identity: Identity, form: Form, problem: Problem, layout: str, device: str, expected: Expected) -> Ran:
    """Runs a form twice on a problem, the backward pass of the first run twice as well; then without gradients."""
    incidents: dict[str, str] = {}
    first: dict[str, Tensor] = {}
    without: Tensor | None = None
    try:
        first = _once(identity, form, problem, layout, device, expected, incidents)
        if expected.deterministic:
            again = _once(identity, form, problem, layout, device, expected, {})
            for name, tensor in first.items():
                if not _same(tensor, again[name]):
                    incidents.setdefault("not deterministic", f"two runs on the same input differ in the {name}")
            if identity.wrt:
                without = _without_gradients(identity, form, problem, layout, device, expected, incidents)
    except _Broken as broken:
        kind, sentence = broken.args
        incidents[kind] = sentence
    plan, rows = LAYOUTS[layout], execute.rows_of(identity, problem)
    axes = {f"gradient {name}": identity.domain.axes[name] for name in identity.wrt} | {"value": identity.out}
    got = {name: execute.canonical(identity, plan, rows, axes[name], x) for name, x in first.items()}
    if without is None or _same(without, first["value"]):
        return Ran(got, incidents)
    return Ran(got, incidents, execute.canonical(identity, plan, rows, identity.out, without))


def _without_gradients(
    identity: Identity, form: Form, problem: Problem, layout: str, device: str, expected: Expected, met: dict[str, str]
) -> Tensor | None:
    """The value as evaluation computes it: under torch.no_grad(), of inputs that ask for no gradient."""
    here: dict[str, str] = {}
    value = None
    try:
        with torch.no_grad():
            value = _once(identity, form, problem, layout, device, expected, here, grad=False)["value"]
    except _Broken as broken:
        kind, sentence = broken.args
        here = {kind: sentence} if expected.no_grad else {}
    for kind, sentence in here.items():
        if kind not in met:  # else it is no matter of gradients
            met["no_grad"] = f"under torch.no_grad(): {sentence}"
    return value


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(
        torch.equal(a.nan_to_num(nan=0.5), b.nan_to_num(nan=0.5)) and torch.equal(a.isnan(), b.isnan())
    )


def _once(
    identity: Identity,
    form: Form,
    problem: Problem,
    layout: str,
    device: str,
    expected: Expected,
    met: dict[str, str],
    grad: bool = True,
) -> dict[str, Tensor]:
    items = execute.arguments(identity, problem, layout, device)
    shape = tuple(items["g"].shape)  # a result has that of its upstream gradient
    upstream = items.pop("g") if identity.wrt else None
    leaves = {name: items[name].requires_grad_() for name in identity.wrt if grad}
    before = {name: item.detach().clone() for name, item in items.items() if isinstance(item, Tensor)}
    call = execute.function(form, tuple(items))
    value = _attempted("raised", lambda: call(**items))
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = str(value.dtype) if isinstance(value, Tensor) else type(value).__name__
        raise _Broken("result", f"it returned {kind}, not a floating-point tensor")
    if tuple(value.shape) != shape:
        raise _Broken("shape", f"the result has shape {tuple(value.shape)}, expected {shape}")
    wanted = formats.FORMATS[expected.format or problem.format].dtype
    if value.dtype != wanted:
        met["dtype"] = f"the result for {problem.format} is {_name(value.dtype)}, expected {_name(wanted)}"
    results = {"value": value.detach().clone()}
    if upstream is not None and grad:
        if not value.requires_grad:
            raise _Broken("no gradient", "the result is detached: no gradient reaches the input")
        weights = upstream.to(value.dtype)

        def backward() -> tuple[Any, ...]:
            return torch.autograd.grad(value, list(leaves.values()), weights, retain_graph=True, allow_unused=True)

        gradients = _attempted("raised", backward, "the backward pass ")
        for name, gradient in zip(leaves, gradients, strict=True):
            if gradient is None:
                raise _Broken("no gradient", f"no gradient reaches {name}")
            results[f"gradient {name}"] = gradient.detach().clone()
        try:
            again = backward()
        except Exception as error:
            met["second backward"] = f"a second backward pass (retain_graph=True) raises {_said(error)}"
        else:
            if expected.deterministic and not all(map(_same, again, list(results.values())[1:])):
                met["second backward"] = "a second backward pass (retain_graph=True) gives another gradient"
    for name, tensor in before.items():
        if not _same(items[name].detach().double(), tensor.double()):
            met["in place"] = f"its input {name} was modified in place"
    return results


def _attempted(kind: str, what: Any, where: str = "") -> Any:
    try:
        return what()
    except Exception as error:
        raise _Broken(kind, f"{where}raised {_said(error)}") from None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Operations on the CPU share their work among so many threads; afterwards among as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- the contract ----------------------------------------------------------------------------------------------------


def contract(
    identity: Identity, problem: Problem, layout: str, device: str, mode: str = "eager"
) -> Mapping[str, Array]:
    """What the reference's arithmetic allows; for a gradient also if it is stored under upstream 1, and then scaled.

    In compiled code its sums may be added up in the order of the compiler; in eager code, in as many parts as there
    are threads.

    A fused kernel computes the gradient in its forward pass, stores it, and multiplies it by what comes from above:
    one rounding more, of the gradient itself, than autograd has.
    """
    return _contract(identity, problem, layout, device, mode, torch.get_num_threads())


@lru_cache(maxsize=1024)
def _contract(
    identity: Identity, problem: Problem, layout: str, device: str, mode: str, _threads: int
) -> Mapping[str, Array]:
    bounds = dict(execute.run(identity, identity.reference, problem, layout=layout, device=device, held=mode).bound)
    if identity.wrt and identity.out in ("", "R"):
        for name, scaled in _stored(identity, problem, layout, device, mode).items():
            bounds[name] = np.where(np.isfinite(scaled), np.fmax(bounds[name], scaled), bounds[name])
    return bounds


def _stored(identity: Identity, problem: Problem, layout: str, device: str, mode: str) -> dict[str, Array]:
    plan, rows = LAYOUTS[layout], execute.rows_of(identity, problem)
    items = execute.arguments(identity, problem, layout, device)
    upstream = items.pop("g")
    leaves = {name: items[name].requires_grad_() for name in identity.wrt}
    tracker = Tracker(device=device, mode=mode)
    for item in (*items.values(), upstream):
        if isinstance(item, Tensor):
            tracker.declare(item)
    items = {name: tracker.coefficient(item) if type(item) is float else item for name, item in items.items()}
    with tracker:
        value = execute.function(identity.reference, tuple(items))(**items)
        found = torch.autograd.grad(value, list(leaves.values()), torch.ones_like(value))
        scaled = {
            name: x * (upstream.unsqueeze(plan.dim) if x.dim() > upstream.dim() > 0 else upstream)
            for name, x in zip(leaves, found, strict=True)
        }
    axes = identity.domain.axes
    return {
        f"gradient {name}": execute.canonical(identity, plan, rows, axes[name], as_tensor(tracker.shadow(x).e))
        for name, x in scaled.items()
    }


# --- can it be followed? ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Insides:
    """The operations that an implementation runs, and why they cannot be followed ("": they can)."""

    operations: frozenset[str] = frozenset()
    opaque: str = ""


def insides(identity: Identity, form: Form, problem: Problem, layout: str, device: str) -> Insides:
    """Looks at what a form runs on one problem, and on another of the same shape.

    Numbers made behind the tracker's back (in numpy, by a kernel that writes into memory) come in as constants or not
    at all: a form whose constants change with its input, or whose result was never written, is opaque.
    """
    half = Problem(
        problem.format, {**problem.items, **{name: problem[name] / 2 for name in identity.wrt[:1] or ("z",)}}
    )
    constants, operations = [], frozenset[str]()
    for each in (problem, half):
        watch = Watch()
        try:
            run = execute.run(identity, form, each, layout=layout, device=device, as_is=watch.rules)
        except Exception as error:
            return Insides(opaque=str(error).partition("\n")[0].partition(": ")[0] or type(error).__name__)
        if any((np.isnan(run.exact[name]) & np.isfinite(run.got[name])).any() for name in run.got):
            return Insides(opaque="its memory is written by something that is no ATen operation")
        constants.append(watch.constants)
        operations |= {seen.name for seen in watch.seen}
    return Insides(operations, "" if constants[0] == constants[1] else "numbers are made outside of PyTorch")
