"""Batches of 2**20 rows in 16 bits, and of 2**25 rows in float32, within what the documented summation allows.

The catalogue's family `large` has the batches up to 65537 rows, in every format, with all options.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from equivalences.catalogue import IDENTITIES
from equivalences.findings.known_defects import KNOWN_DEFECTS
from equivalences.formats import FORMATS, truncate
from equivalences.judging import judge
from equivalences.judging.judge import Measurement
from equivalences.model import Array, Identity, Problem
from equivalences.oracle import specification
from equivalences.rounding import Call, Shadow, assumptions
from equivalences.rounding.rules.reductions import summed
from equivalences.rounding.shadows import Shadows
from equivalences.running import execute
from equivalences.running.forms import function, torch_version

CLASSES = IDENTITIES["cross_entropy_large_batch"]
SCALARS = IDENTITIES["binary_cross_entropy_large_batch"]
FORM = {CLASSES: CLASSES.forms[0], SCALARS: SCALARS.forms[1]}  # the losses of torch.nn.functional
KINDS = 16


def few_rows(loss: Identity, fmt: str) -> dict[str, Array]:
    """Sixteen rows; of classes, each but one right by a margin, so that 2**20 losses have a finite total in float16."""
    margin, label = np.linspace(4, 9, KINDS), np.arange(KINDS) % 2
    margin[0] = 0
    margin = truncate(margin if loss is CLASSES else margin / 4 - 1, FORMATS[fmt])
    if loss is SCALARS:
        return {"z": np.where(label, margin, -margin), "t": label.astype(float), "weight": np.ones(KINDS)}
    return {"z": np.stack((margin / 2, -margin / 2), 1) * np.where(label, -1, 1)[:, None], "y": label}


def options(loss: Identity) -> dict[str, object]:
    if loss is SCALARS:
        return {"pos_weight": np.array(1.0), "reduction": "mean", "g": np.array(1.0)}
    return {"ignore_index": -100, "weight": None, "label_smoothing": 0.0, "reduction": "mean", "g": np.array(1.0)}


@pytest.mark.slow
@pytest.mark.parametrize("fmt", FORMATS)
@pytest.mark.parametrize("loss", [CLASSES, SCALARS], ids=lambda loss: loss.name)
def test_a_million_rows(loss: Identity, fmt: str) -> None:
    rows = np.arange(2**20) % KINDS
    batch = {name: item[rows] for name, item in few_rows(loss, fmt).items()}
    met = judge.measure(loss, FORM[loss], Problem(fmt, {**batch, **options(loss)}))
    for measured in met:
        assert isinstance(measured, Measurement)
        assert not measured.failed
        assert measured.informative.any()


@pytest.mark.slow
def test_a_million_rows_of_which_every_sixteenth_is_ignored() -> None:
    batch = {"z": np.zeros((2**20, 2)), "y": np.where(np.arange(2**20) % 16 == 0, -100, 0)}
    value, gradient = judge.measure(CLASSES, FORM[CLASSES], Problem("float32", {**batch, **options(CLASSES)}))
    assert isinstance(value, Measurement)
    assert not value.failed
    assert not gradient.failed
    defect = next(defect for defect in KNOWN_DEFECTS if defect.name == "nll_loss-skipped-folds")
    if torch_version() in defect.seen:
        assert value.defects == (defect.name,)
        assert 0.006 < value.error / value.exact < 0.007  # README: 0.6 % off


@pytest.mark.parametrize("name", ["nll_loss-float16-total", "nll_loss2d-float16-total"])
def test_class_weights_beyond_float16_meet_the_known_defect(name: str) -> None:
    defect = next(defect for defect in KNOWN_DEFECTS if defect.name == name)
    loss = IDENTITIES[defect.identity]
    form = loss.form(defect.form)
    problem = next(
        problem
        for problem in loss.domain.exhaustive("float16")
        if problem["weight"] is not None and problem["reduction"] == "mean" and heavy(problem)
    )
    for met in judge.measure(loss, form, problem):
        assert isinstance(met, Measurement)
        assert not met.failed
        assert np.isfinite(met.exact).all()
        if torch_version() in defect.seen:
            assert met.defects == (name,)
            assert not met.got.any()


def heavy(problem: Problem) -> bool:
    kept = problem["y"] != problem["ignore_index"]
    return bool(problem["weight"][problem["y"][kept]].sum() > 65520)


def test_float16_means_of_losses_with_a_total_beyond_float16() -> None:
    found = 0
    for problem in SCALARS.domain.exhaustive("float16"):
        value, gradient = judge.measure(SCALARS, FORM[SCALARS], problem)
        assert isinstance(value, Measurement)
        assert not value.failed
        assert not gradient.failed
        if problem["reduction"] == "mean" and value.exact * len(problem["z"]) > FORMATS["float16"].max:
            assert value.informative.all()
            found += 1
    assert found >= 3  # pos_weight of 1, above and below


@pytest.mark.slow
@pytest.mark.parametrize("loss", [CLASSES, SCALARS], ids=lambda loss: loss.name)
def test_thirty_million_rows(loss: Identity) -> None:
    """The sixteen rows are followed alone; their repetitions have the same errors, and sum by the rule for sums."""
    rows, few = 2**25, few_rows(loss, "float32")
    times = rows // KINDS
    counted = replace(loss, counts_rows=False)
    mean = Problem("float32", {**few, **options(loss), "times": np.full(KINDS, times)})
    want = specification.evaluate(counted, mean)

    items = execute.arguments(loss, Problem("float32", {**few, **options(loss)}), "contiguous")
    del items["g"]
    for name in few:
        items[name] = items[name].repeat(times, *(1,) * (items[name].dim() - 1))
    z = items["z"].requires_grad_()
    value = function(FORM[loss], tuple(items))(**items)
    (gradient,) = torch.autograd.grad(value, z)
    copies = gradient.reshape(times, *few["z"].shape)

    # The gradient of the mean of 2**25 rows is exactly that of the sum under an upstream gradient of 2**-25.
    alone = Problem("float32", {**few, **options(loss), "reduction": "sum", "g": np.array(1 / rows)})
    followed = execute.run(loss, FORM[loss], alone)
    for extreme in (copies.amin(0), copies.amax(0)):
        assert want.gradients["z"].decide(extreme.double().numpy(), followed.bound["gradient z"])[0].all()

    sums = assumptions("cpu").sums
    height = sums.nll(rows) if loss is CLASSES else sums.whole(rows, torch.get_num_threads())
    each = row_losses(loss, few)
    u = FORMATS["float32"].u
    call = Call(Shadows(), assumptions("cpu"), "sum", None, {}, torch.empty(0))
    total = summed(call, Shadow(each.v * times, each.e * times), [0], False, height)
    allowance = (total.e + u * (abs(total.v) + total.e)) / rows
    assert want.value.decide(value.item(), allowance)[0].all()
    assert allowance < 1e-4 * total.v / rows  # it says something: 2**25 - 1 additions would allow everything


def row_losses(loss: Identity, few: dict[str, Array]) -> Shadow:
    """The loss of each row, and how far it may be off."""
    rows = IDENTITIES["cross_entropy" if loss is CLASSES else "binary_cross_entropy"]
    form = next(form for form in rows.forms if "reduction='none'" in form.label)
    problem = Problem("float32", {**{name: few[name] for name in rows.domain.axes if name in few}, "g": np.ones(KINDS)})
    run = execute.run(rows, form, problem)
    return Shadow(run.exact["value"], run.bound["value"])
