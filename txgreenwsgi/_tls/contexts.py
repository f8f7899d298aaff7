"""OpenSSL contexts: how a connection negotiates, and with which certificate.

Each connection begins with the *front* context, which has no certificate. When the
client has sent its server name, the context of the right certificate takes its place.
OpenSSL takes the keys of session tickets from the first one, so that sessions can be
resumed after a certificate was renewed.

It knows OpenSSL. It must never know files.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding
from OpenSSL import SSL
from OpenSSL.crypto import X509, X509StoreFlags

from .errors import TLSError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cryptography import x509

    from .certificates import KeyedCertificate
    from .options import TLSOptions

__all__ = ["Policy", "handshake_error", "reason_of"]

#: Ciphers of TLS 1.2: forward secrecy and authenticated encryption only, which is
#: also what HTTP/2 demands (RFC 9113 section 9.2.2). All browsers since 2015 have one.
_CIPHERS: Final = ":".join(
    f"ECDHE-{kind}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for kind in ("ECDSA", "RSA")
)
_VERSIONS: Final = {"1.2": SSL.TLS1_2_VERSION, "1.3": SSL.TLS1_3_VERSION}
_VERIFY: Final = {
    "none": SSL.VERIFY_NONE,
    "optional": SSL.VERIFY_PEER,
    "required": SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT,
}
_NO_RENEGOTIATION: Final = getattr(SSL, "OP_NO_RENEGOTIATION", 1 << 30)
_NO_CLIENT_CERTIFICATE: Final = "peer did not return a certificate"


class Policy:
    """How the connections of a listener negotiate, except for the certificate.

    Args:
        options: the options of the listener, already checked.
        protocols: the protocols for ALPN (RFC 7301), the preferred one first.
        authorities: the certificates that client certificates are verified with.
        refused: called when a client certificate is not accepted, with the connection,
            the certificate and OpenSSL's error number. It must not raise.

    Attributes:
        client_mode: as in `TLSOptions`.
        digest: identifies the authorities and the mode: sessions are only resumed
            under the same ones.

    Raises:
        TLSError: OpenSSL does not know the ciphers.
    """

    def __init__(
        self,
        options: TLSOptions,
        protocols: Sequence[bytes],
        authorities: Sequence[x509.Certificate],
        refused: Callable[[SSL.Connection, X509, int], object],
    ) -> None:
        self.client_mode = options.client_mode
        self._options = options
        self._protocols = tuple(protocols)
        self._authorities = tuple(authorities)
        self._refused = refused
        digest = hashlib.sha256(self.client_mode.encode())
        for authority in self._authorities:
            digest.update(authority.public_bytes(Encoding.DER))
        self.digest = digest.digest()

    def front(self, select: Callable[[SSL.Connection], None]) -> SSL.Context:
        """Return a new front context.

        Args:
            select: called with a connection when its server name is known, also if
                the client has sent none.
        """
        context = self._context()
        context.set_tlsext_servername_callback(select)
        return context

    def context_for(self, certificate: KeyedCertificate) -> SSL.Context:
        """Return a new context that serves a certificate.

        Raises:
            TLSError: OpenSSL does not accept it.
        """
        context = self._context()
        try:
            context.use_certificate(certificate.leaf)
            for issuer in certificate.chain:
                context.add_extra_chain_cert(issuer)
            context.use_privatekey(certificate.key.key)  # type: ignore[arg-type]
            context.check_privatekey()
        except (SSL.Error, TypeError) as error:
            raise TLSError(
                f"the certificate in {certificate.path}",
                f"is not accepted by OpenSSL ({reason_of(error)})",
                "give a certificate with an RSA key of 2048 bits or more, or with an "
                "EC key",
            ) from error
        return context

    def _context(self) -> SSL.Context:
        """Return a context with everything but a certificate.

        All contexts have the same parameters: OpenSSL takes some from the front, and
        others from the context that takes its place.
        """
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(_VERSIONS[self._options.min])
        context.set_options(
            SSL.OP_NO_COMPRESSION | SSL.OP_CIPHER_SERVER_PREFERENCE | _NO_RENEGOTIATION
        )
        # Idle connections do not keep buffers.
        context.set_mode(SSL.MODE_RELEASE_BUFFERS)
        # Sessions are kept by the clients, in tickets. Early data (0-RTT) stays off,
        # because it can be replayed.
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_session_id(self.digest[:32])
        context.set_alpn_select_callback(self._select_protocol)
        self._set_ciphers(context)
        context.set_app_data(self)
        if self._authorities:
            context.set_verify(_VERIFY[self.client_mode], self._verified)
            store = context.get_cert_store()
            assert store is not None
            # An intermediate authority may be trusted without its root.
            store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
            for authority in self._authorities:
                store.add_cert(X509.from_cryptography(authority))
                context.add_client_ca(authority)
        return context

    def _set_ciphers(self, context: SSL.Context) -> None:
        names = [name for name in self._options.ciphers.split(":") if name]
        modern = [name for name in names if name.startswith("TLS_")]
        others = [name for name in names if not name.startswith("TLS_")]
        try:
            context.set_cipher_list((":".join(others) or _CIPHERS).encode("ascii"))
            if modern:
                context.set_tls13_ciphersuites(":".join(modern).encode("ascii"))
        except AttributeError:
            raise TLSError(
                self._options.label("ciphers"),
                "contains ciphers of TLS 1.3, which pyOpenSSL supports from 25.2 on",
                "upgrade pyOpenSSL, or remove the names that begin with TLS_",
            ) from None
        except (SSL.Error, UnicodeError) as error:
            raise TLSError(
                self._options.label("ciphers"),
                f"is not a list of ciphers ({reason_of(error)})",
                "give names of `openssl ciphers -v`, separated by colons; names that "
                "begin with TLS_ are those of TLS 1.3",
            ) from error

    def _select_protocol(self, _: SSL.Connection, offered: list[bytes]) -> Any:
        for protocol in self._protocols:
            if protocol in offered:
                return protocol
        return SSL.NO_OVERLAPPING_PROTOCOLS

    def _verified(
        self, connection: SSL.Connection, certificate: X509, error: int, _: int, ok: int
    ) -> bool:
        if not ok:
            self._refused(connection, certificate, error)
        return bool(ok)


def reason_of(error: Exception) -> str:
    """Return the reason that OpenSSL gives."""
    if isinstance(error, SSL.Error) and error.args and isinstance(error.args[0], list):
        return "; ".join(entry[2] for entry in error.args[0] if entry[2]) or "no reason"
    return str(error)


def handshake_error(context: SSL.Context, name: str) -> str:
    """Return why a handshake in memory with `context` fails; "" if it succeeds.

    Args:
        context: a context that serves a certificate.
        name: the server name that the client sends; "" for none.
    """
    client_context = SSL.Context(SSL.TLS_METHOD)
    client_context.set_cipher_list(b"ALL:@SECLEVEL=0")
    client = SSL.Connection(client_context, None)
    client.set_connect_state()
    if name:
        client.set_tlsext_host_name(name.encode("ascii", "replace"))
    server = SSL.Connection(context, None)
    server.set_accept_state()
    pending = {client, server}
    for _ in range(10):
        for this, other in ((client, server), (server, client)):
            try:
                this.do_handshake()
                pending.discard(this)
            except SSL.WantReadError:
                pass
            except SSL.Error as error:
                reason = reason_of(error)
                # The test has no client certificate.
                return "" if _NO_CLIENT_CERTIFICATE in reason else reason
            _transfer(this, other)
        if not pending:
            return ""
    return "it does not end"


def _transfer(source: SSL.Connection, target: SSL.Connection) -> None:
    with suppress(SSL.WantReadError):
        while True:
            target.bio_write(source.bio_read(65536))
