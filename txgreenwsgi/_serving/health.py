"""Health checks: paths that the server answers itself.

A check is answered in the reactor greenlet, without the application, a task or a slot:
also while all slots are taken. It fails only if the reactor itself is blocked.

This file must never know a transport, or why a server is not ready.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from txgreenwsgi._wsgi.environ import in_environ

__all__ = ["HealthAnswer", "HealthPaths"]

_METHODS: Final = ("GET", "HEAD")


class HealthAnswer(NamedTuple):
    """The response to a health check.

    Attributes:
        status: the status line.
        text: the body.
        retry_after: seconds for Retry-After; 0 to omit it.
        allow: the permitted methods, if the request's is not; "" otherwise.
    """

    status: str
    text: str
    retry_after: int = 0
    allow: str = ""


class HealthPaths:
    """The two paths below the setting `health_path`.

    Args:
        path: the setting, such as "/-".

    Attributes:
        paths: both, below the prefix and decoded.
    """

    def __init__(self, path: str) -> None:
        path = in_environ(path)
        self._live = f"{path}/live"
        self._ready = f"{path}/ready"
        self.paths = frozenset((self._live, self._ready))

    def answer_to(self, method: str, path: str, unready_reason: str) -> HealthAnswer:
        """Return the response to a request.

        Args:
            method: the request method.
            path: one of `paths`.
            unready_reason: why the server is not ready; "" if it is.
        """
        if method not in _METHODS:
            return HealthAnswer(
                "405 Method Not Allowed",
                f"the method {method} is not allowed",
                allow=", ".join(_METHODS),
            )
        if path == self._live:
            return HealthAnswer("200 OK", "live")
        if unready_reason:
            return HealthAnswer("503 Service Unavailable", unready_reason, 1)
        return HealthAnswer("200 OK", "ready")
