"""The driver's end of a worker: starts it, asks it, and says in one line what went wrong with it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

ROOT = Path(__file__).parents[2]
GRACE = 5.0  # seconds that a worker is given to leave by itself

COMPILE = ("as-is", "off", "on")


class Failed(Exception):
    """A worker died, hung, answered garbage, or said that its case failed; the message is one line."""


@dataclass(frozen=True)
class Arm:
    """One side of a comparison: an interpreter and the settings that it runs with."""

    name: str
    python: str
    env: tuple[tuple[str, str], ...] = ()
    threads: int | None = None
    compile: str = "as-is"

    def environment(self) -> dict[str, str]:
        """The environment variables of its processes."""
        threads = {} if self.threads is None else {"OMP_NUM_THREADS": str(self.threads)}
        return {**os.environ, **threads, **dict(self.env)}


class Worker:
    """A running worker.  A context manager; the process and what it started are gone afterwards."""

    def __init__(self, arm: Arm, registries: Sequence[str], timeout: float) -> None:
        self.arm, self._timeout = arm, timeout
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115  (closed with the worker)
        try:
            self._process = subprocess.Popen(
                [arm.python, "-m", "benchmarks.versus.worker", *registries],
                cwd=ROOT, env=arm.environment(), text=True, encoding="utf-8", errors="replace",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr,
                start_new_session=True,  # Ctrl-C is for the driver alone, which then ends its workers
            )  # fmt: skip
        except OSError as error:
            self._stderr.close()
            raise Failed(f"{arm.name}: cannot start {arm.python}: {error.strerror}") from None
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Worker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def hello(self, device: str) -> dict[str, Any]:
        """Settles the arm's settings; returns the environment that the worker runs in."""
        answer = self._ask("starting", "hello", device=device, threads=self.arm.threads, compile=self.arm.compile)
        found: dict[str, Any] = self._has(answer, "environment", dict)
        return found

    def prepare(self, case: str, device: str, check: bool) -> None:
        """Makes a case ready and warm; with `check`, it proves first that it computes the right thing."""
        answer = self._ask(f"preparing {case}", "prepare", case=case, device=device, check=check)
        self._has(answer, "ready", str)

    def time(self, case: str, runs: int) -> float:
        """Seconds of one unit, from a block of `runs` units of the prepared case."""
        answer = self._ask(f"timing {case}", "time", runs=runs)
        seconds = float(self._has(answer, "seconds", (int, float)))
        if not (math.isfinite(seconds) and seconds > 0):
            raise Failed(f"{self.arm.name} answered garbage while timing {case}: {seconds} s")
        return seconds / runs

    def close(self) -> None:
        """Lets the worker leave, or ends it."""
        with contextlib.suppress(OSError):
            assert self._process.stdin is not None
            self._process.stdin.write('{"do": "quit"}\n')
            self._process.stdin.close()
        try:
            self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self._kill()
            self._stderr.close()

    def _kill(self) -> None:
        if hasattr(os, "killpg"):  # its session, so that what it started ends as well
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()
        self._process.wait()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._lines.put(line)
        self._lines.put("")

    def _ask(self, doing: str, do: str, **rest: object) -> dict[str, Any]:
        name = self.arm.name
        try:
            assert self._process.stdin is not None
            self._process.stdin.write(json.dumps({"do": do, **rest}) + "\n")
            self._process.stdin.flush()
            line = self._lines.get(timeout=self._timeout)
        except queue.Empty:
            self._kill()
            raise Failed(f"{name} hung while {doing}: no answer in {self._timeout:g} s") from None
        except OSError:
            line = ""
        if not line:
            raise Failed(f"{name} died while {doing} ({self._end()})")
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            raise Failed(f"{name} answered garbage while {doing}: {line.strip()[:80]!r}")
        if "error" in answer:
            raise Failed(f"{name} failed while {doing}: {' '.join(str(answer['error']).split())[:300]}")
        return answer

    def _has(self, answer: dict[str, Any], key: str, kind: Any) -> Any:
        if not isinstance(answer.get(key), kind):
            raise Failed(f"{self.arm.name} answered garbage: no {key} in {str(answer)[:80]}")
        return answer[key]

    def _end(self) -> str:
        """How the process ended, and the last line that it said."""
        try:
            status = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return "closed its output and stayed"
        self._stderr.seek(0)
        said = self._stderr.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(said) if line.strip()), "")
        how = f"signal {-status}" if status < 0 else f"exit status {status}"
        return f"{how}: {last[:200]}" if last else how
