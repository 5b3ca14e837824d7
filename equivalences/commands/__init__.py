"""The commands of `python -m equivalences`: one module each, with its options (`add`) and what it does (`run`).

Nothing here imports torch before the command line is known to parse: torch takes seconds to load.
"""

from __future__ import annotations

import argparse

USAGE, FAILED, INTERRUPTED = 2, 1, 130  # exit statuses


class Usage(Exception):
    """Wrong usage; the message is the one line that says what is wrong and what would be right."""


def natural(text: str) -> int:
    """The number that an option's text spells: 0, 1, 2, ..."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 0, 1, 2, ...")
    return int(text)


def positive(text: str) -> int:
    """The number that an option's text spells: 1, 2, ..."""
    if not natural(text):
        raise argparse.ArgumentTypeError("must be at least 1")
    return int(text)
