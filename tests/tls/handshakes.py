"""Handshakes in memory between a listener and a client of the standard library.

It knows TLS. It must never know HTTP.
"""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING, Any, NamedTuple

from OpenSSL import SSL
from twisted.internet.task import Clock

from txgreenwsgi._tls.listener import TLSListener
from txgreenwsgi._tls.options import TLSOptions

if TYPE_CHECKING:
    from tests.certificate import Authority

__all__ = ["Shaken", "client_context", "listener", "shake"]


class Shaken(NamedTuple):
    """A completed handshake.

    Attributes:
        client: the client's end.
        server: the server's end.
    """

    client: ssl.SSLObject
    server: SSL.Connection

    @property
    def names(self) -> list[str]:
        """The DNS names of the server's certificate; empty if it is not verified."""
        certificate: Any = self.client.getpeercert()
        return [value for _, value in certificate.get("subjectAltName", ())]


def listener(clock: Clock | None = None, **options: Any) -> TLSListener:
    """Return a listener that has loaded the files of `options`."""
    made = TLSListener(TLSOptions(**options), [b"http/1.1"], clock or Clock())
    made.use(made.load())
    return made


def client_context(
    authority: Authority | None = None,
    certificate: tuple[str, str] | None = None,
    version: ssl.TLSVersion | None = None,
) -> ssl.SSLContext:
    """Return the context of a client.

    Args:
        authority: the authority that it trusts; None to verify nothing.
        certificate: the files of its own certificate and key.
        version: the only version of TLS that it speaks; None for all.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    if authority is None:
        context.verify_mode = ssl.CERT_NONE
    else:
        context.load_verify_locations(cadata=authority.pem.decode())
    if certificate is not None:
        context.load_cert_chain(*certificate)
    if version is not None:
        context.minimum_version = context.maximum_version = version
    return context


def shake(
    tls: TLSListener,
    name: str | None = None,
    context: ssl.SSLContext | None = None,
    session: ssl.SSLSession | None = None,
) -> Shaken:
    """Return the ends of a completed handshake.

    Raises:
        ssl.SSLError: the client does not accept it.
        SSL.Error: the server does not accept it.
    """
    context = context or client_context()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname=name, session=session)
    server = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
    server.set_accept_state()
    done = False
    for _ in range(10):
        try:
            client.do_handshake()
            done = True
        except ssl.SSLWantReadError:
            pass
        if data := outgoing.read():
            server.bio_write(data)
        try:
            server.do_handshake()
        except SSL.WantReadError:
            pass
        else:
            if done:
                break
        finally:
            _transfer(server, incoming)
    # Tickets of TLS 1.3 come behind the handshake.
    server.send(b"x")
    _transfer(server, incoming)
    assert client.read(1) == b"x"
    return Shaken(client, server)


def _transfer(server: SSL.Connection, incoming: ssl.MemoryBIO) -> None:
    try:
        while True:
            incoming.write(server.bio_read(65536))
    except SSL.WantReadError:
        pass
