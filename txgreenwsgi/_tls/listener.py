"""The TLS of one listener: its certificates in use, and new ones in their place.

It knows certificates and contexts. It must never know when files are looked at.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from time import time
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from zope.interface import implementer

from txgreenwsgi.monitoring.log_limit import LogLimit

from .certificates import load_certificates
from .contexts import Policy, handshake_error
from .errors import TLSError
from .files import pem_paths
from .stored import stored
from .tickets import use_ticket_keys

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from OpenSSL.crypto import X509
    from twisted.internet.interfaces import IReactorTime
    from twisted.protocols.tls import TLSMemoryBIOProtocol

    from .certificates import Certificates
    from .options import TLSOptions

__all__ = ["LOG_SECONDS", "MAX_LOGGED", "Loaded", "TLSListener"]

_log = Logger()

#: Minimum interval between two log lines about unknown names, and between two about
#: client certificates.
LOG_SECONDS: Final = 60.0

#: Time after which the keys of session tickets are replaced. A ticket lives for two
#: hours, and is useless when its key is gone: the next handshake is a full one.
TICKET_KEY_SECONDS: Final = 12 * 3600

#: Maximum number of certificates that are logged one by one.
MAX_LOGGED: Final = 20


@dataclass(frozen=True)
class Loaded:
    """Certificates that were read, accepted by OpenSSL, and tried in a handshake.

    Attributes:
        certificates: the certificates.
        policy: how connections negotiate.
        contexts: contexts by the identity of their certificate.
    """

    certificates: Certificates
    policy: Policy
    contexts: Mapping[bytes, SSL.Context]


@implementer(IOpenSSLServerConnectionCreator)
class TLSListener:
    """The source of the TLS connections of one or more listening ports.

    `load` and `signature` block, and may be called in a thread. Call the other methods
    from the reactor greenlet.

    Args:
        options: the options, already checked; they name a certificate.
        protocols: the protocols for ALPN (RFC 7301), the preferred one first.
        clock: limits the rate of log lines.
        ticket_secret: a secret that several processes share, so that each of them
            resumes the sessions of the others; b"" for keys of this process alone.

    Attributes:
        options: with absolute paths.
        loaded: the certificates in use; None before the first `use`.
    """

    def __init__(
        self,
        options: TLSOptions,
        protocols: Sequence[bytes],
        clock: IReactorTime,
        ticket_secret: bytes = b"",
    ) -> None:
        self.options = options.absolute()
        self._protocols = tuple(protocols)
        self._ticket_secret = ticket_secret
        self.loaded: Loaded | None = None
        self._front: SSL.Context | None = None
        self._front_key: tuple[bytes, int] = (b"", 0)
        # OpenSSL calls the front of a connection, which pyOpenSSL does not keep alive
        # once another context has taken its place.
        self._front_of: WeakKeyDictionary[SSL.Connection, SSL.Context] = (
            WeakKeyDictionary()
        )
        self._unknown = LogLimit(clock.seconds, LOG_SECONDS)
        self._refusals = LogLimit(clock.seconds, LOG_SECONDS)

    def signature(self) -> tuple[object, ...]:
        """Return a value that changes when one of the files changes."""
        options = self.options
        paths = options.files
        found: list[object] = []
        if options.dir:
            try:
                paths += pem_paths(options.dir, options.label("dir"), [])
            except TLSError as error:
                found.append(str(error))
        found += map(_status_of, paths)
        return tuple(found)

    def load(self) -> Loaded:
        """Read the files, and try each new certificate in a handshake in memory.

        Raises:
            TLSError: the files cannot be used.
        """
        now = datetime.now(timezone.utc)
        old = self.loaded
        # A renewal must not combine new files with old copies.
        copies = stored().files if old is None else {}
        new = load_certificates(self.options, now, copies)
        policy = Policy(
            self.options, self._protocols, new.authorities, self._client_refused
        )
        reused: Mapping[bytes, SSL.Context] = {}
        if old is not None and old.policy.digest == policy.digest:
            policy, reused = old.policy, old.contexts
        contexts: dict[bytes, SSL.Context] = {}
        failed = {}
        for each in new.all:
            context = reused.get(each.identity)
            try:
                if context is None:
                    context = policy.context_for(each)
                    self._try(context, each.path, each.names)
            except TLSError as error:
                failed[each] = error
            else:
                contexts[each.identity] = context
        new = new.without(failed)
        if old is not None:
            new = new.keeping(old.certificates, now)
            for each in new.all:
                if each.identity not in contexts:
                    contexts[each.identity] = reused.get(
                        each.identity
                    ) or policy.context_for(each)
        return Loaded(new, policy, contexts)

    @staticmethod
    def _try(context: SSL.Context, path: str, names: Sequence[str]) -> None:
        name = next((name for name in names if not name.startswith("*")), "")
        error = handshake_error(context, name)
        if error:
            raise TLSError(
                f"the certificate in {path}",
                f"fails in a handshake ({error})",
                "check its key, --tls-min and --tls-ciphers",
            )

    def use(self, loaded: Loaded) -> None:
        """Serve new connections with these certificates."""
        self.loaded = loaded
        self.renew_ticket_keys()

    def renew_ticket_keys(self) -> None:
        """Replace the keys of session tickets if they are old."""
        assert self.loaded is not None
        policy = self.loaded.policy
        # Wall-clock time: all processes of a host change their keys together.
        key = (policy.digest, int(time()) // TICKET_KEY_SECONDS)
        if key == self._front_key:
            return
        front = policy.front(self._choose_certificate)
        if self._ticket_secret:
            use_ticket_keys(front, self._ticket_secret, b"%b %d" % key)
        self._front, self._front_key = front, key

    def serverConnectionForTLS(self, protocol: TLSMemoryBIOProtocol) -> SSL.Connection:
        """Return the TLS state of a new connection."""
        assert self._front is not None, "no certificate is in use"
        connection = SSL.Connection(self._front, None)
        self._front_of[connection] = self._front
        return connection

    def _choose_certificate(self, connection: SSL.Connection) -> None:
        """Choose the certificate of a connection whose server name is known."""
        loaded = self.loaded
        assert loaded is not None
        name = connection.get_servername()
        found = None
        if name:
            found = loaded.certificates.for_name(name.decode("latin-1"))
            if found is None:
                self._log_unknown(connection, name)
        found = found or loaded.certificates.default
        connection.set_context(loaded.contexts[found.identity])

    def _log_unknown(self, connection: SSL.Connection, name: bytes) -> None:
        assert self.loaded is not None
        if self._unknown.may_log():
            _log.info(
                "TLS: no certificate for the server name {name!r} of {address}; using "
                "that of {default}{more}",
                name=name[:100].decode("latin-1"),
                address=_peer_of(connection),
                default=self.loaded.certificates.default.described,
                more=_more(self._unknown),
            )

    def _client_refused(
        self, connection: SSL.Connection, certificate: X509, error: int
    ) -> None:
        if self._refusals.may_log():
            _log.info(
                "TLS refused: {address}: the client certificate {subject!r} is not "
                "valid: {reason}{more}",
                address=_peer_of(connection),
                subject=_subject_of(certificate),
                reason=_verification_error(error),
                more=_more(self._refusals),
            )

    def log_certificates(self, event: str, old: Loaded | None = None) -> None:
        """Log names and expiry of the certificates in use, and warnings about them.

        Args:
            event: the beginning of the line.
            old: the certificates that were in use before; those that are unchanged are
                left out.
        """
        assert self.loaded is not None
        certificates = self.loaded.certificates
        logged = certificates.all
        warnings = certificates.warnings
        if old is not None and old.policy is self.loaded.policy:
            logged = [each for each in logged if each.identity not in old.contexts]
            known = old.certificates.warnings
            warnings = tuple(each for each in warnings if each not in known)
        for each in logged[:MAX_LOGGED]:
            _log.info(
                "{event}: {names}, expires {expires:%Y-%m-%d}, from {path}{default}",
                event=event,
                names=each.described,
                expires=each.expires,
                path=each.path,
                default=" (also for other names)"
                if each is certificates.default and len(certificates.all) > 1
                else "",
            )
        if more := logged[MAX_LOGGED:]:
            _log.info("{event}: {count} more", event=event, count=len(more))
        if old is not None:
            gone = old.certificates.by_name.keys() - certificates.by_name.keys()
            if gone:
                _log.info(
                    "TLS: no certificate any more: {names}{more}",
                    names=", ".join(sorted(gone)[:MAX_LOGGED]),
                    more=f" and {len(gone) - MAX_LOGGED} more"
                    if len(gone) > MAX_LOGGED
                    else "",
                )
        for warning in warnings:
            _log.warn("TLS: {problem}", problem=warning)

    def log_expiry(self) -> None:
        """Log warnings about certificates that have expired or are about to."""
        assert self.loaded is not None
        now = datetime.now(timezone.utc)
        for each in self.loaded.certificates.all:
            if warning := each.expiry_warning(now):
                _log.warn("TLS: {problem}", problem=warning)


def _status_of(path: str) -> tuple[object, ...]:
    """Return a value that changes when a file, or what a link leads to, changes."""
    try:
        status = os.stat(path)
    except OSError as error:
        return path, error.errno
    return (
        path,
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _more(limit: LogLimit) -> str:
    """Return the number of lines that were left out before, as a clause."""
    return f" ({limit.suppressed} more before)" if limit.suppressed else ""


def _peer_of(connection: SSL.Connection) -> str:
    protocol: Any = connection.get_app_data()
    with suppress(AttributeError):  # a handshake in memory
        peer = protocol.transport.getPeer()
        return str(getattr(peer, "host", "a UNIX socket"))
    return "a test"


def _subject_of(certificate: X509) -> str:
    """Return the subject of a certificate that may come from anybody."""
    try:
        return certificate.to_cryptography().subject.rfc4514_string()[:200]
    except ValueError:
        return "not readable"


def _verification_error(number: int) -> str:
    """Return the name of an error of OpenSSL's certificate verification."""
    for name, value in vars(SSL.X509VerificationCodes).items():
        if value == number and name.startswith("ERR_"):
            return name.removeprefix("ERR_").replace("_", " ").lower()
    return f"error {number}"
