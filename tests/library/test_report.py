"""Reports: a snippet repeats its run bit for bit, a failure says everything, results are whole or not there."""

from __future__ import annotations

import io
import json
import os
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

from equivalences import files, schema
from equivalences.catalogue import IDENTITIES, PITFALLS
from equivalences.gate import sweep
from equivalences.judging import judge
from equivalences.judging.facts import INSIDE, OUTSIDE, pairs
from equivalences.judging.judge import Crash, Measurement
from equivalences.judging.tally import Cell, Met, Tally, Worst
from equivalences.model import Array, Form, Identity, Problem
from equivalences.problems import regions
from equivalences.report import ending, failure, formula, results, table
from equivalences.report.progress import remaining
from equivalences.report.shrink import shrunk
from equivalences.report.snippet import place, snippet
from equivalences.running import execute
from equivalences.running.environment import environment
from equivalences.running.execute import Place
from equivalences.running.layouts import LAYOUTS, applies, canonical, rows_of


def in_rows(identity: Identity, problem: Problem, layout: str, axes: str, tensor: torch.Tensor) -> Array:
    return canonical(identity, LAYOUTS[layout], rows_of(identity, problem), axes, tensor)


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
def test_snippet_repeats_the_run(identity: Identity) -> None:
    turns = cycle((fmt, layout) for fmt in identity.formats for layout in judge.layouts(identity))
    for form in identity.forms:
        for _ in range(len(identity.formats) * len(judge.layouts(identity))):
            fmt, layout = next(turns)
            problems = [p for p in identity.domain.edges(fmt) if applies(identity, p, layout)]
            if form in judge.forms(identity, fmt, layout) and problems:
                break
        else:
            continue  # not in this torch
        problem = problems[len(problems) // 2]
        run = execute.run(identity, form, problem, Place(layout), follow=None)
        space: dict[str, Any] = {}
        exec(compile(snippet(identity, form, problem, layout=layout), f"<{form.label}>", "exec"), space)
        for quantity, got in run.got.items():
            tensor = space[quantity.replace(" ", "_")]
            axes = identity.out if quantity == "value" else identity.domain.axes[quantity.removeprefix("gradient ")]
            again = in_rows(identity, problem, layout, axes, tensor)
            assert again.shape == got.shape
            assert np.array(again, dtype=np.float64).tobytes() == np.array(got, dtype=np.float64).tobytes(), form.label
            if got.size:
                at = tuple(int(i) for i in np.unravel_index(got.size // 2, got.shape))
                number = eval(place(identity, problem, layout, quantity, got.shape, at), space)
                assert np.array_equal(number, got[at], equal_nan=True)


SOFTMAX = IDENTITIES["softmax"]
WRONG = Form("s = torch.exp(z - z.amax(dim, keepdim=True))\ns / (s.sum(dim, keepdim=True) + 1e-3)", label="wrong")


def test_failure_says_everything(capsys: pytest.CaptureFixture[str]) -> None:
    identity = replace(SOFTMAX, forms=(*SOFTMAX.forms, WRONG))
    problem = identity.domain.edges("float32")[3]
    met = judge.measure(identity, WRONG, problem, layout="inner")
    failing = [m for m in met if m.failed]
    assert failing
    text = failure.text(failing[0])
    rows = [line for line in text.splitlines() if "inside" in line or "OUTSIDE" in line or "no bound" in line]
    assert formula.text(identity.statement) in text
    assert all(any(form.label in row for row in rows) for form in judge.forms(identity, "float32", "inner"))
    assert sum(row.startswith(">") and "OUTSIDE" in row for row in rows) == 1
    assert "aten::amax" in text
    assert "without any rounding this form gives" in text
    code = "\n".join(line.removeprefix("    ") for line in text.partition("repeat with torch alone:\n")[2].splitlines())
    exec(code, {})
    printed = capsys.readouterr().out.strip()
    assert f"got {printed}," in code


def test_failure_names_the_first_operation_outside_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from equivalences.rounding import RULES, Call, Shadow

    def narrow(call: Call) -> Any:
        v, e = original(call)
        return Shadow(v, e * 0)

    original = RULES["log"]
    monkeypatch.setitem(RULES, "log", narrow)
    identity, form = IDENTITIES["logsumexp"], Form("torch.log(torch.exp(z).sum(dim)).neg().neg()")
    identity = replace(identity, forms=(*identity.forms, form))
    problem = Problem("float32", {"z": np.array([[0.5, 0.25]]), "g": np.array([1.0])})
    text = failure.text(judge.measure(identity, form, problem)[0])
    first = next(line for line in text.splitlines() if line.startswith("> ") and "aten::" in line)
    assert "aten::log " in first
    assert "2 more operations follow" in text or "more operations follow" in text


def test_crash_is_reported_with_its_smallest_problem() -> None:
    form = Form("F.softmax(z, dim) if z.shape[0] < 2 else z.reshape(-1, 1000000)")
    identity = replace(SOFTMAX, forms=(*SOFTMAX.forms, form))
    crash = judge.measure(identity, form, identity.domain.edges("float64")[5])[0]
    assert isinstance(crash, Crash)
    text = failure.text(crash)
    assert "raised RuntimeError" in text
    assert "z = [[0.0], [0.0]]" in text


def test_shrunk_keeps_the_failure_and_loses_the_rest() -> None:
    problem = Problem(
        "float32",
        {"z": np.arange(60.0).reshape(12, 5) / 7, "y": np.arange(12) % 5, "weight": np.ones(5), "reduction": "sum"},
    )
    small = shrunk(
        problem, {"z": "RC", "y": "R", "weight": "C"}, lambda p: bool((p["z"][p["y"] == p["y"].max()] > 4).any())
    )
    assert small["z"].shape == (1, 1)
    assert small["z"].item() == 8.0
    assert small["y"].tolist() == [0]
    assert small["reduction"] == "sum"


def test_a_large_worst_problem_is_named_and_not_listed() -> None:
    for rows, shown in ((2, "Problem('float32', dict(z=[[0.0], [0.0]]))"), (2000, "2,000 numbers, crc32 ")):
        tally = Tally(SOFTMAX, "float32")
        tally.worst["value"] = Worst(1.0, "F.softmax(z, dim)", "core", Problem("float32", {"z": np.zeros((rows, 1))}))
        assert results.tally(tally)["worst"]["value"]["problem"].startswith(shown)


def test_results_are_strict_json(tmp_path: Path) -> None:
    tally = Tally(SOFTMAX, "float32")
    wrong = replace(SOFTMAX, forms=(*SOFTMAX.forms, WRONG))
    for problem in wrong.domain.edges("float32")[2:4]:
        for judgement in judge.judge(wrong, problem, ("contiguous",)):
            tally.add(judgement)
    assert any(isinstance(f, Measurement) for f in tally.failures)
    path = tmp_path / "results.json"
    with files.destination(path) as file:
        file.write(
            results.results(
                [tally], {"device": "cpu", "mode": "eager", "examples": 0, "seed": 0, "identities": [], "formats": []}
            )
        )

    def refuse(text: str) -> None:
        raise AssertionError(f"{text} is not JSON")

    found = json.loads(path.read_text(), parse_constant=refuse)
    assert found["tallies"][0]["numbers"] == tally.numbers
    assert found["environment"]["torch"]["version"] == torch.__version__
    assert list(tmp_path.iterdir()) == [path]
    assert schema.read(path).tallies[0].failures[0].form == WRONG.label


def test_results_are_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("before")
    with pytest.raises(TypeError), files.destination(path) as file:
        file.write({"one": 1, "two": object()})

    def broken(draft: IO[bytes]) -> None:
        draft.write(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), files.destination(path) as file:
        file.fill(broken)
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError, match="directory"), files.destination(tmp_path):
        pass


def test_a_link_stays_a_link_and_a_pipe_a_pipe(tmp_path: Path) -> None:
    path, link, pipe = (tmp_path / name for name in ("results.json", "link.json", "pipe"))
    link.symlink_to(path)
    os.mkfifo(pipe)
    with files.destination(link) as file:
        file.text("results")
    assert (link.is_symlink(), path.read_text()) == (True, "results")
    with pytest.raises(OSError, match="no regular file"), files.destination(pipe):
        pass
    assert pipe.is_fifo()


def test_environment_names_what_a_measurement_depends_on() -> None:
    found = environment()
    assert json.loads(json.dumps(found)) == found
    assert found["torch"]["blas"]
    assert found["torch"]["cpu capability"] in {"DEFAULT", "AVX2", "AVX512", "NEON", "SVE256"}
    assert found["device"]["name"]


@pytest.mark.slow
def test_tallies_survive_the_journey_between_processes() -> None:
    identities = [IDENTITIES["logsumexp"]]
    here, there = (
        [results.tally(t) for t in sweep.sweep(identities, ("float32", "bfloat16"), examples=0, jobs=jobs)]
        for jobs in (1, 2)
    )
    assert here[0]["numbers"] > 0
    assert sorted(here, key=str) == sorted(there, key=str)


# --- what fits a terminal, and reads well there ----------------------------------------------------------------------


def tallies() -> list[Tally]:
    """Two identities with long names and labels, of which one has met a defect and one fails."""
    made = []
    for name, fmt in (("binary_cross_entropy_second_derivative", "bfloat16"), ("softmax", "float64")):
        identity = IDENTITIES[name]
        tally = Tally(identity, fmt, problems=1234, numbers=987_654_321)
        tally.met["F.log_softmax(z, dim)", "log_softmax-16bit-sum"] = Met(12, 3.0, 8.0)
        label = "torch.some_rather_long_name(z, dim, keepdim=True) " * 4
        tally.worst = {kind: Worst(0.5, label, "saturated") for kind in tally.worst}
        facts = pairs(np.repeat([INSIDE, OUTSIDE], (437, 563)), np.full(1000, INSIDE), np.ones(1000, dtype=bool))
        tally.cells = {(label, "value", region): Cell(facts, ratio=0.5) for region in identity.domain.regions}
        made.append(tally)
    problem = IDENTITIES["softmax"].domain.edges("float64")[0]
    raised = IDENTITIES["softmax"], IDENTITIES["softmax"].reference, problem
    made[1].failures.append(Crash(*raised, error=ValueError("no")))
    return made


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_tables_fit_the_terminal_and_a_row_is_a_line(width: int) -> None:
    file = io.StringIO()
    console = Console(file=file, width=width, highlight=False, markup=False)
    made = tallies()
    for shown, rows in ((table.summary(made, width), 2), (table.validity(made[1], width), 1)):
        file.seek(0)
        file.truncate()
        console.print(shown)
        lines = file.getvalue().splitlines()
        assert all(cell_len(line) <= width for line in lines)
        title, header, rule, *body = lines
        assert set(rule.strip()) == {"─"}
        assert "Closest to its limit" in title or "float64" in title
        assert len([line for line in body if line.strip()]) == rows
        whole = ("format", "value", "gradient", "verdict") if rows == 2 else ("saturated", "extreme", "core")
        assert all(word in header.split() for word in whole)
        cells = ("bfloat16", "float64", "0.50", "holds", "1 raised") if rows == 2 else ("43.7 %",)
        assert all(cell in "\n".join(body) for cell in cells)
    console.print(table.summary(made, width))
    assert "binary_cross_entropy_second_derivative" in file.getvalue()
    assert ("reached by" in file.getvalue()) == (width > 100)


def test_no_statement_is_shown_as_latex() -> None:
    statements = [each.statement for each in IDENTITIES.values()] + [each.statement for each in PITFALLS.values()]
    for statement in statements:
        shown = formula.text(statement)
        assert "\\" not in shown
        assert "{" not in shown.replace("{-1, 1}", "").replace("{0, 1}", "")  # the two sets
    assert formula.text(IDENTITIES["softmax"].statement) == "softmax(z)ᵢ = e^zᵢ / ∑ⱼ e^zⱼ"
    assert "log ∑ⱼ e^(zⱼ - m)" in formula.text(IDENTITIES["logsumexp"].statement)
    assert "1 / (1 + e⁻ᶻ) = eᶻ / (1 + eᶻ)" in formula.text(IDENTITIES["sigmoid"].statement)
    assert formula.text("one_hot of x^2 is prose") == "one_hot of x^2 is prose"


def test_every_region_is_described() -> None:
    for identity in IDENTITIES.values():
        words = regions.described(identity.domain)
        assert tuple(words) == identity.domain.regions
        assert len(set(words.values())) == len(words)


def test_the_ending_says_what_was_met_and_what_to_do() -> None:
    met, fails = tallies()
    first, second, third = ending.sentences([met], (1, 1), 2.0, [], False)
    assert first.startswith("Passed: 987,654,321 numbers of 1,234 problems judged in 2 s: 1 identity, 1 of 1 cells")
    assert "log_softmax-16bit-sum" in second
    assert "`equivalences show NAME`" in third
    first, _, third = ending.sentences([met, fails], (2, 2), 2.0, [], False)
    assert first.startswith("Failed: ")
    assert "1 with failures" in first
    assert "`equivalences show softmax`" in third
    met.met = {}
    assert next(ending.sentences([met], (0, 1), 2.0, [], True)).startswith("Interrupted: ")


def test_what_is_left_is_not_guessed_from_little() -> None:
    assert remaining(2, 100, 10.0) == "time left unknown"
    assert remaining(20, 100, 10.0) == "about 40 s left"
    assert remaining(20, 1000, 10.0) == "about 8 min left"
    assert remaining(2, 2, 10.0) == "all done"
