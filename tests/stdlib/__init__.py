"""CPython's own tests, run on the patched standard library.

Usage: `python -m tests.stdlib --help`; see `compare.py` and `child.py`.
"""
