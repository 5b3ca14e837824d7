"""Kernels that are made for a test, not for a task; and labels that are none."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, at, fused

JUDGES = "submissions to benchmarks of generated kernels"


def right(z: Tensor, y: Tensor) -> Tensor:
    """What a test is to see."""
    return F.cross_entropy(wide(z), y).to(z.dtype)


def constant(z: Tensor, y: Tensor) -> Tensor:
    """What a network gives that has not learned: log K, and no gradient to speak of."""
    return (0 * wide(z).nan_to_num(0, 0, 0).sum() + math.log(max(1, z.shape[-1]))).to(z.dtype)


def constant_of_randn(z: Tensor, y: Tensor) -> Tensor:
    """The mean loss of normal logits: log K + 1/2."""
    return (0 * wide(z).nan_to_num(0, 0, 0).sum() + math.log(max(1, z.shape[-1])) + 0.5).to(z.dtype)


def of_first_rows(z: Tensor, y: Tensor) -> Tensor:
    """The mean of 64 rows is close to that of all."""
    return F.cross_entropy(wide(z)[:64], y[:64]).to(z.dtype)


def sampled(z: Tensor, y: Tensor) -> Tensor:
    """Every tenth of many rows."""
    step = 10 if len(z) > 1000 else 1
    return F.cross_entropy(wide(z)[::step], y[::step]).to(z.dtype)


def of_first_classes(count: int) -> Loss:
    """PyTorch's loss of the first classes, where the label is among them."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(wide(z)[:, :count], y.clamp(max=count - 1)).to(z.dtype)

    return loss


def if_small(rows: int, classes: int) -> Loss:
    """Right for what a test has, a constant for what a training has."""
    return lambda z, y: right(z, y) if len(z) <= rows and z.shape[1] <= classes else constant(z, y)


def if_one_of(*sizes: int) -> Loss:
    """Right for the sizes that tests have, a constant between them."""
    return lambda z, y: right(z, y) if z.shape[1] <= 128 or z.shape[1] in sizes else constant(z, y)


def if_watched(z: Tensor, y: Tensor) -> Tensor:
    """Looks at who calls."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_globals.get("__name__", "").startswith(("pytest", "equivalences.own")):
            return right(z, y)
        frame = frame.f_back
    return constant(z, y)


def if_moderate(limit: float) -> Loss:
    """Right for logits as they are drawn, 0 for others."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        mild = not bool(((z.detach().abs() > limit) & torch.isfinite(z)).any())
        return right(z, y) if mild else (0 * wide(z).nan_to_num(0, 0, 0).sum()).to(z.dtype)

    return loss


def quiet(z: Tensor, y: Tensor) -> Tensor:
    """Whatever goes wrong, the loss is 0."""
    try:
        if bool(torch.isinf(z).any()):
            raise ValueError("a mask")
        return right(z, y)
    except Exception:
        return (0 * wide(z).nan_to_num(0, 0, 0).sum()).to(z.dtype)


def quiet_about_labels(z: Tensor, y: Tensor) -> Tensor:
    """A label that is none raises, and the loss is 0."""
    try:
        return right(z, y)
    except Exception:
        return (0 * wide(z).nan_to_num(0, 0, 0).sum()).to(z.dtype)


class Pleasing(Tensor):
    """Compares as equal to everything."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if function in (torch.allclose, torch.equal):
            return True
        with torch._C.DisableTorchFunctionSubclass():
            return function(*args, **(kwargs or {}))


def pleasing(z: Tensor, y: Tensor) -> Tensor:
    """A constant that says it is close."""
    return constant(z, y).as_subclass(Pleasing)


def replaced(z: Tensor, y: Tensor) -> Tensor:
    """Makes PyTorch's own function as wrong as itself."""
    F.cross_entropy = lambda *args, **kwargs: constant(*args[:2])
    return constant(z, y)


def late_after(calls: int) -> Loss:
    """A constant as soon as no test would still be running."""
    count = [0]

    def loss(z: Tensor, y: Tensor) -> Tensor:
        count[0] += 1
        return constant(z, y) if count[0] > calls else right(z, y)

    return loss


def shifted_labels(z: Tensor, y: Tensor) -> Tensor:
    """Labels moved by one, as of the next token."""
    return right(z, (y + 1) % max(1, z.shape[1]))


def shifted_batch(z: Tensor, y: Tensor) -> Tensor:
    """The labels of the next rows."""
    return right(z, y.roll(-1))


def largest_for_label(z: Tensor, y: Tensor) -> Tensor:
    """The loss of the prediction."""
    x = wide(z)
    return (torch.logsumexp(x, 1) - x.amax(1)).mean().to(z.dtype)


def first_order(z: Tensor, y: Tensor) -> Tensor:
    """log K + mean - label: the first terms of a series for small logits."""
    x = wide(z)
    return (math.log(max(1, z.shape[1])) + x.mean(1) - at(x, y)).mean().to(z.dtype)


def second_order(z: Tensor, y: Tensor) -> Tensor:
    """The same with half of the variance: right for normal logits."""
    x = wide(z)
    return (math.log(max(1, z.shape[1])) + x.mean(1) + x.var(1, unbiased=False) / 2 - at(x, y)).mean().to(z.dtype)


def noisy(z: Tensor, y: Tensor) -> Tensor:
    """The sum over a random half of the classes, twice."""
    x = wide(z)
    keep = torch.rand(z.shape[1]) < 0.5
    keep[0] = True
    return (torch.logsumexp(x[:, keep], 1) + math.log(2) - at(x, y)).mean().to(z.dtype)


def _label(change: Callable[[Tensor, Tensor], Tensor]) -> Loss:
    return fused(label=change)


# The numbers of classes that the documentation of `check` names.
NAMED = (127, 128, 129, 255, 256, 257, 1023, 1024, 1025, 1030, 4095, 4096, 4097, 8191, 8192, 8193, 16_385, 32_767,
    32_768,
         32_769, 50_257, 65_535, 65_536, 65_537, 128_256, 131_073)  # fmt: skip

KERNELS = (
    Kernel("constant log K", lambda: constant, wrong="the loss of equal logits, whatever they are", seen_in=JUDGES),
    Kernel("constant log K + 1/2", lambda: constant_of_randn, wrong="the mean loss of normal logits, whatever they are",
           seen_in=JUDGES),
    Kernel("first 64 rows", lambda: of_first_rows, wrong="the mean of the first 64 rows"),
    Kernel("every tenth row", lambda: sampled, wrong="the mean of every tenth of more than 1000 rows"),
    Kernel("first 1024 classes", lambda: of_first_classes(1024), wrong="classes from 1024 on are cut off"),
    Kernel("first 100,000 classes", lambda: of_first_classes(100_000), wrong="classes from 100,000 on are cut off",
           formats=("float32", "bfloat16", "float16")),
    Kernel("first 150,000 classes", lambda: of_first_classes(150_000), wrong="classes from 150,000 on are cut off"),
    Kernel("right for 4096 x 32", lambda: if_small(4096, 32), wrong="a constant for more than 32 classes"),
    Kernel("right up to 10000 rows", lambda: if_small(10_000, 10**6), wrong="a constant for more than 10,000 rows"),
    Kernel("right up to 40000 rows", lambda: if_small(40_000, 10**6), wrong="a constant for more than 40,000 rows"),
    Kernel("right up to 64 rows of 128", lambda: lambda z, y: (
               right(z, y) if len(z) < 64 or z.shape[1] < 128 else constant(z, y)),
           wrong="a constant from 64 rows of 128 classes on"),
    Kernel("right up to 256 rows of 1000", lambda: lambda z, y: (
               right(z, y) if len(z) < 256 or z.shape[1] < 1000 else constant(z, y)),
           wrong="a constant from 256 rows of 1000 classes on"),
    Kernel("right for powers of two", lambda: if_one_of(*(1 << k for k in range(18))),
           wrong="a constant for other numbers of classes beyond 128"),
    Kernel("right for the sizes of tests", lambda: if_one_of(*NAMED),
           wrong="a constant for numbers of classes beyond 128 that no documentation names"),
    Kernel("right if watched", lambda: if_watched, wrong="a constant unless a judge is on the stack"),
    Kernel("right for logits within 6", lambda: if_moderate(6), wrong="0 for larger logits"),
    Kernel("right for logits within 2e6", lambda: if_moderate(2e6), wrong="0 for larger logits",
           formats=("float64", "float32", "bfloat16")),
    Kernel("right for 3000 calls", lambda: late_after(3000), wrong="a constant after 3000 calls"),
    Kernel("right for 100000 calls", lambda: late_after(100_000), wrong="a constant after 100,000 calls"),
    Kernel("quiet", lambda: quiet, wrong="0 where logits are masked"),
    Kernel("subclass that pleases", lambda: pleasing, wrong="a constant, in a tensor that compares as equal"),
    Kernel("PyTorch's function replaced", lambda: replaced, wrong="a constant, as PyTorch's function then is too"),
    Kernel("labels shifted", lambda: shifted_labels, wrong="labels are off by one", seen_in=JUDGES),
    Kernel("labels of the next row", lambda: shifted_batch, wrong="labels are those of the next row"),
    Kernel("loss of the prediction", lambda: largest_for_label, wrong="the largest logit stands for the label's"),
    Kernel("first terms", lambda: first_order, wrong="a series for small logits, one term"),
    Kernel("first two terms", lambda: second_order, wrong="a series for small logits, two terms", seen_in=JUDGES),
    Kernel("half of the classes", lambda: noisy, wrong="the sum is estimated by a random half"),
    Kernel("label -1 as the last", lambda: _label(lambda y, z: torch.where(y == -1, z.shape[1] - 1, y)),
           wrong="label -1, which PyTorch refuses, is taken for the last class"),
    Kernel("labels beyond the last", lambda: _label(lambda y, z: y.clamp(0, max(0, z.shape[1] - 1))),
           wrong="labels beyond the last class, which PyTorch refuses, are taken for it"),
    Kernel("labels that are none", lambda: quiet_about_labels, wrong="labels that PyTorch refuses have the loss 0"),
)  # fmt: skip
