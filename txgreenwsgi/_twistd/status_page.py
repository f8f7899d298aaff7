"""The status page on an address of its own.

It knows the parts of the page. It must never know what they show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from twisted.internet.defer import succeed

from txgreenwsgi._status.access import Access
from txgreenwsgi._status.application import StatusApplication
from txgreenwsgi._status.feed import Feed
from txgreenwsgi._twistd.operator_listener import OperatorListener

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from txgreenwsgi._control.interface import Controlled

__all__ = ["StatusPage"]

#: Maximum number of open pages. Each one takes a request.
_MOST_PAGES: Final = 50


class StatusPage:
    """The page of one server. Call from the reactor greenlet.

    Args:
        endpoint: the endpoint string of `--status`.
        token: the secret that a reader has to give; "" for none.
        controlled: the server.
        threads: see `OperatorListener`.
    """

    def __init__(
        self, endpoint: str, token: str, controlled: Controlled, threads: int
    ) -> None:
        self._endpoint = endpoint
        self._access = Access(token, any_name=endpoint.startswith("unix:"))
        self._controlled = controlled
        self._threads = threads
        self._listener: OperatorListener | None = None
        self._feed: Feed | None = None

    def open(self, reactor: object) -> None:
        """Listen. A no-op if the port is open.

        Raises:
            StartError: the endpoint cannot be opened.
        """
        if self._listener is None:
            self._feed = feed = Feed(self._controlled, cast("Any", reactor))
            application = StatusApplication(self._controlled, feed, self._access)
            self._listener = OperatorListener(
                "--status", self._endpoint, application, self._threads, _MOST_PAGES
            )
        self._listener.open(reactor)

    def close(self) -> Deferred[None]:
        """Stop listening, and end the pages that are open.

        Returns:
            A Deferred that fires when that is done.
        """
        if self._listener is None:
            return succeed(None)
        return self._listener.close().addCallback(self._close_feed)

    def _close_feed(self, _: None) -> None:
        if self._feed is not None:
            self._feed.close()
