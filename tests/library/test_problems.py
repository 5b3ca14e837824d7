"""Problems: exact in their format, of the shape asked for, in every region, and found where it matters."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import find, given, settings

from equivalences.catalogue import IDENTITIES
from equivalences.formats import FORMATS, every_finite, truncate
from equivalences.judging import plan
from equivalences.model import Array, Domain, Identity, Problem
from equivalences.problems import options, strategies, wide
from equivalences.problems.classes import classes, pairs
from equivalences.problems.draw import sample
from equivalences.problems.layers import layers
from equivalences.problems.rows import CLASS_KINDS, Recipe, expand, moderated
from equivalences.problems.scalars import scalars

EVERYTHING: dict[str, Any] = {"labels": True, "soft": True, "weight": True, "ignore": True, "smoothing": True}
DOMAINS = [
    classes(),
    classes(labels=True, out="RC"),
    classes(**EVERYTHING, reduction=("sum", "mean"), out=""),
    classes(labels=True, weight=True, ignore=True, reduction=("none",)),
    pairs(labels=True),
    scalars(),
    scalars(target="index", weight=True, pos_weight=True, reduction=("sum", "mean"), out=""),
    scalars(target="soft", weight=True, pos_weight=True),
    scalars(target="sign"),
    layers(),
    layers(hidden=True, labels=True),
]
DRAWN = 200


def drawn(domain: Domain, format: str, examples: int = DRAWN) -> list[Problem]:
    """Drawn problems, without the edge problems."""
    return sample(domain, format, examples, seed=1)


def named(domains: list[Domain]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("domain", domains, ids=lambda domain: domain.name)


def reached(domain: Domain, some: list[Problem]) -> set[str]:
    return {domain.regions[index] for problem in some for index in domain.locate(problem)}


def check(domain: Domain, problem: Problem) -> None:
    """The problem keeps every promise that its domain makes, whatever was drawn."""
    fmt, arrays = FORMATS[problem.format], {k: v for k, v in problem.items.items() if isinstance(v, np.ndarray)}
    assert list(arrays) == list(domain.axes)
    sizes: dict[str, int] = {}
    for name, array in arrays.items():
        assert array.ndim == len(domain.axes[name]), name
        for letter, size in zip(domain.axes[name], array.shape, strict=True):
            assert sizes.setdefault(letter, size) == size, (name, letter)
        if array.dtype == np.float64:
            assert np.isfinite(array).all(), name
            assert np.array_equal(truncate(array, fmt), array), name
        else:
            assert array.dtype == np.int64, name
    assert domain.locate(problem).shape == (sizes["R"],)
    if "weight" in problem:
        assert (problem["weight"] >= 0).all()
        assert problem["weight"].any()
    if "p" in problem and "soft='weights'" not in domain.name:
        assert (problem["p"] >= 0).all()
        total = np.array([math.fsum(row) for row in problem["p"]])
        assert (abs(total - 1) <= 4 * fmt.u + sizes["C"] * fmt.eta).all()
    if "label_smoothing" in problem:
        assert 0 <= problem["label_smoothing"] <= 1
    if "pos_weight" in problem:
        assert problem["pos_weight"] > 0
    if "y" in problem:
        y = problem["y"]
        kept = y != problem.items.get("ignore_index", -100)
        count = sizes.get("C", sizes.get("M", sizes.get("K", 0)))
        assert kept.any()
        assert ((y[kept] >= 0) & (y[kept] < count)).all()
        if "weight" in problem:
            assert problem["weight"][y[kept]].any()
    if domain.axes["g"] == "" and "z" in problem:  # the total of the losses is representable
        z = problem["z"]
        loss = np.ptp(z, axis=1) + math.log(sizes["C"]) if z.ndim == 2 else np.abs(z) + 1
        assert loss.sum() * np.max(problem.items.get("weight", 1)) * problem.items.get("pos_weight", 1) < fmt.max


@pytest.mark.parametrize("format", FORMATS)
@named(DOMAINS)
def test_edges_are_few_and_reach_every_region(domain: Domain, format: str) -> None:
    edges = domain.edges(format)
    for problem in edges:
        check(domain, problem)
    roles = [problem.role for problem in edges]
    combinations = roles.count(options.COMBINATION)
    lone = roles[1:].count(options.ALONE) + roles.count(options.COMBINATION_ALONE)
    assert len(edges) <= 14 + lone + combinations
    assert lone <= len(domain.regions) + 3 * 3 * 2  # of the totals: a row a region; and the options of a row alone
    assert combinations <= 3 * 4 * 3 * 2  # a combination of options each
    assert reached(domain, edges) == set(domain.regions)
    assert edges == domain.edges(format)


SCALAR = {
    identity.domain.name: identity.domain
    for identity in IDENTITIES.values()
    if identity.domain.axes.get("g") == "R" == next(iter(identity.domain.axes.values()))
    if "regression" not in identity.domain.name  # two numbers a row: too many pairs
}


@pytest.mark.parametrize("format", ["bfloat16", "float16"])
@named(list(SCALAR.values()))
def test_every_16_bit_input_of_a_scalar_is_listed(domain: Domain, format: str) -> None:
    listed, numbers = domain.exhaustive(format), every_finite(FORMATS[format])
    wanted = set(numbers if "z" in domain.axes else numbers[(numbers > 0) & (numbers < 1)])
    assert listed
    for problem in listed:
        assert list(problem) == list(domain.edges(format)[0])
        assert wanted <= set(next(iter(problem.items.values()))) <= set(numbers)
        for name in domain.axes:
            assert np.array_equal(truncate(problem[name], FORMATS[format]), problem[name]), name
    assert domain.exhaustive("float32") == []


def test_the_catalogue_has_scalars_of_every_kind() -> None:
    kinds = {name.partition("(")[0] for name in SCALAR}
    assert kinds == {"scalars", "activations", "dropouts", "probabilities", "certainties"}


@pytest.mark.parametrize("format", FORMATS)
def test_wide_rows_are_sound_and_made_of_independent_columns(format: str) -> None:
    for domain in (classes(**EVERYTHING, reduction=("mean", "sum"), out=""), classes(labels=True, out="RC")):
        some = wide.problems(domain, format)
        for problem in some:
            check(domain, problem)
            assert np.all(problem["g"])
            rows, count = problem["z"].shape
            for row in problem["z"] if count < 2 * FORMATS[format].u ** -0.5 else ():  # else numbers must come again
                assert len(np.unique(row)) > count / 2, "columns are repeated"
            assert rows <= 6
    assert some == wide.problems(domain, format)
    assert wide.problems(pairs(labels=True), format) == []


@pytest.mark.parametrize("format", FORMATS)
def test_every_role_of_a_wide_row_is_met(format: str) -> None:
    few, many = ({role for shape in wide.SHAPES if format in shape.formats and holds(shape.classes)
                  for role in shape.roles} for holds in ((1025).__ge__, (8192).__lt__))  # fmt: skip
    assert few == set(wide.ROLES)
    assert many == set(wide.ROLES) or format == "float64"


def test_the_largest_logit_label_and_step_of_wide_rows_are_where_their_roles_say() -> None:
    recipe = Recipe(len(wide.ROLES), 4097, tuple(16 * 389 + 16 * 16 * i + i for i in range(len(wide.ROLES))))
    rows = wide.expand(recipe, FORMATS["float32"])
    assert rows.y is not None
    at = {name: (int(row.argmax()), int(y)) for name, row, y in zip(wide.ROLES, rows.z, rows.y, strict=True)}
    assert at["last"] == (4096, 4096)
    assert at["first"] == (0, 4096)
    assert at["middle"] == (2048, 0)
    z = dict(zip(wide.ROLES, rows.z, strict=True))
    blocks = {name: row[:4096].reshape(-1, 1024).max(1) for name, row in z.items()}
    assert (np.diff(blocks["rising"]) > 1).all()
    assert (np.diff(blocks["climbing"]) > 88).all()
    assert (np.diff(blocks["plunging"]) < -88).all()
    assert (z["high"] > 88.8).all()
    assert (z["low"] < -103.3).all()
    assert (z["valley"][:455] == -8192).all()


def test_compiled_code_is_not_built_for_the_widest_rows() -> None:
    large = [identity for identity in IDENTITIES.values() if identity.domain.name.startswith("vocabularies")]
    assert {plan.shape(identity, "float32", "compiled") for identity in large} == {(6, 1025)}


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@named([DOMAINS[i] for i in (2, 7, 10)])
def test_drawn_problems_are_sound_and_reach_every_region(domain: Domain, format: str) -> None:
    some = drawn(domain, format)
    for problem in some:
        check(domain, problem)
    assert len(some) == DRAWN
    assert reached(domain, some) == set(domain.regions)
    fmt, first = FORMATS[format], next(iter(domain.axes))
    mantissas = np.frexp(np.concatenate([problem[first].ravel() for problem in some]))[0]
    scaled = np.ldexp(np.abs(mantissas), fmt.precision)  # an integer; odd where the last bit is set
    assert (scaled % 2 == 1).mean() > 0.1, "the numbers do not use the whole significand"


def test_edges_have_the_sizes_where_kernels_change() -> None:
    shapes = {problem["z"].shape for problem in classes().edges("float32")}
    assert {rows for rows, _ in shapes} >= {1, 17}
    assert {columns for _, columns in shapes} >= {1, 2, 17, 67}


@pytest.mark.parametrize(
    ("domain", "shape", "first"),
    [
        (classes(**EVERYTHING), (5, 7), (5, 7)),
        (classes(labels=True), (1, 1), (1, 1)),
        (scalars(target="soft", weight=True), (11,), (11,)),
        (layers(hidden=True), (3, 4), (3, 4)),
    ],
)
def test_a_shape_is_kept(domain: Domain, shape: tuple[int, ...], first: tuple[int, ...]) -> None:
    some = sample(domain, "bfloat16", 40, seed=2, shape=shape)
    assert len(some) == 40
    for problem in some:
        check(domain, problem)
        assert next(iter(problem.items.values())).shape == first
        assert {name: problem[name].shape for name in domain.axes} == {n: some[0][n].shape for n in domain.axes}


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
def test_compiled_code_meets_one_shape(identity: Identity) -> None:
    shape = plan.shape(identity, "float32", "compiled")
    drawn = sample(identity.domain, "float32", 3, seed=1, shape=shape)
    assert plan.edges(identity, "float32", "compiled")
    assert {np.shape(next(iter(problem.items.values()))) for problem in drawn} == {shape}


def test_a_sample_follows_from_its_seed() -> None:
    domain = classes(labels=True)
    same, again, other = (sample(domain, "float32", 20, seed) for seed in (7, 7, 8))
    assert same == again
    assert same != other


def test_a_row_depends_on_its_code_alone() -> None:
    codes = tuple(16 * (1000 + kind) + kind for kind in range(len(CLASS_KINDS)))
    whole = expand(Recipe(len(codes), 9, codes, pool=(0.5,)), FORMATS["float32"], CLASS_KINDS)
    for row, code in enumerate(codes):
        alone = expand(Recipe(1, 9, (code,), pool=(0.5,)), FORMATS["float32"], CLASS_KINDS)
        assert np.array_equal(alone.z[0], whole.z[row])


def test_heavy_weights_are_moderated_by_a_power_of_two() -> None:
    fmt = FORMATS["float16"]
    weight = moderated(np.array([50.0, 0.0, 1.0]), 300 * 128 * 50.0, fmt)
    assert weight[1] == 0
    assert weight[0] == 50 * weight[2]
    assert fmt.max / 8 < 300 * 128 * weight[0] < fmt.max / 2
    assert moderated(np.array(3.0), 100.0, fmt) == 3


def regions_of(domain: Domain, *rows: list[float], format: str = "float32", **items: Any) -> list[str]:
    z = np.array(rows) if len(rows) > 1 or len(rows[0]) == 0 or "t" not in items else np.array(rows[0])
    return [domain.regions[i] for i in domain.locate(Problem(format, {"z": z, **items}))]


def test_regions_are_where_the_table_says() -> None:
    labelled = classes(labels=True)
    rows: list[list[float]] = [
        [89, 0, 0],
        [40, -40, -64],
        [4.5, 4.5, 4.5],
        [4, 4, 0],
        [0, 9, 0],
        [9, 0, 0],
        [4.2, 4, -4],
        [1, 0, 0],
    ]
    y = np.array([0, 0, 0, 0, 0, 0, 0, 0])
    assert regions_of(labelled, *rows, y=y) == [
        *("extreme", "extreme", "offset", "tie", "tail", "saturated", "wide", "core")
    ]
    assert regions_of(labelled, [0, 9], [9, 0], y=np.array([-1, 0]), ignore_index=-1) == ["saturated", "saturated"]
    assert regions_of(labelled, [1], [2], y=np.array([0, 0])) == ["single", "single"]
    assert regions_of(classes(), [11, 0], [11.1, 0], format="float16") == ["saturated", "extreme"]
    assert regions_of(classes(), [6, 6.5, 6.25], [6, 6.8, 6.25]) == ["offset", "core"]
    line = [0.0, 4.0, 4.5, 17.0, -17.0, 88.0, 89.0]
    expected = ["zero", "core", "wide", "saturated", "tail", "tail", "extreme"]
    assert regions_of(scalars(target="soft"), line, t=np.array([1, 1, 1, 1, 1, 0.75, 1])) == expected
    assert regions_of(scalars(target="sign"), line, t=np.array([1, 1, 1, 1, 1, -1, 1])) == expected
    assert regions_of(scalars(target="sign"), [-17.0, 17.0], t=np.array([-1, 1])) == ["saturated"] * 2
    assert regions_of(scalars(target="index"), [-17.0, 17.0], t=np.array([0, 0])) == ["saturated", "tail"]


def gap(z: Array) -> Array:
    return np.asarray(z.max(axis=1, keepdims=True) - z)


def ignored(problem: Problem) -> Array:
    return np.asarray(problem["y"] == problem["ignore_index"])


DISCOVERIES: dict[str, Callable[[Problem], Any]] = {
    "a tie at the top, not all equal": lambda p: ((gap(p["z"]) == 0).sum(1) == 2)[gap(p["z"]).max(1) > 0].any(),
    "a dominating logit": lambda p: (np.partition(gap(p["z"]), 1)[:, 1] > 40).any() if p["z"].shape[1] > 1 else False,
    "a confidently wrong row": lambda p: (gap(p["z"])[~ignored(p), p["y"][~ignored(p)]] > 40).any(),
    "exp of a gap is subnormal": lambda p: ((gap(p["z"]) > 88) & (gap(p["z"]) < 103)).any(),
    "exp of a gap is zero": lambda p: (gap(p["z"]) > 104).any(),
    "a neighbour within 1e-6": lambda p: ((gap(p["z"]) > 0) & (gap(p["z"]) < 1e-6 * np.abs(p["z"]))).any(),
    "a subnormal logit": lambda p: ((p["z"] != 0) & (np.abs(p["z"]) < 2.0**-126)).any(),
    "a common offset of 50": lambda p: ((p["z"].min(1) > 50) & (np.ptp(p["z"], axis=1) > 0)).any(),
    "three equal logits": lambda p: p["z"].shape[1] >= 3 and (np.ptp(p["z"], axis=1) == 0).any(),
    "a repeated row": lambda p: len(np.unique(p["z"], axis=0)) < len(p["z"]) and np.ptp(p["z"]) > 0,
    "an ignored prefix": lambda p: ignored(p)[0] and not ignored(p)[-1] and (np.diff(ignored(p)) != 0).sum() == 1,
    "an ignored class": lambda p: p["ignore_index"] >= 0 and ignored(p).any(),
    "every other row ignored": lambda p: len(p["y"]) > 5 and np.diff(ignored(p)).all(),
    "a zero weight beside a heavy one": lambda p: p["weight"].min() == 0 and p["weight"].max() == 50,
    "a zero upstream gradient": lambda p: (p["g"] == 0).any() and p["g"].any(),
    "a vector body and a tail": lambda p: p["z"].shape[1] == 67 and len(p["z"]) >= 16,
    "many rows": lambda p: len(p["z"]) == 300,
}


@pytest.mark.slow
def test_drawn_problems_have_what_matters() -> None:
    some = drawn(classes(**EVERYTHING), "float32", 1500)
    missing = [wanted for wanted, holds in DISCOVERIES.items() if not any(holds(problem) for problem in some)]
    assert missing == []


def test_a_failure_shrinks_to_one_plain_row() -> None:
    quick = settings(max_examples=500, database=None, deadline=None, derandomize=True)
    strategy = strategies.problems(classes(labels=True), "float32")
    shrunk = find(strategy, lambda problem: np.ptp(problem["z"], axis=1).max() > 9, settings=quick)
    assert shrunk["z"].shape == (1, 2)
    assert np.array_equal(shrunk["z"] * 8, np.rint(shrunk["z"] * 8)) or np.abs(shrunk["z"]).min() < 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: classes(reduction=("none", "mean")), "one domain per output shape"),
        (lambda: classes(out="C"), "out must be one of"),
        (lambda: classes(ignore=True), "ignore needs labels"),
        (lambda: scalars(target="one-hot"), "target must be"),
    ],
)
def test_options_that_do_not_fit_are_refused(make: Callable[[], Domain], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@settings(max_examples=20, deadline=None, database=None)
@given(strategies.problems(classes(labels=True), "float16"))
def test_a_problem_prints_as_code_that_makes_it_again(problem: Problem) -> None:
    again = eval(repr(problem), {"Problem": Problem})  # our own text
    for name in problem:
        assert np.array_equal(np.asarray(again[name]), np.asarray(problem[name]))
