"""A visitor of a site: keeps cookies, and sends forms as a browser would.

It knows HTTP and how Django marks its forms. It must never know the site.
"""

from __future__ import annotations

import re
from http.cookies import SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import urlencode

if TYPE_CHECKING:
    from .processes import Answer, RawClient, Server

__all__ = ["Visitor"]

_TOKEN = re.compile(r'name="csrfmiddlewaretoken" value="(\w+)"')


class Visitor:
    """One browser, without a window."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.cookies: dict[str, str] = {}

    @property
    def cookie(self) -> str:
        """What the field Cookie says."""
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def fetch(
        self,
        path: str,
        method: str = "GET",
        body: bytes | str | None = None,
        **fields: str,
    ) -> Answer:
        """Send one request with the cookies, and keep those that come back."""
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        answer = self.server.fetch(
            path, method, body, {"Cookie": self.cookie, **headers}
        )
        for line in answer.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
        return answer

    def token(self, path: str) -> str:
        """Open the page with the form, and take its token."""
        page = self.fetch(path)
        found = _TOKEN.search(page.text)
        if found is None:
            raise AssertionError(f"no token in {page.status} {page.text}")
        return found[1]

    def submit(self, path: str, page: str = "", **fields: str) -> Answer:
        """Fill in the form that is at `page` (by default `path`), and send it."""
        form = {"csrfmiddlewaretoken": self.token(page or path), **fields}
        return self.fetch(
            path,
            "POST",
            urlencode(form),
            Content_Type="application/x-www-form-urlencoded",
        )

    def listen(self, path: str, **fields: str) -> RawClient:
        """Ask for a stream, and read its head; the rest is the caller's."""
        client = self.server.connect()
        lines = [f"GET {path} HTTP/1.0", "Host: localhost", f"Cookie: {self.cookie}"]
        lines += [
            f"{name.replace('_', '-')}: {value}" for name, value in fields.items()
        ]
        client.send("\r\n".join([*lines, "", ""]).encode())
        head = client.read_until(b"\r\n\r\n")
        if b" 200 " not in head:
            raise AssertionError(f"{path}: {head!r}")
        return client
