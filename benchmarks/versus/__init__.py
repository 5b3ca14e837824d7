"""Is B slower than A on this machine?  `python -m benchmarks.versus --a PYTHON_A --b PYTHON_B`; see README.md here."""
