"""Measures the server side by side with its peers: `python -m benchmarks`.

Nothing here is imported by the package or by its tests.
"""
