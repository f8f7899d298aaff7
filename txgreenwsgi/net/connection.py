"""A connection with a blocking file interface for tasks.

This module knows one transport and parks tasks. It must never know how the connection
was made.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet import protocol
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from zope.interface import implementer

from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.thread_calls import crossing

from .files import make_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

    from txgreenwsgi._switching.greenlets import Hub

    from .files import Bytes

__all__ = ["BUFFER_BYTES", "Connection", "ConnectionProtocol"]

#: Size of the receive buffer: while it is full, reading from the peer pauses.
BUFFER_BYTES = 65536

#: Size of the chunks in which data is written to the transport, to limit its buffer.
_CHUNK_BYTES = 262144

#: Seconds after `close()` until a transport that has not sent its data is aborted.
_LINGER_SECONDS = 30.0


class _Transport(Protocol):
    """The methods that this module uses of a transport: TCP, UNIX, TLS or in memory."""

    def write(self, data: bytes) -> object:
        """See ITransport."""

    def loseConnection(self) -> object:
        """See ITransport."""

    def abortConnection(self) -> object:
        """See ITCPTransport."""

    def getPeer(self) -> IAddress:
        """See ITransport."""

    def getHost(self) -> IAddress:
        """See ITransport."""

    def pauseProducing(self) -> object:
        """See IPushProducer."""

    def resumeProducing(self) -> object:
        """See IPushProducer."""

    def registerProducer(self, producer: IPushProducer, streaming: bool) -> object:
        """See IConsumer."""

    def unregisterProducer(self) -> object:
        """See IConsumer."""


class Connection:
    """One stream to a peer, with the methods of a binary file.

    Made by `connect`, and by `listen` for each client. Call the methods that read and
    write from a task: they may park, and one task reads at a time. Up to `BUFFER_BYTES`
    of unread data are buffered; then reading from the peer pauses. An interruption
    of the task ends any wait early, without loss of received data.

    Attributes:
        closed: True once `close` or `abort` was called.
        peer: the address of the peer; None before the connection is made.
        host: the local address; None before the connection is made.
    """

    def __init__(self, hub: Hub) -> None:
        self.closed = False
        self.peer: IAddress | None = None
        self.host: IAddress | None = None
        self._hub = hub
        # None before the connection is made and after it is lost.
        self._transport: _Transport | None = None
        self._buffer = bytearray()
        # Number of bytes that the waiting reader needs.
        self._wanted: float = 0
        self._reader: Suspension | None = None
        self._reading_paused = False
        # End of input; `_reason` is the error, unless the peer closed cleanly.
        self._ended = False
        self._reason: BaseException | None = None
        self._writing_paused = False
        # Waits for space in the transport's buffer, or for the loss of the connection.
        self._waiters: set[Suspension] = set()
        # Number of open files of `makefile`.
        self._files = 0
        self._linger_call: IDelayedCall | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "lost" if self.lost else "open"
        return f"<Connection to {self.peer} {state}>"

    @property
    def lost(self) -> bool:
        """True once the connection is lost: writes raise ConnectionResetError."""
        return self._transport is None

    @property
    def buffered(self) -> int:
        """Number of received bytes that were not read yet."""
        return len(self._buffer)

    # Reading.

    @crossing
    def read(self, size: int | None = -1, /) -> bytes:
        """Read exactly `size` bytes, fewer only at the end; all by default. May park.

        Raises:
            ConnectionResetError: the connection was lost before they arrived. The
                received bytes remain readable by `recv`.
            ValueError: the connection was closed locally.
            RuntimeError: another task reads from the connection.
        """
        wanted = float("inf") if size is None or size < 0 else size
        while len(self._buffer) < wanted and self._receive(wanted):
            pass
        return self._take(min(wanted, len(self._buffer)))

    @crossing
    def recv(self, size: int, /) -> bytes:
        """Read at least one byte and at most `size`; b"" at the end. May park.

        Raises as `read` does.
        """
        if size < 1:
            raise ValueError(f"recv() takes a size of at least 1 byte, not {size!r}")
        while not self._buffer and self._receive(1):
            pass
        return self._take(min(size, len(self._buffer)))

    @crossing
    def read1(self, size: int = -1, /) -> bytes:
        """Read as `recv`, with the io module's name and default."""
        return b"" if size == 0 else self.recv(size if size > 0 else BUFFER_BYTES)

    @crossing
    def readinto(self, buffer: bytearray | memoryview, /) -> int:
        """Fill `buffer` and return the number of bytes read. May park.

        Returns less than its length only at the end. Raises as `read` does.
        """
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    @crossing
    def readline(self, limit: int | None = -1, /) -> bytes:
        """Read one line with its newline, of at most `limit` bytes; b"" at the end.

        May park. Raises as `read` does. Without a limit, a peer can send an endless
        line: give a limit, or use `readuntil`.
        """
        most = float("inf") if limit is None or limit < 0 else limit
        searched = 0
        while True:
            end = self._buffer.find(b"\n", searched) + 1
            if end or len(self._buffer) >= most:
                return self._take(min(end or most, most))
            searched = len(self._buffer)
            if not self._receive(most):
                return self._take(len(self._buffer))

    @crossing
    def readuntil(self, mark: bytes, limit: int = BUFFER_BYTES) -> bytes:
        """Read up to and including the separator `mark`. May park.

        Args:
            mark: the separator, at least one byte.
            limit: maximum number of bytes, including the separator.

        Raises:
            EOFError: the peer closed the connection without sending the separator;
                the received bytes remain readable.
            ValueError: the first `limit` bytes do not contain the separator; they
                remain readable.
        """
        if not mark:
            raise ValueError(
                "readuntil() was given b'': give a mark of at least one byte"
            )
        searched = 0
        while True:
            found = self._buffer.find(mark, searched)
            if 0 <= found <= limit - len(mark):
                return self._take(found + len(mark))
            if found >= 0 or len(self._buffer) >= limit:
                raise ValueError(f"the first {limit} bytes do not contain {mark!r}")
            searched = max(0, len(self._buffer) - len(mark) + 1)
            if not self._receive(limit):
                raise EOFError(
                    f"the connection has ended without {mark!r} after "
                    f"{len(self._buffer)} bytes"
                )

    @crossing
    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """Read all lines, or lines until `hint` bytes were read. May park."""
        lines = []
        length = 0
        for line in self:
            lines.append(line)
            length += len(line)
            if hint is not None and 0 < hint <= length:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        """Return an iterator over the lines until the end."""
        return self

    @crossing
    def __next__(self) -> bytes:
        """Read the next line. May park."""
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _receive(self, wanted: float) -> bool:
        """Park until more data or the end arrives; return False after the end."""
        self._check_open()
        if self._ended:
            if self._reason is not None:
                raise self._lost_error()
            return False
        if self._reader is not None:
            raise RuntimeError(
                f"{self!r} is being read by another task: let one task read at a time"
            )
        self._reader = suspension = Suspension(
            require_task("Connection.read()"), f"reading from {self.peer}"
        )
        self._wanted = wanted
        self._update_backpressure()
        try:
            suspension.wait()
        finally:
            self._reader = None
            self._wanted = 0
        self._check_open()
        return True

    def _take(self, size: float) -> bytes:
        count = int(size)
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._update_backpressure()
        return data

    def _update_backpressure(self) -> None:
        """Pause reading from the peer while the buffer is full; else resume it."""
        transport = self._transport
        if transport is None or self._ended or not self._is_open():
            return
        full = len(self._buffer) >= max(BUFFER_BYTES, self._wanted)
        if full and not self._reading_paused:
            self._reading_paused = True
            transport.pauseProducing()
        elif not full and self._reading_paused:
            self._reading_paused = False
            transport.resumeProducing()

    # Writing.

    @crossing
    def write(self, data: Bytes, /) -> int:
        """Send all of `data`; return when the transport's buffer has space. May park.

        Data of up to 256 KiB is written in one piece; longer data of two concurrent
        writers may be interleaved.

        Returns:
            The length of `data`.

        Raises:
            ConnectionResetError: the connection is lost.
            ValueError: it was closed locally.
        """
        view = memoryview(data).cast("B")
        transport = self._require_transport()
        for start in range(0, len(view), _CHUNK_BYTES):
            transport.write(bytes(view[start : start + _CHUNK_BYTES]))
            while self._writing_paused:
                self._wait(f"{self.peer} to receive more data")
                transport = self._require_transport()
        return len(view)

    def _require_transport(self) -> _Transport:
        self._check_open()
        if self._transport is None:
            raise self._lost_error()
        return self._transport

    def _lost_error(self) -> ConnectionResetError:
        reason = self._reason
        error = ConnectionResetError(
            f"the connection to {self.peer} is lost" + (f": {reason}" if reason else "")
        )
        error.__cause__ = reason
        return error

    @crossing
    def sendall(self, data: Bytes, flags: int = 0, /) -> None:
        """Write as `write`, with the name of the socket method."""
        self.write(data)

    @crossing
    def writelines(self, lines: Iterable[Bytes], /) -> None:
        """Write `lines`, which include their newlines. May park."""
        for line in lines:
            self.write(line)

    @crossing
    def flush(self) -> None:
        """No-op: writes are not buffered here."""
        self._check_open()

    # Ending.

    @crossing
    def close(self) -> None:
        """Close the connection after the written data is sent. Never parks.

        Waits of other tasks on it raise ValueError. If the peer does not receive
        the data in 30 seconds, the connection is aborted. As with a socket, open
        files of `makefile` stay usable; closing the last one closes the connection.
        """
        self.closed = True
        if not self._files:
            self._wake_all()
            self._close_transport()

    def _close_transport(self) -> None:
        if get_ident() != self._hub.thread:
            # The garbage collector may close a file in any thread.
            self._hub.call_from_thread(self._close_transport)
            return
        transport = self._transport
        if transport is None or self._linger_call is not None:
            return
        self._buffer.clear()
        self._linger_call = self._hub.reactor.callLater(
            _LINGER_SECONDS, transport.abortConnection
        )
        if self._reading_paused:
            # TLS waits for the peer's close_notify, which comes after the unread data.
            self._reading_paused = False
            transport.resumeProducing()
        # A transport with a producer would wait until the producer unregisters.
        transport.unregisterProducer()
        transport.loseConnection()

    @crossing
    def abort(self) -> None:
        """Close the connection at once; discard unsent data. Never parks."""
        self.closed = True
        self._files = 0
        self._wake_all()
        if self._transport is not None:
            self._transport.abortConnection()

    @crossing
    def wait_closed(self) -> None:
        """Wait until the connection is lost. May park.

        Call `close` or `abort` first.
        """
        while self._transport is not None:
            self._wait("the connection to end")

    def __enter__(self) -> Connection:
        """Return the connection; the end of the block closes it."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connection; abort it after an error."""
        if error is None:
            self.close()
        else:
            self.abort()

    def _is_open(self) -> bool:
        return not self.closed or self._files > 0

    def _check_open(self) -> None:
        if not self._is_open():
            raise ValueError("the connection was closed locally")

    def _wait(self, what: str) -> None:
        suspension = Suspension(require_task("Connection"), what)
        self._waiters.add(suspension)
        try:
            suspension.wait()
        finally:
            self._waiters.discard(suspension)

    def _wake_all(self) -> None:
        for suspension in list(self._waiters):
            suspension.resume()
        if self._reader is not None:
            self._reader.resume()

    # Other methods of the file and socket interfaces.

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """Return a file on this connection, as `socket.makefile` does.

        Closing the file does not close the connection, and the connection stays
        open until all its files are closed.

        Args:
            mode: "r", "w" or "rw", with "b" for bytes; text by default.
            buffering: ignored, because only text files buffer writes.
            encoding: encoding of a text file.
            errors: error handling of the decoder of a text file, as for `open`.
            newline: as for `open`.

        Raises:
            ValueError: `mode` is invalid.
        """
        file = make_file(self, self._file_closed, mode, encoding, errors, newline)
        self._files += 1
        return file

    def _file_closed(self) -> None:
        self._files = max(0, self._files - 1)
        if not self._is_open():
            self._close_transport()

    def readable(self) -> bool:
        """Return True; part of the io interface."""
        return True

    def writable(self) -> bool:
        """Return True; part of the io interface."""
        return True

    def seekable(self) -> bool:
        """Return False; part of the io interface."""
        return False

    def isatty(self) -> bool:
        """Return False; part of the io interface."""
        return False

    # Events of the transport, from `ConnectionProtocol`, in the reactor greenlet.

    def _connection_made(self, end: ConnectionProtocol) -> None:
        self._transport = transport = cast("_Transport", end.transport)
        self.peer = transport.getPeer()
        self.host = transport.getHost()
        transport.registerProducer(end, True)

    def _received(self, data: bytes) -> None:
        if not self._is_open():
            return
        self._buffer += data
        self._update_backpressure()
        if self._reader is not None:
            self._reader.resume()

    def _input_ended(self) -> None:
        self._ended = True
        if self._reader is not None:
            self._reader.resume()

    def _connection_lost(self, reason: Failure) -> None:
        if not self._ended and not reason.check(ConnectionDone):
            self._reason = reason.value
        self._ended = True
        self._transport = None
        self._writing_paused = False
        if self._linger_call is not None and self._linger_call.active():
            self._linger_call.cancel()
        self._wake_all()

    def _pause_writing(self) -> None:
        # Called inside transport.write(), so this only sets a flag.
        self._writing_paused = True

    def _resume_writing(self) -> None:
        self._writing_paused = False
        for suspension in list(self._waiters):
            suspension.resume()


def _no_op(connection: Connection) -> None:
    """No-op callback."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class ConnectionProtocol(protocol.Protocol):
    """The Twisted protocol and producer of a `Connection`.

    Args:
        connection: receives the transport's events.
        made: called with it when the connection is made.
    """

    def __init__(
        self, connection: Connection, made: Callable[[Connection], object] = _no_op
    ) -> None:
        self.connection = connection
        self._made = made

    def connectionMade(self) -> None:
        """Attach the transport."""
        self.connection._connection_made(self)
        self._made(self.connection)

    def dataReceived(self, data: bytes) -> None:
        """Buffer bytes from the peer."""
        self.connection._received(data)

    def readConnectionLost(self) -> None:
        """Handle the end of input; the peer may still receive."""
        self.connection._input_ended()

    def writeConnectionLost(self) -> None:
        """No-op: this class never half-closes."""

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """Detach the transport and end all waits."""
        self.connection._connection_lost(reason)

    def pauseProducing(self) -> None:
        """Pause the writers: the transport's buffer is full."""
        self.connection._pause_writing()

    def resumeProducing(self) -> None:
        """Resume the writers: the transport's buffer has space."""
        self.connection._resume_writing()

    def stopProducing(self) -> None:
        """No-op: `connectionLost` follows."""
