"""The cost of the gate itself: judged rows a second by format and form, and how it grows with rows and classes."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from benchmarks.work import Case
from equivalences.catalogue import IDENTITIES
from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.judging.judge import Measurement
from equivalences.model import Form, Problem

SEED = 11
FORMS = {
    "reference": "F.cross_entropy(z, y, reduction='none')",
    "LogSoftmax+NLLLoss": "F.nll_loss(F.log_softmax(z, dim), y, reduction='none')",
    "manual-logsumexp": "torch.logsumexp(z, dim) - z.gather(dim, y.unsqueeze(dim)).squeeze(dim)",
}
WRONG = "1 + F.cross_entropy(z, y, reduction='none')"


@dataclass(frozen=True)
class Axes:
    format: str = "float32"
    form: str = "reference"
    rows: str = "16"
    classes: str = "10"


class Judging:
    """One form of the cross entropy judged on one problem: another one each run, as the gate meets them."""

    def __init__(self, axes: Axes, device: str) -> None:
        self.axes, self.device = axes, device
        self.identity = IDENTITIES["cross_entropy"]
        code = FORMS[axes.form]
        self.form = next(form for form in self.identity.forms if form.code == code)
        self.random = np.random.default_rng(SEED)
        self.samples = int(axes.rows)

    def reset(self) -> None:
        """Nothing: the judge remembers what it has judged, so no run may begin where another did."""

    def run(self) -> None:
        """Draws the problem as well, all of it: where a few rows need exact arithmetic, theirs is remembered, too."""
        shape = int(self.axes.rows), int(self.axes.classes)
        # Numbers with 8 significant bits are exact in every format.
        z, y = self.random.integers(-255, 256, shape) / 32, self.random.integers(shape[1], size=shape[0])
        self.problem = Problem(self.axes.format, {"z": z, "y": y, "g": np.ones(shape[0])})
        self.met = judge.measure(self.identity, self.form, self.problem, device=self.device)

    def check(self) -> None:
        """Everything is decided, inside its allowance; and a wrong form is outside."""
        self.reset()
        self.run()
        assert all(isinstance(met, Measurement) and not met.failed for met in self.met), "the form was not accepted"
        wrong = judge.measure(self.identity, Form(WRONG), self.problem, device=self.device)
        assert any(met.failed for met in wrong), "a wrong form was accepted"

    def plain(self) -> None:
        """Floating-point operations are not counted here."""

    def facts(self) -> dict[str, Any]:
        return {"numbers judged": sum(met.got.size for met in self.met if isinstance(met, Measurement))}


def case(axes: Axes, smoke: bool = False) -> Case:
    spelled = tuple((field.name, str(getattr(axes, field.name))) for field in fields(axes))
    usual = tuple((field.name, str(field.default)) for field in fields(axes))
    large = int(axes.rows) * int(axes.classes) > 4096
    return Case(
        "gate",
        spelled,
        lambda device: Judging(axes, device),
        smoke=smoke,
        usual=usual,
        group=(),
        rounds=5 if large else 20,
        warmup=1 if large else 3,
    )


def cases(data: str, full: bool) -> list[Case]:
    """By default each axis around 16 rows of 10 classes; the same for every data set."""
    formats = tuple(FORMATS)
    rows, classes = ("1", "16", "64", "256"), ("2", "10", "100", "1000")
    some = [Axes(fmt, form) for fmt, form in itertools.product(formats, FORMS)]
    some += [Axes(fmt, rows=n) for fmt in ("float32", "float64") for n in rows]
    some += [Axes(fmt, classes=k) for fmt in ("float32", "float64") for k in classes]
    every = [Axes(*chosen) for chosen in itertools.product(formats, FORMS, rows, classes)] if full else []
    smoke = {Axes(fmt) for fmt in formats}
    return [case(axes, axes in smoke) for axes in dict.fromkeys((*some, *every))]
