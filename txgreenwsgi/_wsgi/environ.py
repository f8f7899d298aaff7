"""The part of the environ that all requests share (PEP 3333, "environ Variables").

Knows the names that applications look for. The exchange adds the values of a single
request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._switching import greenlets, readiness, timeouts, waiting

from .files import FileWrapper
from .input import recv

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from _typeshed.wsgi import WSGIEnvironment

__all__ = ["EXTENSIONS", "base_environ", "in_environ", "is_below"]

#: Functions in the environ by key, for applications that use the server's features
#: with `environ.get` instead of importing this package, and so run elsewhere as well.
EXTENSIONS: Mapping[str, Callable[..., object]] = {
    "txgreenwsgi.current_task": greenlets.current_task,
    "txgreenwsgi.poll": readiness.poll,
    "txgreenwsgi.recv": recv,
    "txgreenwsgi.select": readiness.select,
    "txgreenwsgi.shield": timeouts.shield,
    "txgreenwsgi.sleep": waiting.sleep,
    "txgreenwsgi.spawn": waiting.spawn,
    "txgreenwsgi.suspend": waiting.suspend,
    "txgreenwsgi.timeout": timeouts.timeout,
    "txgreenwsgi.wait": waiting.wait,
    "txgreenwsgi.wait_readable": readiness.wait_readable,
    "txgreenwsgi.wait_writable": readiness.wait_writable,
}


# Keys that each request sets. They are present in the shared dict so that the copies
# do not grow, and so reallocate, while the keys are set.
_PER_REQUEST_KEYS = (
    "PATH_INFO",
    "QUERY_STRING",
    "RAW_URI",
    "REMOTE_ADDR",
    "REMOTE_PORT",
    "REQUEST_METHOD",
    "REQUEST_URI",
    "SERVER_NAME",
    "SERVER_PORT",
    "SERVER_PROTOCOL",
    "txgreenwsgi.client_disconnected",
    "txgreenwsgi.request_id",
    "txgreenwsgi.set_request_timeout",
    "txgreenwsgi.stopping",
    "waitress.client_disconnected",
    "wsgi.early_hints",
    "wsgi.errors",
    "wsgi.input",
    "wsgi.url_scheme",
)


def in_environ(text: str) -> str:
    """Return a text from the configuration as a value in the environ.

    Its bytes as latin-1 (PEP 3333, "Unicode Issues").
    """
    return text.encode("utf-8", "surrogateescape").decode("latin-1")


def is_below(prefix: str, path: str) -> bool:
    """Return whether a path is a prefix such as "/app", or continues it by a slash."""
    return path.startswith(prefix) and path[len(prefix) :][:1] in ("", "/")


def base_environ(
    software: str,
    multithread: bool,
    pairs: Iterable[tuple[str, str]] = (),
    prefix: str = "",
) -> WSGIEnvironment:
    """Return a dict to copy for each request; the copy must replace every None.

    Args:
        software: The value of SERVER_SOFTWARE.
        multithread: The value of wsgi.multithread: True if requests may overlap. One
            thread runs them all, but PEP 3333 asks whether the application "may be
            simultaneously invoked", and it may.
        pairs: Variables from the configuration; they override the server's.
        prefix: The path of the application, decoded; "" for the root.
    """
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SCRIPT_NAME": in_environ(prefix),
        "SERVER_SOFTWARE": software,
        "wsgi.version": (1, 0),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        # The input signals its own end, so applications may read a body without a
        # Content-Length until then.
        "wsgi.input_terminated": True,
        **EXTENSIONS,
        **dict.fromkeys(_PER_REQUEST_KEYS),
        **dict(pairs),
    }
