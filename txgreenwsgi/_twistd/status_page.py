"""The status page on an address of its own.

It knows the parts of the page. It must never know what they show.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from twisted.internet.defer import succeed

from txgreenwsgi._status.access import Access
from txgreenwsgi._status.application import StatusApplication
from txgreenwsgi._status.feed import Feed
from txgreenwsgi._twistd.operator_listener import OperatorListener

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from txgreenwsgi._control.interface import Controlled

__all__ = ["StatusPage"]


class StatusPage:
    """The page of one server. Call from the reactor greenlet.

    Args:
        address: of `--status`.
        token: the secret that a reader has to give; "" for none.
        controlled: the server.
    """

    def __init__(self, address: str, token: str, controlled: Controlled) -> None:
        self._address = address
        self._access = Access(token, any_name=address.startswith("unix:"))
        self._controlled = controlled
        self._listener: OperatorListener | None = None
        self._feed: Feed | None = None

    def open(self, reactor: object) -> None:
        """Listen. Call with the final user of the process.

        Raises:
            StartError: the address cannot be used.
        """
        self._feed = feed = Feed(self._controlled, cast("Any", reactor))
        application = StatusApplication(self._controlled, feed, self._access)
        self._listener = OperatorListener("--status", self._address, application)
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
