"""The server's side of the opening handshake (RFC 6455 section 4.2, RFC 8441).

It knows the header fields of WebSocket requests, as variables of an environ. It must
never know how the response is sent.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .defaults import SAME_ORIGIN
from .errors import WebSocketRefused

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

__all__ = ["Handshake", "answer_handshake"]

_VERSION: Final = "13"
_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_KEY_BYTES: Final = 16
_DEFAULT_PORTS: Final = {"http": "80", "https": "443", "ws": "80", "wss": "443"}
_ORIGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*)://(?P<host>[^/?#@]+)", re.ASCII)

# One element of Sec-WebSocket-Extensions, and one of its parameters (RFC 6455 section
# 9.1): a quoted value must be a token.
_TOKEN: Final = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_PARAMETER: Final = rf"({_TOKEN})(?:\s*=\s*(?:({_TOKEN})|\"({_TOKEN})\"))?"
_EXTENSION = re.compile(rf"\s*({_TOKEN})((?:\s*;\s*{_PARAMETER})*)\s*")
_PARAMETERS = re.compile(rf";\s*{_PARAMETER}")

_DEFLATE: Final = "permessage-deflate"
_FLAGS: Final = ("server_no_context_takeover", "client_no_context_takeover")
_WINDOWS: Final = ("server_max_window_bits", "client_max_window_bits")
#: zlib cannot compress with a window of 8 bits.
_SMALLEST_WINDOW: Final = 9
_LARGEST_WINDOW: Final = 15


@dataclass(frozen=True)
class Handshake:
    """The result of a handshake.

    Attributes:
        subprotocol: the chosen subprotocol; None for none.
        window_bits: the size of the window of permessage-deflate (RFC 7692) for
            messages of the server; 0 if messages are not compressed.
        fields: the fields of the response that switches protocols.
    """

    subprotocol: str | None
    window_bits: int
    fields: list[tuple[str, str]]


def answer_handshake(
    environ: Mapping[str, object],
    subprotocols: Sequence[str],
    origins: str | Collection[str] | None,
    compress: bool,
    http2: bool,
) -> Handshake:
    """Return the answer to the handshake of a request.

    Args:
        environ: the environ of the request.
        subprotocols: the subprotocols of the application, the preferred one first.
        origins: the origins that may connect; `SAME_ORIGIN`, or None for all.
        compress: whether to accept permessage-deflate.
        http2: whether the request is an extended CONNECT, which has no key.

    Raises:
        WebSocketRefused: the handshake is invalid, or its origin is not accepted.
    """
    version = str(environ.get("HTTP_SEC_WEBSOCKET_VERSION", ""))
    if version != _VERSION:
        raise WebSocketRefused(
            "400 Bad Request",
            f"Sec-WebSocket-Version is {version!r}: send {_VERSION}",
            [("Sec-WebSocket-Version", _VERSION)],
        )
    _check_origin(environ, origins)
    fields: list[tuple[str, str]] = []
    if not http2:
        fields.append(("Sec-WebSocket-Accept", _accept_token(environ)))
    offered = _list_of(environ, "HTTP_SEC_WEBSOCKET_PROTOCOL")
    subprotocol = next((name for name in subprotocols if name in offered), None)
    if subprotocol is not None:
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    window_bits = 0
    if compress:
        offers = str(environ.get("HTTP_SEC_WEBSOCKET_EXTENSIONS", ""))
        window_bits, accepted = _accept_deflate(offers)
        if accepted:
            fields.append(("Sec-WebSocket-Extensions", accepted))
    return Handshake(subprotocol, window_bits, fields)


def _accept_token(environ: Mapping[str, object]) -> str:
    key = str(environ.get("HTTP_SEC_WEBSOCKET_KEY", "")).strip()
    try:
        decoded = base64.b64decode(key.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        decoded = b""
    if len(decoded) != _KEY_BYTES:
        raise WebSocketRefused(
            "400 Bad Request",
            f"Sec-WebSocket-Key must be {_KEY_BYTES} bytes in base64",
        )
    # Not for security: RFC 6455 section 4.2.2 prescribes SHA-1.
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")


def _check_origin(
    environ: Mapping[str, object], origins: str | Collection[str] | None
) -> None:
    """Refuse the pages of other sites (RFC 6455 section 10.2)."""
    origin = str(environ.get("HTTP_ORIGIN", "")).lower()
    if origins is None or not origin:
        return  # clients other than browsers send no Origin
    if origins == SAME_ORIGIN:
        match = _ORIGIN.fullmatch(origin)
        if match is None:
            accepted = False
        else:
            own = str(environ.get("HTTP_HOST", "")).lower()
            port = ":" + _DEFAULT_PORTS.get(match["scheme"], "")
            accepted = match["host"].removesuffix(port) == own.removesuffix(port)
    else:
        accepted = origin in {entry.lower() for entry in origins}
    if not accepted:
        raise WebSocketRefused(
            "403 Forbidden",
            "the origin of this page is not accepted: see `origins` of websocket()",
        )


def _list_of(environ: Mapping[str, object], name: str) -> list[str]:
    return [part.strip() for part in str(environ.get(name, "")).split(",")]


def _accept_deflate(offers: str) -> tuple[int, str]:
    """Return the window size and the answer to the first acceptable offer.

    (0, "") if there is none. The answer excludes context takeover in both directions:
    an idle connection then needs no memory for windows, which are 300 KB.
    """
    for name, parameters in _offers_of(offers):
        if name != _DEFLATE:
            continue
        bits = _window_of(parameters)
        if bits:
            answer = "; ".join((_DEFLATE, *_FLAGS))
            if "server_max_window_bits" in dict(parameters):
                answer += f"; server_max_window_bits={bits}"
            return bits, answer
    return 0, ""


def _offers_of(offers: str) -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Yield the name and the parameters of each offered extension, until an error."""
    start = 0
    while start < len(offers):
        match = _EXTENSION.match(offers, start)
        if match is None or offers[match.end() : match.end() + 1] not in ("", ","):
            return
        parameters = [
            (found[1].lower(), found[2] or found[3])
            for found in _PARAMETERS.finditer(match[2])
        ]
        yield match[1].lower(), parameters
        start = match.end() + 1


def _window_of(parameters: list[tuple[str, str | None]]) -> int:
    """Return the window size for the server; 0 if the offer is not acceptable."""
    bits = _LARGEST_WINDOW
    names = [name for name, _ in parameters]
    if len(names) != len(set(names)):
        return 0
    for name, value in parameters:
        if name in _FLAGS:
            if value is not None:
                return 0
        elif name in _WINDOWS:
            if value is None:
                if name == "server_max_window_bits":
                    return 0
                continue
            # RFC 7692 section 7.1.2: a decimal number without leading zeros.
            if not re.fullmatch("[89]|1[0-5]", value):
                return 0
            if name == "server_max_window_bits":
                bits = int(value)
        else:
            return 0
    return bits if bits >= _SMALLEST_WINDOW else 0
