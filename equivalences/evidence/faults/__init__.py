"""Faults: formulations broken on purpose, one module a group of families; each must be refused by the gate.

A new fault is one entry of one module's ``FAULTS``; `docs/faults.md` is generated from all of them.  Those at special
values are refused by their table, `equivalences.special_values`, and stand apart.
"""

from __future__ import annotations

from equivalences.evidence.faults import binary, cross_entropy, large, layers, options, softmax, special, training, wide
from equivalences.evidence.faults.fault import Fault, SpecialFault

FAULTS: dict[str, Fault] = {}
SPECIAL_FAULTS: tuple[SpecialFault, ...] = special.FAULTS

for _module in (softmax, cross_entropy, options, binary, large, wide, layers, training):
    for _fault in _module.FAULTS:
        _name = f"{_fault.of.name}: {_fault.name}"
        if FAULTS.setdefault(_name, _fault) is not _fault:
            raise ValueError(f"two faults are named {_name!r}")
