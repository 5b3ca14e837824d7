"""How the pictures look: colours that the colour-blind can tell apart, light axes, a caption below."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

import matplotlib

matplotlib.use("agg")  # files only: no display is needed

from matplotlib import pyplot
from matplotlib.figure import Figure

# Okabe and Ito (2008), without yellow, which is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
GREY = "#666666"
BAND = "#DDDDDD"

VERDICTS: Mapping[str, tuple[str, str]] = {  # colour and marker: no verdict is told by its colour alone
    "REGRESSED": (COLOURS[1], "s"),
    "IMPROVED": (COLOURS[2], "^"),
    "EQUIVALENT": (COLOURS[0], "o"),
    "INCONCLUSIVE": (COLOURS[5], "D"),
    "INVALID": (COLOURS[3], "X"),
    "": (GREY, "|"),
}

SETTINGS: Any = {
    "figure.dpi": 150, "savefig.dpi": 150, "font.size": 9, "axes.titlesize": 10, "axes.titlelocation": "left",
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#EEEEEE", "legend.frameon": False, "legend.fontsize": 8, "lines.linewidth": 1.4,
    "svg.hashsalt": "equivalences",
}  # fmt: skip

matplotlib.rcParams.update(SETTINGS)

CAPTION = 0.17  # inches a line


def figure(width: float, height: float, rows: int = 1, columns: int = 1, **rest: Any) -> tuple[Figure, Any]:
    """A figure of so many inches and its axes, always as a grid."""
    made: tuple[Figure, Any] = pyplot.subplots(
        rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **rest
    )
    return made


def caption(drawn: Figure, *sentences: str) -> Figure:
    """Puts what the reader has to know (machine, release, sample size) below the picture, and returns it."""
    width, height = drawn.get_size_inches()
    lines = [line for sentence in sentences for line in textwrap.wrap(sentence, int(width * 16))]
    share = (CAPTION * len(lines) + 0.1) / height
    engine: Any = drawn.get_layout_engine()
    engine.set(rect=(0, share, 1, 1 - share))
    drawn.text(0.1 / width, 0.06 / height, "\n".join(lines), fontsize=7.5, color=GREY, va="bottom", ha="left")
    return drawn
