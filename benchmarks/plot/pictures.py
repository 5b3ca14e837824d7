"""The pictures: each takes results and gives a figure, or None where they hold nothing that it could show."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks import names
from benchmarks.plot.results import Compared, Comparison, Ratio, Timing
from benchmarks.plot.style import BAND, COLOURS, GREY, MARKERS, VERDICTS, caption, figure

MOST = len(COLOURS)  # series in one panel: more cannot be told apart
SHAPES = 4  # panels of different sizes
Key = tuple[tuple[str, str], ...]


def batch_size(timings: Sequence[Timing]) -> Figure | None:
    """Time per epoch and time per step against the batch size, log-log, with what the matrix products alone take."""
    found = _of(timings, "training", "steps")
    series = {key: each for key, each in _series(found, "batch").items() if len(each) > 2}
    if not series:
        return None
    shown = dict(sorted(series.items(), key=lambda item: -len(item[1]))[:MOST])
    labels = _labels(shown)
    drawn, grid = figure(9, 4, columns=2)
    epoch, step = grid[0]
    everything = [timing for each in shown.values() for timing in each]
    for (key, each), colour, marker in zip(shown.items(), COLOURS, MARKERS, strict=False):
        line = sorted(each, key=_rows)
        for axes, scale in ((epoch, lambda t: 1e3), (step, lambda t: 1e6 / t.info["steps"])):
            _line(axes, line, scale, colour, marker, labels[key])
    limits = {_rows(t): t for t in everything if "FLOP" in t.info and "matrix-product ceiling, GFLOP/s" in t.info}
    for axes, scale in ((epoch, lambda t: 1e3), (step, lambda t: 1e6 / t.info["steps"])):
        if limits:
            points = [(rows, _ceiling(limits[rows]) * scale(limits[rows])) for rows in sorted(limits)]
            axes.plot(*zip(*points, strict=True), color=GREY, ls="--", label="matrix products at the measured ceiling")
        axes.set_xscale("log")
        axes.set_yscale("log")
        _batch_ticks(axes, everything)
        axes.set_xlabel("batch size, rows")
    epoch.set_ylabel("time per epoch, ms")
    step.set_ylabel("time per step, µs")
    drawn.legend(*epoch.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    left = len(series) - len(shown)
    omitted = f" {left} more series are not shown." if left else ""
    return caption(
        drawn,
        f"{_common(shown)}  Medians of {_rounds(everything)} rounds; bars: first to third quartile.{omitted}",
        _machines(everything),
    )


def loader_share(timings: Sequence[Timing]) -> Figure | None:
    """How much of an epoch of training the loading alone takes, for each way of loading and batch size."""
    loads = {_loading(t): t for t in timings if t.suite == "loading"}
    pairs: dict[Key, tuple[Timing, Timing]] = {}
    for timing in timings:
        if timing.suite == "training" and timing.axes.get("execution") == "eager" and _loading(timing) in loads:
            pairs.setdefault(_loading(timing), (loads[_loading(timing)], timing))
    if not pairs:
        return None
    order = sorted(pairs, key=lambda key: (_rows(pairs[key][1]), -pairs[key][1].median))
    drawn, grid = figure(8, 1.6 + 0.42 * len(order))
    axes = grid[0][0]
    labels = _labels(order)
    for place, key in enumerate(order):
        load, whole = pairs[key]
        share = load.median / whole.median
        part = min(share, 1.0)
        said = {"label": "loading"} if not place else {}
        axes.barh(place, 100 * part, color=COLOURS[1], height=0.6, **said)
        said = {"label": "forward, backward, step"} if not place else {}
        axes.barh(place, 100 * (1 - part), left=100 * part, color=COLOURS[4], height=0.6, **said)
        axes.text(101, place, f"{_milliseconds(load.median)} of {_milliseconds(whole.median)}", va="center", fontsize=8)
    axes.set_yticks(range(len(order)), [labels[key] for key in order])
    axes.invert_yaxis()
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("share of the time of an epoch, %")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=2)
    used = [timing for pair in pairs.values() for timing in pair]
    return caption(
        drawn,
        f"{_common(order)}  Loading: the same loop with nothing in it.  Medians of {_rounds(used)} rounds.",
        _machines(used),
    )


def formulations(timings: Sequence[Timing]) -> Figure | None:
    """The formulations of the loss side by side, forward alone and with backward, a panel for each shape."""
    found = [
        t
        for t in timings
        if t.suite == "loss" and t.axes.get("execution") == "eager" and _usual(t, "format", "float32")
    ]
    panels = _series(found, "loss", "passes")
    chosen = sorted(panels, key=lambda key: -len(panels[key]))[:SHAPES]
    chosen.sort(key=lambda key: [int(value) for _, value in key if value.isdecimal()])
    if not chosen:
        return None
    columns = min(len(chosen), 2)
    rows = -(-len(chosen) // columns)
    most = max(len({t.axes["loss"] for t in panels[key]}) for key in chosen)
    drawn, grid = figure(4.5 * columns + 1.5 * (columns == 1), rows * (0.9 + 0.28 * most) + 0.8, rows, columns)
    titles = _labels(chosen)
    handles: dict[str, Any] = {}
    for axes, key in zip(grid.flat, chosen, strict=False):
        of_panel = panels[key]
        order = sorted(
            {t.axes["loss"] for t in of_panel},
            key=lambda loss: min(t.median for t in of_panel if t.axes["loss"] == loss),
        )
        passes = sorted({t.axes.get("passes", "") for t in of_panel})
        for what, colour, marker in zip(passes, COLOURS, MARKERS, strict=False):
            some = [t for t in of_panel if t.axes.get("passes", "") == what]
            handles[what] = axes.errorbar(
                [1e6 * t.median for t in some], [order.index(t.axes["loss"]) for t in some],
                xerr=_spread(some, lambda t: 1e6), fmt=marker, color=colour, ms=5, label=what,
            )  # fmt: skip
        axes.set_yticks(range(len(order)), order)
        axes.set_ylim(len(order) - 0.5, -0.5)
        axes.set_xscale("log")
        _plain_ticks(axes.xaxis)
        axes.set_xlabel("time, µs")
        axes.set_title(titles[key].replace(":", " "))
    for axes in grid.flat[len(chosen) :]:
        axes.set_visible(False)
    if len(handles) > 1:
        drawn.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=len(handles))
    used = [t for key in chosen for t in panels[key]]
    left = len(panels) - len(chosen)
    omitted = f"  {left} more shapes are not shown." if left else ""
    return caption(
        drawn,
        f"{_common(chosen)}  Medians of {_rounds(used)} rounds, bars from the first to the third quartile.{omitted}",
        _machines(used),
    )


def time_to_accuracy(timings: Sequence[Timing]) -> Figure | None:
    """Every run's time to the target accuracy, a row for each recipe, fastest median first; failures are crosses."""
    found = [t for t in timings if t.suite == "accuracy" and t.info.get("runs")]
    found.sort(key=lambda t: t.median)
    if not found:
        return None
    labels = names.short([t.case for t in found])
    drawn, grid = figure(8, 2.2 + 0.38 * len(found))  # room for the caption, whatever their number
    axes = grid[0][0]
    failures = 0
    for place, timing in enumerate(found):
        runs = timing.info["runs"]
        last = min(int(timing.info.get("seeds", len(runs))), len(runs))
        outcomes = [bool(run["reached"]) for run in runs[last - len(timing.seconds) : last]]
        shifts = [0.22 * (i / max(len(outcomes) - 1, 1) - 0.5) for i in range(len(outcomes))]
        for reached, marker, colour in ((True, "o", COLOURS[0]), (False, "x", COLOURS[1])):
            points = [
                (t, place + shift)
                for t, shift, outcome in zip(timing.seconds, shifts, outcomes, strict=True)
                if outcome is reached
            ]
            if points:
                axes.plot(*zip(*points, strict=True), marker, color=colour, ms=4, alpha=0.7, mew=1.2)
            failures += 0 if reached else len(points)
        axes.plot([timing.median] * 2, [place - 0.3, place + 0.3], color="#000000", lw=1.6)
    axes.set_xscale("log")
    _plain_ticks(axes.xaxis)
    axes.set_yticks(
        range(len(found)), [labels[t.case].removeprefix("accuracy").strip() or "the recipe below" for t in found]
    )
    axes.set_ylim(len(found) - 0.5, -0.5)
    axes.grid(visible=False, axis="y")
    target = found[0].info.get("target accuracy")
    axes.set_xlabel(f"time to a test accuracy of {target:.1%}, s" if target else "time to the target accuracy, s")
    return caption(
        drawn,
        f"{_common([_key(t.axes) for t in found])}  A point a run and seed ({_rounds(found)} a recipe), the line their "
        f"median; {failures} run(s) never got there (crosses, when they gave up).  Evaluation is timed too.",
        _machines(found),
    )


def forest(comparison: Comparison) -> Figure | None:
    """Ratios of B to A with their intervals over the margin, a row a case; on top the controls and the A/A ratios."""
    labels = names.short([each.case for each in (*comparison.controls, *comparison.cases)])
    rows: list[tuple[str, Ratio, str]] = []
    for each in comparison.controls:
        rows += _row(f"{labels[each.case]}: B / A", each.effect, "")
    nulls = [each for each in comparison.cases if each.null]
    rows += _row(f"A / A of {len(nulls)} case(s), the widest", _widest(nulls), "")
    above = len(rows)
    for each in sorted(comparison.cases, key=lambda each: -(each.effect.ratio if each.effect else 0)):
        rows += _row(labels[each.case], each.effect, each.verdict)
    if len(rows) == above:
        return None
    drawn, grid = figure(8.5, 1.6 + 0.26 * len(rows))
    axes = grid[0][0]
    low, high = 1 / (1 + comparison.margin), 1 + comparison.margin
    axes.axvspan(low, high, color=BAND, lw=0, label=f"margin ({comparison.margin:.0%})")
    axes.axvline(1, color=GREY, lw=0.8)
    said = set()
    for place, (_, ratio, verdict) in enumerate(rows):
        colour, marker = VERDICTS[verdict]
        name = verdict or "control"
        label = {} if name in said else {"label": name}
        said.add(name)
        reach = [[ratio.ratio - ratio.low], [ratio.high - ratio.ratio]]
        axes.errorbar(ratio.ratio, place, xerr=reach, fmt=marker, color=colour, ms=5, capsize=2, **label)
        axes.annotate(
            f"{ratio.ratio:.3f}  [{ratio.low:.3f}, {ratio.high:.3f}]", (1.01, place), fontsize=7.5, va="center",
            xycoords=("axes fraction", "data"), annotation_clip=False, color=colour,
        )  # fmt: skip
    axes.axhline(above - 0.5, color=GREY, lw=0.6)
    axes.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xscale("log")
    _ratio_ticks(axes, [x for _, ratio, _ in rows for x in (ratio.low, ratio.high)] + [low, high])
    axes.grid(visible=False, axis="y")
    axes.set_xlabel("time of B / time of A (log scale; right of 1: B is slower)")
    drawn.legend(*axes.get_legend_handles_labels(), loc="outside upper left", ncols=5)
    return caption(
        drawn,
        f"A: {comparison.sides[0]}.  B: {comparison.sides[1]}.",
        f"95 % intervals across {comparison.launches} launches of fresh processes; verdicts after Holm's correction.  "
        f"{comparison.machine}.",
    )


# --- parts -----------------------------------------------------------------------------------------------------------


def _row(name: str, ratio: Ratio | None, verdict: str) -> list[tuple[str, Ratio, str]]:
    return [(name, ratio, verdict)] if ratio else []


def _widest(compared: Iterable[Compared]) -> Ratio | None:
    """The A/A ratio that lies or reaches furthest from 1: all others are better."""
    ratios = [each.null for each in compared if each.null]
    return max(ratios, key=lambda ratio: max(1 / ratio.low, ratio.high), default=None)


def _of(timings: Iterable[Timing], suite: str, *known: str) -> list[Timing]:
    return [t for t in timings if t.suite == suite and all(name in t.info for name in known)]


def _usual(timing: Timing, axis: str, value: str) -> bool:
    return timing.axes.get(axis, value) == value


def _series(timings: Iterable[Timing], *over: str) -> dict[Key, list[Timing]]:
    """Timings that differ in these axes alone."""
    found: dict[Key, list[Timing]] = {}
    for timing in timings:
        found.setdefault(timing.without(*over), []).append(timing)
    return found


def _key(axes: Mapping[str, str]) -> Key:
    return tuple(axes.items())


def _loading(timing: Timing) -> Key:
    return tuple((name, timing.axes.get(name, "")) for name in ("data", "batch", "loading", "order", "device"))


def _labels(keys: Iterable[Key]) -> dict[Key, str]:
    """What tells each group from the others, "as usual" where nothing does."""
    found = list(keys)
    values = {name: {dict(key).get(name, "") for key in found} for name in dict(found[0])}
    numbers = {name for name, of_axis in values.items() if any(value.isdecimal() for value in of_axis)}
    return {
        key: ", ".join(
            f"{name} {value}" if name in numbers else value for name, value in key if len(values.get(name, ())) > 1
        )
        for key in found
    }


def _common(keys: Iterable[Key]) -> str:
    """The axes that all groups share, as a sentence."""
    found = [dict(key) for key in keys]
    shared = [f"{k} {v}" for k, v in found[0].items() if all(other.get(k) == v for other in found)]
    return f"{', '.join(shared)}." if shared else ""


def _rows(timing: Timing) -> int:
    """The batch size in rows; a full batch is all that an epoch goes through."""
    batch = timing.axes["batch"]
    return int(batch) if batch.isdecimal() else round(timing.info["samples/s"] * timing.median)


def _ceiling(timing: Timing) -> float:
    """Seconds that the matrix products of an epoch would take at the speed of a large one."""
    return float(timing.info["FLOP"] / (timing.info["matrix-product ceiling, GFLOP/s"] * 1e9))


def _line(
    axes: Any, line: Sequence[Timing], scale: Callable[[Timing], float], colour: str, marker: str, label: str
) -> None:
    axes.errorbar(
        [_rows(t) for t in line], [scale(t) * t.median for t in line], yerr=_spread(line, scale),
        color=colour, marker=marker, ms=4, capsize=2, label=label,
    )  # fmt: skip


def _spread(timings: Sequence[Timing], scale: Callable[[Timing], float]) -> list[list[float]]:
    """From the median down to the first and up to the third quartile."""
    return [
        [scale(t) * max(t.median - t.quartiles[0], 0.0) for t in timings],
        [scale(t) * max(t.quartiles[1] - t.median, 0.0) for t in timings],
    ]


def _batch_ticks(axes: Any, timings: Iterable[Timing]) -> None:
    sizes = {_rows(t): t.axes["batch"] for t in timings}
    axes.set_xticks(sorted(sizes), [sizes[rows] for rows in sorted(sizes)])
    axes.xaxis.set_minor_locator(NullLocator())


def _plain_ticks(axis: Any) -> None:
    axis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))
    axis.set_minor_formatter(FuncFormatter(lambda value, place: f"{value:g}" if f"{value:e}"[0] in "25" else ""))


def _ratio_ticks(axes: Any, reached: Sequence[float]) -> None:
    """Round ratios around 1, a few of them."""
    low, high = min(reached), max(reached)
    steps = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
    step = next((step for step in steps if (high - low) / step <= 9), 10.0)
    first, last = int((low - 1) / step) - 1, int((high - 1) / step) + 1
    ticks = [1 + i * step for i in range(first, last + 1) if 1 + i * step > 0]
    axes.set_xlim(low / (1 + step / 4), high * (1 + step / 4))
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{value:g}"))


def _milliseconds(seconds: float) -> str:
    return f"{1e3 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _rounds(timings: Iterable[Timing]) -> str:
    counts = {len(t.seconds) for t in timings}
    return str(min(counts)) if len(counts) == 1 else f"{min(counts)} to {max(counts)}"


def _machines(timings: Iterable[Timing]) -> str:
    return "; ".join(dict.fromkeys(t.machine for t in timings)) + "."
