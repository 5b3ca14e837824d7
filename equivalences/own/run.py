"""One run of an implementation as its user would run it, and whether it can be followed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from equivalences import formats
from equivalences.model import Array, Form, Identity, Problem
from equivalences.own import state
from equivalences.own.audit import Watch
from equivalences.own.conduct import Conduct, Failed, said
from equivalences.rounding import RULES, Call, Rule
from equivalences.running import execute
from equivalences.running.execute import Bench, Follow, Outcome, Place, canonicals, prepare
from equivalences.running.forms import function


@dataclass(frozen=True, eq=False)
class Ran:
    """What one problem gave: quantity -> numbers in canonical axes, and what else was met, kind -> what it did.

    `without` is the value under torch.no_grad() if it differs: not wrong for that, it may come from another kernel.
    `limits` is what it cannot do, kind -> sentence, and what its user need not ask for.  `second` is what a second call
    on the same input gave, if that is another thing.
    """

    got: Mapping[str, Array]
    incidents: Mapping[str, Failed]
    without: Array | None = None
    limits: Mapping[str, Failed] = field(default_factory=dict)
    second: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Expected:
    """What a result must be like, beside its numbers: its format, and the same in every run.

    formats       format of the logits -> that of the result (of others: their own).
    no_grad       there must be one under torch.no_grad() as well (an identity may be about a gradient).
    once          only its numbers are wanted, of one run.
    in_place      it may overwrite its first input.
    one_backward  a second backward pass is not asked for.
    """

    formats: Mapping[str, str] = field(default_factory=dict)
    deterministic: bool = True
    no_grad: bool = True
    once: bool = False
    in_place: bool = False
    one_backward: bool = False

    def format(self, fmt: str) -> str:
        """The format of a result for logits of that format."""
        return self.formats.get(fmt, fmt)


@dataclass(frozen=True, eq=False)
class _Run:
    """One implementation on one problem in one place."""

    identity: Identity
    form: Form
    problem: Problem
    place: Place
    expected: Expected
    conduct: Conduct


class _Backward(Exception):
    """A backward pass that raised, though its user need not ask for it in this way."""

    def __init__(self, failed: Failed) -> None:
        super().__init__()
        self.failed = failed


# How a gradient is asked for.  A user calls loss.backward(), once: that is what is judged.
BACKWARD, RETAINED, GRAD = "backward()", "torch.autograd.grad(..., retain_graph=True)", "torch.autograd.grad(...)"


def ran(
    identity: Identity,
    form: Form,
    problem: Problem,
    place: Place,
    expected: Expected,
    conduct: Conduct | None = None,
) -> Ran:
    """Runs a form on a problem, with its backward pass, as its user does; then again, and without gradients."""
    run = _Run(identity, form, problem, place, expected, conduct or Conduct())
    run.conduct.taken()
    met: dict[str, Failed] = {}
    limits: dict[str, Failed] = {}
    first: dict[str, Tensor] = {}
    second: dict[str, Tensor] = {}
    without: Tensor | None = None
    try:
        first = _once(run, met)
        if not expected.once and (expected.deterministic or identity.wrt):
            second = _again(run, first, met, limits)
        if not expected.once and expected.deterministic and identity.wrt:
            without = _without_gradients(run, met)
    except Failed as failed:
        met[failed.kind] = failed
    changed = run.conduct.taken() - ({state.SEED} if "seed" in problem.items else set())  # that is what it is for
    if changed:
        met["state"] = Failed("state", f"it changes {', '.join(sorted(changed))}, for all that runs after it")
    numbers = partial(canonicals, identity, problem, place.layout)
    if without is None or _same(without, first["value"]):
        return Ran(numbers(first), met, None, limits, numbers(second))
    return Ran(numbers(first), met, numbers({"value": without})["value"], limits, numbers(second))


def _again(
    run: _Run, first: Mapping[str, Tensor], met: dict[str, Failed], limits: dict[str, Failed]
) -> dict[str, Tensor]:
    """A second run must give the same; its gradient is asked for in another way, as far as it can be.

    Returns what it gave, if that is another thing.
    """
    ways = (BACKWARD,) if run.expected.one_backward else (RETAINED, GRAD, BACKWARD)
    for way in ways:
        try:
            again = _once(run, met, way=way)
            break
        except _Backward as error:
            failed = error.failed
            if way == BACKWARD:
                raise failed from None
            kind = "second backward" if way == RETAINED else "autograd.grad"
            limits.pop("second backward", None)
            limits[kind] = Failed(kind, f"{way} {failed.sentence.removeprefix('the backward pass ')}", failed.at)
    if not run.expected.deterministic:
        return {}
    differ = [name for name, tensor in first.items() if not _same(tensor, again[name])]
    if differ and "value" not in differ and way != BACKWARD:
        plainly = _once(run, {}, way=BACKWARD)
        if all(_same(first[name], plainly[name]) for name in differ):
            kind = "second backward" if way == RETAINED else "autograd.grad"
            met.setdefault(kind, Failed(kind, f"{way} gives another {differ[0]} than {BACKWARD}"))
            return {}
    for name in differ:
        kind = "not deterministic"
        met.setdefault(kind, Failed(kind, f"two runs on the same input differ in the {name}"))
    return again if differ else {}


def _without_gradients(run: _Run, met: dict[str, Failed]) -> Tensor | None:
    """The value as evaluation computes it: under torch.no_grad(), of inputs that ask for no gradient."""
    here: dict[str, Failed] = {}
    value = None
    try:
        with torch.no_grad():
            value = _once(run, here, way="")["value"]
    except Failed as failed:
        here = {failed.kind: failed} if run.expected.no_grad or failed.kind == "hung" else {}
    for kind, each in here.items():
        if kind not in met:  # else it is no matter of gradients
            named = "hung" if kind == "hung" else "no_grad"
            met[named] = Failed(named, f"under torch.no_grad(): {each.sentence}", each.at)
    return value


def _same(a: Tensor, b: Tensor) -> bool:
    return a.shape == b.shape and bool(
        torch.equal(a.nan_to_num(nan=0.5), b.nan_to_num(nan=0.5)) and torch.equal(a.isnan(), b.isnan())
    )


def _once(run: _Run, met: dict[str, Failed], way: str = BACKWARD) -> dict[str, Tensor]:
    """One run; its gradients asked for in a way ("": not at all)."""
    identity, expected = run.identity, run.expected
    bench = prepare(identity, run.problem, run.place, gradient=bool(way))
    items = bench.items
    like, written = _result_like(run, bench)
    before = {name: item.detach().clone() for name, item in items.items() if isinstance(item, Tensor)}
    call = function(run.form, tuple(items))
    value = _plain_tensor(run, run.conduct.call(lambda: call(**items)), like.dtype)
    if tuple(value.shape) != tuple(like.shape):  # a result has that of its upstream gradient
        raise Failed("shape", f"the result has shape {tuple(value.shape)}, expected {tuple(like.shape)}")
    wanted = formats.FORMATS[expected.format(run.problem.format)].dtype
    if like.is_floating_point() and value.dtype != wanted:
        sentence = f"the result for {run.problem.format} is {_name(value.dtype)}, expected {_name(wanted)}"
        met["dtype"] = Failed("dtype", sentence)
    results = {"value": value.detach().clone()}
    if bench.leaves:
        if not value.requires_grad:
            raise Failed("no gradient", "the result is detached: no gradient reaches the input")
        results |= _gradients(run, value, bench.leaves, like.to(value.dtype), way, met)
    overwritten = {next(iter(items))} if expected.in_place else set()
    for name, item in before.items():
        if name not in written | overwritten and not _unchanged(items[name], item):
            met["in place"] = Failed("in place", f"its input {name} was modified in place")
    return results


def _result_like(run: _Run, bench: Bench) -> tuple[Tensor, set[str]]:
    """A tensor of the shape of the result, the upstream gradient or what the reference gives; and what that writes to.

    An optimizer's step is meant to change its parameters.
    """
    if bench.upstream is not None:
        return bench.upstream, set()
    items, fresh = bench.items, prepare(run.identity, run.problem, run.place).items
    reference: Tensor = function(run.identity.reference, tuple(fresh))(**fresh)
    tensors = [name for name, item in items.items() if isinstance(item, Tensor)]
    return reference, {name for name in tensors if not _unchanged(fresh[name], items[name])}


def _plain_tensor(run: _Run, value: Any, like: torch.dtype) -> Tensor:
    """What was returned as a tensor that can be judged; raises Failed for anything else."""
    kind = type(value)
    if not issubclass(kind, Tensor):  # whatever it says of itself
        raise Failed("result", f"it returned {kind.__name__}, not a floating-point tensor")
    try:
        with torch._C.DisableTorchFunctionSubclass():
            plain = value if kind in (Tensor, nn.Parameter) else Tensor.as_subclass(value, Tensor)
            strange = plain.layout != torch.strided or plain.is_nested or plain.is_quantized
            what = f"{plain.dtype}" + (f" of layout {plain.layout}" if strange else f" on {plain.device.type}")
            known = plain.dtype in {each.dtype for each in formats.FORMATS.values()}
            known |= not like.is_floating_point and not plain.is_complex() and not plain.is_floating_point()
            strange |= plain.device.type != torch.device(run.place.device).type
            if known and not strange:
                plain.detach().clone().to("cpu")
    except Exception as error:
        raise Failed("result", f"it returned {kind.__name__}, which cannot be read: {said(error)}") from None
    if not known:
        raise Failed("result", f"it returned {plain.dtype}, not a floating-point tensor of a format that is judged")
    if strange:
        raise Failed("result", f"it returned {what}, not a dense tensor on {run.place.device}")
    return plain


def _gradients(
    run: _Run, value: Tensor, leaves: Mapping[str, Tensor], weights: Tensor, way: str, met: dict[str, Failed]
) -> dict[str, Tensor]:
    def backward() -> tuple[Any, ...]:
        if way == BACKWARD:
            value.backward(weights)
            return tuple(leaf.grad for leaf in leaves.values())
        keep = way == RETAINED
        return torch.autograd.grad(value, list(leaves.values()), weights, retain_graph=keep, allow_unused=True)

    def attempted() -> dict[str, Tensor]:
        try:
            found = run.conduct.call(backward)
        except Failed as failed:
            raised = Failed(failed.kind, f"the backward pass {failed.sentence}", failed.at)
            if way == BACKWARD or failed.kind != "raised":
                raise raised from None
            raise _Backward(raised) from None
        for name, gradient in zip(leaves, found, strict=True):
            if gradient is None:
                raise Failed("no gradient", f"no gradient reaches {name}")
            if gradient.layout != torch.strided:
                raise Failed("result", f"the gradient of {name} is of layout {gradient.layout}, not dense")
        return {f"gradient {name}": x.detach().clone() for name, x in zip(leaves, found, strict=True)}

    results = attempted()
    if way == RETAINED:
        again = attempted()
        if run.expected.deterministic and not all(_same(again[name], x) for name, x in results.items()):
            sentence = "a second backward pass (retain_graph=True) gives another gradient"
            met["second backward"] = Failed("second backward", sentence)
    return results


def _unchanged(item: Tensor, before: Tensor) -> bool:
    try:
        return _same(item.detach(), before)
    except Exception:  # its memory was taken away
        return False


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


# --- can it be followed? ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Insides:
    """The operations that an implementation runs, and why they cannot be followed ("": they can)."""

    operations: frozenset[str] = frozenset()
    opaque: str = ""


def _without_threshold(rule: Rule, call: Call) -> Any:
    return rule(call.like(call.name, {**call.arguments, "threshold": inf}, call.out))


# What an operation is documented to do instead of its function is no rounding: it does not excuse who calls it.
DOCUMENTED = {name: partial(_without_threshold, RULES[name]) for name in ("softplus", "softplus_backward")}
OWN = Follow(DOCUMENTED)


def followed(
    conduct: Conduct, identity: Identity, form: Form, problem: Problem, place: Place, follow: Follow = OWN
) -> Outcome:
    """One run under the error analysis (see `execute.run`); code that compiles inside runs as it was written.

    What a module or a closure holds is a constant.
    """

    def run() -> Outcome:
        with torch.compiler.set_stance("force_eager"):
            return execute.run(identity, form, problem, place, follow=replace(follow, outside=True))

    return conduct.call(run)


def insides(conduct: Conduct, identity: Identity, form: Form, problem: Problem, place: Place) -> Insides:
    """Looks at what a form runs on one problem, and on another of the same shape.

    Numbers made behind the tracker's back (in numpy, by a kernel that writes into memory) come in as constants, as
    what a module holds does, or not at all: a form whose constants change with its input, or whose result was never
    written, is opaque.
    """
    real = [name for name, item in problem.items.items() if isinstance(item, np.ndarray) and item.dtype.kind == "f"]
    halved = {name: problem[name] / 2 for name in (*identity.wrt, *real)[:1]}
    half = Problem(problem.format, {**problem.items, **halved})
    constants, operations = [], frozenset[str]()
    for each in (problem, half):
        watch = Watch()
        try:
            run = followed(conduct, identity, form, each, place, Follow(watch.rules))
        except Failed as failed:
            why = said(failed.error, named=False) if isinstance(failed.error, Exception) else failed.sentence
            return Insides(opaque=why.partition(": ")[0] or type(failed.error).__name__)
        if any((np.isnan(run.exact[name]) & np.isfinite(run.got[name])).any() for name in run.got):
            return Insides(opaque="its memory is written by something that is no ATen operation")
        constants.append(run.constants)
        operations |= {seen.name for seen in watch.seen}
    return Insides(operations, "" if constants[0] == constants[1] else "numbers are made outside of PyTorch")
