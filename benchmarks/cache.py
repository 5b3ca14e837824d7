"""Where data sets lie between runs: one folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "EQUIVALENCES_DATA"


def folder() -> Path:
    """The folder of the data sets: `EQUIVALENCES_DATA` (which --data-root sets), else the platform's cache folder."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    home = Path.home()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = home / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    return base / "equivalences"
