"""One training step as a CUDA graph.

Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

WARMUP = 3  # steps before the capture, on a side stream, as the notes have it


class CudaGraph:
    """Replays `step` on copies of the batch in static memory; a batch of another size runs eagerly."""

    def __init__(self, step: Callable[[Tensor, Tensor], None], x: Tensor, target: Tensor, device: str) -> None:
        self.eager, self.x, self.target = step, x.to(device).clone(), target.to(device).clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARMUP):
                step(self.x, self.target)
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            step(self.x, self.target)

    def __call__(self, x: Tensor, target: Tensor) -> None:
        if x.shape != self.x.shape:
            self.eager(x, target)
            return
        self.x.copy_(x, non_blocking=True)
        self.target.copy_(target, non_blocking=True)
        self.graph.replay()
