"""Controls: work that no change of torch can touch.  If it moves, the machine moved, or the interpreters differ."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

REGISTRY = __name__


@dataclass(frozen=True)
class _Work:
    unit: Callable[[], int]
    expected: int

    def reset(self) -> None: ...

    def run(self) -> int:
        return self.unit()

    def check(self) -> None:
        if (found := self.unit()) != self.expected:
            raise ValueError(f"got {found}, not {self.expected}")


@dataclass(frozen=True)
class Control:
    """A piece of work by its name; `interpreted` where Python's own speed is what it measures."""

    id: str
    make: Callable[[], _Work]
    interpreted: bool

    def prepare(self, device: str) -> _Work:
        """The same work on every device: it never leaves the CPU."""
        return self.make()


def _loop() -> _Work:
    n = 20_000

    def unit() -> int:
        total = 0
        for i in range(n):
            total += i & 7
        return total

    return _Work(unit, n // 8 * 28)


def _copy() -> _Work:
    size = 8 << 20  # bytes: larger than the caches of one core
    source, target = bytearray(b"\1") * size, bytearray(size)

    def unit() -> int:
        target[:] = source
        return target[0] + target[-1]

    return _Work(unit, 2)


CASES = (
    Control("control/python-loop", _loop, interpreted=True),
    Control("control/memory-copy", _copy, interpreted=False),
)
