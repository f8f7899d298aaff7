"""`async.suspend`: the key that circulated for WSGI on Tornado (about 2010).

Source: a gist, never a specification. Its application calls
`resume = environ['async.suspend']()`, yields `''`, and whoever has the result
calls `resume()`, which belongs to that request. What the gist does not say is as
for `x-wsgiorg.suspend` (`suspend.py`): `resume` is for any thread, may come
before the yield, and tells whether it was what resumed the application.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .pauses import pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .pauses import Resume

    Application = Callable[..., Iterable[bytes]]

__all__ = ["adapt", "suspend"]


def suspend() -> Resume:
    """Ask to be suspended at the next empty block. Never parks; the yield does."""
    return pause_of("async.suspend()").suspend(None)


def adapt(application: Application) -> Application:
    """The application with `async.suspend` in its environ."""

    def adapted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["async.suspend"] = suspend
        return application(environ, start_response)

    return adapted
