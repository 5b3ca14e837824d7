"""Units of work in several processes, and how what is judged travels between them."""

from __future__ import annotations

import copyreg
import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from typing import Any, TypeVar

import torch

from equivalences.catalogue import IDENTITIES
from equivalences.judging.judge import Crash
from equivalences.judging.tally import Tally
from equivalences.model import Form, Identity, Problem

Unit = TypeVar("Unit")


class WorkerDied(RuntimeError):
    """A worker process ended without a word, as after a segmentation fault or when memory ran out."""


def _begin(threads: int) -> None:
    for name in ("SIGINT", "SIGHUP"):  # the parent's business
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(threads)


def _end_with_parent() -> None:
    """Ends this process when its parent has ended, however: a killed one tells nobody."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _away(run: Callable[[Any], Tally], unit: Any) -> Tally:
    tally = run(unit)
    tally.failures = [
        replace(failure, error=_portable(failure.error)) if isinstance(failure, Crash) else failure
        for failure in tally.failures
    ]
    return tally


def _portable(error: Exception) -> Exception:
    """The exception itself if it survives the journey between processes, else one that says what it said."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def shared(run: Callable[[Unit], Tally], units: Sequence[Unit], jobs: int) -> Iterator[tuple[Unit, Tally]]:
    """Every unit with what `run`, a function of a module, makes of it in one of `jobs` processes; whoever is first.

    Raises WorkerDied if a process ends without a word.
    """
    before = set(multiprocessing.active_children())
    # Not fork: torch's threads, and an accelerator's context, do not survive it.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_begin, initargs=(1,))
    try:
        waiting = {pool.submit(_away, run, unit): unit for unit in units}
        while waiting:
            for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                unit = waiting.pop(future)
                try:
                    yield unit, future.result()
                except BrokenProcessPool:
                    raise WorkerDied(
                        f"a worker process died near {unit}: `--jobs 1` shows which form kills it"
                    ) from None
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(multiprocessing.active_children()) - before:
            child.terminate()


def cores() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _identity(name: str) -> Identity:
    return IDENTITIES[name]


def _form(name: str, index: int) -> Form:
    return IDENTITIES[name].forms[index]


def _problem(fmt: str, items: dict[str, Any], role: str) -> Problem:
    return Problem(fmt, items, role)


_FORMS = {form: (name, index) for name, identity in IDENTITIES.items() for index, form in enumerate(identity.forms)}

# The catalogue is code: it travels by name.
copyreg.pickle(Identity, lambda identity: (_identity, (identity.name,)))
copyreg.pickle(Form, lambda form: (_form, _FORMS[form]))
copyreg.pickle(Problem, lambda problem: (_problem, (problem.format, dict(problem.items), problem.role)))
