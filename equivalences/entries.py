"""Every entry by name, and what somebody means who writes it as PyTorch does, or in short.  Needs no torch.

An entry is an identity, a pitfall, a known defect of PyTorch, a form that is accurate only in absolute terms, a family,
or an operation of the table of special values.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from equivalences.catalogue import FAMILIES, FAMILY_OF, IDENTITIES, PITFALLS
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.findings.special_values import SPECIAL_VALUES
from equivalences.findings.unstable import UNSTABLE
from equivalences.model import Form

IDENTITY, PITFALL, DEFECT, UNSTABLE_FORM, FAMILY, SPECIAL = KINDS = (
    "identity", "pitfall", "known defect", "unstable form", "family", "special values"
)  # fmt: skip
_SHORT = {
    "bce": "binary_cross_entropy", "ce": "cross_entropy", "kl": "kl_div", "lse": "logsumexp", "mse": "mse_loss",
    "nll": "nll_loss",
}  # fmt: skip
_PREFIX = re.compile(r"^(torch\.)?(nn\.functional\.|nn\.|F\.|optim\.|special\.)?")
_SPECIALISED = ("large", "means", "pitfalls")  # families whose identities are variants of others


class Unknown(ValueError):
    """What was asked for does not exist; the message is one line that says what does."""


@dataclass(frozen=True, eq=False)
class Entry:
    """A name, what kind of thing has it, what it says (LaTeX or prose), and the thing itself.

    family  the family of an identity ("": no identity).
    calls   the functions and classes that an identity's forms call, in lower case.
    """

    kind: str
    name: str
    what: str
    thing: Any
    family: str = ""
    calls: frozenset[str] = frozenset()


def _calls(forms: Iterable[Form]) -> frozenset[str]:
    codes = (form.code if isinstance(form.code, str) else form.label for form in forms)
    return frozenset(name.lower() for code in codes for name in re.findall(r"([A-Za-z_]\w*)\(", code))


def _every() -> Iterator[Entry]:
    for name, identity in IDENTITIES.items():
        yield Entry(IDENTITY, name, identity.statement, identity, FAMILY_OF[name], _calls(identity.forms))
    for name, pitfall in PITFALLS.items():
        yield Entry(PITFALL, name, pitfall.statement, pitfall)
    for defect in KNOWN_DEFECTS:
        yield Entry(DEFECT, defect.name, defect.why, defect)
    for unstable in UNSTABLE:
        yield Entry(UNSTABLE_FORM, unstable.name, f"of {unstable.identity}: {unstable.why}", unstable)
    for name, module in FAMILIES.items():
        yield Entry(FAMILY, name, (module.__doc__ or "").partition("\n")[0], module)
    for operation, values in groupby(SPECIAL_VALUES, key=lambda value: value.operation):
        some = tuple(values)
        yield Entry(SPECIAL, operation, f"{len(some)} inputs: {', '.join(value.name for value in some)}", some)


ENTRIES = tuple(_every())


def plain(name: str) -> str:
    """A name without PyTorch's modules, in lower case and without abbreviation: F.cross_entropy() is cross_entropy."""
    found = _PREFIX.sub("", name.strip().removesuffix("()")).lower()
    return _SHORT.get(found, found)


def find(name: str) -> list[Entry]:
    """The entries that a name means, the likeliest first: those that have it, else those that call it, else contain it.

    Raises Unknown where there is none.
    """
    if exact := [entry for entry in ENTRIES if entry.name == name]:
        return exact
    wanted = plain(name)
    found = [entry for entry in ENTRIES if entry.name.lower() == wanted or wanted in entry.calls]
    if not found:
        found = [entry for entry in ENTRIES if f"_{wanted}_" in f"_{re.sub('[^a-z0-9]', '_', entry.name.lower())}_"]
    if not found:
        known = [
            *(entry.name for entry in ENTRIES),
            *sorted({call for entry in ENTRIES for call in entry.calls if len(call) > 4}),
        ]
        raise unknown("name", name, known, "`equivalences list` shows all of them")
    return sorted(found, key=lambda entry: (KINDS.index(entry.kind), entry.family in _SPECIALISED))


def containing(word: str) -> list[Entry]:
    """The entries that have a word in their name or their statement, or that call it, whatever the case."""
    wanted, lower = plain(word), word.lower()
    return [
        entry
        for entry in ENTRIES
        if any(part in text.lower() for part in (wanted, lower) for text in (entry.name, entry.family, entry.what))
        or wanted in entry.calls
    ]


def unknown(what: str, name: str, known: Iterable[str], otherwise: str) -> Unknown:
    """The error that says what somebody who wrote `name` may have meant."""
    return Unknown(f"unknown {what} {name!r}: {hint(name, known, otherwise)}")


def hint(name: str, known: Iterable[str], otherwise: str) -> str:
    """What somebody who wrote `name` may have meant; `otherwise`, if nothing that is known comes close."""
    close = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, close))}?" if close else otherwise
