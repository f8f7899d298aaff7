"""Greenlets: the only room that switches. It has never heard of HTTP.

Read `greenlets.py` first (tasks, the hub, one wait), then `waiting.py` (what a
task may wait on), `timeouts.py`, `readiness.py` and `pool.py`.
"""
