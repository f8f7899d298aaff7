"""The tests of CPython's that fail on the patched library, each with its reason.

For Python 3.11, where they are measured, and for 3.13.
"""

from __future__ import annotations

__all__ = ["REASONS"]

_ARGUMENTS = (
    "counts references while the traceback of the call is alive; a function "
    "written in Python keeps its arguments in its frame, which that holds"
)
_PREEMPTION = (
    "the main thread turns in a loop without waiting until another thread has "
    "interrupted it; a task that does not wait lets no other run"
)
_ASYNC_EXC = (
    "raises an exception in a thread by PyThreadState_SetAsyncExc, which takes "
    "the ident of a thread of the interpreter; a task has none"
)

#: {test id: why it fails}
REASONS = {
    "test.test_socket.GeneralModuleTests.testRefCountGetNameInfo": _ARGUMENTS,
    "test.test_threading.InterruptMainTests.test_can_interrupt_tight_loops": (
        _PREEMPTION
    ),
    "test.test_threading.ThreadTests.test_PyThreadState_SetAsyncExc": _ASYNC_EXC,
    # Python 3.13
    "test.test_threading.CRLockTests.test_signature": (
        "passes arguments to RLock() to see them warned of; ours refuses them"
    ),
    "test.test_threading.ThreadTests.test_lock_no_subclass": (
        "expects the class of locks to refuse subclasses, as classes in C do"
    ),
}
