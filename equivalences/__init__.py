"""Are PyTorch's classification losses the functions they claim to be, as accurately as the arithmetic allows?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from equivalences.own.audit import audit
    from equivalences.own.check import check
    from equivalences.own.limits import Limits

    __version__: str

__all__ = ["Limits", "__version__", "audit", "check"]


def __getattr__(name: str) -> Any:
    """`check`, `audit` and `Limits`, imported when they are first asked for: torch takes seconds to load."""
    if name == "audit":
        from equivalences.own.audit import audit

        return audit
    if name == "check":
        from equivalences.own.check import check

        return check
    if name == "Limits":
        from equivalences.own.limits import Limits

        return Limits
    if name == "__version__":
        from importlib import metadata

        return metadata.version("equivalences")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
