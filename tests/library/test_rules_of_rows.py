"""Rounding rules of kernels that add up, normalise, or compare along rows: against the same formulas in balls.

The formulas are those of textbooks, not of the kernels: arrays of balls (200 bits), whose sums are exact to 60 digits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import flint
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from equivalences.formats import FORMATS
from equivalences.rounding import Shadow, Tracker
from equivalences.rounding.arrays import numbers

arb = flint.arb
ATEN: Any = torch.ops.aten
WIDE = ("float64", "float32")  # what the CPU has these kernels for, or where they do what they document
Balls = Any  # NumPy arrays of balls

root = np.frompyfunc(lambda x: x.sqrt(), 1, 1)
size = np.frompyfunc(abs, 1, 1)
positive = np.frompyfunc(lambda x: max(x, arb(0)), 1, 1)
counts = np.frompyfunc(lambda x: arb(1) if x > 0 else arb(0), 1, 1)
powers = np.frompyfunc(lambda x, p: x ** arb(p), 2, 1)
larger = np.frompyfunc(lambda a, b: max(a, b), 2, 1)
log_sum = np.frompyfunc(lambda a, b: max(a, b) + (-abs(a - b)).exp().log1p(), 2, 1)


@dataclass(frozen=True)
class Case:
    """Code, the same of arrays of balls, the shapes of what both take, and the formats in which it is asked.

    sharp   the part of its bound that is seen at least.
    """

    code: Callable[..., Any]
    ball: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...] = ((5, 7),)
    formats: tuple[str, ...] = tuple(FORMATS)
    sharp: float = 0.03


LABELS = torch.tensor([1, 0, 3, 3, 6])
SEVERAL = torch.tensor(
    [[0, 3, -1, 1, 1, 1, 1], [2, -1, 0, 0, 0, 0, 0], [-1] * 7, [6, 5, 4, 3, -1, 0, 0], [1, 0, -1] + [2] * 4]
)
PLACES = torch.tensor([[0, 2, 2, 1], [3, 3, 3, 3], [0, 1, 2, 3], [1, 1, 0, 0], [4, 6, 5, 4]])
C, G, HW = 6, 2, 5


def mean(x: Balls, axis: Any = -1) -> Balls:
    return x.sum(axis, keepdims=True) / math.prod(x.shape[a] for a in np.atleast_1d(axis))


def variance(x: Balls, axis: Any = -1, correction: int = 0) -> Balls:
    n = math.prod(x.shape[a] for a in np.atleast_1d(axis))
    return ((x - mean(x, axis)) ** 2).sum(axis, keepdims=True) / (n - correction)


def standard(x: Balls, axis: Any = -1) -> Balls:
    return (x - mean(x, axis)) / root(variance(x, axis) + arb(1e-5))


def gradient_of_standard(g: Balls, x: Balls, axis: Any = -1) -> Balls:
    y = standard(x, axis)
    return (g - mean(g, axis) - y * mean(g * y, axis)) / root(variance(x, axis) + arb(1e-5))


def norm(p: float) -> Callable[[Balls], Balls]:
    return lambda x: powers(powers(size(x), p).sum(-1), 1 / arb(p)) if p != 2 else root((x * x).sum(-1))


def margins(x: Balls, p: int = 1) -> Balls:
    y = LABELS.numpy()
    z = positive(arb(0.75) - np.take_along_axis(x, y[:, None], 1) + x)
    z[np.arange(len(y)), y] = arb(0)
    return z**p


def pairs(x: Balls) -> tuple[Balls, Balls]:
    """The losses of the rows, and the slope by each class, of multilabel margins (before they are divided)."""
    losses, slopes = [], []
    for row, labels in zip(x, SEVERAL.tolist(), strict=True):
        right = labels[: labels.index(-1)] if -1 in labels else labels
        slope, total = [arb(0)] * 7, arb(0)
        for t in right:
            for d in set(range(7)) - set(right):
                z = 1 - row[t] + row[d]
                if z > 0:
                    total, slope[t], slope[d] = total + z, slope[t] - 1, slope[d] + 1
        losses.append(total)
        slopes.append(slope)
    return np.array(losses), np.array(slopes)


def huber(z: Balls, d: float) -> Balls:
    return np.frompyfunc(lambda a: a * a / 2 if abs(a) < d else arb(d) * (abs(a) - arb(d) / 2), 1, 1)(z)


def clipped(z: Balls, d: float) -> Balls:
    return np.frompyfunc(lambda a: max(min(a, arb(d)), -arb(d)), 1, 1)(z)


def scattered(x: Balls, y: Balls, meet: Callable[[Any, Any], Any]) -> Balls:
    x = x.copy()
    for (i, k), place in np.ndenumerate(PLACES.numpy()):
        x[i, place] = meet(x[i, place], y[i, k])
    return x


def groups(x: Balls) -> Balls:
    return x.reshape(len(x), G, -1)


def by_channel(w: Balls) -> Balls:
    return w[:, None]


def margin_slope(g: Balls, x: Balls, p: int) -> Balls:
    z = margins(x)
    slope = (counts(z) if p == 1 else 2 * z) / 7
    np.put_along_axis(slope, LABELS.numpy()[:, None], -slope.sum(1, keepdims=True), 1)
    return slope * g[:, None]


ROWS, CHANNELS = ((5, 7),), ((4, C, HW), (C,), (C,))
SCANS: dict[str, Case] = {
    "cumsum": Case(lambda x: x.cumsum(1), lambda x: np.cumsum(x, 1), ((3, 60),)),
    "cumprod": Case(lambda x: x.cumprod(0), lambda x: np.cumprod(x, 0), ((9, 5),)),
    "logcumsumexp": Case(lambda x: x.logcumsumexp(1), lambda x: log_sum.accumulate(x, 1, dtype=object), ((3, 40),)),
    "cummax": Case(lambda x: x.cummax(1)[0], lambda x: larger.accumulate(x, 1, dtype=object)),
    "prod": Case(lambda x: x.prod(1), lambda x: np.prod(x, 1)),
    "trace": Case(lambda x: x.trace(), lambda x: np.trace(x), ((5, 6),)),
    "topk": Case(lambda x: x.topk(3, 1)[0], lambda x: -np.sort(-x, 1)[:, :3]),
    "median": Case(lambda x: x.median(1)[0], lambda x: np.sort(x, 1)[:, 3]),
}
MOMENTS: dict[str, Case] = {
    "var": Case(lambda x: x.var(1), lambda x: variance(x, 1, 1)),
    "var of all": Case(lambda x: x.var(correction=0), lambda x: variance(x, (0, 1))),
    "std": Case(lambda x: x.std(1), lambda x: root(variance(x, 1, 1))),
    "var, mean": Case(lambda x: torch.var_mean(x, 1)[1], lambda x: mean(x)),
    **{
        f"norm {p}": Case(lambda x, p=p: torch.linalg.vector_norm(x, p, dim=1), norm(p))
        for p in (2, 1, 3, 2.5, 0.5, -1.5)
    },
    "largest": Case(lambda x: torch.linalg.vector_norm(x, math.inf, dim=1), lambda x: size(x).max(1)),
    "layer norm": Case(
        lambda x, w, b: F.layer_norm(x, (7,), w, b), lambda x, w, b: standard(x) * w + b, ((5, 7), (7,), (7,))
    ),
    "group norm": Case(
        lambda x, w, b: F.group_norm(x, G, w, b),
        lambda x, w, b: standard(groups(x)).reshape(x.shape) * by_channel(w) + by_channel(b),
        CHANNELS,
    ),
    "batch norm": Case(
        lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True),
        lambda x, w, b: standard(x, (0, 2)) * by_channel(w) + by_channel(b),
        CHANNELS,
    ),
    "batch norm, evaluated": Case(
        lambda x, w, b: F.batch_norm(x, b, w * w + 1, w, b),
        lambda x, w, b: (x - by_channel(b)) / root(by_channel(w * w + 1) + arb(1e-5)) * by_channel(w) + by_channel(b),
        CHANNELS,
    ),
}


def layer_norm_backward(place: int) -> Callable[..., Tensor]:
    def code(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        _, m, r = ATEN.native_layer_norm(x, (7,), w, w, 1e-5)
        found: Tensor = ATEN.native_layer_norm_backward(g, x, (7,), m, r, w, w, [True] * 3)[place]
        return found

    return code


def group_norm_backward(place: int) -> Callable[..., Tensor]:
    def code(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        _, m, r = ATEN.native_group_norm(x, w, w, len(x), C, HW, G, 1e-5)
        found: Tensor = ATEN.native_group_norm_backward(g, x, m, r, w, len(x), C, HW, G, [True] * 3)[place]
        return found

    return code


def batch_norm_backward(place: int) -> Callable[..., Tensor]:
    def code(g: Tensor, x: Tensor, w: Tensor) -> Tensor:
        _, m, r = ATEN.native_batch_norm(x, w, w, None, None, True, 0.1, 1e-5)
        found: Tensor = ATEN.native_batch_norm_backward(g, x, w, None, None, m, r, True, 1e-5, [True] * 3)[place]
        return found

    return code


def running(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    m, v = b.clone(), (w * w).clone()
    F.batch_norm(x, m, v, training=True, momentum=0.25)
    return torch.stack((m, v)) * 1


IMAGES = ((4, C, HW), (4, C, HW), (C,))
BACKWARD: dict[str, Case] = {
    "layer norm, by x": Case(
        layer_norm_backward(0), lambda g, x, w: gradient_of_standard(g * w, x), ((5, 7), (5, 7), (7,))
    ),
    # In 16 bits the kernel adds the rows up in their own format: 256 for 8192 ones.
    "layer norm, by w": Case(
        layer_norm_backward(1), lambda g, x, w: (g * standard(x)).sum(0), ((5, 7), (5, 7), (7,)), WIDE, 0.01
    ),  # the bound of a mean takes all its roundings to go the same way (rules/moments.py)
    "layer norm, by b": Case(layer_norm_backward(2), lambda g, x, w: g.sum(0), ((5, 7), (5, 7), (7,)), WIDE),
    "group norm, by x": Case(
        group_norm_backward(0),
        lambda g, x, w: gradient_of_standard(groups(g * by_channel(w)), groups(x)).reshape(x.shape),
        IMAGES,
    ),
    "group norm, by w": Case(
        group_norm_backward(1), lambda g, x, w: (g * standard(groups(x)).reshape(x.shape)).sum((0, 2)), IMAGES
    ),
    "group norm, by b": Case(group_norm_backward(2), lambda g, x, w: g.sum((0, 2)), IMAGES),
    "batch norm, by x": Case(
        batch_norm_backward(0), lambda g, x, w: gradient_of_standard(g, x, (0, 2)) * by_channel(w), IMAGES
    ),
    "batch norm, by w": Case(batch_norm_backward(1), lambda g, x, w: (g * standard(x, (0, 2))).sum((0, 2)), IMAGES),
    "batch norm, by b": Case(batch_norm_backward(2), lambda g, x, w: g.sum((0, 2)), IMAGES),
    "batch norm, running": Case(
        running,
        lambda x, w, b: np.stack(
            (0.25 * mean(x, (0, 2)).ravel() + 0.75 * b, 0.25 * variance(x, (0, 2), 1).ravel() + 0.75 * w * w)
        ),
        CHANNELS,
    ),
}
LOSSES: dict[str, Case] = {
    "huber": Case(
        lambda x, y: F.huber_loss(x, y, delta=0.75, reduction="none"), lambda x, y: huber(x - y, 0.75), ROWS * 2
    ),
    "huber, mean": Case(
        lambda x, y: F.huber_loss(x, y, delta=0.75), lambda x, y: mean(huber(x - y, 0.75), (0, 1)), ROWS * 2
    ),
    "smooth l1": Case(
        lambda x, y: F.smooth_l1_loss(x, y, beta=0.75, reduction="none"),
        lambda x, y: huber(x - y, 0.75) / arb(0.75),
        ROWS * 2,
    ),
    "huber, backward": Case(
        lambda g, x, y: ATEN.huber_loss_backward(g, x, y, 1, 0.75),
        lambda g, x, y: g * clipped(x - y, 0.75) / 35,
        ROWS * 3,
    ),
    "smooth l1, backward": Case(
        lambda g, x, y: ATEN.smooth_l1_loss_backward(g, x, y, 1, 0.75),
        lambda g, x, y: g * clipped(x - y, 0.75) / arb(0.75) / 35,
        ROWS * 3,
    ),
    **{
        f"multi margin {p}": Case(
            lambda x, p=p: F.multi_margin_loss(x, LABELS, p=p, margin=0.75, reduction="none"),
            lambda x, p=p: margins(x, p).sum(1) / 7,
            ROWS,
            WIDE,
        )
        for p in (1, 2)
    },
    "multi margin, weighted mean": Case(
        lambda x, w: F.multi_margin_loss(x, LABELS, margin=0.75, weight=w * w),
        lambda x, w: ((w * w)[LABELS.numpy()] * margins(x).sum(1)).sum() / 35,
        ((5, 7), (7,)),
        WIDE,
    ),
    **{
        f"multi margin {p}, backward": Case(
            lambda g, x, p=p: ATEN.multi_margin_loss_backward(g, x, LABELS, p, 0.75, None, 0),
            lambda g, x, p=p: margin_slope(g, x, p),
            ((5,), (5, 7)),
            WIDE,
        )
        for p in (1, 2)
    },
    "multilabel margin": Case(
        lambda x: F.multilabel_margin_loss(x, SEVERAL, reduction="none"), lambda x: pairs(x)[0] / 7, ROWS, WIDE
    ),
    "multilabel margin, backward": Case(
        lambda g, x: ATEN.multilabel_margin_loss_backward(
            g, x, SEVERAL, 0, ATEN.multilabel_margin_loss_forward(x, SEVERAL, 0)[1]
        ),
        lambda g, x: pairs(x)[1] / 7 * g[:, None],
        ((5,), (5, 7)),
        WIDE,
    ),
}
PRODUCTS: dict[str, Case] = {
    "addmm": Case(
        lambda c, a, b: torch.addmm(c, a, b, alpha=0.5, beta=3),
        lambda c, a, b: 3 * c + a.dot(b) / 2,
        ((5, 4), (5, 7), (7, 4)),
    ),
    "addmv": Case(lambda c, a, b: torch.addmv(c, a, b), lambda c, a, b: c + a.dot(b), ((5,), (5, 7), (7,))),
    "embedding, backward": Case(
        lambda g: ATEN.embedding_dense_backward(g, LABELS, 7, 0, False),
        lambda g: np.stack([(g * (LABELS.numpy() == k)[:, None]).sum(0) * (k > 0) for k in range(7)]),
    ),
    "scatter, sum": Case(
        lambda x, y: x.scatter_reduce(1, PLACES, y, "sum"),
        lambda x, y: scattered(x, y, lambda a, b: a + b),
        ((5, 7), (5, 4)),
    ),
    "scatter, amax": Case(
        lambda x, y: x.scatter_reduce(1, PLACES, y, "amax"),
        lambda x, y: scattered(x, y, max),
        ((5, 7), (5, 4)),
    ),
    "index_fill": Case(lambda x: x.index_fill(1, LABELS[:2], 0.3), lambda x: _filled(x), ROWS),
}


def _filled(x: Balls) -> Balls:
    x = x.copy()
    x[:, :2] = arb(0.3)
    return x


CASES = {**SCANS, **MOMENTS, **BACKWARD, **LOSSES, **PRODUCTS}


def declared(tracker: Tracker, exact: Tensor, off: float) -> Tensor:
    """A tensor whose numbers are `off` the exact ones, relatively, by none, half or all of it; the analysis is told."""
    pattern = torch.arange(exact.numel(), dtype=torch.float64).reshape(exact.shape) % 3 / 2
    moved = (exact.double() * (1 - off * pattern)).to(exact.dtype)
    tracker.write(moved, Shadow(numbers(exact), abs(numbers(moved) - numbers(exact))))
    return moved


@pytest.mark.parametrize("name", CASES)
def test_a_kernel_keeps_within_its_bound_and_uses_it(name: str) -> None:
    case, largest = CASES[name], 0.0
    for fmt in case.formats:
        dtype, draw = FORMATS[fmt].dtype, torch.Generator().manual_seed(0)
        inputs = [torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for shape in case.shapes]
        with flint.ctx.workprec(200):
            balls = [np.vectorize(arb, otypes=[object])(numbers(x)) for x in inputs]
            exact = np.asarray(case.ball(*balls), dtype=object)
        for off in (0.0, 64 * FORMATS[fmt].u):
            tracker = Tracker()
            taken = [declared(tracker, each, off) for each in inputs]
            with tracker:
                got = case.code(*taken)
            _, e = tracker.shadow(got)
            with flint.ctx.workprec(200):
                ideal = np.broadcast_to(exact.reshape(got.shape), got.shape)
                error = np.vectorize(lambda a, b: float(abs(arb(a) - b).upper()), otypes=[float])(numbers(got), ideal)
            with np.errstate(invalid="ignore", divide="ignore"):
                part = np.where(error == 0, 0.0, error / np.broadcast_to(e, error.shape))
            assert part.max() <= 1, (fmt, off, part.max())
            assert np.isfinite(e).mean() > 0.5, (fmt, off)
            largest = max(largest, float(part.max()))
    assert largest >= case.sharp


X = torch.tensor([[0.3, -1.1, 2.0]])
UNDECIDED: dict[str, Callable[[Tensor], Tensor]] = {
    "which is the largest so far": lambda x: torch.cummax(torch.cat((x, x * 3 / 3)), 0)[1] * 1.0,
    "topk": lambda x: torch.cat((x, x * 3 / 3), 1).topk(1, 1)[1] * 1.0,
    "floor": lambda x: (x * 3 / 3 - x).floor(),
    "bucketize": lambda x: torch.bucketize(x * 3 / 3, x[0].sort()[0]) * 1.0,
    "nonzero": lambda x: (x * 3 / 3 - x / 2 * 2 - 1e-8).nonzero() * 1.0,
    "how many are not zero": lambda x: (x * 3 / 3 - x).count_nonzero() * 1.0,
    "the sign bit": lambda x: (x * 3 / 3 - x).signbit() * 1.0,
    "a negative base": lambda x: (x * 3 / 3 - x - 1e-9) ** 1.5,
    "hardshrink": lambda x: F.hardshrink(x.abs() * 3 / 3, 0.3)[:, :1],
    "the slope of prelu": lambda x: ATEN._prelu_kernel_backward(x, x * 3 / 3 - x, x)[0],
    "the slope of hardswish": lambda x: ATEN.hardswish_backward(x, x * 3 / 3 - x + 3),
    "the slope of a margin": lambda x: ATEN.multi_margin_loss_backward(
        x[0, 0], torch.cat((x[:, :1], x[:, :1] - 1), 1), torch.tensor([0]), 1, 1.0, None, 1
    ),
}


@pytest.mark.parametrize("name", UNDECIDED)
def test_what_rounding_may_have_chosen_has_no_bound(name: str) -> None:
    tracker = Tracker()
    tracker.declare(X)
    with tracker:
        got = UNDECIDED[name](X)
    assert np.isinf(tracker.shadow(got).e).any()
