"""`x-wsgiorg.fdevent`: wait for a file descriptor by yielding (May 2008).

Source: Christopher Stawarz, "Waiting for File Descriptor Events", proposed on
Web-SIG in May 2008 and kept at wsgi.readthedocs.io; uWSGI still has it.

    yield environ["x-wsgiorg.fdevent.readable"](sock, 1.0)
    if environ["x-wsgiorg.fdevent.timeout"]:
        ...

It is in every environ. Two cases that the proposal leaves undefined: after several
calls before one empty block, the first ready descriptor ends the wait, and
`environ["x-wsgiorg.fdevent.timeout"].ready` names it. A non-empty block is sent, and
the wait begins with the next empty one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pauses import READ, WRITE, find_pause, pause_of

if TYPE_CHECKING:
    from .pauses import Descriptor

__all__ = ["Timeout", "readable", "timeout", "writable"]


def readable(fd: Descriptor, timeout: float | None = None, /) -> bytes:
    """Pause at the next empty block until `fd` is readable.

    Never parks; the yield parks. `fd` is readable when `select.select([fd], [], [fd])`
    would return, including at end of file, after a hang-up or an error, and for
    out-of-band data.

    Args:
        fd: a file descriptor, or an object with `fileno()`.
        timeout: seconds, counted from the yield; None for no limit.

    Returns:
        An empty block, to be yielded.
    """
    pause_of("x-wsgiorg.fdevent.readable()").watch(fd, READ, timeout)
    return b""


def writable(fd: Descriptor, timeout: float | None = None, /) -> bytes:
    """Pause at the next empty block until `fd` is writable; otherwise as `readable`."""
    pause_of("x-wsgiorg.fdevent.writable()").watch(fd, WRITE, timeout)
    return b""


class Timeout:
    """True if the last wait of the current request ended by its timeout.

    One object serves all requests: the proposal specifies an object whose truth
    value changes, because a server cannot know which copy of environ an application
    reads.
    """

    def __bool__(self) -> bool:
        """Return True if the last wait timed out."""
        pause = find_pause()
        return pause is not None and pause.timed_out

    @property
    def ready(self) -> list[tuple[Descriptor, int]]:
        """The descriptors that ended the last wait, with their events.

        Descriptors as given, events as a sum of `select.POLL*`; [] after a timeout.
        """
        pause = find_pause()
        return [] if pause is None else list(pause.ready)


#: The value of `x-wsgiorg.fdevent.timeout` in every environ.
timeout = Timeout()
