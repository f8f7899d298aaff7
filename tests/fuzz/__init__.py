"""Coverage-guided fuzzing: `python -m tests.fuzz`, with the extra `fuzz`."""
