"""What autograd may not change: a second backward, and the value without a graph.  Bit by bit, in every format."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from equivalences.catalogue import FAMILY_OF, IDENTITIES
from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.model import Identity
from equivalences.running import execute
from equivalences.running.forms import function

FAMILIES = ("softmax", "cross_entropy", "cross_entropy_options", "sigmoid", "binary", "binary_options", "two_columns")
LOSSES = [i for i in IDENTITIES.values() if FAMILY_OF[i.name] in FAMILIES and i.wrt and not i.bitwise]


def same(a: Tensor, b: Tensor) -> bool:
    return bool((a.eq(b) | (a.isnan() & b.isnan())).all()) and bool((a.signbit() == b.signbit())[~a.isnan()].all())


@pytest.mark.parametrize("fmt", list(FORMATS))
@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_backward_leaves_the_graph_as_it_was(loss: Identity, fmt: str) -> None:
    if fmt not in loss.formats:
        pytest.skip(f"{loss.name} is not defined in {fmt}")
    layout = judge.layouts(loss)[0]
    problem = loss.domain.edges(fmt)[3]
    for form in judge.forms(loss, fmt, layout):
        items = execute.arguments(loss, problem, layout)
        upstream = items.pop("g")
        inputs = [items[name].requires_grad_() for name in loss.wrt]
        call = function(form, tuple(items))
        value = call(**items)
        first = torch.autograd.grad(value, inputs, upstream.to(value.dtype), retain_graph=True)
        second = torch.autograd.grad(value, inputs, upstream.to(value.dtype))
        assert all(map(same, first, second)), form.label
        if "autograd.grad" not in str(form.code):
            with torch.no_grad():
                assert same(call(**items), value.detach()), form.label


def test_a_difference_in_one_sign_is_seen() -> None:
    zeros = torch.zeros(3)
    assert same(zeros, zeros.clone())
    assert not same(zeros, -zeros)
    assert not same(zeros, torch.tensor(np.array([0, 0, 1e-45], dtype=np.float32)))
