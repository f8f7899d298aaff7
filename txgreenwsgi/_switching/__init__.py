"""Tasks in greenlets: the only package that switches.

It knows greenlets and the reactor; it must never know HTTP. Read `tasks.py` (a task),
`suspensions.py` (one wait of a task) and `greenlets.py` (the hub, which alone switches)
first, then `waiting.py` (waits for Deferreds, awaitables and time), `timeouts.py` and
`readiness.py`. `guards.py` raises errors for waits in the wrong place.
"""
