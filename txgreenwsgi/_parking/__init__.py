"""Cooperative primitives: waits, descriptors, locks, thread-locals, dedicated threads.

`green`, `pools`, `isolation` and `django` are built on this package, which has no
public API. One rule holds in every module: in a task a
blocking call parks the task; everywhere else (the reactor greenlet, a real thread, the
child of a fork) it does exactly what the original of the standard library does. Ask
`txgreenwsgi._switching.running.current_task()` which of the two applies.

Read `waits.py` first, then `descriptors.py`, `locks.py` (shared by threads and tasks)
and `wait_queue.py`.

This package knows the switching package and the standard library. It must never know
HTTP, WSGI or transports.
"""
