"""Loads the suite's pytest options and Hypothesis profiles for every test below this folder."""

pytest_plugins = ["equivalences.plugin", "benchmarks.plugin"]
