"""The fastest path against the material's loop and the ceilings, batch size by batch size, interleaved in one run.

    python -m benchmarks.ratios --threads 2

Every round times each way once, in random order; a ratio is the median over rounds of ratios within a round, with its
quartiles.  "products" are the recipe's own two large matrix products alone (forward, and the first weight's gradient)
on the same batches, in memory that is there already.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import timer

from benchmarks.ceilings import ceilings
from benchmarks.digits import DataError
from benchmarks.training import BATCHES, Recipe, Training
from benchmarks.work import Work
from equivalences.running.environment import summary

CLOCKS: dict[str, Callable[[], float]] = {"wall": timer, "cpu": time.process_time}


class Products:
    """The two matrix products of an epoch, x W1' and x' dh, into memory that is there already."""

    def __init__(self, like: Training) -> None:
        hidden = like.recipe.network.hidden
        self.x, self.batch, self.samples = like.x, like.batch, like.samples
        self.weight, self.back = torch.rand(self.x.shape[1], hidden), torch.rand(self.samples, hidden)
        self.h, self.gradient = torch.empty(self.batch, hidden), torch.empty_like(self.weight)

    @property
    def flops(self) -> int:
        return 4 * self.x.numel() * self.weight.shape[1]

    def reset(self) -> None:
        pass

    def run(self) -> None:
        for x, back in zip(self.x.split(self.batch), self.back.split(self.batch), strict=True):
            torch.mm(x, self.weight, out=self.h[: len(x)])
            torch.mm(x.t(), back, out=self.gradient)


def rounds(ways: dict[str, Work | Products], count: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Seconds of each way, round by round."""
    order, times = list(ways), {name: [0.0] * count for name in ways}
    chance = random.Random(0)
    for turn in range(-1, count):  # the first round warms up
        chance.shuffle(order)
        for name in order:
            ways[name].reset()
            start = clock()
            ways[name].run()
            times[name][max(turn, 0)] = clock() - start
    return times


def ratio(over: Sequence[float], under: Sequence[float]) -> str:
    """Median and quartiles of the ratios within rounds."""
    low, middle, high = statistics.quantiles([a / b for a, b in zip(over, under, strict=True)], n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.ratios", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batch", action="append", choices=BATCHES, help="(default: each)")
    parser.add_argument("--optimizer", choices=("SGD", "Adam"), default="SGD")
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="(default: %(default)s, at least 2)")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), metavar="N")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of this process, where others disturb")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 2 or chosen.threads < 1:
        parser.error("--rounds must be at least 2, --threads at least 1")
    torch.set_num_threads(chosen.threads)
    table = Table("batch", "material's loop, ms", "slices, ms", "fastest, ms", "products, ms")
    for title in ("loop / fastest", "slices / fastest", "fastest / products", "products, of the ceiling"):
        table.add_column(title)
    top = ceilings("cpu", chosen.threads, CLOCKS[chosen.clock])
    try:
        for batch in chosen.batch or BATCHES:
            loop = Recipe(batch=batch, optimizer=chosen.optimizer)
            sliced = replace(loop, loading="slices")
            ways: dict[str, Work | Products] = {
                "loop": Training(loop, "cpu"),
                "slices": Training(sliced, "cpu"),
                "fastest": (fastest := Training(replace(sliced, execution="by-hand"), "cpu")),
                "products": (products := Products(fastest)),
            }
            fastest.check()
            times = rounds(ways, chosen.rounds, CLOCKS[chosen.clock])
            middle = {name: statistics.median(found) for name, found in times.items()}
            table.add_row(
                batch,
                *(f"{1e3 * middle[name]:.1f}" for name in ways),
                ratio(times["loop"], times["fastest"]),
                ratio(times["slices"], times["fastest"]),
                ratio(times["fastest"], times["products"]),
                f"{products.flops / middle['products'] / top.flops:.0%}",
            )
    except DataError as error:
        print(f"python -m benchmarks.ratios: {error}", file=sys.stderr)
        return 2
    console = Console(width=None if sys.stdout.isatty() else 170)
    console.print(table)
    print(
        f"{chosen.rounds} rounds, {chosen.clock} clock, {chosen.optimizer}; ceilings {top.flops / 1e9:.0f} GFLOP/s, "
        f"{top.bytes / 1e9:.1f} GB/s; {summary()}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
