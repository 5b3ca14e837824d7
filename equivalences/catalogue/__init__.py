"""The identities, one module a family; an identity is one module-level assignment, found here by looking.

A new family is one module, named below; a new identity, pitfall or form needs no other entry anywhere.
"""

from __future__ import annotations

from typing import Any

from equivalences.catalogue import (
    binary,
    binary_options,
    cross_entropy,
    cross_entropy_options,
    derivatives,
    distributions,
    large,
    layers,
    linear_cross_entropy,
    means,
    optimizers,
    pitfalls,
    sigmoid,
    softmax,
    tails,
    training,
    two_columns,
)
from equivalences.model import Identity, Pitfall

FAMILIES = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        softmax,
        cross_entropy,
        cross_entropy_options,
        large,
        linear_cross_entropy,
        sigmoid,
        binary,
        binary_options,
        derivatives,
        tails,
        distributions,
        layers,
        optimizers,
        training,
        two_columns,
        pitfalls,
        means,
    )
}

IDENTITIES: dict[str, Identity] = {}
PITFALLS: dict[str, Pitfall] = {}
FAMILY_OF: dict[str, str] = {}

# What a family imports from another stays with the one that is listed first: the one that defines it.
for _family, _module in FAMILIES.items():
    for _entry in vars(_module).values():
        _table: dict[str, Any]
        if isinstance(_entry, Identity):
            _table = IDENTITIES
        elif isinstance(_entry, Pitfall):
            _table = PITFALLS
        else:
            continue
        if _table.setdefault(_entry.name, _entry) is not _entry:
            raise ValueError(f"two catalogue entries are named {_entry.name!r}")
        FAMILY_OF.setdefault(_entry.name, _family)
