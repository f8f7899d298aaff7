"""`async.suspend`: a key that circulated for WSGI on Tornado (about 2010).

Source: a gist, never a specification. The application calls
`resume = environ['async.suspend']()` and yields `''`; a callback that has the result
calls `resume()`, which belongs to that request. Details that the gist leaves open
are as in `x-wsgiorg.suspend` (`suspend.py`): any thread may call `resume`, even before
the yield, and it returns True if it resumed the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pauses import pause_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

    from .pauses import Resume

__all__ = ["adapt", "suspend"]


def suspend() -> Resume:
    """Suspend the application at the next empty block. Never parks; the yield parks."""
    return pause_of("async.suspend()").suspend(None)


def adapt(application: WSGIApplication) -> WSGIApplication:
    """Return the application with `async.suspend` in its environ."""

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ["async.suspend"] = suspend
        return application(environ, start_response)

    return adapted
