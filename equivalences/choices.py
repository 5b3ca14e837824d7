"""What a user may ask for by name: identities, formats, devices and modes; anything else is one clear line."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

import torch

from equivalences import devices
from equivalences.catalogue import FAMILIES, FAMILY_OF, IDENTITIES, PITFALLS
from equivalences.execute import MODES
from equivalences.formats import FORMATS
from equivalences.known_defects import KNOWN_DEFECTS
from equivalences.model import Identity, KnownDefect, Pitfall


class Unknown(ValueError):
    """What was asked for does not exist; the message is one line that says what does."""


def _unknown(what: str, name: str, known: Iterable[str], where: str) -> Unknown:
    return Unknown(f"unknown {what} {name!r}: {hint(name, known, where)}")


def hint(name: str, known: Iterable[str], otherwise: str) -> str:
    """What somebody who wrote `name` may have meant; `otherwise`, if nothing that is known comes close."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else otherwise


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
            raise _unknown(
                "identity", pattern, [*IDENTITIES, *FAMILIES], "`python -m equivalences list` shows all of them"
            )
        found |= names
    return tuple(identity for name, identity in IDENTITIES.items() if not patterns or name in found)


def entry(name: str) -> Identity | Pitfall | KnownDefect:
    """The identity, pitfall or known defect of that name."""
    entries: dict[str, Identity | Pitfall | KnownDefect] = {defect.name: defect for defect in KNOWN_DEFECTS}
    entries |= {**PITFALLS, **IDENTITIES}
    if name not in entries:
        where = "`python -m equivalences list` shows all of them"
        raise _unknown("identity, pitfall or known defect", name, entries, where)
    return entries[name]


def named(what: str, names: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """The names themselves, in the order of what is known (none: all)."""
    for name in names:
        if name not in known:
            raise _unknown(what, name, known, f"choose from {', '.join(known)}")
    return tuple(name for name in known if not names or name in names)


def formats(names: Sequence[str] = ()) -> tuple[str, ...]:
    """The named formats, widest first (none: all)."""
    return named("format", names, tuple(FORMATS))


def mode(name: str) -> str:
    """The name itself, if it is a mode of execution."""
    return named("mode", [name], MODES)[0]


def device(name: str) -> str:
    """The name itself, if this machine has the device."""
    try:
        devices.require(name)
        torch.empty(0, device=name)  # "cuda:7" is a device only where there are eight
    except (ValueError, RuntimeError) as error:
        raise Unknown(str(error).splitlines()[0]) from None
    return name
