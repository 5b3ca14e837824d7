"""stdout and stderr that never stop a command: its file is written and its exit status is the verdict, whoever reads.

A letter that the encoding does not have is replaced, a reader that has left (`| head -1`) or a terminal that is gone
is written to in vain, and what a full disk does not take is told at the end.
"""

from __future__ import annotations

import errno
import io
import sys

GONE = (errno.EPIPE, errno.EIO, errno.EINVAL)  # the reader (EINVAL: on Windows), the terminal


class _Forgiving(io.FileIO):
    """A file descriptor that takes everything; `error` is why something was lost ("": nothing, or nobody reads)."""

    error = ""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError as error:
            if error.errno not in GONE:
                self.error = error.strerror or str(error)
            return memoryview(data).nbytes  # type: ignore[arg-type]


def prepare() -> _Forgiving | None:
    """Puts such files in the place of stdout and stderr; returns that of stdout (None: there is no stdout)."""
    raw: _Forgiving | None = None
    for name in ("stderr", "stdout"):
        raw, old = None, getattr(sys, name)
        if old is None:
            continue
        if sys.platform == "win32":  # its console is no file
            old.reconfigure(errors="replace")
            continue
        old.flush()
        raw = _Forgiving(old.fileno(), "wb", closefd=False)
        terminal = raw.isatty()
        new = io.TextIOWrapper(
            io.BufferedWriter(raw),
            encoding=old.encoding,
            errors="replace" if name == "stdout" else "backslashreplace",
            line_buffering=terminal or name == "stderr",
        )
        setattr(sys, name, new)
    return raw


def lost(raw: _Forgiving | None) -> str:
    """Why some of the output was lost, after a last flush; "" if nothing was."""
    if raw is None:
        return ""
    sys.stdout.flush()
    return raw.error
