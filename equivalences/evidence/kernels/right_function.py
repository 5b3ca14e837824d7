"""Right kernels: `autograd.Function` and custom operators with a hand-written backward pass."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel


def shifted(x: Tensor) -> Tensor:
    return x - x.amax(1, keepdim=True)


# --- the backward pass computes -------------------------------------------------------------------------------------


class FromLogProbabilities(Function):
    """Saves the logarithms of the probabilities; the gradient is made of their exponentials."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x = shifted(wide(logits))
        logp = x - torch.log(torch.exp(x).sum(1, keepdim=True))
        ctx.save_for_backward(logp, target)
        ctx.dtype = logits.dtype
        return (-logp[torch.arange(len(x)), target]).mean().to(logits.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        logp, target = ctx.saved_tensors
        gradient = torch.exp(logp)
        gradient[torch.arange(len(gradient)), target] -= 1
        return (gradient.div_(len(gradient)) * upstream[0]).to(ctx.dtype), None


class FromProbabilities(Function):
    """Saves the probabilities in float32, as PyTorch's softmax does for its own backward pass."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x = shifted(wide(logits))
        e = torch.exp(x)
        total = e.sum(1, keepdim=True)
        ctx.save_for_backward(e / total, target)
        ctx.dtype = logits.dtype
        return (torch.log(total) - x.gather(1, target[:, None])).sum().div(len(x)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        p, target = ctx.saved_tensors
        gradient = (p - F.one_hot(target, p.shape[1])) * (upstream[0].to(p.dtype) / len(p))
        return gradient.to(ctx.dtype), None


class InSetupContext(Function):
    """The style of torch.func: `forward` has no context, and a rule for vmap is made of it."""

    generate_vmap_rule = True

    @staticmethod
    def forward(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        x = shifted(wide(logits))
        e = torch.exp(x)
        total = e.sum(1, keepdim=True)
        loss = torch.log(total) - x.gather(1, target.unsqueeze(1))
        return loss.mean().to(logits.dtype), e / total

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(output[1], inputs[1], inputs[0])
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        p, target, logits = ctx.saved_tensors
        hot = torch.zeros_like(p).scatter(1, target.unsqueeze(1), 1.0)
        return ((p - hot) / len(p) * upstream[0].to(p.dtype)).to(logits.dtype), None


def in_setup_context(logits: Tensor, target: Tensor) -> Any:
    return applied(InSetupContext)(logits, target)[0]


class InDouble(Function):
    """float64 inside, whatever comes in; one rounding on the way out."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x = shifted(logits.double())
        p = torch.softmax(x, 1)
        ctx.save_for_backward(p, target)
        ctx.dtype = logits.dtype
        return F.nll_loss(x - torch.exp(x).sum(1, keepdim=True).log(), target).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        p, target = ctx.saved_tensors
        hot = F.one_hot(target, p.shape[1]).double()
        return ((p - hot) * upstream[0].double() / len(p)).to(ctx.dtype), None


class InNumpy(Function):
    """NumPy by hand, in float64: what a course has its students write."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        x, y = logits.detach().double().numpy(), target.numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            x = x - x.max(axis=1, keepdims=True)
            e = np.exp(x)
            total = e.sum(axis=1)
            rows = np.arange(len(x))
            losses = np.log(total) - x[rows, y]
            p = e / total[:, None]
            p[rows, y] -= 1.0
            ctx.gradient = p / np.float64(len(x))
            loss = losses.sum() / np.float64(len(x))
        ctx.dtype = logits.dtype
        return torch.tensor(loss, dtype=logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return torch.from_numpy(ctx.gradient * upstream[0].double().item()).to(ctx.dtype), None


# --- the forward pass makes the gradient -----------------------------------------------------------------------------


def loss_and_gradient(x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The total loss of rows of float32 or float64, and its gradient."""
    x = shifted(x)
    e = torch.exp(x)
    total = e.sum(1, keepdim=True)
    loss = (torch.log(total) - x.gather(1, target[:, None])).sum()
    return loss, (e / total).scatter_add(1, target[:, None], -torch.ones_like(total))


class StoredGradient(Function):
    """The gradient is stored in the format of the logits, and only scaled afterwards."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        loss, gradient = loss_and_gradient(wide(logits), target)
        ctx.save_for_backward((gradient / len(logits)).to(logits.dtype))
        return (loss / len(logits)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        if torch.equal(upstream[0], torch.ones_like(upstream[0])):  # the last layer: nothing to scale
            return gradient.clone(), None
        return gradient * upstream[0], None


class StoredWide(StoredGradient):
    """The same, stored in float32: rounded once, after it is scaled."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        loss, gradient = loss_and_gradient(wide(logits), target)
        ctx.save_for_backward(gradient)
        ctx.dtype = logits.dtype
        return (loss / len(logits)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return (gradient * (upstream[0].to(gradient.dtype) / len(gradient))).to(ctx.dtype), None


class StoredInChunks(Function):
    """Chunks of rows write their gradients into one buffer of the logits' format, which is scaled in place."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        buffer = torch.empty_like(logits, memory_format=torch.contiguous_format)
        total = torch.zeros((), dtype=wide(logits).dtype)
        for first in range(0, len(logits), 256):
            rows = slice(first, first + 256)
            loss, gradient = loss_and_gradient(wide(logits[rows]), target[rows])
            buffer[rows] = gradient / len(logits)
            total += loss
        ctx.save_for_backward(buffer)
        return (total / len(logits)).to(logits.dtype)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0].clone().mul_(upstream[0]), None


class InPlace(StoredGradient):
    """The gradient is written over the logits, to save their memory.  What is declared of it: it destroys its input."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor) -> Tensor:
        loss, gradient = loss_and_gradient(wide(logits), target)
        storage = logits.detach()
        if storage.stride(0) == 0:  # rows that share their memory
            storage = storage.contiguous()
        ctx.save_for_backward(storage.copy_(gradient / max(len(logits), 1)))
        return (loss / len(logits)).to(logits.dtype)


# --- custom operators ------------------------------------------------------------------------------------------------


def custom_operator() -> Callable[..., Any]:
    """An operator of its own, of two outputs; its registration takes the place of an older one."""

    @torch.library.custom_op("equivalences_kernels::cross_entropy", mutates_args=())
    def cross_entropy(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        loss, gradient = loss_and_gradient(wide(logits), target)
        return (loss / len(logits)).to(logits.dtype), (gradient / len(logits)).to(logits.dtype)

    @cross_entropy.register_fake
    def _(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        return logits.new_empty(()), torch.empty_like(logits)

    def backward(ctx: Any, upstream: Tensor, _: Any) -> tuple[Tensor, None]:
        return ctx.saved_tensors[0] * upstream, None

    cross_entropy.register_autograd(
        backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(output[1])
    )
    return lambda logits, target: cross_entropy(logits, target)[0]


def operator_in_numpy() -> Callable[..., Any]:
    """An operator that hands the memory to other code: here NumPy stands for C++."""

    @torch.library.custom_op("equivalences_kernels::cross_entropy_of_rows", mutates_args=())
    def rows(logits: Tensor, target: Tensor) -> Tensor:
        x = logits.double().numpy()
        with np.errstate(invalid="ignore", divide="ignore"):
            x = x - x.max(1, keepdims=True)
            loss = np.log(np.exp(x).sum(1)) - x[np.arange(len(x)), target.numpy()]
        return torch.from_numpy(loss).to(logits.dtype)

    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None]:
        logits, target = ctx.saved_tensors
        p = torch.softmax(logits.double(), 1)
        gradient = (p - F.one_hot(target, p.shape[1])) * upstream[:, None].double()
        return gradient.to(logits.dtype), None

    rows.register_autograd(backward, setup_context=lambda ctx, inputs, output: ctx.save_for_backward(*inputs))
    return lambda logits, target: rows(logits, target)


LIGER = "Liger-Kernel, unsloth"

FUNCTIONS: tuple[Kernel, ...] = (
    Kernel("Function, log-probabilities saved", lambda: applied(FromLogProbabilities), seen_in="xformers"),
    Kernel("Function, probabilities saved", lambda: applied(FromProbabilities), seen_in="Megatron-LM, one rank"),
    Kernel("Function in the style of torch.func", lambda: in_setup_context, seen_in="torch.func documentation"),
    Kernel("Function, float64 inside", lambda: applied(InDouble), seen_in="references in test suites"),
    Kernel("Function, NumPy inside", lambda: applied(InNumpy), seen_in="courses; torch tutorial on NumPy extensions"),
    Kernel("gradient stored in the logits' format", lambda: applied(StoredGradient), seen_in=LIGER),
    Kernel("gradient stored in float32", lambda: applied(StoredWide), seen_in="QuACK"),
    Kernel("gradient stored in chunks", lambda: applied(StoredInChunks), seen_in=LIGER),
    # It would need a declaration that says: the logits are overwritten.
    Kernel("gradient written over the logits", lambda: applied(InPlace), seen_in=LIGER),
    Kernel("custom operator of two outputs", custom_operator, seen_in="torch.library documentation; Liger's newer API"),
    Kernel("custom operator in NumPy", operator_in_numpy, said={"reduction": "none"}, seen_in="C++ extensions"),
)
