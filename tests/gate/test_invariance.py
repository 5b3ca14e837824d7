"""The same bits at every place of a batch and for one thread or two, but for what is known to differ."""

from __future__ import annotations

import pytest
import torch

from equivalences import devices
from equivalences.findings import invariance
from equivalences.findings.invariance import CASES, Case
from equivalences.formats import FORMATS


@pytest.mark.parametrize("fmt", list(FORMATS))
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_only_what_is_known_varies(case: Case, fmt: str, device: str) -> None:
    if device == "cpu" and (capability := torch.backends.cpu.get_cpu_capability()) != "AVX512":
        pytest.skip(
            "the list in equivalences/findings/invariance.py is for AVX512, "
            f"this is {capability}: read its table instead"
        )
    known = invariance.VARIES.get(devices.kind(device), {})
    for what, found in invariance.invariants(case, fmt, device).items():
        if fmt not in known.get((case.name, what), ()):
            assert all(found.values()), (what, found)


def test_what_depends_on_the_position_is_seen() -> None:
    def run(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return z.exp() * (1 + 2.0**-23 * (torch.arange(len(z)) == 66)[:, None]), z

    assert invariance.positions(Case("the last row differs", run), "float32") == {"value": False, "gradient": True}


def test_a_sign_of_zero_and_a_nan_count() -> None:
    zero, nan = torch.zeros(2), torch.full((2,), torch.nan)
    assert not invariance._equal(zero, -zero)
    assert invariance._equal(nan, nan.clone())
