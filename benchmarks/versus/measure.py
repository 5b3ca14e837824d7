"""What is done with the workers: launches, and in each of them blocks of every case in random order, one at a time."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

from benchmarks.versus.process import Arm, Failed, Worker

SHORTEST = 4  # blocks a case and launch, however long they are: one of them may be disturbed
SHARE = 1.0  # seconds an arm that the blocks of one case and launch may take before there are fewer of them


@dataclass(frozen=True)
class Plan:
    """What is compared, and how: arms, ids of cases and where they are registered, seconds and number of blocks."""

    arms: tuple[Arm, ...]
    cases: tuple[str, ...]
    registries: tuple[str, ...]
    device: str = "cpu"
    block: float = 0.005  # the speed of a busy machine changes faster: shorter blocks pair better
    blocks: int = 100
    seed: int = 0
    timeout: float = 300.0


@dataclass(frozen=True)
class Size:
    """How a case is timed, the same in every launch: units a block, blocks a launch."""

    runs: int
    blocks: int


@dataclass(frozen=True)
class Launch:
    """Seconds a unit, by case and arm, a block each; and the cases that failed, with the reason in one line."""

    number: int
    seconds: Mapping[str, Mapping[str, Sequence[float]]]
    failed: Mapping[str, str]


Hook = Callable[[str], None]


def environment(arm: Arm, registries: Sequence[str], device: str, timeout: float) -> dict[str, Any]:
    """What an arm runs on.  Raises Failed if it cannot start."""
    with Worker(arm, registries, timeout) as worker:
        return worker.hello(device)


def launch(
    plan: Plan, number: int, sizes: dict[str, Size], skip: Mapping[str, str], finished: Hook = lambda case: None
) -> Launch:
    """One launch: fresh processes, every case once.  Adds to `sizes` what it had to find out.

    A case whose worker dies, hangs, answers garbage or reports an error is left out from there on, and the cases after
    it get fresh processes.  Raises Failed if a worker cannot even be started.
    """
    order = random.Random(f"{plan.seed}/{number}")
    cases = [case for case in plan.cases if case not in skip]
    order.shuffle(cases)
    seconds: dict[str, dict[str, list[float]]] = {}
    failed: dict[str, str] = {}
    with ExitStack() as stack:
        workers: list[Worker] = []
        for case in cases:
            if not workers:
                workers = _start(plan, order, stack)
            try:
                seconds[case] = _blocks(plan, workers, case, sizes, order, check=number == 0)
            except Failed as reason:
                failed[case] = str(reason)
                stack.close()
                workers = []
            finished(case)
    return Launch(number, seconds, failed)


def _start(plan: Plan, order: random.Random, stack: ExitStack) -> list[Worker]:
    workers = []
    for arm in order.sample(plan.arms, len(plan.arms)):
        worker = stack.enter_context(Worker(arm, plan.registries, plan.timeout))
        worker.hello(plan.device)
        workers.append(worker)
    return workers


def _blocks(
    plan: Plan, workers: Sequence[Worker], case: str, sizes: dict[str, Size], order: random.Random, check: bool
) -> dict[str, list[float]]:
    if case not in sizes:
        reference = next(worker for worker in workers if worker.arm.name == plan.arms[0].name)
        reference.prepare(case, plan.device, check)
        sizes[case] = _size(plan, reference, case)
    for worker in workers:  # the reference anew: all of them have to reset, and to draw their seeds, equally often
        worker.prepare(case, plan.device, check)
    size = sizes[case]
    seconds: dict[str, list[float]] = {arm.name: [] for arm in plan.arms}
    for _ in range(size.blocks):
        for worker in order.sample(workers, len(workers)):
            seconds[worker.arm.name].append(worker.time(case, size.runs))
    return seconds


def _size(plan: Plan, worker: Worker, case: str) -> Size:
    """Units a block so that it takes about `plan.block` seconds, by doubling."""
    runs = 1
    while (unit := worker.time(case, runs)) * runs < plan.block / 2:
        runs *= 2
    runs = max(1, round(plan.block / unit))
    return Size(runs, max(min(SHORTEST, plan.blocks), min(plan.blocks, math.floor(SHARE / (runs * unit)))))
