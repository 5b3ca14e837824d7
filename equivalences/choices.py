"""What a user may ask for by name: identities, formats, devices and modes; anything else is one clear line.

Only a device other than the CPU needs torch.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

from equivalences.catalogue import FAMILIES, FAMILY_OF, IDENTITIES
from equivalences.entries import Unknown, hint, unknown
from equivalences.formats import FORMATS
from equivalences.model import MODES, Identity

__all__ = ["Unknown", "device", "formats", "hint", "identities", "mode", "named"]


def identities(patterns: Sequence[str] = ()) -> tuple[Identity, ...]:
    """The identities that the patterns name, in the catalogue's order (none: all).

    A pattern is a name, else a family, else a glob of names or of family/name.
    """
    found: set[str] = set()
    for pattern in patterns:
        family = pattern in FAMILIES and pattern not in IDENTITIES
        names = {
            name
            for name in IDENTITIES
            if fnmatch.fnmatchcase(name, pattern)
            or fnmatch.fnmatchcase(f"{FAMILY_OF[name]}/{name}", f"{pattern}/*" if family else pattern)
        }
        if not names:
            raise unknown("identity", pattern, [*IDENTITIES, *FAMILIES], "`equivalences list` shows all of them")
        found |= names
    return tuple(identity for name, identity in IDENTITIES.items() if not patterns or name in found)


def named(what: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names themselves, in the order of what is known (none: all)."""
    for name in names:
        if name not in known:
            raise unknown(what, name, known, f"choose from {', '.join(known)}")
    return tuple(name for name in known if not names or name in names)


def formats(names: Sequence[str] = ()) -> tuple[str, ...]:
    """The named formats, widest first (none: all)."""
    return named("format", names, tuple(FORMATS))


def mode(name: str) -> str:
    """The name itself, if it is a mode of execution."""
    return named("mode", [name], MODES)[0]


def device(name: str) -> str:
    """The name itself, if this machine has the device."""
    if name == "cpu":
        return name
    import torch

    from equivalences import devices

    try:
        devices.require(name)
        torch.empty(0, device=name)  # "cuda:7" is a device only where there are eight
    except (ValueError, RuntimeError) as error:
        raise Unknown(str(error).splitlines()[0]) from None
    return name
