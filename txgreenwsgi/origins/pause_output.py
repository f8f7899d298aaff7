"""`wsgi.pause_output`: be paused by yielding, until someone resumes you (2004).

Source: Phillip J. Eby, on the twisted-web list, 16 September 2004: a single key,
`resume = environ['wsgi.pause_output']()`, "where 'resume' is then a callback
function that can be invoked to resume iteration". It grew into
`x-wsgiorg.suspend` (`suspend.py`), which has a timeout.

The application yields `b""` after the call, and is asked for its next block when
`resume()` was called, in whatever thread, before or after the yield.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .pauses import pause_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Application = Callable[..., Iterable[bytes]]

__all__ = ["adapt", "pause_output"]


def pause_output() -> Callable[[], None]:
    """Ask to be paused at the next empty block. Never parks; the yield does."""
    resume = pause_of("wsgi.pause_output()").suspend(None)

    def resume_output() -> None:
        resume()

    return resume_output


def adapt(application: Application) -> Application:
    """The application with `wsgi.pause_output` in its environ."""

    def adapted(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        environ["wsgi.pause_output"] = pause_output
        return application(environ, start_response)

    return adapted
