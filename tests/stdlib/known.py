"""CPython tests known to fail on the patched library, with the reasons.

For Python 3.11, on which the documented results were measured, and for 3.13.
"""

from __future__ import annotations

__all__ = ["REASONS"]

_ARGUMENTS = (
    "counts references while the traceback of the call is alive; the frame of a "
    "function written in Python keeps references to its arguments"
)
_PREEMPTION = (
    "the main thread loops without waiting until another thread interrupts it; "
    "while a task does not wait, no other task runs"
)
_ASYNC_EXC = (
    "raises an exception in a thread by PyThreadState_SetAsyncExc, which needs the "
    "ident of a real thread"
)
_NONBLOCKING = (
    "expects the descriptor of a socket without a time limit in blocking mode; that of "
    "a green socket is non-blocking, so that C code on it cannot block the reactor"
)

#: Reasons by test id.
REASONS = {
    "test.test_socket.GeneralModuleTests.testRefCountGetNameInfo": _ARGUMENTS,
    "test.test_socket.NonBlockingTCPTests.testSetBlocking": _NONBLOCKING,
    "test.test_socket.NonBlockingTCPTests.testSetBlocking_overflow": _NONBLOCKING,
    "test.test_socket.NonblockConstantTest.test_SOCK_NONBLOCK": _NONBLOCKING,
    "test.test_threading.InterruptMainTests.test_can_interrupt_tight_loops": (
        _PREEMPTION
    ),
    "test.test_threading.ThreadTests.test_PyThreadState_SetAsyncExc": _ASYNC_EXC,
    # Python 3.13
    "test.test_threading.CRLockTests.test_signature": (
        "expects a warning for arguments of RLock(); the green one rejects them"
    ),
    "test.test_threading.ThreadTests.test_lock_no_subclass": (
        "expects that the class of locks rejects subclasses, as C classes do"
    ),
}
