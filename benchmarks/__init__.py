"""Benchmarks against other servers and other revisions: `python -m benchmarks`.

The package `txgreenwsgi` imports nothing from here.
"""
