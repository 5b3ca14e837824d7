"""Known defects of PyTorch: which concern a run, and which numbers they excuse."""

from __future__ import annotations

from functools import lru_cache
from itertools import product

import numpy as np

from equivalences import devices
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.model import KnownDefect
from equivalences.judging.facts import EXCUSED, OUTSIDE
from equivalences.judging.trial import Trial
from equivalences.model import Array
from equivalences.oracle.enclosure import Enclosure
from equivalences.rounding import Rule
from equivalences.running.execute import Follow, Outcome, run
from equivalences.running.forms import reached

Rules = tuple[tuple[str, Rule], ...]


def existing(fmt: str, device: str, mode: str) -> list[KnownDefect]:
    """The known defects that this torch has in a format, on a device and in a mode."""
    return [
        defect
        for defect in KNOWN_DEFECTS
        if fmt in defect.formats
        and devices.kind(device) in defect.devices
        and mode in defect.modes
        and not (defect.fixed and reached(defect.fixed))
    ]


def concerns(defect: KnownDefect, followed: Outcome) -> bool:
    """Whether a run calls the defect's operation; of a defect of a module, whether that module calls it."""
    called = (defect.operation, defect.module)
    return called in followed.callers if defect.module else defect.operation in followed.operations


@lru_cache(maxsize=16)
def _as_is(trial: Trial, defects: tuple[KnownDefect, ...], rules: Rules) -> Outcome:
    """A form followed by `rules`, and by what known defects, one an operation, say that the kernels really do."""
    own = {**dict(rules), **{defect.operation: defect.as_is for defect in defects}}
    follow = Follow(own, outside=True)  # as its own run may be
    return run(trial.identity, trial.form, trial.problem, trial.place, follow=follow)


def excused(
    trial: Trial,
    followed: Outcome,
    quantity: str,
    ball: Enclosure,
    got: Array,
    beyond: Array,
    fact: Array,
    rules: Rules = (),
) -> tuple[Array, tuple[str, ...]]:
    """Numbers `beyond` a bound, judged again by what known defects say that the kernels really do.

    Returns the facts, EXCUSED where a defect explains a number and OUTSIDE where none does, and the names of the
    defects met.  A defect is met if it explains a number that those before it do not; what none explains alone is held
    against one defect of every operation together.  `followed` is the form's own run, by `rules` beside the usual.
    """
    possible: dict[str, list[KnownDefect]] = {}
    for defect in existing(trial.problem.format, trial.place.device, trial.place.mode) if beyond.any() else ():
        if concerns(defect, followed):
            possible.setdefault(defect.operation, []).append(defect)
    alone = [(defect,) for several in possible.values() for defect in several]
    together = product(*possible.values()) if len(possible) > 1 else ()
    left, met = beyond, dict[str, None]()
    for some in (*alone, *together):
        if not left.any():
            break
        really = _as_is(trial, some, rules)
        bound = really.bound[quantity]
        with np.errstate(invalid="ignore"):  # inf - inf
            moved = really.exact[quantity] - followed.exact[quantity]  # by what the kernel is known to give
        moved = np.where(np.isfinite(moved), moved, 0.0)
        explained = ball.decide(got, bound)[0]
        if moved.any():
            explained = explained | ball.decide(got - moved, bound)[0]
        explained = explained & left
        if explained.any():
            met |= dict.fromkeys(defect.name for defect in some)
            left = left & ~explained
    return np.where(beyond, np.where(left, OUTSIDE, EXCUSED), fact), tuple(met)
