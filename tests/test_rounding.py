"""The running error analysis takes on the errors of its inputs, whatever the operations between.

The gate's inputs are exact, so that a rule which forgets the error of an operand shows only where a form computes that
operand, and then only by a few roundings.  Here every input is off by far more than a rounding, and the analysis is
told by how much: its results must still lie within their bounds.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from equivalences import execute, judge
from equivalences.catalogue import IDENTITIES
from equivalences.known_defects import KNOWN_DEFECTS
from equivalences.model import Identity
from equivalences.rounding import Tracker
from equivalences.rounding.tracker import Shadow, Step

OFF = 2.0**-20  # relative; towards zero, which keeps probabilities and weights what they are


def _declare_a_lie(tracker: Tracker, tensor: Tensor) -> Tensor:
    """Moves the numbers of an input that gets a gradient, and says by how much."""
    if not tensor.is_floating_point():
        return tensor
    with torch.no_grad():
        exact = tensor.detach().clone()
        if tensor.requires_grad:  # targets may have to be 0 or 1
            pattern = torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape) % 3 / 2
            tensor.copy_(exact * (1 - OFF * pattern))
        tracker.write(tensor, Shadow(exact, (tensor.detach() - exact).abs()))
    return tensor


@pytest.mark.parametrize("identity", [i for i in IDENTITIES.values() if not i.bitwise], ids=lambda i: i.name)
def test_errors_of_the_inputs_are_taken_on(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = judge.layouts(identity)[0]
    as_is = {defect.operation: defect.as_is for defect in KNOWN_DEFECTS if "float64" in defect.formats}
    for problem in identity.domain.edges("float64")[1:4:2]:
        if not execute.applies(identity, problem, layout):
            continue
        for form in judge.forms(identity, "float64", layout):
            plain = execute.run(identity, form, problem, layout=layout, as_is=as_is)
            with monkeypatch.context() as patch:
                patch.setattr(Tracker, "declare", _declare_a_lie)
                run = execute.run(identity, form, problem, layout=layout, as_is=as_is)
            for quantity, got in run.got.items():
                # The analysis' own value is computed in float64, too, and is off by as much as the plain run's.
                bound = run.bound[quantity] + plain.bound[quantity]
                with np.errstate(invalid="ignore"):  # inf - inf: there is no bound either
                    within = (np.abs(got - run.exact[quantity]) <= bound) | np.isinf(bound)
                assert within.all(), f"{quantity} of {form.label}, {np.argwhere(~within)[0]}, on {problem!r}"


@pytest.mark.parametrize(("dtype", "excessive"), [(torch.float32, True), (torch.float64, False)])
def test_a_step_in_float64_is_granted_the_bound_of_its_shadow(dtype: torch.dtype, excessive: bool) -> None:
    off, exact, bound = (torch.tensor(x).double() for x in (1.5, 0.0, 1.0))
    assert Step("aten::any", dtype, off, exact, bound).excessive() is excessive


def test_shapes_without_numbers_are_no_steps() -> None:
    with Tracker(history=True) as tracker:
        torch.empty(3, device="meta") + 1
    assert not tracker.steps


def test_a_shadow_is_not_the_tensor_that_it_shadows() -> None:
    tracker = Tracker()
    x = tracker.declare(torch.zeros(3, dtype=torch.float64))
    with tracker:
        x.logical_not_()  # its exact result is what stands in x, which the next operation changes
        x.add_(1.0)
    assert tracker.shadow(x).v.tolist() == [2.0] * 3
