"""The interface between cases and whatever times them (pytest, the A/B driver)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from equivalences import devices


class Work(Protocol):
    """A prepared case: what is timed, and what proves that it computed the right thing.

    samples   rows (or whatever the suite counts) that one `run` takes in.
    reset     fresh, re-seeded state; never timed.
    run       one timed unit; synchronises nothing and reads nothing back.
    check     runs what it needs to, and raises AssertionError if what is computed is wrong.
    facts     what is known after a check: losses, steps, accuracies ... for the record.

    Some have a `part`, too: the beginning of a run, for a profile; it gives the share of a run that it is (0: no run
    is like another).
    """

    samples: int

    def reset(self) -> None: ...
    def run(self) -> None: ...
    def check(self) -> None: ...
    def facts(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Case:
    """One thing to time: every axis by name, and how to prepare it on a device.

    usual     the axes' usual values: what differs from them is the case's short name.
    group     the axes by which tables group a suite's cases.
    rounds    timed units, after `warmup` that are not; `devices` limits a case to device types (empty: all).
    """

    suite: str
    axes: tuple[tuple[str, str], ...]
    build: Callable[[str], Work] = field(repr=False)
    smoke: bool = False
    usual: tuple[tuple[str, str], ...] = ()
    group: tuple[str, ...] = ("data",)
    rounds: int = 10
    warmup: int = 2
    devices: tuple[str, ...] = ()

    @cached_property
    def id(self) -> str:
        """Every axis spelled out: training-data:digits28-loss:sigmoid+BCELoss-..."""
        return "-".join((self.suite, *(f"{name}:{value}" for name, value in self.axes)))

    @property
    def title(self) -> str:
        """The table that the case belongs to: its suite, and the axes of `group`."""
        return ", ".join((self.suite, *(f"{name} {value}" for name, value in self.axes if name in self.group)))

    @property
    def label(self) -> str:
        """What tells the case from its neighbours in a table: the axes that are not as usual."""
        odd = [
            f"{name}:{value}" for name, value in self.axes if (name, value) not in self.usual and name not in self.group
        ]
        return " ".join(odd) or "as usual"

    def runs_on(self, device: str) -> bool:
        """Whether the case is meant for a device: "accelerator" in `devices` stands for every type but the CPU."""
        kind = devices.kind(device)
        return not self.devices or kind in self.devices or ("accelerator" in self.devices and kind != "cpu")

    def prepare(self, device: str) -> Work:
        """The work on a device.

        Raises DataError if its data cannot be had, Unsupported if it cannot run here: one line each.
        """
        return self.build(device)


class Unsupported(RuntimeError):
    """A case that cannot run here (memory, compiler, device); the message says why, in one line."""
