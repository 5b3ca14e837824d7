"""The pytest plugin: options in the field's words, Hypothesis profiles, and the parameters of the gate.

A test that takes `identity` and `fmt` is run once for every identity and format asked for, as ``[softmax-bfloat16]``;
`device` and `mode` are fixtures.  Loaded by the conftest.py at the root; needs nothing of the tests.
"""

from __future__ import annotations

import os
from itertools import product

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, Phase

from equivalences import choices
from equivalences.formats import FORMATS

# Examples are an identity's: its formats share them.
# An example judges every form of an identity: slow beside what Hypothesis expects, and of no concern to it.
_COMMON = hypothesis.settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
_STEPS = (Phase.explicit, Phase.reuse, Phase.generate, Phase.shrink)

hypothesis.settings.register_profile("dev", _COMMON, max_examples=25, phases=_STEPS)
hypothesis.settings.register_profile("ci", _COMMON, max_examples=100, derandomize=True, database=None, phases=_STEPS)
hypothesis.settings.register_profile("nightly", _COMMON, max_examples=2000, phases=(*_STEPS, Phase.target))
hypothesis.settings.load_profile("ci")  # unless --hypothesis-profile names another


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("equivalences", "what is judged, and where")
    group.addoption("--identity", action="append", default=[], metavar="NAME", help="a name, a family or a glob")
    group.addoption("--format", action="append", default=[], metavar="FORMAT", help=f"of {', '.join(FORMATS)}")
    group.addoption("--device", default="cpu", help="cpu (default), cuda, ...")
    group.addoption("--mode", default="eager", metavar="MODE", help="eager (default) or compiled")


def pytest_configure(config: pytest.Config) -> None:
    try:
        choices.identities(config.getoption("identity"))
        choices.formats(config.getoption("format"))
        choices.device(config.getoption("device"))
        choices.mode(config.getoption("mode"))
    except choices.Unknown as error:
        raise pytest.UsageError(str(error)) from None
    if "PYTEST_XDIST_WORKER" in os.environ:
        torch.set_num_threads(1)  # the workers share the cores already


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if not {"identity", "fmt"} <= set(metafunc.fixturenames):
        return
    option = metafunc.config.getoption
    identities, formats = choices.identities(option("identity")), choices.formats(option("format"))
    cells = [(identity, fmt) for identity, fmt in product(identities, formats) if fmt in identity.formats]
    metafunc.parametrize(("identity", "fmt"), cells, ids=[f"{identity.name}-{fmt}" for identity, fmt in cells])


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("device"))


@pytest.fixture(scope="session")
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.config.getoption("mode"))
