"""What is known of one number, and the words that are made of it.

Two independent facts are known of every number: against the error bound of the form itself (*own*), and against that of
the identity's reference (*contract*).  A policy turns them into words.  There are two policies:

- the gate asks whether a formulation is as accurate as its own arithmetic allows: its words are those of `own` alone;
- `check` asks whether an implementation is as accurate as PyTorch's: `CHECK` is its table.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum

import numpy as np

from equivalences.model import Array


class Fact(IntEnum):
    """One number against one error bound."""

    INSIDE = 0  # surely within the bound
    OUTSIDE = 1  # surely beyond it
    UNBOUNDED = 2  # there is no bound
    UNDECIDED = 3  # the exact value is not known sharply enough, at the highest precision
    EXCUSED = 4  # beyond the bound, and what a known defect of PyTorch gives
    UNKNOWN = 5  # nobody knows the bound: the code cannot be followed
    OTHER = 6  # within the bound, but what the code computes is another function, without any rounding


INSIDE, OUTSIDE, UNBOUNDED, UNDECIDED, EXCUSED, UNKNOWN, OTHER = Fact

# The gate's words for the fact about a form's own bound, and which of them fail.
GATE = {
    INSIDE: "inside", OUTSIDE: "outside", UNBOUNDED: "no bound", UNDECIDED: "undecided", EXCUSED: "known defect",
}  # fmt: skip
FAILS = (OUTSIDE, UNDECIDED)


class Verdict(IntEnum):
    """What `check` says of one number, from harmless to worst; from UNSTABLE on it is a failure."""

    RIGHT = 0
    FREE = 1  # neither the contract nor the code's own analysis has a bound
    KNOWN = 2  # a known defect of PyTorch, which the code calls
    UNSTABLE = 3  # beyond the contract, within what rounding can do to this formulation
    UNBOUNDED = 4  # beyond the contract, and its own arithmetic has no bound
    OUTSIDE = 5  # beyond the contract, and nothing more can be known: the code cannot be followed
    WRONG = 6  # beyond the contract, and beyond what rounding can do to this formulation, or another function at all


WORDS = {
    Verdict.RIGHT: "right", Verdict.FREE: "free", Verdict.KNOWN: "known defect", Verdict.UNSTABLE: "unstable",
    Verdict.UNBOUNDED: "unbounded", Verdict.OUTSIDE: "outside", Verdict.WRONG: "wrong",
}  # fmt: skip

_BEYOND = {  # the contract: what the code's own bound makes of it
    INSIDE: Verdict.UNSTABLE, OUTSIDE: Verdict.WRONG, UNBOUNDED: Verdict.UNBOUNDED, UNDECIDED: Verdict.WRONG,
    EXCUSED: Verdict.KNOWN, UNKNOWN: Verdict.OUTSIDE, OTHER: Verdict.WRONG,
}  # fmt: skip

# contract -> own -> the word of `check`.
CHECK: Mapping[Fact, Mapping[Fact, Verdict]] = {
    INSIDE: dict.fromkeys(Fact, Verdict.RIGHT),
    OUTSIDE: _BEYOND,
    UNBOUNDED: {
        INSIDE: Verdict.RIGHT, OUTSIDE: Verdict.WRONG, UNBOUNDED: Verdict.FREE, UNDECIDED: Verdict.FREE,
        EXCUSED: Verdict.KNOWN, UNKNOWN: Verdict.FREE, OTHER: Verdict.WRONG,
    },
    UNDECIDED: _BEYOND,
}  # fmt: skip

_TABLE = np.array([[CHECK.get(contract, _BEYOND)[own] for own in Fact] for contract in Fact])


def check_words(contract: Array, own: Array) -> Array:
    """The words of `check` (values of `Verdict`) for the two facts of many numbers."""
    return np.asarray(_TABLE[contract, own])


def check_counts(facts: Array) -> dict[str, int]:
    """How many numbers have which word of `check`, from harmless to worst; `facts` are counts as `pairs` gives."""
    counts = np.bincount(_TABLE.ravel(), weights=facts.ravel(), minlength=len(Verdict)).astype(int)
    return {WORDS[verdict]: int(counts[verdict]) for verdict in Verdict if counts[verdict]}


def pairs(contract: Array, own: Array, where: Array) -> Array:
    """How many of the numbers `where` have which two facts: counts by contract and own."""
    codes = (contract * len(Fact) + own)[where]
    return np.bincount(codes.ravel(), minlength=len(Fact) ** 2).reshape(len(Fact), len(Fact))
