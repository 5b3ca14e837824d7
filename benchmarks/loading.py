"""The ways to get batches: a DataLoader as the material has it, and what stands in for it when the data fits in memory.

A way takes rows and targets, a batch size, the order of an epoch (None: as given) and the device that trains.  All of
them give the same batches in the same order; what differs is who gathers the rows, and where.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import BatchSampler, DataLoader, SequentialSampler, TensorDataset

from benchmarks.data import Data, load
from benchmarks.work import Case

Batches = Iterable[tuple[Tensor, Tensor]]

SEED = 5
BATCHES = (16, 32, 64, 256, 1024)


@dataclass(frozen=True)
class Loading:
    """One way: whether it keeps the rows on the training device, and the batches of one epoch."""

    name: str
    resident: bool
    epoch: Callable[[Tensor, Tensor, int, Tensor | None, str], Batches]
    accelerators_only: bool = False


def _dataloader(x: Tensor, y: Tensor, size: int, order: Tensor | None, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    sampler = None if order is None else order.tolist()
    for a, b in DataLoader(TensorDataset(x, y), batch_size=size, sampler=sampler):
        yield a.to(device), b.to(device)


def _batch_sampler(
    x: Tensor, y: Tensor, size: int, order: Tensor | None, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    rows = TensorDataset(x, y)
    sampler: Any = SequentialSampler(rows) if order is None else order.tolist()
    for a, b in DataLoader(rows, batch_size=None, sampler=BatchSampler(sampler, size, drop_last=False)):
        yield a.to(device), b.to(device)


def _pinned(x: Tensor, y: Tensor, size: int, order: Tensor | None, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    sampler = None if order is None else order.tolist()
    for a, b in DataLoader(TensorDataset(x, y), batch_size=size, sampler=sampler, pin_memory=True):
        yield a.to(device, non_blocking=True), b.to(device, non_blocking=True)


def _slices(x: Tensor, y: Tensor, size: int, order: Tensor | None, device: str) -> Batches:
    if order is not None:
        x, y = x[order], y[order]
    return zip(x.split(size), y.split(size), strict=True)


def _permutation(x: Tensor, y: Tensor, size: int, order: Tensor | None, device: str) -> Iterator[tuple[Tensor, Tensor]]:
    index = torch.arange(len(x), device=device) if order is None else order
    for rows in index.split(size):
        yield x[rows], y[rows]


LOADINGS = {
    way.name: way
    for way in (
        Loading("dataloader", False, _dataloader),
        Loading("dataloader-batch-sampler", False, _batch_sampler),
        Loading("dataloader-pinned", False, _pinned, accelerators_only=True),
        Loading("slices", True, _slices),
        Loading("permutation", True, _permutation),
    )
}
ORDERS = ("given", "shuffled")


def permutation(order: str, count: int, device: str, generator: torch.Generator) -> Tensor | None:
    """The order of one epoch: None as given, else drawn from the generator (on its device) for `device`."""
    return None if order == "given" else torch.randperm(count, generator=generator).to(device)


class Loader:
    """One epoch of batches that nobody trains on: the work of the loading suite."""

    def __init__(self, data: Data, way: Loading, batch: int, order: str, device: str) -> None:
        home = device if way.resident else "cpu"
        self.x, self.y = data.x.to(home), data.y.to(home)
        self.way, self.batch, self.order, self.device, self.home = way, batch, order, device, home
        self.samples = len(data.x)
        self.generator = torch.Generator()
        self.steps = -(-self.samples // batch)

    def reset(self) -> None:
        self.generator.manual_seed(SEED)

    def batches(self) -> Batches:
        order = permutation(self.order, self.samples, self.home, self.generator)
        return self.way.epoch(self.x, self.y, self.batch, order, self.device)

    def run(self) -> None:
        for _ in self.batches():
            pass

    def check(self) -> None:
        """An epoch holds every row once, in its order, bitwise, in batches of the size asked for."""
        self.reset()
        met = list(self.batches())
        self.reset()
        order = permutation(self.order, self.samples, self.home, self.generator)
        x, y = (self.x, self.y) if order is None else (self.x[order], self.y[order])
        sizes = [len(a) for a, _ in met]
        assert sizes == [len(part) for part in x.split(self.batch)], f"batches of other sizes: {sizes}"
        assert torch.equal(torch.cat([a for a, _ in met]), x.to(self.device)), "the rows came in another order"
        assert torch.equal(torch.cat([b for _, b in met]), y.to(self.device)), "the labels came in another order"

    @property
    def bytes(self) -> int:
        """Bytes that gathering an epoch moves: every row, read and written (slices move none at all)."""
        views = self.way.name == "slices" and self.order == "given"
        return 0 if views else 2 * self.x.numel() * self.x.element_size()

    def facts(self) -> dict[str, Any]:
        return {"steps": self.steps}


def case(data: str, way: Loading, batch: int, order: str, smoke: bool = False) -> Case:
    axes = (("data", data), ("batch", str(batch)), ("loading", way.name), ("order", order))
    return Case(
        "loading",
        axes,
        lambda device: Loader(load(data), way, batch, order, device),
        smoke=smoke,
        group=("data", "batch"),
        rounds=10,
        warmup=1,
        devices=("accelerator",) if way.accelerators_only else (),
    )


def cases(data: str, full: bool) -> list[Case]:
    """By default every way at batch 16 and 256; in full at every batch size."""
    sizes = BATCHES if full else (16, 256)
    return [
        case(data, way, batch, order, smoke=batch == 256 and order == "shuffled" and not way.accelerators_only)
        for batch in sizes
        for way in LOADINGS.values()
        for order in ORDERS
    ]
