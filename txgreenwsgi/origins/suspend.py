"""`x-wsgiorg.suspend`: be suspended by yielding, until someone resumes you (2010).

Source: Manlio Perillo, "Suspend WSGI application execution", written with his
txwsgi, after a proposal of Phillip J. Eby's on the twisted-web list in 2004
(`pause_output.py`).

    resume = environ["x-wsgiorg.suspend"](5000)
    deferred.addCallback(lambda result: resume())
    yield b""
    if environ["x-wsgiorg.suspend_status"]:
        ...  # five seconds are over

It is in every environ. Of several calls before one empty block the first to be
resumed ends the suspension, and its `resume.called` is true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pauses import find_pause, pause_of

if TYPE_CHECKING:
    from .pauses import Resume

__all__ = ["SuspendStatus", "suspend", "suspend_status"]


def suspend(timeout: float | None = None, /) -> Resume:
    """Ask to be suspended at the next empty block. Never parks; the yield does.

    Args:
        timeout: milliseconds from the yield on; None for no limit.

    Returns:
        A callable without arguments, for any thread, that resumes the
        application. It may be called before the yield, which then suspends for
        no more than a turn.
    """
    seconds = None if timeout is None else timeout / 1000
    return pause_of("x-wsgiorg.suspend()").suspend(seconds)


class SuspendStatus:
    """True while the last suspension of the request that asks ended by its timeout."""

    def __bool__(self) -> bool:
        """Whether the timeout was first."""
        pause = find_pause()
        return pause is not None and pause.suspension_timed_out


#: The `x-wsgiorg.suspend_status` of every environ.
suspend_status = SuspendStatus()
