"""digits28: scikit-learn's real scans of 0 and 1, in the size and the numbers of MNIST's, built once and cached.

The scans (8x8, 17 greys) are resized to 28x28 and enlarged by small affine distortions, both by torchvision's
transforms, under a fixed seed.  Training and test images come from disjoint scans.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks import cache
from equivalences.files import destination

SEED = 1797  # the number of scans that scikit-learn ships
TRAIN = (5_923, 6_742)  # MNIST's zeros and ones
TEST = (980, 1_135)
HELD_OUT = 5  # every fifth scan of a class is a test scan
VERSION = 1  # of the recipe below: a new recipe is a new file

Arrays = Mapping[str, npt.NDArray[Any]]


class DataError(RuntimeError):
    """The data cannot be had; the message is one line that says what to do."""


def load(root: Path | None = None, train: tuple[int, ...] = TRAIN, test: tuple[int, ...] = TEST) -> Arrays:
    """The images (uint8, n x 28 x 28), labels and scan numbers of both parts, read from the cache or built into it.

    Keys: {train,test}_{images,labels,scans}.  Raises `DataError` if the file is damaged or cannot be built.
    """
    counts = "-".join(map(str, (*train, *test)))
    path = (root or cache.folder()) / f"digits28-v{VERSION}-{counts}.npz"
    if path.exists():
        return _read(path)
    arrays = build(train, test)
    checked = {**arrays, "sha256": np.array(checksum(arrays))}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with destination(path) as whole:
            whole.fill(lambda file: np.savez_compressed(file, allow_pickle=False, **checked))
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror}; choose another folder with --data-root=FOLDER or {cache.VARIABLE}"
        ) from None
    return arrays


def _read(path: Path) -> Arrays:
    try:
        with path.open("rb") as raw, np.load(raw, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        expected = str(arrays.pop("sha256"))
    except Exception:  # a damaged archive raises nearly anything: ValueError, KeyError, BadZipFile, zlib.error ...
        expected, arrays = "", {}
    if not expected or checksum(arrays) != expected:
        raise DataError(f"{path} is damaged: delete it, and it is built again")
    return arrays


def checksum(arrays: Arrays) -> str:
    """SHA-256 over names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def build(train: tuple[int, ...] = TRAIN, test: tuple[int, ...] = TEST) -> Arrays:
    """Builds the data set; needs scikit-learn and torchvision.  Some seconds for the full counts."""
    try:
        import torch
        from sklearn.datasets import load_digits
        from torchvision import transforms
        from torchvision.transforms import functional
    except Exception as error:  # a torchvision for another torch raises RuntimeError, or whatever its loader meets
        raise DataError(_missing(error)) from None

    scans, labels = load_digits(return_X_y=True)
    distort = transforms.RandomAffine(
        degrees=12,
        translate=(0.08, 0.08),
        scale=(0.9, 1.1),
        shear=8,
        interpolation=functional.InterpolationMode.BILINEAR,
    )
    parts: dict[str, list[Any]] = {
        f"{part}_{what}": [] for part in ("train", "test") for what in ("images", "labels", "scans")
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        for digit in range(len(train)):
            own = np.flatnonzero(labels == digit)
            held_out = np.arange(len(own)) % HELD_OUT == 0
            for part, sources, count in (("train", own[~held_out], train), ("test", own[held_out], test)):
                small = torch.from_numpy(scans[sources] / 16).float().reshape(-1, 1, 8, 8)
                large = functional.resize(small, [28, 28], antialias=True)
                chosen = np.arange(count[digit]) % len(sources)
                images = [distort(large[i]) for i in chosen]
                grey = (torch.stack(images).clamp(0, 1) * 255).round().to(torch.uint8)
                parts[f"{part}_images"].append(grey.squeeze(1).numpy())
                parts[f"{part}_labels"].append(np.full(len(chosen), digit))
                parts[f"{part}_scans"].append(sources[chosen])
    return {name: np.concatenate(arrays) for name, arrays in parts.items()}


def _missing(error: Exception) -> str:
    import torch

    version = torch.__version__.partition("+")[0]
    return (
        f"digits28 is not built yet, and building it needs scikit-learn and the torchvision made for torch {version} "
        f"(`pip install scikit-learn torchvision`, or run `python -m tox -e bench`): {type(error).__name__}: "
        f"{str(error).splitlines()[0] if str(error) else ''}"
    )
