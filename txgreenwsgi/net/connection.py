"""One connection as a file: reading, writing and closing, for a task.

It knows one transport and parks tasks. It must never know how the connection was
made.
"""

from __future__ import annotations

from threading import get_ident
from typing import TYPE_CHECKING, Any, cast

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Protocol, connectionDone
from zope.interface import implementer

from txgreenwsgi._switching.greenlets import Suspension, require_task

from .files import make_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from types import TracebackType

    from twisted.internet.interfaces import IAddress, IDelayedCall
    from twisted.python.failure import Failure

    from txgreenwsgi._switching.greenlets import Hub

    Bytes = bytes | bytearray | memoryview

__all__ = ["BUFFER_BYTES", "Connection", "End"]

#: Reading from the peer pauses while so much waits to be read.
BUFFER_BYTES = 65536

#: Long data is given to the transport in pieces, so that it never holds it all.
_PIECE_BYTES = 262144

#: After `close()`, what was written has so many seconds to leave.
_LINGER_SECONDS = 30.0


class Connection:
    """One stream to a peer, with the methods of a binary file.

    Made by `connect`, and by `listen` for each client. Reading and writing may
    park and are called from a task; one task reads at a time. Bytes that nobody
    reads are held up to `BUFFER_BYTES`; then the peer has to wait. Every wait
    ends early by what interrupts the task, and nothing that was received is lost
    by that.

    Attributes:
        closed: whether `close` or `abort` was called.
        peer: the address of the other end.
        host: the address of this end.
    """

    def __init__(self, hub: Hub) -> None:
        self.closed = False
        self.peer: IAddress | None = None
        self.host: IAddress | None = None
        self._hub = hub
        # None before the connection is made and after it is gone.
        self._transport: Any = None
        self._buffer = bytearray()
        # How much whoever reads needs before it can go on.
        self._wanted: float = 0
        self._reader: Suspension | None = None
        self._reading_paused = False
        # The peer sends no more; `_reason` tells why, if not in good order.
        self._ended = False
        self._reason: BaseException | None = None
        self._writing_paused = False
        # Who waits for room, or for the end of the connection.
        self._waiting: set[Suspension] = set()
        # How many files of `makefile` are open.
        self._files = 0
        self._linger_call: IDelayedCall | None = None

    def __repr__(self) -> str:
        state = "closed" if self.closed else "lost" if self.lost else "open"
        return f"<Connection to {self.peer} {state}>"

    @property
    def lost(self) -> bool:
        """True once the connection is gone and nothing can be written any more."""
        return self._transport is None

    # Reading.

    def read(self, size: int | None = -1, /) -> bytes:
        """Exactly `size` bytes, fewer only at the end; all by default. May park.

        Raises:
            ConnectionResetError: the connection was lost before they came. What
                did come can still be had by `recv`.
            ValueError: the connection was closed at this end.
        """
        wanted = float("inf") if size is None or size < 0 else size
        while len(self._buffer) < wanted and self._receive(wanted):
            pass
        return self._take(min(wanted, len(self._buffer)))

    def recv(self, size: int, /) -> bytes:
        """At least one byte and at most `size`, as they come; b"" at the end.

        May park. Errors as for `read`.
        """
        if size < 1:
            raise ValueError(f"recv() takes a size of at least 1 byte, not {size!r}")
        while not self._buffer and self._receive(1):
            pass
        return self._take(min(size, len(self._buffer)))

    def read1(self, size: int = -1, /) -> bytes:
        """As `recv`, by the name and default that the io module has for it."""
        return b"" if size == 0 else self.recv(size if size > 0 else BUFFER_BYTES)

    def readinto(self, buffer: Any, /) -> int:
        """Fill `buffer`; the number of bytes read, fewer only at the end."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)

    def readline(self, limit: int | None = -1, /) -> bytes:
        """One line with its newline, of at most `limit` bytes; b"" at the end.

        May park. Errors as for `read`. Without a limit a peer may send a line
        that has no end: give one, or use `readuntil`.
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

    def readuntil(self, mark: bytes, limit: int = BUFFER_BYTES) -> bytes:
        """What comes up to `mark`, with it. May park.

        Args:
            mark: at least one byte.
            limit: the most bytes, with the mark.

        Raises:
            EOFError: the peer has ended without it; what it sent is still there
                to be read.
            ValueError: there is no mark in `limit` bytes; they are still there.
        """
        if not mark:
            raise ValueError("readuntil() takes a mark of at least one byte")
        searched = 0
        while True:
            found = self._buffer.find(mark, searched)
            if 0 <= found <= limit - len(mark):
                return self._take(found + len(mark))
            if found >= 0 or len(self._buffer) >= limit:
                raise ValueError(f"there is no {mark!r} in the first {limit} bytes")
            searched = max(0, len(self._buffer) - len(mark) + 1)
            if not self._receive(limit):
                raise EOFError(
                    f"the connection has ended without {mark!r} after "
                    f"{len(self._buffer)} bytes"
                )

    def readlines(self, hint: int | None = -1, /) -> list[bytes]:
        """All lines; with a `hint`, no more once so many bytes were read."""
        lines = []
        length = 0
        for line in self:
            lines.append(line)
            length += len(line)
            if hint is not None and 0 < hint <= length:
                break
        return lines

    def __iter__(self) -> Iterator[bytes]:
        """The lines that come until the end."""
        return self

    def __next__(self) -> bytes:
        """The next line."""
        line = self.readline()
        if not line:
            raise StopIteration
        return line

    def _receive(self, wanted: float) -> bool:
        """Park until more has come, or the end; False if that was known before."""
        self._check_open()
        if self._ended:
            if self._reason is not None:
                raise self._lost_error()
            return False
        if self._reader is not None:
            raise RuntimeError("two tasks read from one connection at the same time")
        self._reader = suspension = Suspension(
            require_task("Connection.read()"), f"reading from {self.peer}"
        )
        self._wanted = wanted
        self._see_to_reading()
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
        self._see_to_reading()
        return data

    def _see_to_reading(self) -> None:
        """Pause the peer while enough is held, else let it go on."""
        transport = self._transport
        if transport is None or self._ended or not self._is_open():
            return
        enough = len(self._buffer) >= max(BUFFER_BYTES, self._wanted)
        if enough and not self._reading_paused:
            self._reading_paused = True
            transport.pauseProducing()
        elif not enough and self._reading_paused:
            self._reading_paused = False
            transport.resumeProducing()

    # Writing.

    def write(self, data: Bytes, /) -> int:
        """Send all of `data`; returns when the peer is not far behind. May park.

        Each piece of up to 256 KiB leaves as one; longer data that two tasks
        write at the same time may be mixed.

        Returns:
            The number of bytes, which is always all.

        Raises:
            ConnectionResetError: the connection is lost.
            ValueError: it was closed at this end.
        """
        view = memoryview(data).cast("B")
        self._check_writable()
        for start in range(0, len(view), _PIECE_BYTES):
            self._transport.write(bytes(view[start : start + _PIECE_BYTES]))
            while self._writing_paused:
                self._wait(f"{self.peer} to take more")
                self._check_writable()
        return len(view)

    def _check_writable(self) -> None:
        self._check_open()
        if self.lost:
            raise self._lost_error()

    def _lost_error(self) -> ConnectionResetError:
        reason = self._reason
        error = ConnectionResetError(
            f"the connection to {self.peer} is lost" + (f": {reason}" if reason else "")
        )
        error.__cause__ = reason
        return error

    def sendall(self, data: Bytes, flags: int = 0, /) -> None:
        """As `write`, by the name that sockets have for it."""
        self.write(data)

    def writelines(self, lines: Iterable[Bytes], /) -> None:
        """Write each of `lines`, which have their newlines. May park."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Nothing is held back, so there is nothing to do."""
        self._check_open()

    # Ending.

    def close(self) -> None:
        """Close it when what was written has left. Never parks.

        Whoever waits in it gets a ValueError. If the peer does not take what was
        written in 30 seconds, it is cut off. While files of `makefile` are open,
        they work, as they do with a socket.
        """
        self.closed = True
        if not self._files:
            self._wake_all()
            self._close_transport()

    def _close_transport(self) -> None:
        if get_ident() != self._hub.thread:
            # A file that the collector closes, in whatever thread.
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
            # TLS waits for the peer's goodbye, which is behind what was not read.
            self._reading_paused = False
            transport.resumeProducing()
        # A transport with a producer would wait for its end.
        transport.unregisterProducer()
        transport.loseConnection()

    def abort(self) -> None:
        """Cut the connection: what has not left is lost. Never parks."""
        self.closed = True
        self._files = 0
        self._wake_all()
        if self._transport is not None:
            self._transport.abortConnection()

    def wait_closed(self) -> None:
        """Return when the connection is gone; call `close` or `abort` before."""
        while self._transport is not None:
            self._wait("the connection to end")

    def __enter__(self) -> Connection:
        """Use as a context manager: closed at the end."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close in good order; cut it off after an error."""
        if error is None:
            self.close()
        else:
            self.abort()

    def _is_open(self) -> bool:
        return not self.closed or self._files > 0

    def _check_open(self) -> None:
        if not self._is_open():
            raise ValueError("the connection was closed at this end")

    def _wait(self, what: str) -> None:
        suspension = Suspension(require_task("Connection"), what)
        self._waiting.add(suspension)
        try:
            suspension.wait()
        finally:
            self._waiting.discard(suspension)

    def _wake_all(self) -> None:
        for suspension in list(self._waiting):
            suspension.resume()
        if self._reader is not None:
            self._reader.resume()

    # What code that wants a file or a socket asks.

    def makefile(
        self,
        mode: str = "r",
        buffering: int | None = None,
        *,
        encoding: str | None = None,
        errors: str | None = None,
        newline: str | None = None,
    ) -> Any:
        """A file on this connection, as `socket.makefile` makes them.

        It has an end of its own: closing it does not close the connection, and
        the connection lives until all its files are closed.

        Args:
            mode: "r", "w" or "rw", with "b" for bytes; text by default.
            buffering: of no effect: nothing is held back but in text files.
            encoding: of a text file.
            errors: what a text file does with what it cannot decode.
            newline: as for `open`.
        """
        return make_file(self, self._file_closed, mode, encoding, errors, newline)

    def _file_opened(self) -> None:
        self._files += 1

    def _file_closed(self) -> None:
        self._files = max(0, self._files - 1)
        if not self._is_open():
            self._close_transport()

    def readable(self) -> bool:
        """True: for the io module."""
        return True

    def writable(self) -> bool:
        """True: for the io module."""
        return True

    def seekable(self) -> bool:
        """False: for the io module."""
        return False

    def isatty(self) -> bool:
        """False: for the io module."""
        return False

    # What the transport tells by way of its `End`, in the reactor greenlet.

    def _connection_made(self, end: End) -> None:
        self._transport = transport = cast("Any", end.transport)
        self.peer = transport.getPeer()
        self.host = transport.getHost()
        transport.registerProducer(end, True)

    def _received(self, data: bytes) -> None:
        if not self._is_open():
            return
        self._buffer += data
        self._see_to_reading()
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
        # Called from inside transport.write(): only a flag is set.
        self._writing_paused = True

    def _resume_writing(self) -> None:
        self._writing_paused = False
        for suspension in list(self._waiting):
            suspension.resume()


def _nothing(connection: Connection) -> None:
    """Nobody is to be told."""


@implementer(IHalfCloseableProtocol, IPushProducer)
class End(Protocol):
    """What the transport calls; it tells its `Connection`.

    Args:
        connection: the one to tell.
        made: called with it when the connection is made.
    """

    def __init__(
        self, connection: Connection, made: Callable[[Connection], object] = _nothing
    ) -> None:
        self.connection = connection
        self._made = made

    def connectionMade(self) -> None:
        """The connection is there."""
        self.connection._connection_made(self)
        self._made(self.connection)

    def dataReceived(self, data: bytes) -> None:
        """Bytes from the peer."""
        self.connection._received(data)

    def readConnectionLost(self) -> None:
        """The peer sends no more, and may still wait for what we have to say."""
        self.connection._input_ended()

    def writeConnectionLost(self) -> None:
        """Of no interest: we never close one half ourselves."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is gone."""
        self.connection._connection_lost(reason)

    def pauseProducing(self) -> None:
        """The peer is behind."""
        self.connection._pause_writing()

    def resumeProducing(self) -> None:
        """The peer has caught up."""
        self.connection._resume_writing()

    def stopProducing(self) -> None:
        """The connection is lost; `connectionLost` follows."""
