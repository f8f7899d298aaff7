"""The `https:` endpoint: TLS by options in front of any other endpoint.

`https:443` is TLS on `tcp:443`. In place of a port, any endpoint string may follow:
`https:tcp6:443`, `https:unix:/run/app.sock`, `https:systemd:name=web`, `https:fd:3`.
Arguments such as `cert=` override the options of the command. See
`docs/decisions/0028-tls-by-options.md`.

It knows endpoint strings and Twisted's TLS. pyOpenSSL is optional, and imported when
the first of these endpoints is made.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from twisted.internet.interfaces import IStreamServerEndpoint
from zope.interface import implementer

from txgreenwsgi._tls.errors import TLSError

from .client_hello import ClientHelloFactory
from .endpoint_strings import tcp_endpoint, with_tls
from .errors import EndpointError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IListeningPort, IReactorTime

    from txgreenwsgi._tls.listener import TLSListener
    from txgreenwsgi._tls.options import TLSOptions
    from txgreenwsgi._tls.renewal import Renewal

    from .site import GreenSite

__all__ = [
    "MISSING_PACKAGE",
    "HTTPSEndpoint",
    "HTTPSListeners",
    "HTTPSString",
    "below_tls",
    "check_certificates",
    "is_https",
    "options_of",
    "parse_https",
]

_PREFIX: Final = "https:"
_SPLIT: Final = re.compile(r"(?<!\\):")
_HOST: Final = re.compile(r"localhost\Z|[\w-]*\.[\w.-]*\Z|\[")
_ESCAPED: Final = re.compile(r"\\(.)")
_INNER: Final = ("tcp", "tcp6", "unix", "systemd", "fd")
_ARGUMENTS: Final = {
    "cert": "cert",
    "key": "key",
    "dir": "dir",
    "client-ca": "client_ca",
    "client": "client",
    "min": "min",
    "ciphers": "ciphers",
}
#: Arguments of `ssl:`, and their names here.
_RENAMED: Final = {
    "certKey": "cert",
    "privateKey": "key",
    "sslmethod": "min",
    "extraCertChain": "cert",
    "dhParameters": "ciphers",
}
_EXAMPLES: Final = (
    "give one such as https:443, https:8443:interface=127.0.0.1 or "
    "https:unix:/run/app.sock"
)

#: The remedy for a missing optional package.
MISSING_PACKAGE: Final = "run pip install 'txgreenwsgi[tls]' for TLS"


class HTTPSString(NamedTuple):
    """The parts of an `https:` endpoint string.

    Attributes:
        inner: the endpoint string of the connections below TLS.
        arguments: the TLS arguments by the names of `TLSOptions`.
    """

    inner: str
    arguments: dict[str, str]


def is_https(text: str) -> bool:
    """Return whether a string is that of an `https:` endpoint."""
    return text.startswith(_PREFIX)


def parse_https(text: str) -> HTTPSString:
    """Return the parts of an `https:` endpoint string.

    Raises:
        EndpointError: the string is wrong. The inner string is not checked.
    """
    words: list[str] = []
    arguments: dict[str, str] = {}
    for word in _SPLIT.split(text)[1:]:
        name, separator, value = word.partition("=")
        if not separator or name.replace("_", "-") not in _ARGUMENTS:
            if separator and name in _RENAMED:
                raise EndpointError(
                    text,
                    f"has the argument {name}= of another endpoint",
                    f"give {_RENAMED[name]}=",
                )
            words.append(word)
            continue
        field = _ARGUMENTS[name.replace("_", "-")]
        if field in arguments or not value:
            raise EndpointError(
                text,
                f"has {'more than one' if value else 'no value for'} {name}=",
                "give one value",
            )
        arguments[field] = _ESCAPED.sub(r"\1", value)
    first = words[0] if words else ""
    if first.removeprefix("port=").isdigit():
        return HTTPSString(":".join(["tcp", *words]), arguments)
    if first in _INNER:
        return HTTPSString(":".join(words), arguments)
    if _HOST.match(first) and len(words) > 1 and words[-1].isdigit():
        host = ":".join(words[:-1]).strip("[]").replace("\\:", ":")
        raise EndpointError(
            text,
            "is not an endpoint string",
            f"give {with_tls(tcp_endpoint(host, words[-1]))}",
        )
    raise EndpointError(
        text, f"has neither a port nor an endpoint after {_PREFIX!r}", _EXAMPLES
    )


def below_tls(text: str) -> str:
    """Return the endpoint string behind `https:`; others unchanged.

    Raises:
        EndpointError: as `parse_https`.
    """
    return parse_https(text).inner if is_https(text) else text


def effective_options(
    text: str, arguments: dict[str, str], defaults: TLSOptions
) -> TLSOptions:
    """Return the TLS options of an endpoint.

    Raises:
        EndpointError: they do not fit together, or there is no certificate.
    """
    options = defaults.overridden_by(arguments)
    try:
        options.check()
    except TLSError as error:
        raise _endpoint_error(text, error) from error
    if not options.has_certificate:
        raise EndpointError(
            text,
            "has no certificate",
            "give --tls-cert or --tls-dir, or cert= or dir= in the endpoint, such as "
            "https:443:cert=fullchain.pem:key=privkey.pem",
        )
    return options


def _endpoint_error(text: str, error: TLSError) -> EndpointError:
    return EndpointError(
        text, f"uses {error.subject}, which {error.problem}", error.remedy
    )


def check_certificates(
    text: str, defaults: TLSOptions, *, paths_are_final: bool = True
) -> list[str]:
    """Validate the TLS options of an endpoint string and their files. Opens no socket.

    Args:
        text: the endpoint string.
        defaults: the options of the command.
        paths_are_final: False if unreadable files pass: see `check_endpoint`.

    Returns:
        Findings that do not prevent the server from starting, as sentences.

    Raises:
        EndpointError: the endpoint cannot be used.
    """
    options = effective_options(text, parse_https(text).arguments, defaults)
    try:
        from twisted.internet.task import Clock

        from txgreenwsgi._tls.listener import TLSListener

        listener = TLSListener(options, [b"http/1.1"], Clock())
        return [*listener.load().certificates.warnings]
    except ImportError as error:
        raise _missing_package(text, error) from error
    except TLSError as error:
        if error.unreadable and not paths_are_final:
            return []
        raise _endpoint_error(text, error) from error


def _missing_package(text: str, error: ImportError) -> EndpointError:
    return EndpointError(
        text, f"needs a package that is not installed ({error})", MISSING_PACKAGE
    )


def options_of(listen: Iterable[str], defaults: TLSOptions) -> list[TLSOptions]:
    """Return the TLS options of the `https:` endpoints, with absolute paths.

    Raises:
        EndpointError: an endpoint string is wrong.
    """
    return [
        effective_options(text, parse_https(text).arguments, defaults).absolute()
        for text in listen
        if is_https(text)
    ]


class HTTPSListeners:
    """The `https:` endpoints of one service. Those with the same options share TLS.

    Call from the reactor greenlet; no method parks.

    Args:
        defaults: the TLS options of the command.
        site: the site behind the endpoints.
        ticket_secret: as for `TLSListener`.
    """

    def __init__(
        self, defaults: TLSOptions, site: GreenSite, ticket_secret: bytes = b""
    ) -> None:
        self._defaults = defaults
        self._site = site
        self._ticket_secret = ticket_secret
        self._listeners: dict[TLSOptions, tuple[TLSListener, Renewal]] = {}
        self._running = False

    def endpoint(
        self, text: str, make_inner: Callable[[str], IStreamServerEndpoint]
    ) -> HTTPSEndpoint:
        """Return the endpoint for an `https:` string. Reads its certificates.

        Args:
            text: the endpoint string.
            make_inner: returns the endpoint for the string behind `https:`.

        Raises:
            EndpointError: the string is wrong, or its files cannot be used.
        """
        inner, arguments = parse_https(text)
        options = effective_options(text, arguments, self._defaults)
        try:
            below = make_inner(inner)
        except EndpointError as error:
            raise EndpointError(text, error.problem, error.remedy) from error
        try:
            listener = self._listener(options)
        except ImportError as error:
            raise _missing_package(text, error) from error
        except TLSError as error:
            raise _endpoint_error(text, error) from error
        return HTTPSEndpoint(below, listener)

    def _listener(self, options: TLSOptions) -> TLSListener:
        from txgreenwsgi._tls.listener import TLSListener
        from txgreenwsgi._tls.renewal import Renewal

        known = self._listeners.get(options)
        if known is not None:
            return known[0]
        reactor = self._site.server.reactor
        listener = TLSListener(
            options, self._site.acceptableProtocols(), reactor, self._ticket_secret
        )
        # Before the files are read: a change in between is seen at the next look.
        renewal = Renewal(listener, reactor)
        listener.use(listener.load())
        listener.log_certificates("TLS certificate")
        self._listeners[options] = listener, renewal
        if self._running:
            renewal.start()
        return listener

    def start(self) -> None:
        """Look at the files from now on."""
        self._running = True
        for _, renewal in self._listeners.values():
            renewal.start()

    def stop(self) -> None:
        """Look at the files no more, and forget the certificates."""
        self._running = False
        for _, renewal in self._listeners.values():
            renewal.stop()
        self._listeners.clear()

    def read_again(self) -> None:
        """Read all certificates again, and use those that are new and valid."""
        for _, renewal in self._listeners.values():
            renewal.read_again()


@implementer(IStreamServerEndpoint)
class HTTPSEndpoint:
    """TLS on the connections of another endpoint.

    Args:
        below: the endpoint of the connections below TLS.
        tls: the source of their TLS state.

    Attributes:
        tls: as given.
    """

    def __init__(self, below: IStreamServerEndpoint, tls: TLSListener) -> None:
        self._below = below
        self.tls = tls

    def listen(self, protocolFactory: Any) -> Deferred[IListeningPort]:
        """Listen for a `GreenSite`."""
        # Here, because pyOpenSSL is optional.
        from twisted.protocols.tls import TLSMemoryBIOFactory

        from .tls_transport import own_factory

        site: GreenSite = protocolFactory
        clock: IReactorTime = site.server.reactor
        twisted = TLSMemoryBIOFactory(self.tls, False, site, clock=clock)
        return self._below.listen(ClientHelloFactory(own_factory(twisted, site), site))
