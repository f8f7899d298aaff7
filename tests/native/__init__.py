"""The compiled fast path: its build, and its behaviour beside the Python path."""
