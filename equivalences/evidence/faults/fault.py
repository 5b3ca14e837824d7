"""A formulation broken on purpose: what the gate must refuse.  Plain data."""

from __future__ import annotations

from dataclasses import dataclass

from equivalences.model import Form, Identity


@dataclass(frozen=True, eq=False)
class Fault:
    """A formulation broken on purpose: what the gate must refuse.

    broken     the wrong form of `of`; its formats and layouts say where the fault exists (layouts None: the first).
    breaks     what is wrong: "value", "gradient", or both.
    why        how one comes to write it.
    hidden     inside a kernel, where the analysis cannot follow: judged by the allowance of the identity's reference.
    invisible  the arithmetic that shows why nothing can see it ("": it is caught).
    """

    name: str
    of: Identity
    broken: Form
    breaks: tuple[str, ...]
    why: str
    hidden: bool = False
    invisible: str = ""

    @property
    def formats(self) -> tuple[str, ...]:
        return self.broken.formats or self.of.formats


@dataclass(frozen=True, eq=False)
class SpecialFault:
    """A call of the table of special values, broken on purpose at some of them: what the table must refuse.

    call    as in the entries that must refuse it (one of them is enough).
    broken  what stands in its place, over the same items.
    why     how one comes to write it.
    of      an identity whose problems have these items: its ordinary numbers are shown to the peers (None: none has).
    """

    name: str
    call: str
    broken: str
    why: str
    of: Identity | None = None
