"""The registry of cases: names, selection, and work that is proved right, whose proof can fail."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import cases, data, fastest, loading, loss_cases, losses
from benchmarks.accuracy import TimeToAccuracy
from benchmarks.accuracy import case as time_to_accuracy
from benchmarks.data import Data
from benchmarks.gate_cost import Axes as GateAxes
from benchmarks.gate_cost import Judging
from benchmarks.loading import LOADINGS, ORDERS, Batches, Loader
from benchmarks.training import Recipe, Training, default, expectation
from benchmarks.training import cases as training_cases

ROWS = 150  # not a multiple of any batch


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set is a small one that can be learned: two or ten blobs."""

    def blobs(name: str, classes: int) -> Data:
        generator = torch.Generator().manual_seed(0)
        centres = torch.rand(classes, 784, generator=generator)
        parts = []
        for count in (ROWS, 40):
            y = torch.arange(count) % classes
            parts += [(centres[y] + torch.rand(count, 784, generator=generator)) / 2, y]
        return Data(name, *parts)

    tens = ("synthetic",)
    monkeypatch.setattr(data, "load", lambda name, **_: blobs(name, 10 if name in tens else 2))
    monkeypatch.setattr(loading, "load", lambda name, **_: blobs(name, 10 if name in tens else 2))
    expectation_cache().cache_clear()


def expectation_cache() -> Any:
    from benchmarks import training

    return training._expected


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits28", "synthetic", "cifar10"])
def test_ids_are_unique_and_spell_out_every_axis(name: str) -> None:
    every = cases.grid(name, full=True)  # raises if two are one
    for case in every:
        assert case.id.startswith(f"{case.suite}-")
        assert all(f"{axis}:{value}" in case.id for axis, value in case.axes)
        assert not set("[]:: \t'\"") & set(case.id.replace(":", ""))
    assert {case.suite for case in every} >= {"training", "loss", "loading", "gate"}
    assert {case.id for case in cases.grid(name)} <= {case.id for case in every}


def test_the_readme_counts_the_full_grid() -> None:
    every = cases.grid(full=True)
    text = Path(cases.__file__).with_name("README.md").read_text(encoding="utf-8")
    on_the_cpu = Counter(case.suite for case in every if case.runs_on("cpu"))
    kinds = ("training", "loss", "gate", "loading", "accuracy")
    training, loss, gate, loads, accuracy = (on_the_cpu[kind] for kind in kinds)
    said = f"{training:,} training, {loss} losses, {gate} gate, {loads} loading, {accuracy} accuracy"
    assert f"`--full-grid` has {on_the_cpu.total():,} cases on the CPU: {said}" in text
    assert f"{sum(case.runs_on('cuda') for case in every):,} on a CUDA GPU" in text


def test_smoke_cases_run_on_the_cpu() -> None:
    smoke = cases.smoke_cases()
    assert {case.suite for case in smoke} == {case.suite for case in cases.CASES}
    assert all(case.runs_on("cpu") for case in smoke)
    assert len(smoke) < 40


def test_cases_that_need_an_accelerator_say_so() -> None:
    pinned = cases.select(cases.CASES, "pinned and training")
    graphs = cases.select(cases.CASES, "cuda-graph")
    assert not any(case.runs_on("cpu") for case in (*pinned, *graphs))
    assert all(case.runs_on("xpu:1") for case in pinned)
    assert all(case.runs_on("cuda:0") and not case.runs_on("xpu") for case in graphs)


@pytest.mark.parametrize(
    ("expression", "fits"),
    [
        ("training", lambda i: "training" in i),
        ("TRAINING and batch:16-", lambda i: "training" in i and "batch:16-" in i),
        ("loss:CrossEntropyLoss and not one-hot", lambda i: "loss:CrossEntropyLoss" in i and "one-hot" not in i),
        ("(gate or loading) and not (float64 or pinned)", None),
        ("sigmoid+BCELoss", lambda i: "sigmoid+BCELoss" in i),
        ("", lambda i: True),
    ],
)
def test_select_takes_what_pytests_k_takes(expression: str, fits: Any) -> None:
    from _pytest.mark.expression import Expression

    got = cases.select(cases.CASES, expression)
    if fits is not None:
        assert {c.id for c in got} == {c.id for c in cases.CASES if fits(c.id)}
    if expression:
        theirs = Expression.compile(expression)
        assert list(got) == [case for case in cases.CASES if theirs.evaluate(matcher(case))]


def matcher(case: cases.Case) -> Any:
    return lambda name, /, **_: name.lower() in case.id.lower()


@pytest.mark.parametrize(
    "expression", ["nothing-fits-this", "and", "a b", "(training", "not not", "training) or (gate"]
)
def test_select_says_in_one_line_what_is_wrong(expression: str) -> None:
    with pytest.raises(ValueError, match=r"no expression|no case fits") as error:
        cases.select(cases.CASES, expression)
    assert len(str(error.value).splitlines()) == 1


# --- work ------------------------------------------------------------------------------------------------------------


def small_enough(case: cases.Case) -> bool:
    axes = dict(case.axes)
    sizes = int(axes.get("rows", 1)) * int(axes.get("classes", 1))
    return case.runs_on("cpu") and axes.get("execution") != "compile" and sizes <= 2**17 and case.suite != "accuracy"


@pytest.mark.parametrize("case", [c for c in cases.CASES if small_enough(c)], ids=lambda case: case.id)
def test_every_case_of_the_default_grid_is_right(case: cases.Case) -> None:
    work = case.prepare("cpu")
    work.check()
    work.reset()
    work.run()
    assert work.samples > 0
    assert work.facts() is not None


OTHERS = [
    r for name in ("synthetic", "cifar10") for r in default(name) if r.sensible and r.execution in ("eager", "by-hand")
]


@pytest.mark.parametrize("recipe", [r for r in OTHERS if r.batch in ("64", "full") or r.execution == "by-hand"])
def test_ten_classes_and_tanh_are_right_too(recipe: Recipe) -> None:
    if LOADINGS[recipe.loading].accelerators_only:
        return
    Training(recipe, "cpu").check()


def test_a_run_is_repeated_bitwise() -> None:
    work = Training(Recipe(optimizer="Adam", order="shuffled", dropout="0.5", loading="slices"), "cpu")
    ends = []
    for _ in range(2):
        work.reset()
        work.run()
        ends.append(work.final_loss())
    assert ends[0] == ends[1]


def test_time_to_accuracy_counts_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = Recipe(optimizer="Adam", order="shuffled", batch="16", loading="slices", execution="by-hand")
    work = TimeToAccuracy(recipe, "cpu")
    for _ in range(3):
        work.reset()
        work.run()
    assert work.facts()["failures"] == 0
    assert [run["seed"] for run in work.runs] == [1, 2, 3]
    monkeypatch.setattr("benchmarks.accuracy.TARGET", 1.1)
    work.reset()
    work.run()
    assert work.facts()["failures"] == 1
    assert work.runs[-1] == {"seed": 4, "epochs": work.cap, "reached": False}
    work.check()
    assert len(work.facts()["runs"]) == 4  # a check leaves no trace
    work.run()
    work.run()
    assert [run["seed"] for run in work.runs[4:]] == [6, 7]  # nor does a run go on where another ended


def test_time_to_accuracy_counts_the_timed_runs_alone() -> None:
    """As `timed` in benchmarks/conftest.py runs it: a warm-up first, and the second pass afterwards."""
    recipe = Recipe(optimizer="Adam", order="shuffled", batch="16", loading="slices", execution="by-hand")
    work, rounds = TimeToAccuracy(recipe, "cpu"), time_to_accuracy(recipe)
    for _ in range(rounds.warmup + rounds.rounds):
        work.reset()
        work.run()
    facts = work.facts()
    work.run()
    assert facts["seeds"] == rounds.rounds
    assert [run["seed"] for run in facts["runs"]] == [rounds.warmup + 1 + i for i in range(rounds.rounds)]


# --- checks that can fail --------------------------------------------------------------------------------------------


def test_a_forgotten_bias_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def sgd(self: Any, x: torch.Tensor, target: torch.Tensor) -> None:
        h, d, back = self.deltas(x, target, self.mask(len(x)))
        self.w2.addmm_(d.t(), h, alpha=-self.rate / len(x))
        self.b2.add_(d.sum(0), alpha=-self.rate / len(x))
        self.w1.addmm_(back.t(), x, alpha=-self.rate / len(x))

    monkeypatch.setattr(fastest.ByHand, "sgd", sgd)
    with pytest.raises(AssertionError, match="an epoch moves the parameters"):
        Training(Recipe(loading="slices", execution="by-hand"), "cpu").check()


def test_a_missing_last_batch_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = LOADINGS["slices"]
    short = replace(whole, epoch=lambda *arguments: list(whole.epoch(*arguments))[:-1])
    monkeypatch.setitem(LOADINGS, "slices", short)
    with pytest.raises(AssertionError, match="batches of other sizes"):
        Loader(data.load("digits28"), short, 16, "given", "cpu").check()
    faulty = Training(Recipe(loading="slices", batch="64"), "cpu")
    monkeypatch.setitem(LOADINGS, "slices", whole)
    with pytest.raises(AssertionError, match="an epoch moves the parameters"):
        faulty.check()


def test_rows_in_another_order_are_caught() -> None:
    given = LOADINGS["permutation"]

    def backwards(x: Tensor, y: Tensor, size: int, order: Tensor | None, device: str) -> Batches:
        assert order is not None
        return given.epoch(x, y, size, order.flip(0), device)

    other = replace(given, epoch=backwards)
    with pytest.raises(AssertionError, match="another order"):
        Loader(data.load("digits28"), other, 16, ORDERS[1], "cpu").check()


def test_a_loss_that_is_slightly_wrong_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    right = losses.LOSSES["CrossEntropyLoss"]
    smoothed = replace(right, code="F.cross_entropy(z, y, label_smoothing=1e-4)")
    monkeypatch.setitem(losses.LOSSES, right.name, smoothed)
    with pytest.raises(AssertionError, match="outside its allowance"):
        loss_cases.LossOnly(loss_cases.Axes(right.name, "64", "10", "forward"), "cpu").check()


@pytest.mark.parametrize("fmt", ["bfloat16", "float16"])
@pytest.mark.parametrize("loss", losses.LOSSES)
def test_every_loss_is_judged_in_16_bits_too(loss: str, fmt: str) -> None:
    """The full grid's largest batch of two classes, whose logits reach furthest."""
    loss_cases.LossOnly(loss_cases.Axes(loss, "4096", "2", "forward+backward", fmt), "cpu").check()


def test_a_wrong_gradient_is_caught() -> None:
    work = loss_cases.LossOnly(loss_cases.Axes("CrossEntropyLoss", "4096", "10", "forward+backward"), "cpu")
    right = work.function
    # Right on the rows that the gate judges, wrong in the gradient of the last one.
    work.function = lambda z, y: right(z, y) + (z[-1] - z[-1].detach()).sum() / len(z)
    with pytest.raises(AssertionError, match="a gradient is"):
        work.check()


@pytest.mark.parametrize(("fmt", "below"), [("bfloat16", 0.06), ("float32", 2e-4)])
def test_small_entries_of_a_gradient_that_are_lost_are_caught(fmt: str, below: float) -> None:
    """Beyond the rows that the gate judges, every entry of so many classes that is smaller than the digits of 1."""
    work = loss_cases.LossOnly(loss_cases.Axes("CrossEntropyLoss", "64", "1000", "forward+backward", fmt), "cpu")
    run = work.run

    def lossy() -> None:
        run()
        value, gradient = work.result
        lost = gradient.abs() * len(gradient) < below
        lost[:5] = False
        assert lost.any()
        work.result = (value, gradient.masked_fill(lost, 0))

    work.check()
    work.run = lossy  # type: ignore[method-assign]
    with pytest.raises(AssertionError, match="a gradient is"):
        work.check()


def test_a_gate_that_accepts_everything_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("equivalences.judging.judge.Measurement.failed", False)
    with pytest.raises(AssertionError, match="a wrong form was accepted"):
        Judging(GateAxes(), "cpu").check()


def test_the_gate_is_timed_on_problems_that_it_has_not_judged_before() -> None:
    """Row by row: in 16 bits, the few rows outside their allowance are judged again by themselves, and remembered."""
    work, seen = Judging(GateAxes("bfloat16"), "cpu"), set()
    work.reset()
    for _ in range(300):  # more than the judge remembers
        work.run()
        seen |= {row.tobytes() for row in work.problem.items["z"]}
    assert len(seen) == 300 * work.samples


def test_other_masks_are_allowed_their_own_spread() -> None:
    recipe = Recipe(loading="slices", dropout="0.5")
    assert expectation(recipe, "cpu")[1] == 0
    expected, spread = expectation(replace(recipe, execution="compile"), "cpu")
    assert 0 < spread < float(expected.norm())


def test_nothing_larger_than_memory_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss_cases, "available_memory", lambda device: 10**9)
    (large,) = cases.select(cases.CASES, "classes:50257")
    with pytest.raises(cases.Unsupported, match="GiB of memory"):
        large.prepare("cpu")


def test_every_training_case_has_its_recipe() -> None:
    for case in training_cases("digits28", False):
        assert Recipe(**dict(case.axes)).sensible
