"""What is judged: one form, on one problem, in one place."""

from __future__ import annotations

from dataclasses import dataclass

from equivalences.model import Form, Identity, Problem
from equivalences.running.execute import Place


@dataclass(frozen=True, eq=False)
class Trial:
    """One form on one problem in one place."""

    identity: Identity
    form: Form
    problem: Problem
    place: Place = Place()  # noqa: RUF009  # frozen

    @property
    def layout(self) -> str:
        """The layout of its items."""
        return self.place.layout

    @property
    def device(self) -> str:
        """The device that it runs on."""
        return self.place.device

    @property
    def mode(self) -> str:
        """Eager or compiled."""
        return self.place.mode
