"""The data sets, by name: what the material trains on, as float tensors of flat rows.

Nothing is downloaded unless asked for; a missing or damaged file is one `DataError` that says what to do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks import cache, digits
from benchmarks.digits import DataError

CIFAR_MEAN = (0.4915, 0.4823, 0.4468)  # chapter 7.2.1 of the material
CIFAR_STD = (0.2470, 0.2435, 0.2616)


@dataclass(frozen=True, eq=False)
class Data:
    """Rows (n x features, float32) and labels (n, int64) of a training and a test part, on the CPU."""

    name: str
    x: Tensor
    y: Tensor
    test_x: Tensor
    test_y: Tensor

    @property
    def features(self) -> int:
        return self.x.shape[1]

    @property
    def classes(self) -> int:
        return int(self.y.max()) + 1

    @property
    def checksum(self) -> str:
        parts = {name: getattr(self, name).numpy() for name in ("x", "y", "test_x", "test_y")}
        return digits.checksum(parts)


def _grey(images: Any) -> Tensor:
    """Images (n x h x w, bytes) as flat rows in [0, 1]: what `ToTensor` and `reshape(-1, 784)` give."""
    return torch.as_tensor(np.asarray(images)).reshape(len(images), -1).float() / 255


def _digits28(root: Path, download: bool) -> Data:
    found = digits.load(root)
    parts = ((_grey(found[f"{p}_images"]), torch.from_numpy(found[f"{p}_labels"]).long()) for p in ("train", "test"))
    (x, y), (test_x, test_y) = parts
    return Data("digits28", x, y, test_x, test_y)


def _torchvision(name: str, root: Path, download: bool) -> tuple[Any, Any]:
    """The training and test part of a torchvision data set, read from files below `root`."""
    try:
        from torchvision import datasets
    except Exception as error:  # a torchvision for another torch raises RuntimeError, or whatever its loader meets
        first = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{name} is read by torchvision, which does not work here ({type(error).__name__}: {first}): "
            f"install the torchvision made for torch {torch.__version__.partition('+')[0]}"
        ) from None
    try:
        train, test = (getattr(datasets, name)(root, train=part, download=download) for part in (True, False))
        for part in (train, test):
            if len(part.data) != len(part.targets):  # torchvision reads both files, and does not compare
                raise ValueError(f"{len(part.data)} images and {len(part.targets)} labels")
    except Exception as error:  # a damaged file raises nearly anything: ValueError, EOFError, UnpicklingError ...
        first = (str(error).splitlines() or [""])[0]
        raise DataError(
            f"{name} below {root} is missing or damaged ({type(error).__name__}: {first}): "
            "put its files there, name it with --data-root=FOLDER, or fetch them with --download"
        ) from None
    return train, test


def _two(data: Any, labels: Any, kept: tuple[int, int]) -> tuple[Any, Tensor]:
    """The rows of two classes, class by class as the material stacks them, relabelled 0 and 1."""
    rows = [np.flatnonzero(np.asarray(labels) == each) for each in kept]
    return np.asarray(data)[np.concatenate(rows)], torch.arange(2).repeat_interleave(torch.tensor([*map(len, rows)]))


def _mnist(root: Path, download: bool) -> Data:
    parts = []
    for part in _torchvision("MNIST", root, download):
        images, labels = _two(part.data, part.targets, (0, 1))
        parts += [_grey(images), labels]
    return Data("mnist", *parts)


def _cifar10(root: Path, download: bool) -> Data:
    """Aeroplanes against birds, normalised: the chapter's CIFAR-2."""
    parts = []
    for part in _torchvision("CIFAR10", root, download):
        images, labels = _two(part.data, part.targets, (0, 2))
        x = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        x = (x - torch.tensor(CIFAR_MEAN).view(3, 1, 1)) / torch.tensor(CIFAR_STD).view(3, 1, 1)
        parts += [x.flatten(1), labels]
    return Data("cifar10", *parts)


def random(name: str, rows: int, features: int, classes: int) -> Data:
    """Uniform rows and labels without meaning, for shapes alone; a fifth as many test rows."""
    generator = torch.Generator().manual_seed(0)
    parts: list[Tensor] = []
    for count in (rows, rows // 5):
        parts += [
            torch.rand(count, features, generator=generator),
            torch.randint(classes, (count,), generator=generator),
        ]
    return Data(name, *parts)


SETS: dict[str, Callable[[Path, bool], Data]] = {
    "digits28": _digits28,
    "mnist": _mnist,
    "cifar10": _cifar10,
    "synthetic": lambda root, download: random("synthetic", 1_000, 28 * 28, 10),
    "synthetic-cifar2": lambda root, download: random("synthetic-cifar2", 10_000, 3 * 32 * 32, 2),
}


@lru_cache(maxsize=4)
def _load(name: str, root: Path, download: bool) -> Data:
    return SETS[name](root, download)


def load(name: str, *, download: bool = False) -> Data:
    """The named data set, from `cache.folder()`.  Raises DataError with one line that says what to do."""
    if name not in SETS:
        raise DataError(f"unknown data set {name!r}: choose from {', '.join(SETS)}")
    return _load(name, cache.folder(), download)
