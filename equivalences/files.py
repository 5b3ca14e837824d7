"""Files that are there whole, or as they were before: nobody reads half of one, and an interruption loses nothing."""

from __future__ import annotations

import errno
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

if sys.platform != "win32":
    import fcntl

DRAFT = ".draft"  # how the name of a file ends that is not finished


def locked(file: IO[bytes]) -> bool:
    """Takes the file for this process until it is closed; False if another process has it.

    The lock ends with its process, however that ends.  Where there are no locks (Windows, some network folders), every
    process gets the file.
    """
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
    return True


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
    """A place for a file.  Raises OSError at once if none can be written there; leaves no draft behind.

    The draft of a run that was killed is removed by the next one.
    """
    target = Path(os.path.realpath(path))  # a link stays one: what it points to is written
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a directory", str(target))
    if target.exists() and not target.is_file():  # a device or a pipe would be replaced by a file
        raise OSError(errno.EINVAL, "is no regular file", str(target))
    if target.exists() and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, "may not be written", str(target))
    prefix = f".{target.name}."
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=DRAFT, dir=target.parent)
    draft = Path(name)
    with os.fdopen(handle, "rb") as mine:  # held to the end: it says that this draft has an owner
        try:
            if sys.platform == "win32":
                mine.close()  # Windows moves no file that is open
            else:
                locked(mine)
            _remove_orphans(target.parent, prefix, draft)
            mask = os.umask(0)
            os.umask(mask)
            draft.chmod(0o666 & ~mask)  # mkstemp's file is for its owner alone
            yield Destination(target, draft)
        finally:
            draft.unlink(missing_ok=True)


def _remove_orphans(folder: Path, prefix: str, own: Path) -> None:
    """Removes the drafts of one file whose processes have ended."""
    if sys.platform == "win32":  # nothing says whether they have
        return
    for each in folder.iterdir():
        if each.name.startswith(prefix) and each.name.endswith(DRAFT) and each != own and each.is_file():
            try:
                with open(each, "rb") as file:
                    if locked(file):
                        each.unlink(missing_ok=True)
            except OSError:  # somebody else's, or gone by now
                continue
