"""Shows planted faults to the gate: the same problems, layouts and judge as every other form meets.

A fault at special values is shown to their table instead.

A fault that is *hidden* stands for a wrong kernel.  The analysis follows the identity's reference, and the broken
code's numbers are put in place of the reference's behind its back: the value as it leaves, the gradient as it
arrives.  So it is judged by the contract, as any implementation is that cannot be followed operation by operation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from equivalences.evidence.faults.fault import Fault, SpecialFault
from equivalences.findings import outcomes
from equivalences.findings.model import SpecialValue
from equivalences.findings.special_values import SPECIAL_VALUES
from equivalences.gate import sweep
from equivalences.judging import judge, plan
from equivalences.judging.facts import OUTSIDE
from equivalences.judging.judge import Crash, Judgement
from equivalences.judging.plan import Planned
from equivalences.model import Form, Identity
from equivalences.running.forms import exists, function

EXAMPLES = 25  # drawn problems beside the edge problems: what a cell gets in the ci profile


class _Leave(torch.autograd.Function):
    """The value of the sound code, overwritten by what the broken code gives."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, state: dict[str, Any]) -> Tensor:
        ctx.state = state
        out = value.clone()
        with _disable_current_modes():
            out.copy_(state["broken"].detach())
        return out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Any:
        state = ctx.state
        with _disable_current_modes(), torch.enable_grad():
            state["gradients"] = torch.autograd.grad(state["broken"], state["leaves"], upstream[0])
        return upstream[0], None


class _Enter(torch.autograd.Function):
    """The leaf itself; its gradient is overwritten by the broken code's."""

    @staticmethod
    def forward(ctx: Any, leaf: Tensor, number: int, state: dict[str, Any]) -> Tensor:
        ctx.number, ctx.state = number, state
        return leaf.clone()

    @staticmethod
    def backward(ctx: Any, *gradient: Tensor) -> Any:
        out = gradient[0].clone()
        with _disable_current_modes():
            out.copy_(ctx.state["gradients"][ctx.number])
        return out, None, None


def _hidden(sound: Form, broken: Form, wrt: tuple[str, ...]) -> Callable[..., Any]:
    enter: Callable[..., Tensor] = _Enter.apply
    leave: Callable[..., Tensor] = _Leave.apply

    def form(**items: Any) -> Any:
        names = tuple(items)
        with _disable_current_modes(), torch.enable_grad():
            plain = {name: float(item) if isinstance(item, float) else item for name, item in items.items()}
            tensors = {name: item.detach() for name, item in items.items() if isinstance(item, Tensor)}
            leaves = [tensors[name].requires_grad_() for name in wrt]
            before = {name: tensor.clone() for name, tensor in tensors.items()}
            state = {"leaves": leaves, "broken": function(broken, names)(**plain | tensors)}
            for name, tensor in before.items():  # what was written in place is the sound code's again
                if not torch.equal(tensor, items[name]):
                    items[name].data.copy_(tensor)
        entered = {name: enter(items[name], number, state) for number, name in enumerate(wrt)}
        return leave(function(sound, names)(**items | entered), state)

    return form


def planted(fault: Fault) -> Form:
    """The fault as the gate meets it."""
    broken, of = fault.broken, fault.of
    form = replace(broken, layouts=broken.layouts or judge.layouts(of)[:1])
    if not fault.hidden:
        return form
    return replace(form, code=_hidden(of.reference, broken, of.wrt), label=f"in a kernel: {broken.label}")


def judgements(
    identity: Identity, form: Form, fmt: str, examples: int = EXAMPLES, seed: int = 0
) -> Iterator[tuple[int, Judgement]]:
    """What the gate says of one form: the number of the problem (edge problems first), and its judgements."""
    for number, each in enumerate(_problems(identity, fmt, examples, seed), 1):
        for met in judge.in_layouts(identity, form, each.problem, each.layouts):
            yield number, met


def _problems(identity: Identity, fmt: str, examples: int, seed: int) -> Iterator[Planned]:
    """Edge problems, drawn ones and, since they are many or large, at last those that leave nothing out."""
    yield from plan.edges(identity, fmt)
    for unit in sweep.units(identity, fmt, "cpu", "eager", examples, seed)[1:]:
        yield from sweep.planned(unit)
    yield from plan.exhaustive(identity, fmt)


def refuted(fault: Fault, fmt: str, examples: int = EXAMPLES, seed: int = 0) -> dict[str, int]:
    """What the gate finds wrong ("value", "gradient" or "crash"), with the number of the problem that shows it first.

    `examples` problems are drawn beside the others.  Stops once everything that the fault breaks is found.
    """
    found: dict[str, int] = {}
    for number, met in judgements(fault.of, planted(fault), fmt, examples, seed):
        if isinstance(met, Crash):
            return {"crash": number}
        if bool((met.own.fact == OUTSIDE).any()):
            found.setdefault(met.quantity.partition(" ")[0], number)
            if set(fault.breaks) <= set(found):
                break
    return found


def entries(fault: SpecialFault) -> list[SpecialValue]:
    """The entries of the table of special values that a fault is shown to, on this torch."""
    there = [entry for entry in SPECIAL_VALUES if entry.call == fault.call]
    return [entry for entry in there if exists(Form(entry.call, needs=entry.needs))]


def refusing(fault: SpecialFault, fmt: str) -> list[SpecialValue]:
    """The entries that refuse a fault: what comes out is neither right nor what PyTorch does in any release."""
    found = []
    for entry in entries(fault):
        if fmt in entry.formats:
            got = outcomes.run(replace(entry, call=fault.broken), fmt)
            if all(outcomes.differs(got, said, fmt) for said in outcomes.accepted(entry, fmt, "eager")):
                found.append(entry)
    return found
