"""What a call of an implementation may do beside computing: raise anything, end the process, hang, change settings.

`Conduct.call` runs a piece of it and comes back: with its result, or with `Failed`, which says what it did.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import torch

import equivalences
from equivalences.own import state

T = TypeVar("T")

OURS = tuple(str(Path(str(module.__file__)).parent) + os.sep for module in (torch, equivalences))


class Failed(Exception):
    """What went wrong: a kind of incident, a sentence, the file and line of what did it, and what it raised."""

    def __init__(self, kind: str, sentence: str, at: str = "", error: BaseException | None = None) -> None:
        super().__init__(sentence)
        self.kind, self.sentence, self.at, self.error = kind, sentence, at, error


class _Late(BaseException):
    """The limit of time is over; no Exception, so that an implementation does not catch it as one of its own."""


class _Exits(BaseException):
    """The implementation called `os._exit`."""


@dataclass(eq=False)
class Conduct:
    """Runs calls of one implementation.

    seconds    the limit of time for one call (None: no limit).
    functions  what stands in torch.nn.functional while it runs, where the person has replaced something.
    hung       that a call has hung: nothing more is called.
    changed    the settings that calls have changed, since they were last taken.
    """

    seconds: float | None = None
    functions: Mapping[str, Any] = field(default_factory=dict)
    hung: bool = False
    changed: set[str] = field(default_factory=set)
    _interrupted: bool = False
    _late: bool = False
    _running: bool = False

    def call(self, what: Callable[[], T]) -> T:
        """What the call gives.  Raises Failed for all that it raises, but for a KeyboardInterrupt of the person's."""
        if self.hung:
            raise Failed("hung", "nothing more is asked after a call that hung")
        ours = state.functions()
        state.put_functions(self.functions)
        before = state.snapshot()
        try:
            with self._limited(), _no_exit():
                result = what()
        except BaseException as error:
            if self._interrupted and isinstance(error, KeyboardInterrupt):
                raise
            if not self._late:
                raise _failed(error) from None
        finally:
            self._running = False
            self.changed.update(before.undo())
            state.put_functions(ours)
        if self._interrupted:  # it caught it
            raise KeyboardInterrupt
        if self._late:
            self.hung = True
            raise Failed("hung", f"a call did not return within seconds={self.seconds:g}")
        return result

    def taken(self) -> set[str]:
        """The settings that have been changed since this was last asked."""
        met, self.changed = self.changed, set()
        return met

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Tells a Ctrl-C of the person from a KeyboardInterrupt that an implementation raises by itself."""
        previous = signal.getsignal(signal.SIGINT)
        if threading.current_thread() is not threading.main_thread() or not callable(previous):
            yield
            return

        def pressed(number: int, frame: Any) -> None:
            try:
                previous(number, frame)
            except KeyboardInterrupt:
                self._interrupted = True
                raise

        signal.signal(signal.SIGINT, pressed)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, previous)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Raises _Late in a call that takes too long; where that does not bring it back, the process ends."""
        if self.seconds is None:
            yield
            return
        main = threading.current_thread() is threading.main_thread() and hasattr(signal, "setitimer")
        watchdog = threading.Timer(self.seconds * (2 if main else 1), self._end)
        watchdog.daemon = True

        def rings(number: int, frame: Any) -> None:
            if self._running:
                self._late = True
                raise _Late

        begun, self._running = time.monotonic(), True
        if main:
            handler = signal.signal(signal.SIGALRM, rings)
            left, every = signal.setitimer(signal.ITIMER_REAL, self.seconds, self.seconds / 10)
        watchdog.start()
        if sys.__stderr__ is not None:  # a call that holds the interpreter's lock stops the watchdog, but not this
            faulthandler.dump_traceback_later(3 * self.seconds, exit=True, file=sys.__stderr__)
        try:
            yield
        finally:
            self._running = False
            watchdog.cancel()
            faulthandler.cancel_dump_traceback_later()
            if main:
                signal.signal(signal.SIGALRM, handler)
                rest = max(left - (time.monotonic() - begun), 1e-3) if left else 0.0
                signal.setitimer(signal.ITIMER_REAL, rest, every)

    def _end(self) -> None:
        if not self._running:
            return
        if sys.__stderr__ is not None:
            sys.__stderr__.write(
                f"equivalences: hung: a call did not return within seconds={self.seconds:g}, and cannot be "
                "interrupted; the process ends with status 1\n"
            )
            faulthandler.dump_traceback(file=sys.__stderr__)
            sys.__stderr__.flush()
        _exit(1)


_exit = os._exit


@contextmanager
def _no_exit() -> Iterator[None]:
    """os._exit raises, in this process: a fork of it may end itself."""
    process, before = os.getpid(), os._exit

    def exits(status: int = 0) -> Any:
        if os.getpid() != process:
            _exit(status)
        raise _Exits(f"os._exit({status})")

    os._exit = exits
    try:
        yield
    finally:
        os._exit = before


def _failed(error: BaseException) -> Failed:
    if isinstance(error, Failed):
        return error
    at = where(error.__traceback__)
    if isinstance(error, (SystemExit, _Exits)):
        return Failed("exited", f"it ends the process: {said(error)}", at, error)
    return Failed("raised", f"raised {said(error)}", at, error)


def said(error: BaseException, named: bool = True) -> str:
    """An exception in one line, with the name of its type, whatever its own text does."""
    if isinstance(error, _Exits):
        return str(error)
    try:
        text = " ".join(str(error).split())[:200]
    except BaseException as another:  # its own code
        text = f"(its text raises {type(another).__name__})"
    if not text:
        return type(error).__name__
    return f"{type(error).__name__}: {text}" if named else text


def where(traceback: TracebackType | None) -> str:
    """File and line of the last frame that is neither PyTorch's nor ours ("": there is none)."""
    found = ""
    while traceback is not None:
        code = traceback.tb_frame.f_code
        if not code.co_filename.startswith((*OURS, "<frozen")):
            found = f"{code.co_filename}:{traceback.tb_lineno}"
        traceback = traceback.tb_next
    return found
