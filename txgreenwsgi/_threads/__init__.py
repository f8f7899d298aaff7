"""Requests in real threads, for applications that block.

`calls.py` runs one function in a thread for a task, `pool.py` has the threads,
`gate.py` keeps those that hold the GIL from competing with the reactor, `runner.py`
calls the application of a request in a thread, `routes.py` chooses the requests.

This package knows tasks and the gateway. It must never know connections.
"""
