"""Files that are there whole, or as they were before: nobody reads half of one, and an interruption loses nothing."""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


class Destination:
    """A file to be; each way to write it puts the whole of it in the place of what was there."""

    def __init__(self, path: Path, draft: Path) -> None:
        self.path, self._draft = path, draft

    def fill(self, write: Callable[[IO[bytes]], object]) -> None:
        """Puts what `write` writes in the place of what the file held."""
        with open(self._draft, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        self._draft.replace(self.path)

    def text(self, text: str) -> None:
        """Puts `text` in the place of what the file held."""
        self.fill(lambda file: file.write(text.encode()))

    def write(self, data: Mapping[str, Any]) -> None:
        """Puts `data`, as JSON, in the place of what the file held."""
        self.text(json.dumps(data, indent=1, allow_nan=False) + "\n")


@contextmanager
def destination(path: str | Path) -> Iterator[Destination]:
    """A place for a file.  Raises OSError at once if none can be written there; leaves no draft behind."""
    target = Path(os.path.realpath(path))  # a link stays one: what it points to is written
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory", str(target))
    if target.exists() and not target.is_file():  # a device or a pipe would be replaced by a file
        raise OSError(errno.EINVAL, "is no regular file", str(target))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "may not be written", str(target))
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
    os.close(handle)
    draft = Path(name)
    try:
        mask = os.umask(0)
        os.umask(mask)
        draft.chmod(0o666 & ~mask)  # mkstemp's file is for its owner alone
        yield Destination(target, draft)
    finally:
        draft.unlink(missing_ok=True)
