"""`x-wsgiorg.fdevent`: wait for a file descriptor by yielding (May 2008).

Source: Christopher Stawarz, "Waiting for File Descriptor Events", proposed on
Web-SIG in May 2008 and kept at wsgi.readthedocs.io; uWSGI still has it.

    yield environ["x-wsgiorg.fdevent.readable"](sock, 1.0)
    if environ["x-wsgiorg.fdevent.timeout"]:
        ...

It is in every environ. What the proposal leaves undefined is defined here. Of
several calls before one empty block the first to be ready ends the wait, and
`environ["x-wsgiorg.fdevent.timeout"].ready` tells which it was. A block that is
not empty is sent, and the wait begins with the next one that is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pauses import READ, WRITE, find_pause, pause_of

if TYPE_CHECKING:
    from .pauses import Descriptor

__all__ = ["Timeout", "readable", "timeout", "writable"]


def readable(fd: Descriptor, timeout: float | None = None, /) -> bytes:
    """Ask to be resumed when `fd` can be read from. Never parks; the yield does.

    It can be read from when `select.select([fd], [], [fd])` would return: at the
    end of the file, after a hang-up or an error, and for out-of-band data too.

    Args:
        fd: a file descriptor, or an object with `fileno()`.
        timeout: seconds from the yield on; None for no limit.

    Returns:
        An empty block, to be yielded.
    """
    pause_of("x-wsgiorg.fdevent.readable()").watch(fd, READ, timeout)
    return b""


def writable(fd: Descriptor, timeout: float | None = None, /) -> bytes:
    """Ask to be resumed when `fd` can be written to. As `readable` otherwise."""
    pause_of("x-wsgiorg.fdevent.writable()").watch(fd, WRITE, timeout)
    return b""


class Timeout:
    """True while the last wait of the request that asks was ended by its timeout.

    One object serves all requests: the proposal wants an object whose truth
    changes, because a server cannot know which environ an application looks at.
    """

    def __bool__(self) -> bool:
        """Whether the timeout was first."""
        pause = find_pause()
        return pause is not None and pause.timed_out

    @property
    def ready(self) -> list[tuple[Descriptor, int]]:
        """The descriptors that ended the last wait, as they were given.

        Each with its events, a sum of `select.POLL*`; [] after a timeout.
        """
        pause = find_pause()
        return [] if pause is None else list(pause.ready)


#: The `x-wsgiorg.fdevent.timeout` of every environ.
timeout = Timeout()
