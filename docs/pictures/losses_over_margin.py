"""Draws losses-over-margin.png: one loss, written in four ways, over how wrong a row is.

python docs/pictures/losses_over_margin.py      (needs matplotlib; run it at the root of the repository)
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[2]))
from benchmarks.plot.style import COLOURS, GREY, caption, figure

MARGINS = torch.arange(0, 130.25, 0.25)
FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str, float]] = {  # code, line, width
    "F.cross_entropy(z, y)": (lambda z, y: F.cross_entropy(z, y, reduction="none"), "-", 6.0),
    "-log(softmax(z))[y]": (lambda z, y: -torch.log(F.softmax(z, 1))[:, 1], "-", 1.6),
    "BCELoss(sigmoid(z), y)": (
        lambda z, y: F.binary_cross_entropy(torch.sigmoid(z[:, 1] - z[:, 0]), y.float(), reduction="none"),
        ":",
        2.2,
    ),
    "-log(softmax(z) + 1e-8)[y]": (lambda z, y: -torch.log(F.softmax(z, 1)[:, 1] + 1e-8), "--", 1.6),
}


def main() -> None:
    z = torch.stack([MARGINS, torch.zeros_like(MARGINS)], 1)
    y = torch.ones(len(MARGINS), dtype=torch.long)
    losses = {label: form(z, y) for label, (form, _, _) in FORMS.items()}
    infinite = MARGINS[losses["-log(softmax(z))[y]"].isinf()][0].item()
    jump = MARGINS[losses["BCELoss(sigmoid(z), y)"] == 100][0].item()
    end = losses["-log(softmax(z) + 1e-8)[y]"][-1].item()

    drawn, axes = figure(6.6, 3.6)
    (axis,) = axes.ravel()
    colours = ("#9DC3E6", COLOURS[1], COLOURS[6], COLOURS[2])
    for (label, loss), colour in zip(losses.items(), colours, strict=True):
        _, line, width = FORMS[label]
        axis.plot(MARGINS, loss, line, color=colour, linewidth=width, label=label)
    axis.axvline(infinite, color=COLOURS[1], linewidth=0.8, linestyle="-.")
    for text, place, colour in (
        (f"inf from {infinite:g} on", (infinite + 1, 60), COLOURS[1]),
        (f"jumps to 100 at {jump:g}", (56, 104), COLOURS[6]),
        (f"stops at {end:.1f}, and so does learning", (60, end + 4), COLOURS[2]),
    ):
        axis.text(*place, text, color=colour, fontsize=8.5)
    axis.set_xlabel("how wrong the row is: logit of the wrong class minus logit of the right one")
    axis.set_ylabel("loss, float32")
    axis.legend(loc="upper left")
    axis.spines["left"].set_color(GREY)
    caption(
        drawn,
        f"One loss, written in four ways. torch {torch.__version__}, CPU, float32, margins 0 to 130 in steps of 0.25.",
    )
    drawn.savefig(Path(__file__).with_name("losses-over-margin.png"), facecolor="white")


if __name__ == "__main__":
    main()
