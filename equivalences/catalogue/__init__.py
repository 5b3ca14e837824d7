"""The identities, one module a family; an identity is one module-level assignment, found here by looking.

A new family is one module, named below; a new identity, pitfall or form needs no other entry anywhere.
"""

from __future__ import annotations

from equivalences.catalogue import binary, cross_entropy, cross_entropy_options, linear_cross_entropy, pitfalls, sigmoid, softmax
from equivalences.model import Identity, Pitfall

FAMILIES = {module.__name__.rpartition(".")[2]: module for module in (softmax, cross_entropy, cross_entropy_options, linear_cross_entropy, sigmoid, pitfalls, binary)}

IDENTITIES: dict[str, Identity] = {}
PITFALLS: dict[str, Pitfall] = {}
FAMILY_OF: dict[str, str] = {}

for _family, _module in FAMILIES.items():
    for _entry in vars(_module).values():
        if isinstance(_entry, (Identity, Pitfall)):
            _table: dict[str, Identity] | dict[str, Pitfall]
            _table = IDENTITIES if isinstance(_entry, Identity) else PITFALLS
            if _entry.name in FAMILY_OF and _table.get(_entry.name) is not _entry:
                raise ValueError(f"two catalogue entries are named {_entry.name!r}")
            _table[_entry.name] = _entry  # type: ignore[assignment]
            FAMILY_OF[_entry.name] = _family
