"""Loads the suite's pytest options and Hypothesis profiles for every test below; the profile `dev` is a quick look."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis
import pytest

from equivalences.__main__ import main

pytest_plugins = ["equivalences.gate.plugin", "benchmarks.plugin"]

LEFT_OUT = pytest.mark.skip(reason="slow, and this is a quick look: --hypothesis-profile=ci has it")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if hypothesis.settings.get_current_profile_name() == "dev":
        for item in items:
            if item.get_closest_marker("slow"):
                item.add_marker(LEFT_OUT)


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """The command, as a function of its arguments: status, output, error output."""

    def run(*arguments: str) -> tuple[int, str, str]:
        status = main(arguments)
        captured = capfd.readouterr()
        return status, captured.out, captured.err

    return run
