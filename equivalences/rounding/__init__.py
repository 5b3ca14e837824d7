"""Running error analysis: the tracker, one rule an operation, and the assumptions they rest on."""

from equivalences.rounding import (  # noqa: F401  (rules)
    activations,
    arithmetic,
    elementary,
    fused,
    movement,
    optimizers,
    reductions,
)
from equivalences.rounding.assumptions import Assumptions, assumptions
from equivalences.rounding.tracker import RULES, Call, Shadow, Step, Tracker, Untracked, rule

__all__ = ["RULES", "Assumptions", "Call", "Shadow", "Step", "Tracker", "Untracked", "assumptions", "rule"]
