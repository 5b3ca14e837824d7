"""Running error analysis: the tracker, one rule for each operation, and the assumptions that the rules rest on."""

from equivalences.rounding import rules  # noqa: F401  # registered by being imported
from equivalences.rounding.assumptions import Assumptions, assumptions
from equivalences.rounding.call import RULES, Call, Rule, rule
from equivalences.rounding.shadows import Shadow, Untracked
from equivalences.rounding.tracker import Step, Tracker

__all__ = [
    "RULES",
    "Assumptions",
    "Call",
    "Rule",
    "Shadow",
    "Step",
    "Tracker",
    "Untracked",
    "assumptions",
    "rule",
]
