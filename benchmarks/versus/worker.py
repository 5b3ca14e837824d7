"""One end of a comparison: a process that prepares cases and times blocks of them, asked in JSON lines.

Runs under the interpreter that is being judged, so it knows the standard library alone until a registry imports more.
"""

from __future__ import annotations

import gc
import importlib
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any, Protocol

WARM_RUNS, WARM_SECONDS = 2, 0.05  # before the first block of a case: whichever takes longer
WARM_SHARE = 4  # one part in so many of a block is run before it, untimed: another process had the caches


class Work(Protocol):
    """What is timed: `run()` is one unit of it."""

    def reset(self) -> None:
        """Fresh, re-seeded state; never timed."""

    def run(self) -> object:
        """One unit, as often as is wanted after a reset; returns nothing that would have to be synchronised."""

    def check(self) -> None:
        """Raises if the work computes the wrong thing."""


class Case(Protocol):
    """A named piece of work; a registry is a module whose `CASES` holds them."""

    @property
    def id(self) -> str:
        """The name, unique in its registry."""

    def prepare(self, device: str) -> Work:
        """The work, ready to run on a device."""


class Session:
    """The state of a worker: which cases it knows, and the one that it has prepared."""

    def __init__(self, registries: Iterable[str]) -> None:
        modules = [importlib.import_module(name) for name in registries]
        self._cases: dict[str, Case] = {case.id: case for module in modules for case in module.CASES}
        self._work: Work | None = None
        self._compile = "as-is"
        self._timer: Callable[[], float] = time.perf_counter

    def hello(self, device: str, threads: int | None, compile: str) -> dict[str, Any]:
        """Takes the settings of this end; the answer describes the software it runs on."""
        self._compile = compile
        if "torch" not in sys.modules:  # none of the cases uses it
            return {"environment": {"python": platform.python_version(), "platform": platform.platform()}}
        import torch
        from torch.utils.benchmark import timer  # waits for the accelerator first

        from equivalences import devices
        from equivalences.running.environment import environment

        devices.require(device)
        self._timer = timer
        if threads is not None:
            torch.set_num_threads(threads)
        if compile == "off":
            torch.compiler.set_stance("force_eager")
        return {"environment": environment(device)}

    def prepare(self, case: str, device: str, check: bool) -> dict[str, Any]:
        """Makes a case ready and warm; with `check`, lets it prove first that it computes the right thing."""
        gc.enable()
        gc.unfreeze()
        self._work = None
        gc.collect()
        work = self._cases[case].prepare(device)
        if self._compile == "on" and "torch" in sys.modules:
            from benchmarks.compiled import compiled

            vars(work)["run"] = compiled(work.run, device, dynamic=None)  # so that its own check runs what is timed
        if check:
            work.check()
        work.reset()
        begun = self._timer()
        for done in itertools.count(1):
            work.run()
            if done >= WARM_RUNS and self._timer() - begun >= WARM_SECONDS:
                break
        self._work = work
        gc.freeze()  # what is alive now is not looked at again, so that a collection before each block costs little
        gc.disable()
        return {"ready": case}

    def time(self, runs: int) -> dict[str, Any]:
        """Times one block of so many units, after a shorter one that is not timed."""
        if self._work is None:
            raise RuntimeError("no case has been prepared")
        work, timer = self._work, self._timer
        work.reset()
        gc.collect()
        for _ in range(max(1, runs // WARM_SHARE)):  # at least one: what is new since the reset may have to be compiled
            work.run()
        run, units = work.run, itertools.repeat(None, runs)
        begun = timer()
        for _ in units:
            run()
        return {"seconds": timer() - begun}


def serve(session: Session, requests: Iterable[str], answer: Callable[[str], None]) -> None:
    """Answers each request with one line, until one says quit or there are no more."""
    actions: dict[str, Callable[..., dict[str, Any]]]
    actions = {"hello": session.hello, "prepare": session.prepare, "time": session.time}
    for line in requests:
        request = json.loads(line)
        do = request.pop("do")
        if do == "quit":
            return
        try:
            found = actions[do](**request)
        except Exception as error:
            found = {"error": f"{type(error).__name__}: {error}"}
        answer(json.dumps(found))


def main() -> None:
    """Serves stdin and stdout.  What a case reads or prints must not reach them: it gets nothing, and stderr."""
    with os.fdopen(os.dup(0)) as requests, os.fdopen(os.dup(1), "w", buffering=1) as answers:
        nothing = os.open(os.devnull, os.O_RDONLY)
        os.dup2(nothing, 0)
        os.dup2(2, 1)
        try:
            session = Session(sys.argv[1:])
        except Exception as error:
            print(json.dumps({"error": f"{type(error).__name__}: {error}"}), file=answers)
            return
        serve(session, requests, lambda text: print(text, file=answers))


if __name__ == "__main__":
    main()
