"""What every author of a kernel writes first."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function


def wide(z: Tensor) -> Tensor:
    """In float32 at least: what is computed in it is rounded to 16 bits once, at the end."""
    return z.to(torch.promote_types(z.dtype, torch.float32))


def applied(function: type[Function]) -> Callable[..., Tensor]:
    """What `function.apply` is: a function of its forward pass's arguments that gives a tensor."""
    apply: Callable[..., Tensor] = function.apply
    return apply
