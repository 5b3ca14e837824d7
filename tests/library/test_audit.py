"""The audit names the operation that loses the digits, and shares out the bound that the tracker computes."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from equivalences import audit
from equivalences.own.audit import Audit
from equivalences.rounding import Tracker, Untracked


def log_of_softmax(z: Tensor, y: Tensor) -> Tensor:
    return -torch.log(F.softmax(z, 1)).gather(1, y[:, None]).mean()


def unshifted(z: Tensor, y: Tensor) -> Tensor:
    return (torch.log(torch.exp(z).sum(1)) - z.gather(1, y[:, None])[:, 0]).mean()


def of(fn: Any, row: list[float], label: int = 0, dtype: torch.dtype = torch.float32, **options: Any) -> Audit:
    return audit(fn, torch.tensor([row], dtype=dtype), torch.tensor([label]), **options)


def test_log_of_softmax_loses_a_confident_row_in_softmax_and_the_logarithm_shows_it() -> None:
    found = of(log_of_softmax, [17.0, 0.0, 1.0])
    assert found.loses is not None
    assert found.loses.name == "_softmax"
    assert found.loses.value == pytest.approx(1.0)
    grown = max(found.operations, key=lambda o: o.amplification if o.amplification > 0 else 0.0)
    assert grown.name == "log"
    assert grown.amplification > 1e5
    assert found.operations[-1].digits < 1
    assert "made by aten::_softmax (operation 1" in str(found)
    assert "aten::log (operation 2) makes the relative error" in str(found)


def test_log_of_softmax_loses_the_tail_where_softmax_is_subnormal() -> None:
    found = of(log_of_softmax, [-95.0, 0.0, 1.0])
    assert found.loses is not None
    assert found.loses.name == "_softmax"
    assert 0 < found.loses.value < torch.finfo(torch.float32).tiny
    assert found.loses.digits < 4 < of(log_of_softmax, [-50.0, 0.0, 1.0]).operations[0].digits


def test_unshifted_exp_overflows() -> None:
    found = of(unshifted, [1.0, 90.0])
    assert found.loses is not None
    assert found.loses.name == "exp"
    assert found.bound == math.inf
    assert "no bound from aten::exp" in str(found)


def test_unshifted_exp_underflows() -> None:
    found = of(unshifted, [-100.0, -101.0])
    assert found.loses is not None
    assert found.loses.name == "exp"
    assert found.loses.share > 0.9


def test_the_stable_loss_keeps_its_digits() -> None:
    assert of(F.cross_entropy, [1.0, 90.0]).operations[-1].digits > 6


def test_gradient_has_both_phases() -> None:
    found = of(log_of_softmax, [17.0, 0.0, 1.0], gradient=True)
    phases = [o.phase for o in found.operations]
    assert phases == sorted(phases, reverse=True)  # forward, then backward
    assert {"forward", "backward"} == set(phases)
    assert found.quantity == "gradient of input 0"
    assert found.operations[-1].name == "_softmax_backward_data"


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-20, 20, width=16), min_size=2, max_size=5), st.sampled_from(("float32", "bfloat16")))
def test_shares_make_up_the_bound_of_the_tracker(row: list[float], fmt: str) -> None:
    dtype = getattr(torch, fmt)
    for fn in (log_of_softmax, unshifted):
        found = of(fn, row, dtype=dtype)
        tracker = Tracker(history=True)
        z = tracker.declare(torch.tensor([row], dtype=dtype))
        with tracker:
            value = fn(z, torch.tensor([0]))
        assert found.bound == float(tracker.shadow(value).e)
        assert [f"aten::{o.name}" for o in found.operations] == [step.operation for step in tracker.steps]
        assert all(not o.error > o.bound for o in found.operations)
        if 0 < found.bound < math.inf:
            # Errors of errors belong to no single operation, and there are few of them.
            assert 0.75 < sum(o.share for o in found.operations) <= 1 + 1e-9


def test_the_share_is_that_of_the_operation_made_worse() -> None:
    def rounded_on_the_way(z: Tensor) -> Tensor:
        return torch.exp(z.to(torch.bfloat16).to(torch.float32)) * 3

    found = audit(rounded_on_the_way, torch.tensor([1.001, 0.3]))
    assert found.loses is not None
    assert found.loses.name == "_to_copy"
    assert found.loses.share > 0.99


def test_options_and_modules_are_followed() -> None:
    linear = torch.nn.Linear(2, 3)
    assert audit(linear, torch.ones(1, 2)).operations[-1].name == "addmm"
    found = of(F.cross_entropy, [1.0, 2.0], label_smoothing=0.1)
    assert any(o.name == "_log_softmax" for o in found.operations)
    weighted = of(F.cross_entropy, [1.0, 2.0], weight=torch.tensor([0.1, 3.0]))
    assert weighted.operations[-1].digits > 6


def test_constants_and_results_written_in_place_are_followed() -> None:
    def scaled(z: Tensor) -> Tensor:
        out = torch.empty_like(z)
        torch.mul(z, torch.tensor(0.1), out=out)
        return out.add_(1)

    found = audit(scaled, torch.tensor([1.0, 3.0]))
    assert [o.name for o in found.operations if o.share > 0] == ["mul", "add"]
    assert found.operations[-1].digits > 6


def test_plain_data_is_strict_json() -> None:
    data = json.loads(json.dumps(of(unshifted, [1.0, 90.0]).as_dict(), allow_nan=False))
    assert data["bound"] == "inf"
    assert data["operations"][0]["name"] == "exp"


@pytest.mark.parametrize(
    ("fn", "error", "said"),
    [
        (lambda z: z.sum().item(), ValueError, "floating-point tensor, not float"),
        (lambda z: z > 0, ValueError, "a tensor of torch.bool"),
        (lambda z: torch.erfinv(z), Untracked, "aten::erfinv has no rounding rule"),
    ],
)
def test_what_cannot_be_audited_is_said(fn: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        audit(fn, torch.ones(2))


def test_nothing_to_audit() -> None:
    with pytest.raises(ValueError, match="at least one floating-point tensor"):
        audit(lambda y: y + 1, torch.tensor([1]))


def test_a_kernel_that_is_not_what_it_documents() -> None:
    found = audit(F.cross_entropy, torch.tensor([[0.0, -6.0]], dtype=torch.bfloat16), torch.tensor([0]))
    assert [operation.beyond for operation in found.operations] == [True, True]
    assert math.isnan(found.operations[0].digits)
    assert "operation 1 of 2" in str(found)
    assert "log_softmax-16bit-sum" in str(found)
    assert "is certain to" not in str(found)
    sound = audit(F.cross_entropy, torch.tensor([[0.0, -6.0]]), torch.tensor([0]))
    assert not any(operation.beyond for operation in sound.operations)
