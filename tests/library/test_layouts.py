"""Every layout at every size from 1 to 67 (contiguous in every format, others in turn): vector bodies and tails."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from torch import Tensor

from equivalences.catalogue import IDENTITIES
from equivalences.formats import FORMATS, truncate
from equivalences.judging import judge
from equivalences.judging.judge import Crash
from equivalences.model import Identity, Problem
from equivalences.running import execute
from equivalences.running.layouts import LAYOUTS, applies

SIZES = range(1, 68)


def problem(name: str, fmt: str, rows: int, columns: int, equal: bool) -> Problem:
    """Normal logits, most of them within 12 of each other; with `equal`, the same row again and again."""
    random = np.random.default_rng(rows * 68 + columns)
    z = truncate(random.normal(0, 3, (1 if equal else rows, columns)), FORMATS[fmt]).repeat(rows if equal else 1, 0)
    upstream = truncate(random.normal(0, 1, (rows, columns)), FORMATS[fmt])
    label = random.integers(columns, size=rows)
    if name == "log_softmax":
        return Problem(fmt, {"z": z, "g": upstream})
    if name == "cross_entropy":
        return Problem(fmt, {"z": z, "y": label, "g": upstream[:, 0]})
    return Problem(fmt, {"z": z[:, 0], "t": label.astype(float) % 2, "g": upstream[:, 0]})


@pytest.mark.slow
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", ["log_softmax", "cross_entropy", "binary_cross_entropy"])
def test_sizes(name: str, layout: str) -> None:
    identity, judged = IDENTITIES[name], 0
    if layout not in judge.layouts(identity):
        pytest.skip(f"{name} is not defined for {LAYOUTS[layout].what}")
    form = identity.forms[name == "binary_cross_entropy"]
    for size, fmt in product(SIZES, FORMATS):
        # In other layouts the formats take turns, out of step with vectors of 2, 4, 8 ... numbers.
        if layout != "contiguous" and fmt != tuple(FORMATS)[(size + size // 4) % len(FORMATS)]:
            continue
        for rows, columns in [(1, size)] if layout == "unbatched" else [(4, size), (size, 3)]:
            given = problem(name, fmt, rows, columns, equal=layout == "expanded")
            if applies(identity, given, layout):
                met = judge.measure(identity, form, given, layout=layout)
                assert not any(each.failed for each in met), (size, rows, columns, fmt)
                assert not any(isinstance(each, Crash) for each in met)
                judged += 1
    assert judged >= len(SIZES)


@pytest.mark.parametrize("identity", IDENTITIES.values(), ids=IDENTITIES)
def test_contiguous_is_contiguous(identity: Identity) -> None:
    for given in (*identity.domain.edges("float32"), *identity.domain.exhaustive("float32")[:8]):
        items = execute.arguments(identity, given, "contiguous")
        assert all(item.is_contiguous() for item in items.values() if isinstance(item, Tensor))


@pytest.mark.parametrize("layout", [name for name in LAYOUTS if name not in ("contiguous", "unbatched")])
def test_no_layout_is_contiguous_in_disguise(layout: str) -> None:
    identity = IDENTITIES["cross_entropy" if layout != "first" else "softmax"]
    given = problem("cross_entropy", "float32", 6, 5, equal=layout == "expanded")
    z = execute.arguments(identity, given, layout)["z"]
    plain = z.is_contiguous() and z.shape == given["z"].shape and z.data_ptr() % 16 == 0
    assert not plain
