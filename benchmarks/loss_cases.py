"""The loss alone, forward and backward, by formulation and target kind, from 16 rows of 2 classes to 4096 of 50257."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from benchmarks.compiled import compiled
from benchmarks.losses import LOSSES, half_of_the_digits, judged
from benchmarks.work import Case, Unsupported
from equivalences.formats import FORMATS

SEED = 3
SHAPES = ((16, 2), (256, 2), (4096, 2), (64, 10), (1024, 1000), (4096, 1000), (4096, 50257))
PASSES = ("forward", "forward+backward")
JUDGED_NUMBERS = 4096  # of the logits are handed to the gate, at least one row
CHUNK = 2**24  # numbers that are held in float64 at a time, while the whole result is checked
# The logits in 16 bits: of 1 - p, the sigmoid by hand keeps half of bfloat16's digits at 2, and above 4.125 p may round
# to 1, where nothing bounds the error.  Every formulation has the same.
LARGEST_IN_16_BITS = 2.0
COPIES = 5  # of the logits that a backward pass and its check may hold at a time


@dataclass(frozen=True)
class Axes:
    loss: str
    rows: str
    classes: str
    passes: str
    format: str = "float32"
    execution: str = "eager"

    @property
    def sensible(self) -> bool:
        return LOSSES[self.loss].target != "binary" or self.classes == "2"


class LossOnly:
    """The mean loss of one batch of logits, or its value and gradient."""

    def __init__(self, axes: Axes, device: str) -> None:
        self.axes, self.loss = axes, LOSSES[axes.loss]
        rows, classes = int(axes.rows), int(axes.classes)
        columns = 1 if self.loss.target == "binary" else classes
        dtype = FORMATS[axes.format].dtype
        needed, there = COPIES * rows * columns * dtype.itemsize, available_memory(device)
        if there is not None and needed > there:
            raise Unsupported(f"needs {needed / 2**30:.1f} GiB of memory, and {there / 2**30:.1f} GiB are free")
        generator = torch.Generator().manual_seed(SEED)
        self.labels = torch.randint(classes, (rows,), generator=generator)
        logits = torch.randn(rows, columns, generator=generator).to(dtype)
        if dtype.itemsize == 2:
            logits.clamp_(-LARGEST_IN_16_BITS, LARGEST_IN_16_BITS)
        target = self.loss.prepared(self.labels, classes)
        self.target = (target.to(dtype) if target.is_floating_point() else target).to(device)
        self.z = logits.to(device).requires_grad_(axes.passes == "forward+backward")
        self.samples = rows
        self.function = self.loss.function()
        if axes.execution == "compile":
            self.function = compiled(self.function, device)
        self.result: tuple[Tensor, ...] = ()

    def reset(self) -> None:
        self.result = ()

    def run(self) -> None:
        value = self.function(self.z, self.target)
        self.result = (value, *torch.autograd.grad(value, self.z)) if self.z.requires_grad else (value,)

    def check(self) -> None:
        """The first rows are judged by the gate; the whole agrees with float64 to half of the format's digits.

        So does every entry of the gradient: a probability to half of its own digits (and one rounding of its logarithm,
        and one of what is stored), one from which 1 is taken to half of the digits of 1.
        """
        self.reset()
        self.run()
        take = max(1, JUDGED_NUMBERS // self.z.shape[1])
        self.judgement = judged(self.loss, self.z[:take], self.target[:take])
        total, close, rows = 0.0, half_of_the_digits(self.z.dtype), len(self.z)
        stored = torch.finfo(self.z.dtype).tiny * torch.finfo(self.z.dtype).eps  # the smallest subnormal number
        for chosen in torch.arange(rows).split(max(1, CHUNK // self.z.shape[1])):
            part = slice(int(chosen[0]), int(chosen[-1]) + 1)
            z = self.z[part].detach().cpu().double()
            labels = self.labels[part]
            if self.loss.target == "binary":
                signed = (1 - 2 * labels.double())[:, None]
                total += float(torch.nn.functional.softplus(signed * z).sum())
                gradient = signed * torch.sigmoid(signed * z)
                allowed = torch.full_like(z, close)
            else:
                log, label = torch.log_softmax(z, 1), (torch.arange(len(z)), labels)
                total -= float(log[label].sum())
                gradient = log.exp()
                allowed = gradient * (close - close**2 * log)  # close squared is one rounding
                gradient[label] -= 1
                allowed[label] = close
            if len(self.result) > 1:
                got = self.result[1][part].cpu().double() * rows
                worst = float(((got - gradient).abs() / (allowed + rows * stored)).max())
                assert worst <= 1, f"a gradient is {worst:.2g} times as far off as half of its digits"
        value, expected = float(self.result[0].detach()), total / rows
        assert abs(value - expected) <= close * expected, f"the mean loss is {value!r}, expected {expected!r}"
        self.value = value

    def facts(self) -> dict[str, Any]:
        return {
            "steps": 1,
            "final loss": self.value,
            "loss error/allowance": self.judgement["error/allowance"],
            "loss error/contract": self.judgement["error/contract"],
        }


def available_memory(device: str) -> int | None:
    """Free bytes of the device's memory, or None where nobody says."""
    if device.startswith("cuda"):
        return int(torch.cuda.mem_get_info(device)[0])
    if device == "cpu" and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", {}):
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def case(axes: Axes, smoke: bool = False) -> Case:
    spelled = tuple((field.name, str(getattr(axes, field.name))) for field in fields(axes))
    large = int(axes.rows) * int(axes.classes) > 2**24
    return Case(
        "loss",
        spelled,
        lambda device: LossOnly(axes, device),
        smoke=smoke,
        usual=(("format", "float32"), ("execution", "eager")),
        group=("rows", "classes", "passes"),
        rounds=5 if large else 50,
        warmup=1 if large else 10,
    )


def default() -> Iterator[Axes]:
    for loss, (rows, classes), passes in itertools.product(LOSSES, SHAPES, PASSES):
        if rows * classes <= 2**24 or (loss == "CrossEntropyLoss" and passes == "forward+backward"):
            yield Axes(loss, str(rows), str(classes), passes)
    for loss, execution in itertools.product(LOSSES, ("eager", "compile")):
        count = "2" if LOSSES[loss].target == "binary" else "1000"
        yield Axes(loss, "4096", count, "forward+backward", execution=execution)
    yield Axes("CrossEntropyLoss", "4096", "1000", "forward+backward", "bfloat16")


def product() -> Iterator[Axes]:
    formats = [name for name in FORMATS if name != "float64"]
    for loss, (rows, classes), passes, fmt, execution in itertools.product(
        LOSSES, SHAPES, PASSES, formats, ("eager", "compile")
    ):
        yield Axes(loss, str(rows), str(classes), passes, fmt, execution)


def cases(data: str, full: bool) -> list[Case]:
    """The same for every data set: logits are drawn here."""
    smoke = {Axes(loss, "4096", "2", "forward+backward") for loss in LOSSES}
    every = dict.fromkeys((*default(), *(product() if full else ())))
    return [case(axes, axes in smoke) for axes in every if axes.sensible]
