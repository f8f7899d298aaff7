"""The compiled fast path: its build, and its behaviour beside that of the Python path."""
