"""The application that answers while the real one does not start.

It knows HTML and PEP 3333. It must never know why the application does not start.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["FailurePage"]

_PAGE: Final = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
{refresh}<style>
body {{ font: 16px/1.5 sans-serif; margin: 2rem; color: #222; background: #fff; }}
pre {{ font: 14px/1.4 monospace; padding: 1rem; overflow: auto; background: #f4f4f4; }}
h1 {{ font-size: 1.3rem; color: #a00; }}
</style>
</head>
<body>
<h1>{title}</h1>
<pre>{text}</pre>
<p>The server starts it again when a file changes.</p>
</body>
</html>
"""
#: A browser that shows the page asks again, and so shows the application once it runs.
_REFRESH: Final = '<meta http-equiv="refresh" content="2">\n'
_TITLE: Final = "The application does not start"


class FailurePage:
    """A WSGI application that answers 500 with a reason.

    Args:
        reason: a message or a traceback.
    """

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer with a page for browsers, and with plain text for other clients."""
        if "text/html" in environ.get("HTTP_ACCEPT", ""):
            kind = "text/html; charset=utf-8"
            text = _PAGE.format(
                title=_TITLE,
                refresh=_REFRESH if environ["REQUEST_METHOD"] == "GET" else "",
                text=escape(self._reason),
            )
        else:
            kind = "text/plain; charset=utf-8"
            text = f"{_TITLE}\n\n{self._reason}\n"
        body = text.encode("utf-8", "backslashreplace")
        start_response(
            "500 Internal Server Error",
            [
                ("Content-Type", kind),
                ("Content-Length", str(len(body))),
                ("Cache-Control", "no-store"),
            ],
        )
        return [body]
