"""Rules for layer, group and batch normalisation, and for their backward kernels (aten/.../cpu: layer_norm_kernel.cpp,
group_norm_kernel.cpp, batch_norm_kernel.cpp): the formulas of the kernels, step by step in their arithmetic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from torch import Tensor

from equivalences import formats
from equivalences.formats import Format
from equivalences.rounding.arrays import spread
from equivalences.rounding.call import Call, in_registers, rule
from equivalences.rounding.rules.arithmetic import in_storage, neg, one, rounded, stored
from equivalences.rounding.rules.elementary import add, div, mul, sqrt
from equivalences.rounding.rules.moments import moments
from equivalences.rounding.rules.reductions import running, summed
from equivalences.rounding.shadows import Shadow


def _shape(x: Shadow, *shape: int) -> Shadow:
    return Shadow(x.v.reshape(shape), spread(x.e, x.v.shape).reshape(shape))


def _total(inner: Call, x: Shadow, axis: int, height: int | None = None) -> Shadow:
    """A sum over one axis, which stays, in any order or by a tree of this height."""
    n = x.v.shape[axis]
    return summed(inner, x, [axis % x.v.ndim], True, inner.assume.sums.any(n) if height is None else height)


def _inverse_root(inner: Call, variance: Shadow, eps: float) -> Shadow:
    """1 / sqrt(variance + eps)."""
    return div(inner, one(), sqrt(inner, add(inner, variance, inner.shadow(eps))))


def _as_stored(call: Call, found: list[tuple[Tensor | None, Shadow]]) -> list[Shadow]:
    """The results that were asked for, as their tensors keep them."""
    return [
        stored(call, tensor, _shape(Shadow(np.broadcast_to(x.v, x.v.shape), x.e), *tensor.shape))
        for tensor, x in found
        if tensor is not None
    ]


# --- rows: layer and group normalisation -----------------------------------------------------------------------------


@rule("native_layer_norm")
def _layer_norm(
    call: Call, input: Tensor, normalized_shape: list[int], weight: Tensor | None, bias: Tensor | None, eps: float
) -> list[Shadow]:
    """(x - mean) rstd weight + bias, rstd = 1 / sqrt(variance + eps)."""
    out, mean_out, rstd_out = call.out
    inner, n = in_registers(call), math.prod(normalized_shape)
    x = _shape(call.shadow(input), -1, n)
    mean, variance = moments(inner.arithmetic.u, x, inner.assume.sums.moments(n, inner.arithmetic.precision > 24))
    rstd = _inverse_root(inner, variance, eps)
    y = mul(inner, add(inner, x, neg(mean)), rstd)
    for step, factor in ((mul, weight), (add, bias)):
        if factor is not None:
            y = step(inner, y, _shape(call.shadow(factor), 1, n))
    return _as_stored(call, [(out, y), (mean_out, mean), (rstd_out, rstd)])


@rule("native_layer_norm_backward")
def _layer_norm_backward(
    call: Call,
    grad_out: Tensor,
    input: Tensor,
    normalized_shape: list[int],
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
) -> list[Shadow]:
    """a g w + b x + c, b = (sum(g w) mean - sum(g w x)) a a a / n, c = -b mean - sum(g w) a / n, a = rstd.

    Of the weight the sum over rows of g (x - mean) a, of the bias that of g.
    """
    inner, n = in_registers(call), math.prod(normalized_shape)
    g, x = (_shape(call.shadow(each), -1, n) for each in (grad_out, input))
    m, a = (_shape(call.shadow(each), -1, 1) for each in (mean, rstd))
    gw = g if weight is None else mul(inner, g, _shape(call.shadow(weight), 1, n))
    found = [
        (call.out[0], _row_gradient(inner, gw, x, m, a)),
        (call.out[1], _total(inner, mul(inner, g, mul(inner, add(inner, x, neg(m)), a)), 0)),
        (call.out[2], _total(inner, g, 0)),
    ]
    return _as_stored(call, found)


def _row_gradient(inner: Call, gw: Shadow, x: Shadow, m: Shadow, a: Shadow) -> Shadow:
    """The gradient of a normalised row by the row: see `_layer_norm_backward`."""
    n = x.v.shape[-1]
    height = inner.assume.sums.row(n, inner.arithmetic.precision > 24)
    db, ds = _total(inner, gw, -1, height), _total(inner, mul(inner, gw, x), -1, height)
    cube = mul(inner, mul(inner, a, a), a)
    b = _over(inner, mul(inner, add(inner, mul(inner, db, m), neg(ds)), cube), n)
    c = add(inner, neg(mul(inner, b, m)), neg(_over(inner, mul(inner, db, a), n)))
    return add(inner, add(inner, mul(inner, a, gw), mul(inner, b, x)), c)


def _over(inner: Call, x: Shadow, n: int) -> Shadow:
    """x / n, or x (1 / n)."""
    return rounded(inner, x.v / n, x.e / n, roundings=2.0)


def _grouped(call: Call, x: Tensor, C: int, HxW: int, group: int) -> Shadow:
    """Rows of channels and places, one for each sample and group.  Raises NotImplementedError for channels last."""
    if not x.is_contiguous() and x.dim() > 3:
        raise NotImplementedError("group normalisation is followed for contiguous data only")
    return _shape(call.shadow(x), -1, group, C // group, HxW)


@rule("native_group_norm")
def _group_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    C: int,
    HxW: int,
    group: int,
    eps: float,
) -> list[Shadow]:
    """scale x + shift, scale = rstd weight, shift = bias - scale mean."""
    out, mean_out, rstd_out = call.out
    inner, n = in_registers(call), C // group * HxW
    x = _grouped(call, input, C, HxW, group)
    samples = x.v.shape[0]
    merges = inner.assume.sums.moments(n, inner.arithmetic.precision > 24)
    mean, variance = moments(inner.arithmetic.u, _shape(x, samples, group, n), merges)
    rstd = _inverse_root(inner, variance, eps)
    m, scale = (_shape(each, samples, group, 1, 1) for each in (mean, rstd))
    if weight is not None:
        scale = mul(inner, scale, _shape(call.shadow(weight), 1, group, C // group, 1))
    shift = neg(mul(inner, scale, m))
    if bias is not None:
        shift = add(inner, shift, _shape(call.shadow(bias), 1, group, C // group, 1))
    return _as_stored(call, [(out, add(inner, mul(inner, scale, x), shift)), (mean_out, mean), (rstd_out, rstd)])


@rule("native_group_norm_backward")
def _group_norm_backward(
    call: Call,
    grad_out: Tensor,
    input: Tensor,
    mean: Tensor,
    rstd: Tensor,
    weight: Tensor | None,
    C: int,
    HxW: int,
    group: int,
) -> list[Shadow]:
    """As of a row; of the weight the sum over samples of (sum(g x) - sum(g) mean) rstd, of the bias that of g."""
    inner, channels = in_registers(call), C // group
    g, x = (_grouped(call, each, C, HxW, group) for each in (grad_out, input))
    samples = x.v.shape[0]
    m, a = (_shape(call.shadow(each), samples, group, 1, 1) for each in (mean, rstd))
    gw = g if weight is None else mul(inner, g, _shape(call.shadow(weight), 1, group, channels, 1))
    wide = (Shadow(*(np.broadcast_to(part, x.v.shape) for part in each)) for each in (gw, x))
    rows = [_shape(each, samples * group, -1) for each in wide]
    stats = [_shape(each, samples * group, 1) for each in (m, a)]
    db, ds = _total(inner, g, 3), _total(inner, mul(inner, g, x), 3)
    of_weight = mul(inner, add(inner, ds, neg(mul(inner, db, m))), a)
    found = [
        (call.out[0], _row_gradient(inner, rows[0], rows[1], *stats)),
        (call.out[1], _total(inner, of_weight, 0)),
        (call.out[2], _total(inner, db, 0)),
    ]
    return _as_stored(call, found)


# --- channels: batch normalisation -----------------------------------------------------------------------------------


def _channels(call: Call, x: Tensor) -> Shadow:
    """Rows of places, one for each channel."""
    v, e = call.shadow(x)
    return Shadow(*(np.moveaxis(spread(part, v.shape), 1, 0).reshape(v.shape[1], -1) for part in (v, e)))


def _back(x: Shadow, like: Tensor) -> Shadow:
    """Rows of places, one for each channel, in the shape of the tensor."""
    shape = (like.shape[1], like.shape[0], *like.shape[2:])
    return Shadow(*(np.moveaxis(part.reshape(shape), 0, 1) for part in x))


def _two_passes(call: Call, inner: Call, x: Shadow, kept_in: Format) -> tuple[Shadow, Shadow]:
    """Mean and variance: a total kept in a wide format, then that of (x - mean)**2; each is stored before it is used.

    A mean that is off by d adds d d to the variance.
    """
    steps, n = running(call), x.v.shape[1]
    hu, u = max(n - 1, 0) * steps.u, max(inner.arithmetic.u, kept_in.u)
    size = np.mean(abs(x.v) + x.e, axis=1, keepdims=True)
    mean = Shadow(np.mean(x.v, axis=1, keepdims=True), np.mean(x.e, axis=1, keepdims=True))
    off = hu / (1 - hu) * size + (u + steps.u) * (abs(mean.v) + size * hu)
    gap = x.v - mean.v
    moved = 2 * np.mean(abs(gap) * x.e, axis=1, keepdims=True) + np.mean(np.square(x.e), axis=1, keepdims=True)
    variance = np.mean(np.square(gap), axis=1, keepdims=True)
    largest = variance + moved + np.square(off)
    lost = np.square(off) + (3 * inner.arithmetic.u + u + hu / (1 - hu) + steps.u) * largest
    return Shadow(mean.v, mean.e + off), Shadow(variance, moved + lost)


def _running_stats(call: Call, inner: Call, stats: tuple[Any, Any], found: tuple[Shadow, Shadow], rate: float) -> None:
    """running = momentum new + (1 - momentum) running: they are written, though the schema does not say so."""
    for tensor, new in zip(stats, found, strict=True):
        if tensor is not None:
            old = call.shadow(tensor)
            share, rest = inner.shadow(rate), inner.shadow(1 - call.shadows.coefficient(rate))
            mixed = add(inner, mul(inner, share, _shape(new, -1)), mul(inner, rest, old))
            call.shadows.write(tensor, stored(call, tensor, mixed))


@rule("native_batch_norm")
def _batch_norm(
    call: Call,
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
) -> list[Shadow]:
    """x alpha + beta, alpha = invstd weight, beta = bias - mean alpha."""
    out, mean_out, invstd_out = call.out
    inner, x = in_registers(call), _channels(call, input)
    n = x.v.shape[1]
    if training:
        mean, variance = _two_passes(call, inner, x, formats.of(mean_out.dtype))
        unbiased = rounded(inner, variance.v * n / max(n - 1, 1), variance.e * n / max(n - 1, 1))
        _running_stats(call, inner, (running_mean, running_var), (mean, unbiased), momentum)
    else:
        assert running_mean is not None
        assert running_var is not None
        mean, variance = (_shape(call.shadow(each), -1, 1) for each in (running_mean, running_var))
    invstd = _inverse_root(inner, variance, eps)
    if training:  # as the tensors of the statistics keep them
        mean, invstd = (stored(call, tensor, x) for tensor, x in ((mean_out, mean), (invstd_out, invstd)))
    alpha = invstd if weight is None else mul(inner, invstd, _shape(call.shadow(weight), -1, 1))
    beta = neg(mul(inner, mean, alpha))
    if bias is not None:
        beta = add(inner, beta, _shape(call.shadow(bias), -1, 1))
    y = in_storage(call, add(inner, mul(inner, x, alpha), beta))
    empty = Shadow(np.zeros(0), np.zeros(0))
    return [_back(y, out), *(_shape(each if training else empty, -1) for each in (mean, invstd))]


@rule("native_batch_norm_backward")
def _batch_norm_backward(
    call: Call,
    grad_out: Tensor,
    input: Tensor,
    weight: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    save_mean: Tensor | None,
    save_invstd: Tensor | None,
    train: bool,
    eps: float,
) -> list[Shadow]:
    """(g - mean(g) - (x - mean) k) invstd weight, k = sum((x - mean) g) invstd invstd / n.

    Without training g invstd weight.
    """
    inner = in_registers(call)
    g, x = _channels(call, grad_out), _channels(call, input)
    n = x.v.shape[1]
    statistics = (save_mean, save_invstd) if train else (running_mean, running_var)
    assert statistics[0] is not None
    assert statistics[1] is not None
    mean, invstd = (_shape(call.shadow(each), -1, 1) for each in statistics if each is not None)
    invstd = invstd if train else _inverse_root(inner, invstd, eps)
    centred = add(inner, x, neg(mean))
    dot, total = _total(inner, mul(inner, centred, g), 1), _total(inner, g, 1)
    gradient = g
    if train:
        k = _over(inner, mul(inner, mul(inner, dot, invstd), invstd), n)
        gradient = add(inner, add(inner, g, neg(_over(inner, total, n))), neg(mul(inner, centred, k)))
    gradient = mul(inner, gradient, invstd)
    if weight is not None:
        gradient = mul(inner, gradient, _shape(call.shadow(weight), -1, 1))
    found = [] if call.out[0] is None else [_back(in_storage(call, gradient), call.out[0])]
    rest: list[tuple[Tensor | None, Shadow]] = [(call.out[1], mul(inner, dot, invstd)), (call.out[2], total)]
    return [*found, *_as_stored(call, rest)]
