"""Pictures of results: `python -m benchmarks.plot RESULT.json ... -o FOLDER`."""
