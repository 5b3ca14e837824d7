"""What kernels are made of beside arithmetic: -inf that is meant, bits that are looked at, constants that code holds.

And operations that only move numbers, which do to the bounds what they do to the values.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from equivalences import check
from equivalences.rounding import RULES, Shadow, Tracker, Untracked
from equivalences.rounding.arrays import numbers
from equivalences.rounding.coverage import Coverage, operations, overloads
from equivalences.rounding.tracker import described

ATEN: Any = torch.ops.aten
PRIMS: Any = torch.ops.prims
INF = math.inf
X = torch.tensor([0.3, -2.0, 5.0])
START = torch.full((3,), -INF)
Code = Callable[[Tensor], Tensor]


def followed(code: Code, x: Tensor = X, **how: Any) -> tuple[Tensor, Shadow]:
    tracker = Tracker(**how)
    tracker.declare(x)
    tracker.declare(START)
    with tracker:
        got = code(x)
    return got, tracker.shadow(got)


# --- -inf ------------------------------------------------------------------------------------------------------------


def online_softmax(x: Tensor, block: int = 2) -> Tensor:
    """log(sum(exp(x))) block by block, with the largest number so far, from -inf on."""
    top, total = x.new_full((), -INF), x.new_zeros(())
    for part in x.split(block):
        new = torch.maximum(top, part.amax())
        total = total * torch.exp(top - new) + torch.exp(part - new).sum()
        top = new
    return top + torch.log(total)


EXACT: dict[str, Code] = {
    "-inf less a number": lambda x: START - x * 1.1,
    "-inf times a factor": lambda x: START * (x * 1.1).abs(),
    "-inf by a factor": lambda x: START / 3,
    "exp": lambda x: torch.exp(START - x * 1.1),
    "exp2": lambda x: torch.exp2(START - x * 1.1),
    "0 times a number": lambda x: torch.exp(START) * (x * 1.1),
    "in another format": lambda x: (START - x).to(torch.float16),
    "masked log softmax": lambda x: torch.log_softmax(x.masked_fill(x > 4, -INF), 0)[2],
    "a Python number": lambda x: x - INF,
    "logcumsumexp": lambda x: torch.logcumsumexp(START, 0),
}


@pytest.mark.parametrize("name", EXACT)
def test_an_infinity_that_is_meant_is_a_number_like_any_other(name: str) -> None:
    got, (v, e) = followed(EXACT[name])
    assert np.array_equal(numbers(got), v)
    assert not np.any(e)


BOUNDED: dict[str, Code] = {
    "the largest": lambda x: torch.maximum(START, x * 1.1) - x,
    "logaddexp": lambda x: torch.logaddexp(START, x * 1.1) - x,
    "a running maximum": lambda x: torch.cat((START, x * 1.1)).cummax(0)[0][3:] - x,
    "an online softmax": online_softmax,
    "a masked one": lambda x: online_softmax(torch.cat((x.masked_fill(x > 4, -INF), x)) * 1.1),
    "base 2": lambda x: torch.log2(torch.exp2((x - x.amax()) * math.log2(math.e)).sum()),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_a_start_at_minus_infinity_costs_nothing(name: str) -> None:
    got, (v, e) = followed(BOUNDED[name])
    assert (e <= 20 * 2.0**-24 * 6).all()
    assert (abs(numbers(got) - v) <= e).all()


@pytest.mark.parametrize(
    "code",
    [
        lambda x: START - START, lambda x: START * (x * 3 / 3 - x), lambda x: torch.exp(START) * START,
        lambda x: torch.exp(x * 100) - x,
    ],
)  # fmt: skip
def test_what_is_no_number_has_no_bound(code: Code) -> None:
    got, (_, e) = followed(code)
    assert np.isinf(e[~np.isfinite(numbers(got))]).all()
    assert not np.isfinite(numbers(got)).all()


# --- bits ------------------------------------------------------------------------------------------------------------


def cleared_in_place(x: Tensor) -> Tensor:
    y = x.clone()
    y.view(torch.int32).bitwise_and_(0x7FFFFFFF)
    return y * 1


LOOKED_AT: dict[str, tuple[Code, float]] = {  # code, and the bound that it has at most
    "and back": (lambda x: (x * 1.1).view(torch.int32).view(torch.float32), 1e-6),
    "only looked at": (lambda x: [x * 1.1, (x * 1.1).view(torch.int32) >> 3][0], 1e-6),
    "exact bits": (lambda x: (x.view(torch.int32) & 0x7FFFFFFF).view(torch.float32), 0.0),
    "exact bits, as numbers": (lambda x: (x.view(torch.int32) >> 23).to(torch.float32), 0.0),
    "in place": (cleared_in_place, 1e-6),
    "half of them": (lambda x: x.view(torch.float16).float(), 0.0),
}


@pytest.mark.parametrize("name", LOOKED_AT)
def test_bits_that_are_known_are_numbers(name: str) -> None:
    code, largest = LOOKED_AT[name]
    got, (v, e) = followed(code)
    assert (abs(numbers(got) - v) <= e).all()
    assert (e <= largest).all()


@pytest.mark.parametrize(
    "code",
    [
        lambda x: (x * 1.1).view(torch.int32).to(torch.float32),
        lambda x: ((x * 1.1).view(torch.int32) ^ 1).view(torch.float32),
        lambda x: (x * 1.1).view(torch.float16).float(),
        lambda x: torch.where((x * 1.1).view(torch.int32) % 2 == 0, x, -x),
    ],
)
def test_bits_of_a_computed_number_have_no_bound(code: Code) -> None:
    assert np.isinf(followed(code)[1].e).all()


def test_complex_numbers_are_refused_by_name() -> None:
    with pytest.raises(Untracked, match=r"aten::view_as_complex: complex numbers are not followed"):
        followed(lambda x: torch.view_as_real(torch.view_as_complex(torch.stack((x, x), 1))))


# --- constants -------------------------------------------------------------------------------------------------------


class Scaled(nn.Module):
    """A module that holds a scalar and a tensor."""

    scale: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.tensor(0.7))
        self.shift = nn.Parameter(torch.full((1,), 0.3))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        x = z * self.scale.to(z.dtype) + self.shift.to(z.dtype)
        return F.cross_entropy(x - (x - z), y)


BRIEF: dict[str, Any] = {
    "formats": ("float32",), "layouts": ("contiguous",), "examples": 0, "shape": (42, 3),
}  # fmt: skip


def test_a_module_or_a_closure_may_hold_numbers() -> None:
    assert check(Scaled(), **BRIEF).opaque == ""
    held = torch.tensor([2.0])
    report = check(lambda z, y: F.cross_entropy(z * held / held, y), **BRIEF)
    assert report.opaque == ""
    assert not report.failures(accept={"unstable"})


def test_a_constant_that_follows_the_input_is_none() -> None:
    def numpy_inside(z: Tensor, y: Tensor) -> Tensor:
        top = torch.from_numpy(z.detach().numpy().max(1, keepdims=True))
        return F.cross_entropy(z - top, y)

    assert check(numpy_inside, **BRIEF).opaque == "numbers are made outside of PyTorch"


@pytest.mark.slow
def test_a_known_defect_inside_a_module_is_not_charged_to_its_author() -> None:
    held = torch.tensor(1.0)

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.nll_loss(F.log_softmax(z * held.to(z.dtype), 1), y)

    where: dict[str, Any] = {"formats": ("bfloat16",), "layouts": ("contiguous",), "examples": 0, "many_rows": False}
    report = check(loss, **where, many_classes=False)
    assert [defect.name for defect in report.defects] == ["log_softmax-16bit-sum"]
    assert not report.failures(accept={"unstable"})


def test_what_was_never_declared_is_refused_unless_it_is_asked_for() -> None:
    held = torch.tensor(0.25)
    with pytest.raises(Untracked, match="no error bound"):
        followed(lambda x: x * held)
    assert followed(lambda x: x * held, outside=True)[1].e.max() < 1e-6

    def written(x: Tensor) -> Tensor:
        return held.mul_(0.5).add_(x.sum()) * 1  # as it was before

    got, (v, e) = followed(written, outside=True)
    assert abs(numbers(got) - v) <= e < 1e-5


# --- movement --------------------------------------------------------------------------------------------------------

TABLE = torch.arange(24.0).reshape(4, 6) + 1
I = torch.tensor([2, 0])  # noqa: E741
MOVED: dict[str, Code] = {
    "slice_scatter": lambda x: torch.slice_scatter(x, x[:, :3], 1, 2, 5),
    "select_scatter": lambda x: torch.select_scatter(x, x[0], 0, 2),
    "diagonal_scatter": lambda x: torch.diagonal_scatter(x[:, :4], x[0, :4]),
    "diag_embed": torch.diag_embed,
    "pixel_shuffle": lambda x: F.pixel_shuffle(x[:, :, None, None].reshape(1, 24, 1, 1), 2),
    "copies of views": lambda x: torch.permute_copy(
        torch.expand_copy(torch.unsqueeze_copy(x, 0), (2, 4, 6)), (2, 0, 1)
    ),
    "_unsafe_index": lambda x: ATEN._unsafe_index(x, [I]),
    "_unsafe_index_put": lambda x: ATEN._unsafe_index_put(x, [I], x[:2] + 0),
    "index_copy": lambda x: x.index_copy(0, I, x[:2]),
    "detach_": lambda x: x.clone().detach_() + 0,
    "rev": lambda x: PRIMS.rev(x, [1]),
}


@pytest.mark.parametrize("name", MOVED)
def test_bounds_move_with_their_numbers(name: str) -> None:
    exact, e = TABLE.double(), TABLE.double() / 2**30
    tracker = Tracker()
    x = TABLE.clone()
    tracker.write(x, Shadow(numbers(exact), numbers(e)))
    with tracker:
        got = MOVED[name](x)
    shadow = tracker.shadow(got)
    assert np.array_equal(shadow.v, MOVED[name](exact).numpy())
    assert np.allclose(shadow.e, MOVED[name](e).numpy(), rtol=0, atol=24 * 2.0**-23)  # adding 0 rounds once
    assert (shadow.e > 0).any()


PRIMITIVES: dict[str, tuple[Code, Code]] = {
    "where": (lambda x: PRIMS.where(x > 9, x, -x), lambda x: torch.where(x > 9, x, -x)),
    "sum": (lambda x: PRIMS.sum(x, [1]), lambda x: x.sum(1)),
    "prod": (lambda x: PRIMS.prod(x, [1]), lambda x: x.prod(1)),
    "amax": (lambda x: PRIMS.amax(x, [0]), lambda x: x.amax(0)),
    "amin": (lambda x: PRIMS.amin(x, [1]), lambda x: x.amin(1)),
    "var": (lambda x: PRIMS.var(x, [1], 1), lambda x: x.var(1)),
    "pow": (lambda x: PRIMS.pow(x, x / 9), lambda x: x.pow(x / 9)),
    "exp2": (PRIMS.exp2, torch.exp2),
    "convert": (lambda x: PRIMS.convert_element_type(x, torch.float16), lambda x: x.to(torch.float16)),
}


def computed(code: Code) -> Code:
    return lambda x: code(x * 1.1)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_a_primitive_is_followed_as_the_operation_that_it_is(name: str) -> None:
    primitive, plain = (followed(computed(code), TABLE)[1] for code in PRIMITIVES[name])
    assert np.array_equal(primitive.v, plain.v)
    assert np.array_equal(primitive.e, plain.e)
    assert (plain.e > 0).any()


# --- coverage --------------------------------------------------------------------------------------------------------


def test_the_list_of_operations_is_that_of_torch() -> None:
    every = operations()
    names = {name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if name.startswith("aten::")}
    listed = [name for each in every for some in each.overloads.values() for name in some]
    assert sorted(name.removesuffix(".default") for name in listed) == sorted(names)
    assert {each.name for each in every} == {described(overload).name for overload in overloads()}
    kinds = {each.name: each.coverage for each in every}
    assert kinds["add"] is kinds["_softmax"] is Coverage.FOLLOWED
    assert kinds["cosine_similarity"] is kinds["log_softmax"] is Coverage.COMPOSITE
    assert kinds["view"] is kinds["permute"] is Coverage.EXACT
    assert kinds["erfinv"] is kinds["_fft_r2c"] is Coverage.WITHOUT


def test_every_rule_is_of_an_operation_that_torch_has() -> None:
    here = {described(overload).rule for overload in overloads()}
    primitive = {name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names() if name.startswith("prims::")}
    gone = {name for name in RULES if name not in here | primitive and not hasattr(ATEN, name)}
    assert gone == {"is_same_size"} & gone, gone
