"""What is the same in the environ of every request (PEP 3333, "environ Variables").

It knows the names that applications look for. What differs from request to
request is added by whoever has the request.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi._switching import greenlets, readiness, timeouts, waiting

from .files import FileWrapper
from .input import recv

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["EXTENSIONS", "base_environ"]

#: The functions that an application finds in its environ, so that it needs no
#: import of this package and runs elsewhere by `environ.get`.
EXTENSIONS: dict[str, Any] = {
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


# What is different in each request. The keys are in the dict that is copied, which
# then need not grow while they are set.
_OF_EACH_REQUEST = (
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
    "waitress.client_disconnected",
    "wsgi.errors",
    "wsgi.input",
    "wsgi.url_scheme",
)


def base_environ(
    software: str, multithread: bool, pairs: Iterable[tuple[str, str]] = ()
) -> dict[str, Any]:
    """A dict to copy for each request; what is None there must be set in the copy.

    Args:
        software: SERVER_SOFTWARE.
        multithread: whether more than one request may run at once. One thread
            runs them all, but the clause asks whether the application "may be
            simultaneously invoked", and it may.
        pairs: what the deployer adds.
    """
    return {
        "GATEWAY_INTERFACE": "CGI/1.1",
        "SCRIPT_NAME": "",
        "SERVER_SOFTWARE": software,
        "wsgi.version": (1, 0),
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.file_wrapper": FileWrapper,
        # The input ends by itself, so applications may read a body without a
        # Content-Length to its end.
        "wsgi.input_terminated": True,
        **EXTENSIONS,
        **dict.fromkeys(_OF_EACH_REQUEST),
        **dict(pairs),
    }
