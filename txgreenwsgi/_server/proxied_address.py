"""The address of a client that a proxy has named by the PROXY protocol.

This file knows addresses. It must never know connections.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from twisted.internet.interfaces import IAddress
from zope.interface import implementer

from txgreenwsgi._serving.stream import Ends

from .ends import server_name

if TYPE_CHECKING:
    from txgreenwsgi._http.proxy_protocol import ProxyHeader

__all__ = ["ProxiedAddress"]


@implementer(IAddress)
class ProxiedAddress:
    """The address of a client that a proxy has named, in place of the peer's.

    Args:
        header: the header, with a source.
    """

    __slots__ = ("_header",)

    def __init__(self, header: ProxyHeader) -> None:
        assert header.source is not None
        self._header = header

    def ends(self, ends: Ends, url_scheme: str) -> Ends:
        """Return the ends of a connection as the proxy saw them.

        Args:
            ends: those of the connection to the proxy.
            url_scheme: the scheme that the deployer set; "" if none.
        """
        source, destination, is_tls = self._header
        assert source is not None
        server = ends[:2]
        if destination is not None:
            server = server_name(destination.address), destination.port
        scheme = "https" if is_tls and not url_scheme else ends.url_scheme
        return Ends(*server, *source, scheme, *ends[5:])
