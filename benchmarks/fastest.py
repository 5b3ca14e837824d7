"""The fastest path: the material's recipe in PyTorch alone, without automatic differentiation, updated in place.

A two-layer network's gradient is two matrix products and a few elementwise operations:

    h = act(x W1' + b1) * m,  z = h W2' + b2,  d = (sigmoid(z) - t) / n  or  (softmax(z) - p) / n,
    dW2 = d' h,  dh = (d W2) * m * act'(h),  dW1 = dh' x.

Plain SGD is linear in the gradient, so that for small batches the product itself updates the weights (`addmm_` with
alpha = -rate/n): no gradient is ever stored.  Adam keeps all parameters in one flat tensor, so that a step is six
operations in all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

# Rows that are worked on at a time, on the CPU: few enough to stay in the cache between the forward and the backward
# pass, and to spare the memory; of 256 to 12,665 rows 1024 were fastest (torch 2.14.1, an AMD EPYC, 1 thread and 2).
# On a GPU every block costs launches: a whole batch took 10.9 ms by blocks, and takes 0.4 without.
BLOCK = 1024
# Rows whose product may update the weights themselves.  A matrix product adds up longer sums in blocks, each of which
# is rounded at the weights' size then, not at the gradient's: at 12,665 rows that lost 0.8 % of a step.
SMALL = 256

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8  # torch.optim.Adam's


class ByHand:
    """Steps of one recipe on the parameters of a two-layer network (Linear, [Dropout], activation, Linear)."""

    def __init__(self, net: nn.Sequential, *, tanh: bool, dropout: float, optimizer: str, rate: float) -> None:
        first, *_, last = (layer for layer in net if isinstance(layer, nn.Linear))
        parameters = [first.weight, first.bias, last.weight, last.bias]
        # One flat storage; the network's own parameters become views of it.
        self.flat = torch.cat([p.detach().t().flatten() for p in parameters])
        for parameter, view in zip(parameters, self.parts(self.flat, parameters), strict=True):
            parameter.data = view
        self.w1, self.b1, self.w2, self.b2 = (p.detach() for p in parameters)
        self.gradient = torch.zeros_like(self.flat)
        self.gradients = self.parts(self.gradient, parameters)
        self.moment, self.square = torch.zeros_like(self.flat), torch.zeros_like(self.flat)
        self.tanh, self.keep, self.rate = tanh, 1 - dropout, rate
        self.columns = self.w2.shape[0]
        self.done = 0
        self.step: Callable[[Tensor, Tensor], None] = self.sgd if optimizer == "SGD" else self.adam

    @staticmethod
    def parts(flat: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
        """Views of a flat storage, each in the shape of a parameter.

        Weights lie column by column: of dh' x and x' dh, which are the same, the latter is faster with two threads.
        """
        views = flat.split([p.numel() for p in like])
        return [view.view(p.shape[::-1]).t() for view, p in zip(views, like, strict=True)]

    def reset(self) -> None:
        """Adam's state as new; the parameters are the caller's to restore, in place."""
        self.moment.zero_()
        self.square.zero_()
        self.done = 0

    def mask(self, rows: int) -> Tensor | None:
        """What dropout multiplies the hidden layer by, drawn as `nn.Dropout` draws it on the CPU."""
        if self.keep == 1:
            return None
        return self.b1.new_empty(rows, len(self.b1)).bernoulli_(self.keep).div_(self.keep)

    def deltas(self, x: Tensor, target: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """The hidden layer, and the gradients of n times the mean loss by the last and the hidden linear outputs."""
        h = torch.addmm(self.b1, x, self.w1.t())
        if mask is not None:
            h.mul_(mask)
        h = h.tanh_() if self.tanh else h.relu_()
        z = torch.addmm(self.b2, h, self.w2.t())
        d = (z.sigmoid_() if self.columns == 1 else z.softmax(1)).sub_(target)
        back = d * self.w2 if self.columns == 1 else d @ self.w2
        if self.tanh:
            back.mul_(1 - h * h)
        else:
            back = torch.ops.aten.threshold_backward(back, h, 0)
        return h, d, back if mask is None else back.mul_(mask)

    def differentiate(self, x: Tensor, target: Tensor) -> Tensor:
        """The gradient of n times the mean loss, in its own storage; on the CPU block by block, each while in cache."""
        self.gradient.zero_()
        g1, c1, g2, c2 = self.gradients
        whole = self.mask(len(x))
        block = BLOCK if x.device.type == "cpu" else len(x)
        masks = [None] * len(x) if whole is None else whole.split(block)
        for a, b, mask in zip(x.split(block), target.split(block), masks, strict=False):
            h, d, back = self.deltas(a, b, mask)
            g1.addmm_(back.t(), a)
            c1.add_(back.sum(0))
            g2.addmm_(d.t(), h)
            c2.add_(d.sum(0))
        return self.gradient

    def sgd(self, x: Tensor, target: Tensor) -> None:
        rate = -self.rate / len(x)
        if len(x) > SMALL:
            self.flat.add_(self.differentiate(x, target), alpha=rate)
            return
        h, d, back = self.deltas(x, target, self.mask(len(x)))
        self.w2.addmm_(d.t(), h, alpha=rate)
        self.b2.add_(d.sum(0), alpha=rate)
        self.w1.addmm_(back.t(), x, alpha=rate)
        self.b1.add_(back.sum(0), alpha=rate)

    def adam(self, x: Tensor, target: Tensor) -> None:
        g = self.differentiate(x, target).div_(len(x))
        self.done += 1
        self.moment.lerp_(g, 1 - BETA1)
        self.square.mul_(BETA2).addcmul_(g, g, value=1 - BETA2)
        correction = (1 - BETA2**self.done) ** 0.5
        denominator = self.square.sqrt().div_(correction).add_(EPSILON)
        self.flat.addcdiv_(self.moment, denominator, value=-self.rate / (1 - BETA1**self.done))
