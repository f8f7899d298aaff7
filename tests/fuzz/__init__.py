"""Fuzzing guided by coverage: `python -m tests.fuzz`, with the extra `fuzz`."""
