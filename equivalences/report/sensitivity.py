"""Sensitivity for readers: the page of the documentation, of reference forms, and the tables of every form."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Sequence

from equivalences.catalogue import FAMILY_OF, IDENTITIES
from equivalences.evidence import sensitivity
from equivalences.evidence.sensitivity import Sensitivity
from equivalences.formats import FORMATS
from equivalences.model import Identity
from equivalences.report import markdown, plain, sealed

COMMAND = "python -m equivalences faults --docs docs"
WEAKEST = 20  # cells that the page lists


def judged(identity: Identity) -> bool:
    """Whether an identity has an error bound at all (what is compared bit by bit has none)."""
    return not identity.bitwise


def digest() -> str:
    """The cells that the page is made of."""
    return sealed.digest(
        f"{identity.name}|{identity.reference.code}|{identity.formats}|{identity.domain.regions}"
        for identity in IDENTITIES.values()
        if judged(identity)
    )


def multiple(k: float) -> str:
    """k in units of u, to two digits."""
    if math.isinf(k):
        return "–"
    return f"{k:.2g}" if k < 100 else f"{k:.1e}"


def page(shown: bool = False) -> str:
    """The page, of reference forms: an overview and the weakest cells; `shown` with progress."""
    work = [(identity, fmt) for identity in IDENTITIES.values() if judged(identity) for fmt in identity.formats]
    cells = [
        cell
        for identity, fmt in plain.followed(work, "sensitivity", shown)
        for cell in sensitivity.measured(identity, fmt, (identity.reference,))
    ]
    units = ", ".join(f"{fmt.u:.2g} in {name}" for name, fmt in FORMATS.items())
    lines = [
        *sealed.header("Sensitivity", COMMAND, digest()),
        "",
        *(line.strip() for line in (inspect.getdoc(sensitivity) or "").split("\n\n")[-1].splitlines()),
        "",
        f"Each number is k: an error of k u relative to the number itself is noticed, where u is {units}; as a plain "
        "factor that is 1 + k u. A cell is one reference form, quantity, format and region. "
        "`python -m equivalences sensitivity NAME` measures every form of an identity, or of a family, by region.",
        "",
        *markdown.table(
            ("format", "quantity", "cells", "median k", "as a factor", "largest finite k", "cells without one"),
            [_overview(cells, fmt, kind) for fmt in FORMATS for kind in ("value", "gradient")],
        ),
        f"The {WEAKEST} weakest cells of those that have a finite k:",
        "",
        *markdown.table(("identity", "quantity", "format", "region", "k"), _weakest(cells)),
    ]
    return sealed.page(lines)


def _overview(cells: Sequence[Sensitivity], fmt: str, kind: str) -> tuple[str, ...]:
    every = [k for cell in cells if (cell.format, cell.kind) == (fmt, kind) for k in cell.by_region.values()]
    finite = sorted(k for k in every if math.isfinite(k))
    middle = finite[len(finite) // 2] if finite else math.inf
    largest = finite[-1] if finite else math.inf
    factor = f"{1 + middle * FORMATS[fmt].u:.12g}" if fmt != "float64" else f"1 + {middle * FORMATS[fmt].u:.2g}"
    return (
        fmt, kind, str(len(every)), multiple(middle), factor, multiple(largest), str(len(every) - len(finite)),
    )  # fmt: skip


def _weakest(cells: Iterable[Sensitivity]) -> list[tuple[str, ...]]:
    every = [(k, cell, region) for cell in cells for region, k in cell.by_region.items() if math.isfinite(k)]
    every.sort(key=lambda found: -found[0])
    return [
        (f"`{cell.identity.name}`", cell.kind, cell.format, region, multiple(k)) for k, cell, region in every[:WEAKEST]
    ]


def tables(identities: Sequence[Identity], formats: Sequence[str]) -> Iterator[str]:
    """Every form of these identities as Markdown, a table for those with the same regions."""
    cells = [
        cell
        for identity in identities
        if judged(identity)
        for fmt in identity.formats
        if fmt in formats
        for cell in sensitivity.measured(identity, fmt)
    ]
    for regions in dict.fromkeys(cell.identity.domain.regions for cell in cells):
        here = [cell for cell in cells if cell.identity.domain.regions == regions]
        families = ", ".join(dict.fromkeys(FAMILY_OF[cell.identity.name] for cell in here))
        yield f"## {families}: {', '.join(regions)}"
        yield ""
        yield from markdown.table(("identity", "form", "quantity", "format", *regions), [row(cell) for cell in here])


def row(cell: Sensitivity) -> tuple[str, ...]:
    """One row of a table: identity, form, quantity, format, and k of each region (an empty cell: not met)."""
    regions = cell.identity.domain.regions
    found = [multiple(cell.by_region[region]) if region in cell.by_region else "" for region in regions]
    return f"`{cell.identity.name}`", f"`{cell.form.label}`", cell.kind, cell.format, *found
