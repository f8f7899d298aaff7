"""Access to the status page: the check of each request.

Without a token, the page listens where only this machine reaches it. A web page in a
browser of this machine could still reach it under a name of its own, which resolves to
this machine; so without a token a name other than localhost is refused.

It knows header fields. It must never know what is shown.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Access", "is_local_name"]

_COOKIE: Final = "txgreenwsgi_status"

_HOST: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([^:\[\]]+))(?::[0-9]+)?")


def is_local_name(host: str) -> bool:
    """Return whether the value of a Host field cannot be a name in the DNS.

    It is an IP address, localhost, or a name below that (RFC 6761 section 6.3).
    """
    found = _HOST.fullmatch(host.strip())
    if found is None:
        return False
    name = (found[1] or found[2]).lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


class Access:
    """The check for one status page.

    Args:
        token: the secret that a reader has to give; "" for none.
        any_name: whether the page may be served under any name. Only for a UNIX
            socket, which a browser does not reach.

    Attributes:
        form_token: a secret in the forms of the pages, so that other pages cannot send
            them.
    """

    def __init__(self, token: str, *, any_name: bool = False) -> None:
        self._token = token
        self._any_name = any_name or bool(token)
        self.form_token = secrets.token_urlsafe(24)
        digest = hashlib.sha256(f"status page {token}".encode()).hexdigest()
        # Browsers send cookies to all ports of a host, which may have other pages.
        self._cookie_name = f"{_COOKIE}_{digest[:8]}"
        self._cookie = digest[8:]

    def is_rebound(self, environ: Mapping[str, Any]) -> bool:
        """Return whether the page was asked for under a name that may be foreign."""
        return not self._any_name and not is_local_name(environ.get("HTTP_HOST", ""))

    def is_allowed(self, environ: Mapping[str, Any]) -> bool:
        """Return whether the client has given the token."""
        if not self._token:
            return True
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer" and self.is_token(given.strip()):
            return True
        cookies: SimpleCookie = SimpleCookie()
        try:
            cookies.load(environ.get("HTTP_COOKIE", ""))
        except CookieError:
            return False
        found = cookies.get(self._cookie_name)
        return found is not None and _equal(found.value, self._cookie)

    def is_token(self, text: str) -> bool:
        """Return whether a text is the token, in constant time."""
        return bool(self._token) and _equal(text, self._token)

    def is_form_token(self, text: str) -> bool:
        """Return whether a form comes from a page of this server."""
        return _equal(text, self.form_token)

    def cookie(self) -> str:
        """Return the value of Set-Cookie for a client that has given the token."""
        return f"{self._cookie_name}={self._cookie}; Path=/; HttpOnly; SameSite=Lax"


def _equal(one: str, other: str) -> bool:
    return hmac.compare_digest(
        one.encode("utf-8", "surrogatepass"), other.encode("utf-8", "surrogatepass")
    )
