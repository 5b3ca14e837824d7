"""What the harness itself costs: an empty case, and a case that is timed by hand as well, in turn with the harness.

    python -m benchmarks.overhead --rounds 300

Both go through the fixture `timed` in a pytest of their own.  Before every round, outside its clock, the harness resets
a case: there the second one times its own run, by the same clock.  A ratio is the median over rounds of harness / hand,
with the 95 % interval of a median: two order statistics, whatever the scatter, for rounds that are independent.
"""

from __future__ import annotations

import argparse
import math
import pkgutil
import statistics
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks.work import Case
from equivalences.running.environment import summary

SIZE = 800  # of the matrices: about 10 ms on one thread of a machine of today
WARMUP = 10
CLOCKS = {"wall": "torch.utils.benchmark.timer", "cpu": "time.process_time"}


class Empty:
    """Nothing: its time is what the harness adds to every round."""

    samples = 1

    def reset(self) -> None:
        pass

    def run(self) -> None:
        pass

    def check(self) -> None:
        pass

    def facts(self) -> dict[str, Any]:
        return {}


class Product(Empty):
    """A matrix product; before the harness times one, one is timed by hand."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.x: Tensor = torch.rand(SIZE, SIZE, generator=torch.Generator().manual_seed(0))
        self.out = torch.empty_like(self.x)
        self.seconds: list[float] = []

    def reset(self) -> None:
        start = self.clock()
        self.run()
        self.seconds.append(self.clock() - start)

    def run(self) -> None:
        torch.mm(self.x, self.x, out=self.out)


def median(numbers: Sequence[float]) -> tuple[float, float, float]:
    """The median of at least 6 numbers and its 95 % interval: how many lie below the true one is binomial."""
    ordered, n = sorted(numbers), len(numbers)
    low, tail = 0, 1  # tail / 2^n: the chance that no more than `low` of them lie below
    while 40 * (tail + math.comb(n, low + 1)) <= 2**n:
        low += 1
        tail += math.comb(n, low)
    return statistics.median(ordered), ordered[low], ordered[-1 - low]


class Session:
    """The pytest plugin by which a number of rounds and a clock go in and seconds come out."""

    def __init__(self, rounds: int, clock: str) -> None:
        self.rounds, self.clock = rounds, clock
        self.harness, self.hand = dict[str, list[float]](), list[float]()

    @pytest.fixture
    def session(self) -> Session:
        return self


@pytest.mark.parametrize("name", ["empty", "product"])
def test_overhead(timed: Callable[[Case, str], None], benchmark: Any, session: Session, name: str) -> None:
    product = Product(pkgutil.resolve_name(CLOCKS[session.clock]))
    work = product if name == "product" else Empty()
    timed(Case("overhead", (("case", name),), lambda device: work, rounds=session.rounds, warmup=WARMUP), "cpu")
    session.harness[name] = benchmark.stats.stats.data
    session.hand = product.seconds[WARMUP : WARMUP + session.rounds]  # then the second pass ran


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.overhead", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300, metavar="N", help="(default: %(default)s, at least 6)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="cpu: of this process, where others disturb")
    chosen = parser.parse_args(arguments)
    if chosen.rounds < 6:
        parser.error("--rounds must be at least 6")
    session = Session(chosen.rounds, chosen.clock)
    options = ("--benchmark-only", f"--benchmark-timer={CLOCKS[chosen.clock]}", "-q", "-p", "no:cacheprovider")
    status = pytest.main([__file__, *options], plugins=[session])
    if status != 0:
        return int(status)
    empty, product = session.harness["empty"], session.harness["product"]
    ratio, low, high = median([a / b for a, b in zip(product, session.hand, strict=True)])
    print(f"\nan empty case: {1e6 * statistics.median(empty):.2f} us")
    took = f"{1e3 * statistics.median(product):.1f} ms"
    print(f"a product of {took}, harness / hand: {ratio:.4f} ({low:.4f} to {high:.4f})")
    print(f"{chosen.rounds} rounds, {chosen.clock} clock; {summary()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
