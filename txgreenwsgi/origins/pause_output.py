"""`wsgi.pause_output`: pause by yielding, until a callback resumes (2004).

Source: Phillip J. Eby, on the twisted-web list, 16 September 2004: a single key,
`resume = environ['wsgi.pause_output']()`, "where 'resume' is then a callback
function that can be invoked to resume iteration". It grew into
`x-wsgiorg.suspend` (`suspend.py`), which has a timeout.

The application yields `b""` after the call. The server requests the next block once
`resume()` has been called, from any thread, before or after the yield.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .pauses import pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

__all__ = ["adapt", "pause_output"]


def pause_output() -> Callable[[], None]:
    """Pause the application at the next empty block. Never parks; the yield parks."""
    resume = pause_of("wsgi.pause_output()").suspend(None)

    def resume_output() -> None:
        resume()

    return resume_output


def adapt(application: WSGIApplication) -> WSGIApplication:
    """Return the application with `wsgi.pause_output` in its environ."""

    def adapted(
        environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        environ["wsgi.pause_output"] = pause_output
        return application(environ, start_response)

    return adapted
