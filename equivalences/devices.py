"""The one place that talks to accelerators: which devices there are, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


def accelerator() -> str | None:
    """The type of the accelerator that this build of torch sees now ("cuda", "mps", "xpu", ...), or None.

    Source: https://pytorch.org/docs/stable/accelerator.html (torch >= 2.6; before that, CUDA alone is looked for).
    """
    if hasattr(torch, "accelerator"):
        found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
        return None if found is None else found.type
    return "cuda" if torch.cuda.is_available() else None


def kind(device: str) -> str:
    """The type of a device: "cuda" of "cuda:1"."""
    return device.partition(":")[0]


def available() -> tuple[str, ...]:
    """The device types that can be asked for on this machine, the CPU first."""
    found = accelerator()
    return ("cpu",) if found is None else ("cpu", found)


def require(device: str) -> str:
    """`device` itself, made the current one where it has an index: whoever waits for the accelerator waits for it.

    Raises ValueError with one line that says what there is if it cannot be used here.
    """
    of, colon, index = device.partition(":")
    if of not in available():
        raise ValueError(f"device {device!r} is not available here: choose one of {', '.join(available())}")
    if of != "cpu" and colon:
        there = [f"{of}:{number}" for number in range(torch.accelerator.device_count())]
        if device not in there:
            raise ValueError(f"device {device!r} is not available here: choose one of {', '.join(there)}")
        torch.accelerator.set_device_index(int(index))
    return device


def synchronize(device: str) -> None:
    """Waits until `device` has finished what it was given; nothing to wait for on the CPU."""
    if device != "cpu":
        torch.accelerator.synchronize(device) if hasattr(torch, "accelerator") else torch.cuda.synchronize(device)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Operations on the CPU share their work among so many threads; afterwards among as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
