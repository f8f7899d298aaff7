"""The asynchronous functions of uWSGI's `uwsgi` module.

Source: the uWSGI documentation, "uWSGI asynchronous/non-blocking modes", and
`uwsgi_pymodule.c`. After `wait_fd_read`, `wait_fd_write` (several may be called)
or `async_sleep` the application either yields `b""`, or calls `suspend()`, at any
call depth. Timeouts are in seconds, 0 for none.
`environ["x-wsgiorg.fdevent.timeout"]` is true after a timeout.

`import uwsgi` finds these functions once `prepare()` was called: the command's
`--origin uwsgi` calls it before it imports the application, and so does `adapt()`.
The module has these functions only: `hasattr(uwsgi, "cache_get")` is false.
"""

from __future__ import annotations

import select
import sys
from types import ModuleType
from typing import TYPE_CHECKING

from .pauses import READ, WRITE, find_pause, pause_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .pauses import Descriptor

__all__ = [
    "adapt",
    "async_sleep",
    "module",
    "prepare",
    "ready_fd",
    "suspend",
    "wait_fd_read",
    "wait_fd_write",
]


def wait_fd_read(fd: Descriptor, timeout: float = 0) -> bytes:
    """Pause until `fd` is readable; return an empty block, to be yielded."""
    pause_of("uwsgi.wait_fd_read()").watch(fd, READ, timeout or None)
    return b""


def wait_fd_write(fd: Descriptor, timeout: float = 0) -> bytes:
    """Pause until `fd` is writable; return an empty block, to be yielded."""
    pause_of("uwsgi.wait_fd_write()").watch(fd, WRITE, timeout or None)
    return b""


def async_sleep(timeout: float) -> bytes:
    """Pause for `timeout` seconds; return an empty block, to be yielded."""
    pause_of("uwsgi.async_sleep()").limit(timeout)
    return b""


def suspend() -> None:
    """Wait for the requested events, at least for one reactor turn. May park."""
    pause_of("uwsgi.suspend()").wait()


def ready_fd() -> int:
    """Return the descriptor that ended the last wait; -1 after a timeout.

    Never parks.
    """
    pause = find_pause()
    for fd, events in pause.ready if pause is not None else ():
        if not events & select.POLLNVAL:
            return fd if isinstance(fd, int) else fd.fileno()
    return -1


def _make_module() -> ModuleType:
    uwsgi = ModuleType("uwsgi", __doc__)
    for function in (wait_fd_read, wait_fd_write, async_sleep, suspend, ready_fd):
        setattr(uwsgi, function.__name__, function)
    return uwsgi


#: The module that `import uwsgi` finds.
module = _make_module()


def prepare() -> None:
    """Let `import uwsgi` find `module`, unless uWSGI itself runs. Never parks."""
    sys.modules.setdefault("uwsgi", module)


def adapt(application: WSGIApplication) -> WSGIApplication:
    """Return the application with the `uwsgi` module and `uwsgi.ready_fd` in environ.

    The value is the descriptor that ended the last wait by a yield; None after a
    timeout, as in uWSGI.
    """
    prepare()

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes]:
        environ["uwsgi.ready_fd"] = None
        blocks = application(environ, start_response)
        try:
            for block in blocks:
                yield block
                fd = ready_fd()
                environ["uwsgi.ready_fd"] = None if fd < 0 else fd
        finally:
            close = getattr(blocks, "close", None)
            if close is not None:
                close()

    return adapted
