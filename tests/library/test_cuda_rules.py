"""The rules for CUDA: what its kernels compute, done here step by step on the CPU, is within them and not within less.

"Less" is the CPU's rule, or the rule without the known defect: what tells the two apart is worth its line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from equivalences.findings.known_defects import actual
from equivalences.formats import FORMATS
from equivalences.rounding import Rule, Shadow, Tracker
from equivalences.rounding.summation import Blocks, nll2d_blocks

ATEN: Any = torch.ops.aten
TINY = FORMATS["float32"].tiny


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def drawn(*shape: int, dtype: torch.dtype, seed: int = 0) -> Tensor:
    return randn(*shape, seed=seed).to(dtype)


@dataclass(frozen=True)
class Case:
    """An operation that the tracker follows, CUDA's way to compute it, and what is less than its rule."""

    name: str
    inputs: tuple[Tensor, ...]
    operation: Callable[..., Tensor]
    on_cuda: Callable[..., Tensor]
    defect: Mapping[str, Rule] = field(default_factory=dict)
    less: str = "cuda"  # the device whose rules, without the defect, are too narrow


def _softmax_backward(g: Tensor, s: Tensor) -> Tensor:
    products = g * s  # stored in 16 bits
    total = products.float().sum(1, keepdim=True)
    return (products.float() - s.float() * total).to(g)


def _flushed(index: Tensor, source: Tensor) -> Tensor:
    return torch.where(source.abs() < TINY, 0, source)  # each meets a zero


def _many_blocks(x: Tensor) -> Tensor:
    total = torch.zeros((), dtype=x.dtype)
    for image in x:
        total += image[0].numel()
    return total


BETA1, BETA2, RATE = 0.9, 0.999, 1e-3


def _fused(w: Tensor, g: Tensor) -> Tensor:
    w, m, v = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
    ATEN._fused_adam_(
        [w], [g], [m], [v], [], [torch.ones(())],
        lr=RATE, beta1=BETA1, beta2=BETA2, weight_decay=0.0, eps=1e-8, amsgrad=False, maximize=False,
    )  # fmt: skip
    return m


def _fused_in_float32(w: Tensor, g: Tensor) -> Tensor:
    return (1 - torch.tensor(BETA1)) * g


bf16, f16 = torch.bfloat16, torch.float16
SHARES = torch.softmax(3 * randn(2000, 5, seed=1), 1)
CASES = (
    *(
        Case(
            f"softmax backward, {dtype}",
            (drawn(2000, 5, dtype=dtype), SHARES.to(dtype)),
            lambda g, s: ATEN._softmax_backward_data(g, s, 1, g.dtype),
            _softmax_backward,
            {"_softmax_backward_data": actual.softmax_backward_rounds_products},
        )
        for dtype in (bf16, f16)
    ),
    *(
        Case(
            f"{name} backward, {dtype}",
            (drawn(4000, dtype=dtype), getattr(torch, name)(randn(4000, seed=1)).to(dtype)),
            getattr(ATEN, f"{name}_backward"),
            on_cuda,
            {f"{name}_backward": rule},
        )
        for name, on_cuda, rule in (
            ("sigmoid", lambda g, y: g * (1 - y) * y, actual.sigmoid_backward_in_storage),
            ("tanh", lambda g, y: g * (1 - y * y), actual.tanh_backward_in_storage),
        )
        for dtype in (bf16, f16)
    ),
    Case(
        "the number of rows of nll_loss2d",
        (torch.zeros(600, 2, 1, 1, dtype=bf16),),
        lambda x: ATEN.nll_loss2d_forward(x, torch.zeros(600, 1, 1, dtype=torch.long), None, 1, -100)[1],
        _many_blocks,
        {"nll_loss2d_forward": actual.nll_loss2d_adds_blocks_in_storage},
    ),
    Case(
        "the number of rows of nll_loss",
        (torch.zeros(65520, 2, dtype=f16),),
        lambda x: ATEN.nll_loss_forward(x, torch.zeros(65520, dtype=torch.long), None, 1, -100)[1],
        lambda x: torch.tensor(float(len(x))).to(x),
        {"nll_loss_forward": actual.nll_loss_total_in_float16},
    ),
    Case("division by a number", (randn(4000),), lambda x: x / 0.7, lambda x: x * (1 / torch.tensor(0.7)), less="cpu"),
    Case(
        "scatter_add",
        (torch.arange(4), torch.tensor([1.0, TINY / 2, -TINY / 4, TINY])),
        lambda index, source: torch.zeros(4).scatter_add(0, index, source),
        _flushed,
        less="cpu",
    ),
    Case("moments of the fused Adam", (randn(500), randn(500, seed=1)), _fused, _fused_in_float32, less="cpu"),
)


def followed(case: Case, device: str, rules: Mapping[str, Rule]) -> Shadow:
    tracker = Tracker(device=device, as_is=rules)
    for tensor in case.inputs:
        tracker.declare(tensor)
    with tracker:
        out = case.operation(*case.inputs)
    return tracker.shadow(out)


def within(got: Tensor, shadow: Shadow) -> bool:
    with np.errstate(invalid="ignore"):
        inside = np.isinf(shadow.e) | (abs(got.double().numpy() - shadow.v) <= shadow.e)
    return bool(inside.all())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_cuda_computes_is_within_its_rule_and_not_within_less(case: Case) -> None:
    got = case.on_cuda(*case.inputs)
    assert within(got, followed(case, "cuda", case.defect))
    assert not within(got, followed(case, case.less, {}))


def test_dropout_as_one_operation() -> None:
    x, p = randn(1000).requires_grad_(), 0.3
    tracker = Tracker(device="cuda")
    tracker.declare(x)
    with tracker:
        out, kept = torch.native_dropout(x, p, True)
        (gradient,) = torch.autograd.grad(out, x, torch.ones_like(out))
    for got, exact in ((out, x.detach().double() / 0.7), (gradient, torch.ones(1000).double() / 0.7)):
        shadow = tracker.shadow(got)
        assert within(torch.where(kept, exact, 0), shadow)
        assert within(got.detach(), shadow)
        assert (shadow.e <= 4 * FORMATS["float32"].u * abs(shadow.v)).all()
    assert 0.6 < kept.double().mean() < 0.8


def depth(rows: int, threads: int) -> int:
    """Additions on the way of a term: one after the other in each thread, then the threads in a tree."""
    return -(-rows // threads) - 1 + (threads - 1).bit_length()


@pytest.mark.parametrize("rows", [64, 500, 735, 736, 5000, 11599, 11600, 65520, 2**20])
def test_the_height_of_nll_loss(rows: int) -> None:
    threads = min(max(1 << round(float(np.log2(rows // 16))), 32), 1024)  # Loss.cu, nll_loss_threads
    assert depth(rows, threads) <= Blocks().nll(rows) <= 3 * depth(rows, threads)


def test_heights_are_far_below_any_order() -> None:
    rows = 2**20
    assert max(Blocks().whole(rows, 1), Blocks().nll(rows), Blocks().row(rows, False)) < rows / 16
    assert nll2d_blocks(5460, 12) == 5460
    assert nll2d_blocks(16, 512 * 512) == 16 * 16
