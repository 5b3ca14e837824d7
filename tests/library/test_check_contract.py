"""What the contract of `check` grants beside PyTorch's own arithmetic: each grant is needed, and ends where it says."""

from __future__ import annotations

import math

import numpy as np
import pytest

from equivalences.catalogue import IDENTITIES
from equivalences.formats import FORMATS
from equivalences.judging import judge
from equivalences.judging.contract import contract
from equivalences.judging.facts import INSIDE
from equivalences.model import Array, Identity, Problem
from equivalences.own.losses import LOSSES
from equivalences.running.execute import Place

LOG2_E = np.float32(1 / math.log(2))


def beyond(identity: Identity, problem: Problem, quantity: str, got: Array, bound: Array) -> int:
    """How many numbers are not within a bound."""
    return int((judge.decide(identity, problem, quantity, got, bound)[0] != INSIDE).sum())


def shares(z: Array, whole: bool = False) -> Array:
    """A softmax by exp2, in float32; of `whole` logits it multiplies before it shifts."""
    top = z.max(1, keepdims=True)
    exponent = z * LOG2_E - top * LOG2_E if whole else (z - top) * LOG2_E
    e = np.exp2(exponent.astype(np.float32))
    return np.asarray((e / e.sum(1, keepdims=True, dtype=np.float32)).astype(np.float64))


@pytest.mark.parametrize(("low", "high", "lift"), [(20, 80, 4), (0, 1, 1000)], ids=["tail", "offset"])
def test_exp_as_exp2_is_granted_for_shifted_logits_alone(low: float, high: float, lift: float) -> None:
    identity, draw = IDENTITIES["softmax"], np.random.default_rng(0)
    top = draw.uniform(0.8 * lift, lift, 2048).astype(np.float32)
    z = np.stack([top, top - draw.uniform(low, high, 2048).astype(np.float32)], 1)
    problem = Problem("float32", {"z": z.astype(float), "g": np.ones(z.shape)})
    plain = judge.reference_run(identity, problem, Place()).bound["value"]
    granted = contract(identity, problem, Place())["value"]
    assert beyond(identity, problem, "value", shares(z), granted) == 0
    if lift < 10:
        assert beyond(identity, problem, "value", shares(z), plain)
        assert (granted <= 2.5 * plain).all()
    else:
        assert beyond(identity, problem, "value", shares(z, whole=True), granted)


def test_a_subnormal_gradient_may_be_stored_once_more() -> None:
    """As where exp2 of a shifted logit is kept in float16: exponential, share and gradient are stored in turn."""
    (case,) = LOSSES["cross_entropy"].cases((), "none", ("contiguous",))
    fmt, short, g, count = FORMATS["float16"], np.float16, 1.5, 3000
    z = np.zeros((count, 3))
    z[:, 1:] = np.stack([np.full(count, -0.4), -np.linspace(13.0, 16.0, count)], 1).astype(short)
    items = {"z": z, "y": np.zeros(count, int), "reduction": "none", "g": np.full(count, g)}
    problem = Problem("float16", items)
    e = np.exp(z)
    got = e / e.sum(1, keepdims=True) * g
    got[:, 0] -= g
    got[:, 2] = ((e[:, 2].astype(short) / e.sum(1)).astype(short) * g).astype(short)
    got = got.astype(short).astype(np.float64)
    allowed = contract(case.identity, problem, Place())["gradient z"]
    assert beyond(case.identity, problem, "gradient z", got, allowed) == 0
    assert beyond(case.identity, problem, "gradient z", got, allowed - fmt.eta * (np.abs(got) < fmt.tiny))


def test_a_gradient_that_is_added_up_over_chunks_is_granted_one_rounding_more() -> None:
    identity = IDENTITIES["linear_cross_entropy_rows"]
    wider = 0
    for problem in identity.domain.edges("float16")[:4]:
        alone = judge.reference_run(identity, problem, Place())
        granted = contract(identity, problem, Place())
        for name in ("W", "b"):
            once = FORMATS["float16"].u * np.abs(alone.exact[f"gradient {name}"])
            more = granted[f"gradient {name}"] - alone.bound[f"gradient {name}"]
            assert (more >= once)[np.isfinite(more)].all()
            wider += int((once > 0).sum())
    assert wider
