"""A client for loads that wrk cannot produce: bulk, single blocks, idle crowds.

It uses blocking sockets and one large buffer, so that the server is the bottleneck.
The length of every response is checked. It trusts the framing of the server and is
not meant for an open network.
"""

from __future__ import annotations

import functools
import socket
import ssl
import struct
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .apps import BULK_BYTES, CHUNK_BYTES, CHUNK_COUNT
from .process import CannotMeasure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

__all__ = [
    "BulkClient",
    "Counted",
    "Crowd",
    "ask",
    "blocks",
    "download",
    "handshakes",
    "upload",
]

_TIMEOUT_SECONDS = 30
_LONG_READ = 1024 * 1024
# Bytes that must arrive before the reader of blocks wakes up.
_GATHERED = 65536
_END = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"


@dataclass(frozen=True)
class Counted:
    """A number of requests or bytes, the seconds they took, and a remark or ""."""

    count: int
    seconds: float
    remark: str = ""


@dataclass(frozen=True)
class _Head:
    """The parts of a response head that this client needs."""

    status: int
    length: int | None
    chunked: bool
    close: bool


def _connect(port: int, tls: bool = False) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), _TIMEOUT_SECONDS)
    # A timeout of Python's socket module would add a poll() to each call.
    connection.settimeout(None)
    timeout = struct.pack("ll", _TIMEOUT_SECONDS, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeout)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, timeout)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return _client_context().wrap_socket(connection) if tls else connection


@functools.cache  # it reads the certificates of the system
def _client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # the certificate is self-signed
    return context


def _wake_at(connection: socket.socket, count: int) -> None:
    """Make recv() wait for `count` bytes or the end of the stream."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, max(1, count))


def _request(path: str, body_length: int | None = None) -> bytes:
    lines = [
        f"{'GET' if body_length is None else 'POST'} {path} HTTP/1.1",
        "Host: 127.0.0.1",
    ]
    if body_length is not None:
        lines.append(f"Content-Length: {body_length}")
    return "\r\n".join([*lines, "", ""]).encode()


def _receive(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise CannotMeasure(
            "the server closed the connection before the end of the response"
        )
    return data


def _read_head(connection: socket.socket) -> tuple[_Head, bytes]:
    """Return the head of a response and the part of the body received with it."""
    data = b""
    while _END not in data:
        data += _receive(connection)
    text, _, rest = data.partition(_END)
    first, *lines = text.decode("latin-1").split("\r\n")
    protocol, status, _ = first.split(" ", 2)
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.lower()] = value.strip().lower()
    length = fields.get("content-length")
    connection_field = fields.get("connection", "")
    head = _Head(
        int(status),
        None if length is None else int(length),
        "chunked" in fields.get("transfer-encoding", ""),
        "close" in connection_field
        or (protocol == "HTTP/1.0" and "keep-alive" not in connection_field),
    )
    if head.status != 200:
        raise CannotMeasure(f"answered {first!r}")
    return head, rest


def _read_response(connection: socket.socket) -> tuple[_Head, bytes]:
    """Return a complete short response."""
    head, body = _read_head(connection)
    if head.chunked:
        while _LAST_CHUNK not in b"\r\n" + body:
            body += _receive(connection)
        return head, _unchunked(body)[0]
    if head.length is None:
        while data := connection.recv(65536):
            body += data
        return head, body
    while len(body) < head.length:
        body += _receive(connection)
    return head, body


def _unchunked(data: bytes) -> tuple[bytes, int]:
    """Return the decoded body and the number of its chunks."""
    pieces: list[bytes] = []
    position = 0
    while True:
        end = data.index(b"\r\n", position)
        size = int(data[position:end], 16)
        if not size:
            return b"".join(pieces), len(pieces)
        pieces.append(data[end + 2 : end + 2 + size])
        position = end + 2 + size + 2


def ask(
    port: int, path: str = "/", body: bytes | None = None, tls: bool = False
) -> bytes:
    """Send one request on a new connection and return the body of the response.

    Raises:
        CannotMeasure: the response is not 200, or incomplete.
        OSError: the connection failed or timed out.
    """
    with _connect(port, tls) as connection:
        request = _request(path, None if body is None else len(body))
        connection.sendall(request + (body or b""))
        return _read_response(connection)[1]


def handshakes(port: int, seconds: float, resumed: bool) -> Counted:
    """Count connections with a TLS handshake and one request each.

    Args:
        port: of the server on 127.0.0.1.
        seconds: minimum duration.
        resumed: whether to resume the session of the connection before. There is a
            remark with the number of handshakes that were full ones nevertheless.

    Raises:
        CannotMeasure: a response is not complete.
        OSError: as `ask`.
    """
    context = _client_context()
    request = _request("/")
    session: ssl.SSLSession | None = None
    count = full = 0
    begun = time.perf_counter()
    while True:
        with context.wrap_socket(_connect(port), session=session) as connection:
            connection.sendall(request)
            _read_response(connection)
            full += not connection.session_reused
            if resumed:
                # In TLS 1.3 it is known once data was read.
                session = connection.session
        count += 1
        taken = time.perf_counter() - begun
        if taken >= seconds:
            remark = f"{full} of {count} not resumed" if resumed and full > 1 else ""
            return Counted(count, taken, remark)


def download(port: int, seconds: float, tls: bool = False) -> Counted:
    """Count bytes of bulk responses, one after the other on one connection.

    Raises:
        CannotMeasure: a response has the wrong length.
        OSError: as `ask`.
    """
    buffer = bytearray(_LONG_READ)
    request = _request("/")
    total = 0
    connection = _connect(port, tls)
    try:
        begun = time.perf_counter()
        while True:
            connection.sendall(request)
            head, rest = _read_head(connection)
            if head.length != BULK_BYTES:
                raise CannotMeasure(f"Content-Length is {head.length}")
            left = BULK_BYTES - len(rest)
            while left:
                count = connection.recv_into(buffer, min(left, _LONG_READ))
                if not count:
                    raise CannotMeasure(f"{left} bytes of the response are missing")
                left -= count
            total += BULK_BYTES
            taken = time.perf_counter() - begun
            if taken >= seconds:
                return Counted(total, taken)
            if head.close:
                connection.close()
                connection = _connect(port, tls)
    finally:
        connection.close()


class BulkClient:
    """One connection for bulk requests, reopened if the server closes it.

    A context manager. Reusing the connection matters to the figures: the kernel
    enlarges the receive buffer over the first responses, and until then a sender
    of short blocks uses up to three times the CPU time.

    Args:
        port: of the server on 127.0.0.1.
        tls: whether to use TLS.
    """

    def __init__(self, port: int, tls: bool = False) -> None:
        self._port = port
        self._tls = tls
        self._connection = _connect(port, tls)

    def __enter__(self) -> BulkClient:
        """Return the client itself, connected."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection."""
        self._connection.close()

    def _ended(self, head: _Head) -> None:
        """Reconnect after a response if the server closes the connection."""
        if head.close:
            self._connection.close()
            self._connection = _connect(self._port, self._tls)

    def read_blocks(self) -> tuple[float, str]:
        """Request `apps.chunks` and read the response.

        Returns:
            The seconds that it took, without checking the body, and a remark if
            blocks were not sent as they were yielded.

        Raises:
            CannotMeasure: the response is not complete.
            OSError: as `ask`.
        """
        # Room for each block in its own chunk, and to spare.
        buffer = bytearray(2 * CHUNK_COUNT * (CHUNK_BYTES + 16))
        view = memoryview(buffer)
        connection = self._connection
        begun = time.perf_counter()
        connection.sendall(_request("/"))
        head, rest = _read_head(connection)
        filled = len(rest)
        buffer[:filled] = rest
        while not (
            filled == head.length
            if head.length is not None
            else head.chunked and buffer.endswith(_LAST_CHUNK, 0, filled)
        ):
            # Waking up for each block would take longer than sending it. At least
            # this many bytes are still to come.
            _wake_at(connection, min(_GATHERED, CHUNK_BYTES * CHUNK_COUNT - filled))
            count = connection.recv_into(view[filled:])
            if not count:
                break
            filled += count
        _wake_at(connection, 1)
        taken = time.perf_counter() - begun
        body, remark = bytes(view[:filled]), ""
        if head.chunked:
            body, count = _unchunked(body)
            if count < CHUNK_COUNT:
                remark = f"joins blocks: {CHUNK_COUNT} came in {count} chunks"
        else:
            remark = "does not send the body in chunks"
        if len(body) != CHUNK_BYTES * CHUNK_COUNT:
            raise CannotMeasure(f"the body has {len(body)} bytes")
        self._ended(head)
        return taken, remark

    def upload(self) -> None:
        """Post BULK_BYTES to `apps.upload`.

        Raises:
            CannotMeasure: the application has not read all of them.
            OSError: as `ask`.
        """
        block = memoryview(bytes(_LONG_READ))
        self._connection.sendall(_request("/", BULK_BYTES))
        for _ in range(BULK_BYTES // _LONG_READ):
            self._connection.sendall(block)
        head, body = _read_response(self._connection)
        if int(body) != BULK_BYTES:
            raise CannotMeasure(f"the application has read {int(body)} bytes")
        self._ended(head)


def blocks(port: int, seconds: float) -> Counted:
    """Count blocks in responses of many short ones, for at least `seconds`.

    There is a remark if blocks were not sent as they were yielded.

    Raises:
        CannotMeasure: a response is not complete.
        OSError: as `ask`.
    """
    responses, taken, remark = 0, 0.0, ""
    with BulkClient(port) as bulk:
        while not responses or taken < seconds:
            one, remark = bulk.read_blocks()
            taken += one
            responses += 1
    return Counted(responses * CHUNK_COUNT, taken, remark)


def upload(port: int, seconds: float, tls: bool = False) -> Counted:
    """Count bytes of bulk request bodies sent one after the other.

    Raises:
        CannotMeasure: the application has not read all of one.
        OSError: as `ask`.
    """
    total = 0
    with BulkClient(port, tls) as bulk:
        begun = time.perf_counter()
        while True:
            bulk.upload()
            total += BULK_BYTES
            taken = time.perf_counter() - begun
            if taken >= seconds:
                return Counted(total, taken)


class Crowd:
    """Many connections to one server. A context manager.

    Attributes:
        connections: the open connections, oldest first.
    """

    def __init__(self, port: int, tls: bool = False) -> None:
        self._port = port
        self._tls = tls
        self._answered = 0
        self.connections: list[socket.socket] = []

    def __enter__(self) -> Crowd:
        """Return the crowd itself, without connections."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close all connections."""
        for connection in self.connections:
            connection.close()

    def grow(self, count: int) -> Sequence[socket.socket]:
        """Open `count` more connections and return them."""
        new = [_connect(self._port, self._tls) for _ in range(count)]
        self.connections += new
        return new

    @staticmethod
    def send(connections: Sequence[socket.socket], path: str) -> None:
        """Request `path` on each connection without waiting for responses."""
        request = _request(path)
        for connection in connections:
            connection.sendall(request)

    def read(self, connections: Sequence[socket.socket], expected: bytes) -> None:
        """Read one response from each connection.

        Raises:
            CannotMeasure: a response is wrong or missing.
        """
        for connection in connections:
            try:
                body = _read_response(connection)[1]
            except (CannotMeasure, OSError) as error:
                raise CannotMeasure(
                    f"{error}, with {len(self.connections)} connections open and "
                    f"after {self._answered:,} responses"
                ) from error
            if body != expected:
                raise CannotMeasure(f"a response has the body {body!r:.40}")
            self._answered += 1
