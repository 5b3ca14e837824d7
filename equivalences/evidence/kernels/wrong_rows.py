"""Rows that no block computes, and memory that is read as if it lay otherwise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from equivalences.evidence.kernels.idioms import applied, wide
from equivalences.evidence.kernels.kernel import Kernel
from equivalences.evidence.kernels.stored import Loss, Stored, of_rows, scaled, two_pass

NONE: dict[str, Any] = {"reduction": "none"}
NEVER_SET = 0.0


def computed(
    which: Callable[[int, int], Tensor], *, rows: bool = False, gradient: bool = True, value: bool = True
) -> Loss:
    """Some rows, told by the numbers of rows and of classes; the others hold what their buffers were made with."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        def run(z: Tensor) -> tuple[Tensor, Tensor]:
            x = wide(z)
            losses, g = of_rows(x, y, two_pass(x))
            there = which(*z.shape)
            losses = torch.where(there, losses, NEVER_SET) if value else losses
            g = torch.where(there[:, None], g, NEVER_SET) if gradient else g
            made = losses if rows else losses.mean()
            return made.to(z.dtype), (g if rows else g / max(1, len(z))).to(z.dtype)

        return applied(Stored)(z, run, scaled)

    return loss


def up_to(limit: int) -> Callable[[int, int], Tensor]:
    """A grid of so many rows."""
    return lambda rows, classes: torch.arange(rows) < limit


def whole_blocks(block: int) -> Callable[[int, int], Tensor]:
    """Whole blocks of rows, where there is one."""
    return lambda rows, classes: torch.arange(rows) < (rows // block * block if rows >= block else rows)


def beyond(rows: int, classes: int) -> Callable[[int, int], Tensor]:
    """Another path for large batches of wide rows forgets the last row."""

    def there(n: int, k: int) -> Tensor:
        return torch.arange(n) < (n - 1 if n >= rows and k >= classes else n)

    return there


def for_classes(*sizes: int) -> Callable[[int, int], Tensor]:
    """A build for vocabularies of these sizes leaves out the first row of several."""
    return lambda rows, classes: torch.arange(rows) >= (1 if classes in sizes and rows > 1 else 0)


def for_multiples(step: int, least: int) -> Callable[[int, int], Tensor]:
    """A vectorised build for multiples leaves out the first row of several."""

    def there(rows: int, classes: int) -> Tensor:
        return torch.arange(rows) >= (1 if classes % step == 0 and classes >= least and rows > 1 else 0)

    return there


def _rows_of(name: str, which: Callable[[int, int], Tensor], wrong: str, **more: Any) -> Kernel:
    said = NONE if more.get("rows") else {}
    return Kernel(name, lambda: computed(which, **more), wrong=wrong, said=said)


# --- memory ---

Read = Callable[[Tensor], Tensor]


def _fits(x: Tensor, size: tuple[int, ...], stride: tuple[int, ...], offset: int) -> bool:
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    return x.numel() > 0 and (last + 1) * x.element_size() <= x.untyped_storage().nbytes()


def as_contiguous(x: Tensor) -> Tensor:
    """The memory from the first number on, row by row, whatever the strides are (where there is enough of it)."""
    size, stride, offset = tuple(x.shape), x.new_empty(x.shape, device="meta").stride(), int(x.storage_offset())
    return x.as_strided(size, stride, offset) if _fits(x, size, stride, offset) else x


def as_adjacent_rows(x: Tensor) -> Tensor:
    """As contiguous where classes are adjacent: a slice of a padded vocabulary is read without its padding."""
    return as_contiguous(x) if x.dim() > 1 and x.stride(-1) == 1 and x.stride(0) > x.shape[1] else x


def as_every_row(x: Tensor) -> Tensor:
    """Rows with a stride of 0 are taken for separate ones if there is memory, all others are right."""
    return as_contiguous(x) if x.dim() > 1 and x.stride(0) == 0 else x


def from_the_start(x: Tensor) -> Tensor:
    """From the start of the storage, not from the tensor's own first number."""
    return x.as_strided(x.shape, x.stride(), 0)


def as_transposed(x: Tensor) -> Tensor:
    """Rows that are adjacent in memory are read along the classes."""
    return as_contiguous(x) if x.dim() > 1 and x.stride(0) == 1 and x.stride(1) > 1 else x


def _keep(x: Tensor) -> Tensor:
    return x


def reading(logits: Read = _keep, labels: Read = _keep, upstream: Read = _keep, *, rows: bool = False) -> Loss:
    """A right loss of tensors that are read otherwise."""

    def loss(z: Tensor, y: Tensor) -> Tensor:
        def run(z: Tensor) -> tuple[Tensor, Tensor]:
            x, label = wide(logits(z)), labels(y) % max(1, z.shape[1])
            losses, g = of_rows(x, label, two_pass(x))
            made = losses if rows else losses.mean()
            return made.to(z.dtype), (g if rows else g / max(1, len(z))).to(z.dtype)

        return applied(Stored)(z, run, lambda g, u: scaled(g, upstream(u)))

    return loss


def weights_as_contiguous(z: Tensor, y: Tensor, *, weight: Tensor | None = None) -> Tensor:
    """Class weights whose strides are not looked at."""
    w = None if weight is None else wide(as_contiguous(weight))
    return F.cross_entropy(wide(z), y, weight=w).to(z.dtype)


def reshaped(z: Tensor, y: Tensor) -> Tensor:
    """(N, C, d) reshaped to rows of C without moving the classes."""
    return F.cross_entropy(wide(z).reshape(-1, z.shape[1]), y.reshape(-1)).to(z.dtype)


def classes_last(z: Tensor, y: Tensor) -> Tensor:
    """(N, C, d) taken for (N, d, C) where both fit, and labels are in range."""
    if z.dim() == 3 and z.shape[1] == z.shape[2]:
        return F.cross_entropy(wide(z).mT, y).to(z.dtype)
    return F.cross_entropy(wide(z), y).to(z.dtype)


def mean_of_sequences(z: Tensor, y: Tensor) -> Tensor:
    """(N, C, d): the loss of each sequence divided by N alone."""
    made = F.cross_entropy(wide(z), y, reduction="sum") / len(z)
    return made.to(z.dtype)


def flat_labels(z: Tensor, y: Tensor) -> Tensor:
    """(N, C, d) to rows, and labels in the order of the transposed."""
    rows = wide(z).movedim(1, -1).reshape(-1, z.shape[1])
    return F.cross_entropy(rows, y.mT.reshape(-1)).to(z.dtype)


def one_row_as_many(z: Tensor, y: Tensor) -> Tensor:
    """(C,) taken for C rows of one class: no loss at all."""
    return F.cross_entropy(wide(z), y).to(z.dtype) if z.dim() > 1 else 0 * wide(z).nan_to_num(0, 0, 0).sum().to(z.dtype)


def with_threads(at_least: int) -> Loss:
    """Each of several threads takes N // threads rows, the rest nobody."""

    def which(rows: int, classes: int) -> Tensor:
        threads = torch.get_num_threads()
        return torch.arange(rows) < (rows // threads * threads if threads >= at_least else rows)

    return computed(which)


INNER: dict[str, Any] = {"layouts": ("inner", "movedim")}

KERNELS = (
    *(_rows_of(f"grid of {limit:,} rows", up_to(limit), f"rows beyond {limit:,} are not computed")
      for limit in (32, 1024, 4096, 32_768)),
    _rows_of("grid of 65,535 rows", up_to(65_535), "rows beyond the grid's 65,535 are not computed"),
    _rows_of("grid of 1,048,576 rows", up_to(2**20), "rows beyond 2**20 are not computed"),
    _rows_of("gradient's grid of 1,024 rows", up_to(1024), "rows beyond 1024 have no gradient", value=False),
    _rows_of("gradient's grid of 65,535 rows", up_to(65_535), "rows beyond 65,535 have no gradient", value=False),
    _rows_of("grid of 1,024 rows, each alone", up_to(1024), "rows beyond 1024 are not computed", rows=True),
    _rows_of("grid of 65,535 rows, each alone", up_to(65_535), "rows beyond 65,535 are not computed", rows=True),
    *(_rows_of(f"whole blocks of {block} rows", whole_blocks(block),
               f"rows after the last whole block of {block} are lost")
      for block in (2, 4, 16, 128, 1024)),
    _rows_of("rows but the last, from 256 x 1000 on", beyond(256, 1000), "large batches lose their last row"),
    _rows_of("rows but the last, from 1024 x 128 on", beyond(1024, 128), "large batches lose their last row"),
    _rows_of("rows but the last, from 32 x 50257 on", beyond(32, 50_257), "large batches lose their last row"),
    _rows_of("rows but the last, from 64 x 64 on", beyond(64, 64), "large batches lose their last row"),
    _rows_of("build for 32000 classes", for_classes(32_000), "the build for a vocabulary of 32,000 is broken"),
    _rows_of("build for 151936 classes", for_classes(151_936), "the build for a vocabulary of 151,936 is broken"),
    _rows_of("build for 10 and 1000 classes", for_classes(10, 1000), "the builds for CIFAR and ImageNet are broken"),
    _rows_of("build for multiples of 1000", for_multiples(1000, 1000), "the build for multiples of 1000 is broken"),
    _rows_of("build for multiples of 64", for_multiples(64, 192), "the build for multiples of 64 beyond 128 is broken"),
    _rows_of("build for multiples of 16384", for_multiples(16_384, 16_384),
             "the build for multiples of 16384 is broken"),
    Kernel("threads of equal parts", lambda: with_threads(2), wrong="what is left over of two threads nobody computes"),
    Kernel("three threads of equal parts", lambda: with_threads(3),
           wrong="what is left over of three threads or more nobody computes"),
    Kernel("logits as contiguous", lambda: reading(logits=as_contiguous),
           wrong="the strides of the logits are not looked at"),
    Kernel("labels as contiguous", lambda: reading(labels=as_contiguous),
           wrong="the strides of the labels are not looked at"),
    Kernel("upstream as contiguous", lambda: reading(upstream=as_contiguous, rows=True), said=NONE,
           wrong="the strides of the upstream gradient are not looked at"),
    Kernel("upstream from the start", lambda: reading(upstream=from_the_start, rows=True), said=NONE,
           wrong="the upstream gradient's offset in its storage is not looked at"),
    Kernel("logits of a slice", lambda: reading(logits=as_adjacent_rows),
           wrong="the row's stride is taken for the number of classes, where classes are adjacent"),
    Kernel("logits of a slice, rows alone", lambda: reading(logits=as_adjacent_rows, rows=True), said=NONE,
           wrong="the row's stride is taken for the number of classes, where classes are adjacent"),
    Kernel("logits from the start", lambda: reading(logits=from_the_start),
           wrong="the logits' offset in their storage is not looked at"),
    Kernel("labels from the start", lambda: reading(labels=from_the_start),
           wrong="the labels' offset in their storage is not looked at"),
    Kernel("logits of one row for all", lambda: reading(logits=as_every_row),
           wrong="expanded rows are read as separate ones"),
    Kernel("logits as transposed", lambda: reading(logits=as_transposed),
           wrong="rows that are adjacent are read as classes"),
    Kernel("weights as contiguous", lambda: weights_as_contiguous,
           wrong="the strides of class weights are not looked at",
           said={"supports": ("weight",)}),
    Kernel("sequences reshaped", lambda: reshaped,
           wrong="(N, C, d) is reshaped without moving the classes", said=INNER),
    Kernel("sequences that are square", lambda: classes_last,
           wrong="(N, C, C) is read with the classes last", said=INNER),
    Kernel("sequences averaged over N", lambda: mean_of_sequences,
           wrong="the mean of (N, C, d) is over N alone", said=INNER),
    Kernel("sequences, labels turned", lambda: flat_labels, wrong="labels are flattened in another order than logits",
           said=INNER),
    Kernel("one row as many", lambda: one_row_as_many, wrong="(C,) is taken for C rows of one class",
           said={"layouts": ("contiguous", "unbatched")}),
)  # fmt: skip
