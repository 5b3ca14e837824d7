"""The pictures: drawn from simulated results, and read back from the figures; nothing here was measured."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot

from benchmarks.names import axes, short
from benchmarks.plot import pictures
from benchmarks.plot.__main__ import main
from benchmarks.plot.results import Comparison, Timing, Unusable, read

RANDOM = np.random.default_rng(0)
ROWS = 12_665
MACHINE = {"cpu": "Simulated CPU", "torch": {"version": "9.9"}, "threads": {"within operations": 2}}


def benchmark(case: str, seconds: float, rounds: int = 10, **info: Any) -> dict[str, Any]:
    """One benchmark as pytest-benchmark writes it, its rounds scattered by 3 %."""
    data = (seconds * np.exp(0.03 * RANDOM.normal(size=rounds))).tolist()
    ceilings: dict[str, Any] = {"matrix-product ceiling, GFLOP/s": 100.0, "copy ceiling, GB/s": 10.0}
    found = {"case": case, "device": "cpu", "samples/s": ROWS / float(np.median(data)), **ceilings, **info}
    return {"name": case, "extra_info": found, "stats": {"data": data, "median": float(np.median(data))}}


def results() -> dict[str, Any]:
    """A simulated run of every suite."""
    found = []
    for batch in (1, 16, 64, 256, 1024, "full"):
        steps = -(-ROWS // batch) if isinstance(batch, int) else 1
        for loading, execution, sample, step in (
            ("dataloader", "eager", 9e-6, 2e-4), ("slices", "eager", 0, 2e-4), ("slices", "by-hand", 0, 6e-5),
        ):  # fmt: skip
            case = f"training-data:digits28-loss:sigmoid+BCELoss-batch:{batch}-loading:{loading}-order:given"
            seconds = ROWS * sample + steps * step + 0.013
            found.append(benchmark(f"{case}-execution:{execution}", seconds, steps=steps, FLOP=1.27e9))
        for loading, sample in (("dataloader", 9e-6), ("slices", 2e-8)):
            case = f"loading-data:digits28-batch:{batch}-loading:{loading}-order:given"
            found.append(benchmark(case, ROWS * sample + steps * 2e-6, steps=steps))
    for rows, classes in ((16, 2), (256, 10), (4096, 1000)):
        for place, loss in enumerate(("sigmoid+BCELoss", "CrossEntropyLoss", "manual-softmax", "LogSoftmax+NLLLoss")):
            for passes, factor in (("forward", 1), ("forward+backward", 2.5)):
                case = f"loss-loss:{loss}-rows:{rows}-classes:{classes}-passes:{passes}-format:float32-execution:eager"
                found.append(benchmark(case, factor * (1 + 0.4 * place) * (1e-5 + 1e-9 * rows * classes)))
    for batch, seconds in ((16, 1.2), (64, 0.6), ("full", 9.0)):
        runs = [{"seed": i, "epochs": 5, "reached": batch != "full" or i != 3} for i in range(1, 15)]
        extra: dict[str, Any] = {"runs": runs, "seeds": 12, "target accuracy": 0.995}
        case = f"accuracy-data:digits28-optimizer:Adam-batch:{batch}-execution:eager"
        found.append(benchmark(case, seconds, **extra))
    return {"machine_info": MACHINE, "benchmarks": found}


def record() -> dict[str, Any]:
    """A simulated record of the A/B driver."""

    def ratio(middle: float, width: float) -> dict[str, float]:
        return {"ratio": middle, "low": middle / (1 + width), "high": middle * (1 + width), "launches": 12}

    cases = (
        ("slow", 1.12, 0.03, "REGRESSED"), ("even", 1.004, 0.01, "EQUIVALENT"), ("wide", 1.03, 0.06, "INCONCLUSIVE"),
        ("fast", 0.83, 0.02, "IMPROVED"), ("moved", 1.08, 0.02, "INVALID"),
    )  # fmt: skip
    verdicts = [
        {"case": f"loss-loss:{name}", "verdict": verdict, "effect": ratio(middle, width), "null": ratio(1.002, width)}
        for name, middle, width, verdict in cases
    ]
    dead = {"case": "loss-loss:dead", "verdict": "INVALID", "effect": None, "null": None}
    controls = [{"case": "control/copy", "verdict": "EQUIVALENT", "effect": ratio(1.001, 0.01), "null": ratio(1, 0.01)}]
    arms = [{"name": name, "python": "python", "env": [["K", "V"]], "compile": "as-is"} for name in ("A", "A'", "B")]
    environment = {"python": "3", **MACHINE}
    return {
        "kind": "versus", "margin": 0.05, "launches": [{}] * 12, "verdicts": [*verdicts, dead], "controls": controls,
        "settings": {"arms": arms}, "environments": dict.fromkeys(("A", "A'", "B"), environment),
    }  # fmt: skip


@pytest.fixture(autouse=True)
def closed() -> Any:
    yield
    pyplot.close("all")


@pytest.fixture
def given(tmp_path: Path) -> tuple[list[Timing], Comparison]:
    for name, data in (("timings", results()), ("versus", record())):
        (tmp_path / f"{name}.json").write_text(json.dumps(data))
    timings, comparisons = read([tmp_path / "timings.json", tmp_path / "versus.json"])
    return timings, comparisons[0]


def texts(figure: Any) -> str:
    """Every word in a figure."""
    from matplotlib.text import Text

    return " ".join(" ".join(text.get_text().split()) for text in figure.findobj(Text) if text.get_visible())


@pytest.mark.slow
def test_every_picture_is_written_whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(results()))
    (tmp_path / "b.json").write_text(json.dumps(record()))
    folder = tmp_path / "pictures"
    assert main([str(tmp_path / "a.json"), str(tmp_path / "b.json"), "-o", str(folder)]) == 0
    names = {"batch-size.png", "loader-share.png", "formulations.png", "time-to-accuracy.png", "forest.png"}
    assert {path.name for path in folder.iterdir()} == names  # and no draft
    assert {Path(line).name for line in capsys.readouterr().out.splitlines()} == names
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in folder.iterdir())


@pytest.mark.parametrize(
    "draw", [pictures.batch_size, pictures.loader_share, pictures.formulations, pictures.time_to_accuracy]
)
def test_captions_and_units(given: tuple[list[Timing], Comparison], draw: Callable[[Any], Any]) -> None:
    figure = draw(given[0])
    for said in ("Simulated CPU", "torch 9.9", "2 thread(s)", "10"):
        assert said in texts(figure)
    for panel in (each for each in figure.axes if each.get_visible()):
        assert any(unit in panel.get_xlabel() for unit in (", ms", ", µs", ", s", ", %", ", rows"))
    assert draw([]) is None


def test_batch_size_draws_what_was_measured(given: tuple[list[Timing], Comparison]) -> None:
    figure: Any = pictures.batch_size(given[0])
    assert figure is not None
    epoch, step = figure.axes
    timing = next(t for t in given[0] if t.suite == "training" and t.axes["batch"] == "64")
    for panel, expected in ((epoch, 1e3 * timing.median), (step, 1e6 * timing.median / timing.info["steps"])):
        points = [y for line in panel.lines for x, y in zip(*line.get_data(), strict=True) if x == 64]
        assert any(math.isclose(y, expected) for y in points)
        assert panel.get_xscale() == panel.get_yscale() == "log"
    limit = next(line for line in epoch.lines if line.get_linestyle() == "--").get_ydata()
    assert list(limit) == pytest.approx([12.7] * 6)  # 1.27 GFLOP at 100 GFLOP/s
    assert [label.get_text() for label in epoch.get_xticklabels()] == ["1", "16", "64", "256", "1024", "full"]


def test_shares_are_of_the_same_loop(given: tuple[list[Timing], Comparison]) -> None:
    figure: Any = pictures.loader_share(given[0])
    assert figure is not None
    bars = figure.axes[0].patches
    assert len(bars) == 2 * 12  # six batch sizes, two ways of loading
    share = {
        (t.suite, t.axes["batch"], t.axes["loading"]): t.median
        for t in given[0]
        if "loading" in t.axes and t.axes.get("execution") != "by-hand"
    }
    expected = 100 * share["loading", "16", "dataloader"] / share["training", "16", "dataloader"]
    assert any(math.isclose(bar.get_width(), expected) for bar in bars)


def test_failures_are_crosses(given: tuple[list[Timing], Comparison]) -> None:
    """The last rounds before `seeds` are the timed ones: runs after them belong to the untimed pass."""
    figure: Any = pictures.time_to_accuracy(given[0])
    assert figure is not None
    assert "1 run(s) never got there" in texts(figure)
    crosses = [line for line in figure.axes[0].lines if line.get_marker() == "x"]
    slow = next(t for t in given[0] if t.suite == "accuracy" and t.axes["batch"] == "full")
    assert [list(line.get_xdata()) for line in crosses] == [[slow.seconds[0]]]  # seed 3 of 3 to 12


def test_the_forest_has_its_controls_on_top(given: tuple[list[Timing], Comparison]) -> None:
    figure: Any = pictures.forest(given[1])
    assert figure is not None
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows[0] == "control/copy: B / A"
    assert rows[1] == "A / A of 5 case(s), the widest"
    assert [row.removeprefix("loss loss:") for row in rows[2:]] == ["slow", "moved", "wide", "even", "fast"]
    band = figure.axes[0].patches[0]
    assert band.get_x() == pytest.approx(1 / 1.05)
    assert band.get_x() + band.get_width() == pytest.approx(1.05)
    said = texts(figure)
    for word in ("REGRESSED", "IMPROVED", "EQUIVALENT", "INCONCLUSIVE", "INVALID", "12 launches", "K=V", "torch 9.9"):
        assert word in said
    assert figure.axes[0].get_ylim()[0] > figure.axes[0].get_ylim()[1]  # the first row is the upper one


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "neither a result of pytest-benchmark"),
        ("[]", "neither a result of pytest-benchmark"),
        ('{"kind": "versus"}', "neither a result of pytest-benchmark"),
        ('{"benchmarks": [{}], "machine_info": {}}', "neither a result of pytest-benchmark"),
        ('{"benchmarks": [], "machine_info": {}}', "hold nothing that a picture is made of"),
        (None, "cannot read"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, said: str
) -> None:
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    assert main([str(path), "-o", str(tmp_path)]) == 2
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert said in err


def test_two_machines_are_not_drawn_into_one_picture(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(results()))
    (tmp_path / "b.json").write_text(json.dumps(results() | {"machine_info": {**MACHINE, "cpu": "Another CPU"}}))
    assert main([str(tmp_path / "a.json"), str(tmp_path / "b.json"), "-o", str(tmp_path)]) == 2
    assert "different machines or releases" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.png"))


def test_a_folder_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.json").write_text(json.dumps(record()))
    assert main([str(tmp_path / "a.json"), "-o", str(tmp_path / "a.json" / "below")]) == 2
    assert "plot: cannot write" in capsys.readouterr().err


def test_names_keep_what_differs() -> None:
    one, two, other = "loss-rows:16-loss:one-hot+CE", "loss-rows:16-loss:BCE", "gate-rows:16"
    assert axes(one) == ("loss", {"rows": "16", "loss": "one-hot+CE"})
    assert short([one, two, other]) == {one: "loss loss:one-hot+CE", two: "loss loss:BCE", other: "gate"}
    usual, large = "loss-rows:16-loss:CE", "loss-rows:4096-loss:CE"
    assert short([one, usual, large]) == {one: "loss loss:one-hot+CE", usual: "loss", large: "loss rows:4096"}
    with pytest.raises(Unusable):
        read([Path("there/is/none.json")])
