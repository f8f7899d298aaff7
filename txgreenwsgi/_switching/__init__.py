"""Greenlets: the only room that switches. It has never heard of HTTP.

Read `tasks.py` (a task), `suspensions.py` (one wait of it) and `greenlets.py` (the
hub, which alone switches) first, then `waiting.py` (what a task may wait on),
`timeouts.py` and `readiness.py`. `guards.py` has the errors of those who wait in the
wrong place.
"""
