"""The running error analysis takes on the errors of its inputs, whatever the operations between.

The gate's inputs are exact, so that a rule which forgets the error of an operand shows only where a form computes that
operand, and then only by a few roundings.  Here every input is off by far more than a rounding, and the analysis is
told by how much: its results must still lie within their bounds.
"""

from __future__ import annotations

import math

import flint
import numpy as np
import pytest
import torch
from torch import Tensor

from equivalences.catalogue import IDENTITIES
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.model import Form, Identity, Problem
from equivalences.rounding import Shadow, Step, Tracker, assumptions
from equivalences.rounding.arrays import add_up, numbers
from equivalences.running import execute
from equivalences.running.execute import Follow, Place
from equivalences.running.layouts import applies

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
        tracker.write(tensor, Shadow(numbers(exact), abs(numbers(tensor) - numbers(exact))))
    return tensor


@pytest.mark.parametrize("identity", [i for i in IDENTITIES.values() if not i.bitwise], ids=lambda i: i.name)
def test_errors_of_the_inputs_are_taken_on(identity: Identity, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = judge.layouts(identity)[0]
    as_is = {defect.operation: defect.as_is for defect in KNOWN_DEFECTS if "float64" in defect.formats}
    for problem in identity.domain.edges("float64")[1:4:2]:
        if not applies(identity, problem, layout):
            continue
        for form in judge.forms(identity, "float64", layout):
            plain = execute.run(identity, form, problem, Place(layout), follow=Follow(as_is))
            with monkeypatch.context() as patch:
                patch.setattr(Tracker, "declare", _declare_a_lie)
                run = execute.run(identity, form, problem, Place(layout), follow=Follow(as_is))
            for quantity, got in run.got.items():
                # The analysis' own value is computed in float64, too, and is off by as much as the plain run's.
                bound = run.bound[quantity] + plain.bound[quantity]
                with np.errstate(invalid="ignore"):  # inf - inf: there is no bound either
                    within = (np.abs(got - run.exact[quantity]) <= bound) | np.isinf(bound)
                assert within.all(), f"{quantity} of {form.label}, {np.argwhere(~within)[0]}, on {problem!r}"


@pytest.mark.parametrize(("dtype", "excessive"), [(torch.float32, True), (torch.float64, False)])
def test_a_step_in_float64_is_granted_the_bound_of_its_shadow(dtype: torch.dtype, excessive: bool) -> None:
    off, exact, bound = map(np.array, (1.5, 0.0, 1.0))
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


@pytest.mark.parametrize("name", ["exp", "expm1", "log", "log1p", "tanh", "sqrt"])
def test_the_analysis_computes_as_well_as_it_expects_of_a_kernel(name: str) -> None:
    draw = np.random.default_rng(0).uniform
    x = np.concatenate([draw(-30, 30, 1000), draw(-1, 1, 1000), 10 ** draw(-300, 2, 1000), -(10 ** draw(-20, 0, 1000))])
    x = x[x > {"log": 0, "sqrt": 0, "log1p": -1}.get(name, -np.inf)]
    computed = getattr(np, name)(x)
    allowed = assumptions("cpu").relative(name, FORMATS["float64"].u)
    with flint.ctx.workprec(200):
        ideal = [getattr(flint.arb(a), name)() for a in x.tolist()]
        worst = max(float(abs(flint.arb(y) / t - 1)) for y, t in zip(computed.tolist(), ideal, strict=True))
    assert 0.1 * allowed < worst <= allowed


@pytest.mark.parametrize("dims", [[0], [1], [0, 1], None])
def test_sums_of_the_analysis_are_pairwise_along_every_dimension(dims: list[int] | None) -> None:
    n, u = 2**16, FORMATS["float64"].u
    x = np.full((n, 3) if dims == [0] else (3, n), 0.1)
    x = np.asfortranarray(x) if dims is None else x
    terms = n if dims in ([0], [1]) else 3 * n
    allowed = assumptions("cpu").sums.whole(terms, threads=1) * u * terms * 0.1
    assert (abs(add_up(x, dims) - math.fsum([0.1] * terms)) <= allowed).all()


@pytest.mark.filterwarnings("ignore:Warning only once for all operators")
def test_a_broken_kernel_cannot_excuse_itself() -> None:
    identity, form = IDENTITIES["sigmoid"], Form("1 / (1 + torch.exp(-z))")
    problem = Problem("float32", {"z": np.array([0.5, 1.0, 2.0]), "g": np.ones(3)})
    met = {}
    for factor in (1.0, 1 + 2.0**-12):  # the rule of exp, and so the analysis' own value, must not use this one
        library = torch.library.Library("aten", "IMPL")
        library.impl("exp", lambda x, by=factor: torch.from_numpy(np.exp(x.detach().numpy()) * np.float32(by)), "CPU")
        try:
            met[factor] = judge.measure(identity, form, problem)[0].failed
        finally:
            library._destroy()
            judge._float64_enclosure.cache_clear()
            judge.reference_run.cache_clear()
    assert list(met.values()) == [False, True]
