"""`x-wsgiorg.suspend`: suspend by yielding, until a callback resumes (2010).

Source: Manlio Perillo, "Suspend WSGI application execution", written with his
txwsgi, after a proposal of Phillip J. Eby's on the twisted-web list in 2004
(`pause_output.py`).

    resume = environ["x-wsgiorg.suspend"](5000)
    deferred.addCallback(lambda result: resume())
    yield b""
    if environ["x-wsgiorg.suspend_status"]:
        ...  # five seconds are over

It is in every environ. After several calls before one empty block, the first
`resume` to be called ends the suspension, and its `resume.called` is true.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pauses import find_pause, pause_of

if TYPE_CHECKING:
    from .pauses import Resume

__all__ = ["SuspendStatus", "suspend", "suspend_status"]


def suspend(timeout: float | None = None, /) -> Resume:
    """Suspend the application at the next empty block. Never parks; the yield does.

    Args:
        timeout: milliseconds from the yield on; None for no limit.

    Returns:
        A callable without arguments that resumes the application, from any thread.
        It may be called before the yield, which then takes one reactor turn.
    """
    seconds = None if timeout is None else timeout / 1000
    return pause_of("x-wsgiorg.suspend()").suspend(seconds)


class SuspendStatus:
    """True if the last suspension of the current request ended by its timeout."""

    def __bool__(self) -> bool:
        """Return True if the last suspension timed out."""
        pause = find_pause()
        return pause is not None and pause.suspension_timed_out


#: The value of `x-wsgiorg.suspend_status` in every environ.
suspend_status = SuspendStatus()
