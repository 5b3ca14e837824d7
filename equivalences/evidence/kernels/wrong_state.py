"""Kernels that remember: results, buffers, counters; and those that ask how they are called."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, Stored, fused, of_rows, scaled, two_pass


def _run(z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The mean and its gradient, as they should be."""
    x = wide(z.detach())
    losses, g = of_rows(x, y, two_pass(x))
    return losses.mean().to(z.dtype), (g / len(z)).to(z.dtype)


def _stored(z: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
    return applied(Stored)(z, lambda _: (value.clone(), gradient), scaled)


def cached(key: Callable[[Tensor, Tensor], Hashable]) -> Loss:
    """What was computed once for a key is given again."""
    known: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def loss(z: Tensor, y: Tensor) -> Tensor:
        at = key(z, y)
        if at not in known or not bool(torch.isfinite(z).all()):
            known[at] = _run(z, y)
        value, gradient = known[at]
        if gradient.shape != z.shape:
            value, gradient = known[at] = _run(z, y)
        return _stored(z, value, gradient)

    return loss


def one_buffer(*, values: bool) -> Loss:
    """A buffer for each shape, which every call writes to: the gradient's, or the value's that is handed out."""
    buffers: dict[Hashable, Tensor] = {}

    def loss(z: Tensor, y: Tensor) -> Tensor:
        value, gradient = _run(z, y)
        made = value if values else gradient
        buffer = buffers.setdefault((made.shape, made.dtype), torch.empty_like(made))
        buffer.copy_(made)
        if values:
            return applied(Shared)(z, buffer, gradient)
        return applied(Late)(z, value, buffer)

    return loss


class Late(torch.autograd.Function):
    """Reads a buffer of the forward pass as it is in the backward pass."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, buffer: Tensor) -> Tensor:
        ctx.buffer = buffer
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        return ctx.buffer * upstream, None, None


class Shared(torch.autograd.Function):
    """Hands out a view of a buffer."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, buffer: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return buffer.detach()

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


class InPlace(torch.autograd.Function):
    """Multiplies the stored gradient itself, as it is not needed any more after one backward pass."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.gradient = gradient
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        ctx.gradient *= upstream
        return ctx.gradient, None, None


class SpoilsUpstream(torch.autograd.Function):
    """Uses the upstream gradient as a scratch variable."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        made = gradient * upstream
        upstream.mul_(2)
        return made, None, None


def never_cleared() -> Loss:
    """The gradient is added to a buffer of its shape."""
    buffers: dict[Hashable, Tensor] = {}

    def loss(z: Tensor, y: Tensor) -> Tensor:
        value, gradient = _run(z, y)
        buffer = buffers.setdefault((z.shape, z.dtype), torch.zeros_like(gradient))
        buffer += gradient
        return _stored(z, value, buffer.clone())

    return loss


def of_the_shape_before() -> Loss:
    """The buffer of the gradient is made for the first call, and grows; a smaller batch gets what it held."""
    held: list[Tensor] = []

    def loss(z: Tensor, y: Tensor) -> Tensor:
        value, gradient = _run(z, y)
        if held and held[0].dtype == z.dtype and held[0].numel() > gradient.numel():
            gradient = held[0].view(-1)[: gradient.numel()].view_as(gradient).clone()
        else:
            held[:] = [gradient.contiguous()]
        return _stored(z, value, gradient)

    return loss


def at_calls(bad: Callable[[int], bool], change: Callable[[Tensor], Tensor]) -> Loss:
    """Some calls, by their number, give another value."""
    count = [0]

    def loss(z: Tensor, y: Tensor) -> Tensor:
        count[0] += 1
        value, gradient = _run(z, y)
        return _stored(z, change(value) if bad(count[0]) else value, gradient)

    return loss


def warming_up() -> Loss:
    """The first call of each shape tries several variants, the last of which leaves out half of the classes."""
    tuned: set[Hashable] = set()

    def loss(z: Tensor, y: Tensor) -> Tensor:
        if (z.shape, z.dtype) in tuned:
            return _stored(z, *_run(z, y))
        tuned.add((z.shape, z.dtype))
        value, gradient = _run(torch.cat((z[:, ::2], z[:, ::2]), 1)[:, : z.shape[1]], y)
        return _stored(z, value, gradient)

    return loss


def replayed() -> Loss:
    """A captured graph: replayed with the inputs of the capture, which were not copied, from the third call on."""
    seen: dict[Hashable, int] = {}
    held: dict[Hashable, tuple[Tensor, Tensor]] = {}

    def loss(z: Tensor, y: Tensor) -> Tensor:
        at = (z.shape, z.dtype)
        seen[at] = seen.get(at, 0) + 1
        if seen[at] == 2:
            held[at] = _run(z, y)
        return _stored(z, *(held[at] if seen[at] > 2 else _run(z, y)))

    return loss


def previous() -> Loss:
    """Always one call late."""
    before: dict[Hashable, Tensor] = {}

    def loss(z: Tensor, y: Tensor) -> Tensor:
        value, gradient = _run(z, y)
        given = before.get(z.dtype, value)
        before[z.dtype] = value
        return _stored(z, given, gradient)

    return loss


def after_an_error() -> Loss:
    """A call that raised leaves its flag behind."""
    broken = [False]

    def loss(z: Tensor, y: Tensor) -> Tensor:
        if z.numel() == 0:
            broken[0] = True
        value, gradient = _run(z, y)
        return _stored(z, value * 2 if broken[0] else value, gradient)

    return loss


def if_asked(so: Callable[[Tensor], bool], classes: int = 0) -> Loss:
    """Another path, which forgets to add the maximum back, where `so`, beyond some classes."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        if so(z) and z.shape[1] > classes:
            x = wide(z)
            return (torch.log(torch.exp(x - x.amax(1, keepdim=True)).sum(1)) - 0 * x[:, 0]).mean().to(z.dtype)
        return fused()(z, y)

    return loss


class Module(nn.Module):
    """A module that smooths its labels while it trains, or while it does not."""

    def __init__(self, *, smooths_in_training: bool) -> None:
        super().__init__()
        self.smooths = smooths_in_training

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        share = 0.1 if self.training == self.smooths else 0.0
        return F.cross_entropy(wide(z), y, label_smoothing=share).to(z.dtype)


class Annealed(nn.Module):
    """A temperature that goes down with every forward pass in training."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        assert isinstance(self.steps, Tensor)
        self.steps += 1
        heat = 1 + 1e-3 * float(self.steps)
        return F.cross_entropy(wide(z) / heat, y).to(z.dtype)


class RunningWeight(nn.Module):
    """The weights of the first call are kept for all."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: Tensor | None = None

    def forward(self, z: Tensor, y: Tensor, *, weight: Tensor | None = None) -> Tensor:
        if weight is not None and (self.kept is None or self.kept.shape != weight.shape):
            self.kept = wide(weight.detach()).clone()
        kept = self.kept if weight is not None else None
        return F.cross_entropy(wide(z), y, weight=None if kept is None else kept.to(wide(z).dtype)).to(z.dtype)


def spoiling(change: Callable[[Tensor, Tensor], None]) -> Loss:
    """Writes into its inputs."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        value, gradient = _run(z, y)
        with torch.no_grad():
            change(z.detach(), y)
        return _stored(z, value, gradient)

    return loss


def by_function(function: Any) -> Loss:
    """A right mean through a wrong autograd function of (logits, value, gradient)."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        return applied(function)(z, *_run(z, y))

    return loss


def _shift(z: Tensor, y: Tensor) -> None:
    z -= z.nan_to_num(0, 0, 0).amax(1, keepdim=True) if z.numel() else 0


def _clamp_labels(z: Tensor, y: Tensor) -> None:
    y.clamp_(max=max(0, z.shape[1] - 2))


def _count(at: int) -> Callable[[int], bool]:
    return lambda number: number == at


def _nothing(value: Tensor) -> Tensor:
    return torch.zeros_like(value)


def _twice(value: Tensor) -> Tensor:
    return value * 2 + 1


KERNELS = (
    Kernel("cache by shape", lambda: cached(lambda z, y: (z.shape, z.dtype)), wrong="one result for each shape"),
    Kernel("cache by address", lambda: cached(lambda z, y: (z.data_ptr(), z.shape, z.dtype)),
           wrong="one result for each address of the logits, which may hold others"),
    Kernel("cache by both addresses", lambda: cached(lambda z, y: (z.data_ptr(), y.data_ptr(), z.shape, z.dtype)),
           wrong="one result for each pair of addresses, which may hold other numbers"),
    Kernel("cache by identity", lambda: cached(lambda z, y: (id(z), z.dtype)),
           wrong="one result for each id of a tensor, which is given again"),
    Kernel("cache by logits", lambda: cached(lambda z, y: (z.dtype, tuple(z.detach().double().flatten().tolist()))),
           wrong="labels are not part of the key"),
    Kernel("cache by totals",
           lambda: cached(lambda z, y: (z.shape, z.dtype, float(z.detach().double().sum()), int(y.sum()))),
           wrong="the key is the sum of the logits and that of the labels"),
    Kernel("cache by the first row", lambda: cached(
               lambda z, y: (z.shape, z.dtype, tuple(z[:1].detach().double().flatten().tolist()),
                   tuple(y[:1].tolist()))),
           wrong="the key is the first row"),
    Kernel("one buffer for gradients", lambda: one_buffer(values=False),
           wrong="two losses of one shape, then their backward passes: both get the second's gradient"),
    Kernel("one buffer for values", lambda: one_buffer(values=True),
           wrong="the next call of the same dtype overwrites the loss that was handed out"),
    Kernel("gradient never cleared", never_cleared, wrong="the gradient is added to that of the call before"),
    Kernel("gradient of a larger batch", of_the_shape_before,
           wrong="a smaller batch gets the gradient of a larger one"),
    Kernel("gradient scaled in place", lambda: by_function(InPlace),
           wrong="a second backward pass multiplies by the upstream gradient again", seen_in="Liger, and its kind"),
    Kernel("upstream spoiled", lambda: by_function(SpoilsUpstream), wrong="the upstream gradient is doubled in place"),
    Kernel("every 100th call", lambda: at_calls(lambda number: number % 100 == 0, _twice),
           wrong="every 100th call is something else"),
    Kernel("every 1000th call", lambda: at_calls(lambda number: number % 1000 == 0, _twice),
           wrong="every 1000th call is something else"),
    Kernel("every 10000th call", lambda: at_calls(lambda number: number % 10_000 == 0, _twice),
           wrong="every 10,000th call is something else"),
    Kernel("first call", lambda: at_calls(_count(1), _nothing), wrong="the first call gives 0"),
    Kernel("second call", lambda: at_calls(_count(2), _nothing), wrong="the second call gives 0"),
    Kernel("from the 256th call on", lambda: at_calls(lambda number: number > 256, _nothing),
           wrong="a counter overflows, and all is 0"),
    Kernel("from the 5000th call on", lambda: at_calls(lambda number: number > 5000, _nothing),
           wrong="a counter overflows, and all is 0"),
    Kernel("tuning", warming_up, wrong="the first call of a shape runs a variant that leaves out half of the classes"),
    Kernel("graph", replayed, wrong="from the third call of a shape on, the second one's result is given"),
    Kernel("previous result", previous, wrong="each value is that of the call before"),
    Kernel("after an empty batch", after_an_error, wrong="all calls after an empty batch are doubled"),
    Kernel("evaluation", lambda: if_asked(lambda z: not torch.is_grad_enabled()), wrong="wrong under torch.no_grad()"),
    Kernel("evaluation beyond 128", lambda: if_asked(lambda z: not torch.is_grad_enabled(), 128),
           wrong="wrong under torch.no_grad() beyond 128 classes"),
    Kernel("without requires_grad", lambda: if_asked(lambda z: not z.requires_grad and torch.is_grad_enabled()),
           wrong="wrong for logits that ask for no gradient, where gradients are recorded"),
    Kernel("inference mode", lambda: if_asked(lambda z: torch.is_inference_mode_enabled()),
           wrong="wrong under torch.inference_mode()"),
    Kernel("autocast", lambda: if_asked(lambda z: torch.is_autocast_enabled("cpu")), wrong="wrong under autocast"),
    Kernel("logits of another tensor", lambda: if_asked(lambda z: not z.is_leaf),
           wrong="wrong for logits that are no leaf of the graph, as those of any model"),
    Kernel("smoothing in training", lambda: Module(smooths_in_training=True),
           wrong="labels are smoothed in training mode"),
    Kernel("smoothing in evaluation", lambda: Module(smooths_in_training=False),
           wrong="labels are smoothed after eval()"),
    Kernel("annealed", Annealed, wrong="a temperature changes with each call"),
    Kernel("weights of the first call", RunningWeight, wrong="class weights are kept from the first call of their size",
           said={"supports": ("weight",)}),
    Kernel("logits shifted in place", lambda: spoiling(_shift), wrong="the maximum is taken off the caller's logits"),
    Kernel("labels clamped in place", lambda: spoiling(_clamp_labels), wrong="the caller's last class becomes another"),
)  # fmt: skip
