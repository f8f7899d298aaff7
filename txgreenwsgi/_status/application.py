"""The status page as a WSGI application.

It knows paths and header fields, and asks the server behind the control socket. It must
never know workers.
"""

from __future__ import annotations

import json
import re
from importlib.resources import files
from time import time
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs

from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._switching.errors import Stopping
from txgreenwsgi._switching.waiting import wait

from .page import (
    failure_page,
    login_page,
    message_page,
    request_page,
    status_page,
    worker_page,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from txgreenwsgi._control.interface import Controlled

    from .access import Access
    from .feed import Feed

__all__ = ["StatusApplication"]

#: For each response. No script or style but the page's own, nothing from elsewhere, and
#: no frame of another page around it.
_FIELDS: Final = (
    ("Cache-Control", "no-store"),
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Robots-Tag", "noindex"),
)

_HTML: Final = "text/html; charset=utf-8"

#: Maximum size of a form.
_FORM_BYTES: Final = 4096

_IDENTITY: Final = re.compile(r"[0-9A-Za-z-]{1,64}")

_ASSETS: Final = {
    "/status.css": "text/css; charset=utf-8",
    "/status.js": "text/javascript; charset=utf-8",
}


class _Answer(NamedTuple):
    """A response."""

    status: str
    content_type: str
    body: bytes
    fields: tuple[tuple[str, str], ...] = ()


def _page(text: str, status: str = "200 OK", *fields: tuple[str, str]) -> _Answer:
    return _Answer(status, _HTML, text.encode("utf-8", "backslashreplace"), fields)


class StatusApplication:
    """The application. Its requests run in tasks.

    Args:
        controlled: the server.
        feed: its snapshots.
        access: the check of each request.
    """

    def __init__(self, controlled: Controlled, feed: Feed, access: Access) -> None:
        self._controlled = controlled
        self._feed = feed
        self._access = access
        self._assets: dict[str, bytes] = {}
        self._routes: list[
            tuple[str, re.Pattern[str], Callable[[WSGIEnvironment, str], _Answer]]
        ] = [
            ("GET", re.compile("/()"), self._status),
            ("GET", re.compile(r"/snapshot\.json()"), self._json),
            ("GET", re.compile("/requests/([^/]+)"), self._request),
            ("POST", re.compile("/requests/([^/]+)/cancel"), self._cancel),
            ("GET", re.compile("/workers/([0-9]{1,9})"), self._worker),
            ("GET", re.compile("/failures/([^/]+)"), self._failure),
        ]

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        if method == "HEAD":
            method = "GET"
        refused = self._refused(environ, method, path)
        if refused is None and (method, path) == ("GET", "/events"):
            return self._events(environ, start_response)
        answer = refused or self._answer(environ, method, path)
        start_response(
            answer.status,
            [
                ("Content-Type", answer.content_type),
                ("Content-Length", str(len(answer.body))),
                *_FIELDS,
                *answer.fields,
            ],
        )
        return [answer.body]

    def _refused(
        self, environ: WSGIEnvironment, method: str, path: str
    ) -> _Answer | None:
        """Return the response to a client that may not see the page."""
        access = self._access
        base = _base(path)
        if access.is_rebound(environ):
            text = (
                "Use an IP address or localhost in place of the name, or start the "
                "server with --status-token."
            )
            return _page(message_page("Unknown name", text, base), "403 Forbidden")
        if method == "GET" and path == "/status.css":
            return None
        if (method, path) == ("POST", "/login"):
            return self._login(environ)
        if not access.is_allowed(environ):
            return _page(
                login_page(base, failed=False),
                "401 Unauthorized",
                ("WWW-Authenticate", "Bearer"),
            )
        return None

    def _answer(self, environ: WSGIEnvironment, method: str, path: str) -> _Answer:
        base = _base(path)
        if method == "GET" and path in _ASSETS:
            return _Answer("200 OK", _ASSETS[path], self._asset(path))
        allowed = []
        for allowed_method, pattern, function in self._routes:
            found = pattern.fullmatch(path)
            if found is None:
                continue
            if allowed_method != method:
                allowed.append(allowed_method)
                continue
            try:
                return function(environ, found[1])
            except ControlError as error:
                return _page(
                    message_page("Not available", str(error), base), "404 Not Found"
                )
        if allowed:
            text = f"The method {method} is not allowed here."
            return _page(
                message_page("Not allowed", text, base),
                "405 Method Not Allowed",
                ("Allow", ", ".join(allowed)),
            )
        text = "There is no such page."
        return _page(message_page("Not found", text, base), "404 Not Found")

    def _asset(self, path: str) -> bytes:
        data = self._assets.get(path)
        if data is None:
            folder = files("txgreenwsgi._status") / "assets"
            data = self._assets[path] = (folder / path[1:]).read_bytes()
        return data

    # The pages.

    def _status(self, environ: WSGIEnvironment, _: str) -> _Answer:
        return _page(status_page(wait(self._feed.latest()).view))

    def _json(self, environ: WSGIEnvironment, _: str) -> _Answer:
        snapshot = wait(self._feed.latest()).view.snapshot
        body = json.dumps(snapshot, indent=2).encode("ascii")
        return _Answer("200 OK", "application/json", body)

    def _request(self, environ: WSGIEnvironment, of: str) -> _Answer:
        _check_identity(of)
        text = wait(self._controlled.stacks(of))
        can_cancel = wait(self._feed.latest()).view.snapshot["can_cancel"]
        form_token = self._access.form_token if can_cancel else ""
        return _page(request_page(of, text, form_token))

    def _worker(self, environ: WSGIEnvironment, of: str) -> _Answer:
        return _page(worker_page(of, wait(self._controlled.stacks(of))))

    def _failure(self, environ: WSGIEnvironment, of: str) -> _Answer:
        _check_identity(of)
        return _page(failure_page(wait(self._controlled.failure(of)), time()))

    def _cancel(self, environ: WSGIEnvironment, of: str) -> _Answer:
        _check_identity(of)
        if not self._access.is_form_token(_form(environ).get("form", "")):
            text = "The form is too old: load the page of the request again."
            return _page(message_page("Not cancelled", text, "../../"), "403 Forbidden")
        wait(self._controlled.cancel(of))
        text = f"The request {of} was cancelled."
        return _page(message_page("Cancelled", text, "../../"))

    def _login(self, environ: WSGIEnvironment) -> _Answer:
        access = self._access
        if not access.is_token(_form(environ).get("token", "")):
            return _page(login_page("", failed=True), "401 Unauthorized")
        return _Answer(
            "303 See Other",
            _HTML,
            b"",
            (("Location", "./"), ("Set-Cookie", access.cookie())),
        )

    # Server-sent events.

    def _events(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterator[bytes]:
        """Send the changing part of the page as events, until the client leaves."""
        start_response(
            "200 OK",
            [
                ("Content-Type", "text/event-stream; charset=utf-8"),
                # For nginx, which would collect the events.
                ("X-Accel-Buffering", "no"),
                *_FIELDS,
            ],
        )
        if environ["REQUEST_METHOD"] == "HEAD" or environ["txgreenwsgi.stopping"]():
            return
        try:
            drawn = wait(self._feed.latest())
            while True:
                yield _event(drawn.html)
                drawn = wait(self._feed.next())
        except (ControlError, Stopping):
            # The browser connects again.
            return


def _event(html: str) -> bytes:
    # One field for each line, or the event would end early.
    data = re.sub(r"\r\n|\r|\n", "\ndata: ", html)
    return f"retry: 2000\ndata: {data}\n\n".encode("utf-8", "backslashreplace")


def _base(path: str) -> str:
    """Return the relative URL of the status page."""
    return "../" * (path.count("/") - 1)


def _check_identity(text: str) -> None:
    """Check the form of an identity.

    Raises:
        ControlError: it is none.
    """
    if not _IDENTITY.fullmatch(text) or text.isdecimal():
        raise ControlError("there is no such identity")


def _form(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the fields of a form; none if it is too long."""
    data = environ["wsgi.input"].read(_FORM_BYTES + 1)
    if len(data) > _FORM_BYTES:
        return {}
    fields = parse_qs(data.decode("latin-1"), max_num_fields=10)
    return {name: values[0] for name, values in fields.items()}
