"""CPython's own tests, run on the patched library: how much of it still holds.

`python -m tests.stdlib --help` says how; see `compare.py` and `child.py`.
"""
