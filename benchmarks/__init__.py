"""Timings of training, losses, loading and the gate: one registry of cases, on real data, each proved right."""
