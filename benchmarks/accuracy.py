"""Time to accuracy: from the first step until a test accuracy is reached, evaluation included, seed after seed.

The clock is never paused.  A run that does not get there within its epochs is a failure: its time is kept, and failures
are counted.  Every round has a seed of its own, which sets initialisation and order.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import torch

from benchmarks.training import Recipe, Training
from benchmarks.work import Case

SEEDS = 10
TARGET = 0.995
EPOCHS = {"16": 10, "64": 20, "256": 40, "full": 600}


class TimeToAccuracy:
    """Training runs of one recipe, one a round, each with the next seed."""

    def __init__(self, recipe: Recipe, device: str) -> None:
        self.training = Training(recipe, device)
        self.cap = EPOCHS[recipe.batch]
        self.test_x = self.training.data.test_x.to(device)
        self.test_y = self.training.data.test_y.to(device)
        self.samples = 1  # a run is one sample
        self.seed, self.fresh = 0, False
        self.runs: list[dict[str, Any]] = []

    def reset(self) -> None:
        self.seed += 1
        self.training.reseed(self.seed)
        self.training.reset()
        self.fresh = True

    def run(self) -> None:
        if not self.fresh:  # a run that begins where another ended would be over at once
            self.reset()
        self.fresh, reached, epochs = False, False, 0
        while not reached and epochs < self.cap:
            self.training.run()
            epochs += 1
            reached = self.accuracy() >= TARGET
        self.runs.append({"seed": self.seed, "epochs": epochs, "reached": reached})

    def accuracy(self) -> float:
        """Of the test rows, as a user computes it: in the network's own format, read back."""
        net = self.training.net.eval()
        with torch.no_grad():
            z = net(self.test_x)
        net.train()
        guess = (z[:, 0] > 0).long() if z.shape[1] == 1 else z.argmax(1)
        return float((guess == self.test_y).double().mean())

    def check(self) -> None:
        """The loss is the gate's; a run ends where it says, by an evaluation of its own in float64."""
        self.reset()
        self.run()
        last = self.runs.pop()
        data, training = self.training.data, self.training
        found = training.accuracy(data.test_x, data.test_y)
        slack = 1 / len(data.test_y)  # one row may lie on the boundary
        assert last["reached"] == (found >= TARGET) or abs(found - TARGET) <= slack, f"ended at accuracy {found:.4f}"

    def plain(self) -> None:
        """Floating-point operations are not counted here."""

    def part(self) -> float:
        """No run is as long as another."""
        return 0.0

    def facts(self) -> dict[str, Any]:
        """Of the timed runs: the last ones, after what warmed up."""
        timed = self.runs[-SEEDS:]
        return {
            "target accuracy": TARGET,
            "seeds": len(timed),
            "failures": sum(not run["reached"] for run in timed),
            "runs": timed,
        }


def case(recipe: Recipe, smoke: bool = False) -> Case:
    axes = tuple((field.name, str(getattr(recipe, field.name))) for field in fields(recipe))
    return Case(
        "accuracy",
        axes,
        lambda device: TimeToAccuracy(recipe, device),
        smoke=smoke,
        usual=tuple((field.name, str(field.default)) for field in fields(recipe)),
        rounds=SEEDS,
        warmup=1,
    )


def cases(data: str, full: bool) -> list[Case]:
    """Batch sizes, optimisers and the fastest path, where there is something to learn (two classes, real images)."""
    if data not in ("digits28", "mnist"):
        return []
    start = Recipe(data, optimizer="Adam", order="shuffled")
    recipes = []
    for batch in EPOCHS:
        sized = replace(start, batch=batch)
        recipes += [sized, replace(sized, loading="slices", implementation="fused")]
        recipes += [replace(sized, loading="slices", execution="by-hand")]
    smoke = replace(start, batch="64", loading="slices", execution="by-hand")
    return [case(recipe, recipe == smoke) for recipe in recipes]
