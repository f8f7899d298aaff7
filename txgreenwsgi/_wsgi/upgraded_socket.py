"""`environ["gunicorn.socket"]`: the connection of a request as a socket.

WebSocket libraries for WSGI, such as simple-websocket below Flask-Sock and
Flask-SocketIO, take the client's socket from the environ and speak on it. This object
has the methods of a socket; its waits park the calling task. It is in the environ of
requests with `Upgrade: websocket` only, and the first call that receives or sends
takes the connection over. Must never know transports.
"""

from __future__ import annotations

import errno
import io
import socket
from functools import partial
from threading import get_ident
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from txgreenwsgi._parking.real_threads import real_lock
from txgreenwsgi._switching.errors import (
    Cancelled,
    ClientDisconnected,
    NotInGreenlet,
    RequestTimeout,
    TimedOut,
)
from txgreenwsgi._switching.greenlets import Task, current_task
from txgreenwsgi._switching.thread_calls import in_task_of_thread
from txgreenwsgi._switching.timeouts import timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi._switching.greenlets import Hub
    from txgreenwsgi._websocket.stream import ByteStream

__all__ = ["UpgradedSocket"]

P = ParamSpec("P")
T = TypeVar("T")

_MSG_DONTWAIT: Final = getattr(socket, "MSG_DONTWAIT", 0)


class UpgradedSocket:
    """The connection of one request, with the methods of a stream socket.

    Call the methods from any task of the request, or from any thread; in a real thread
    they block it. `send` sends all the data, as `sendall` does.

    Args:
        take_over: switches the connection and returns its byte stream. May park.
        hub: the hub of the tasks of the server.
        peer: address and port of the client, both "" for a UNIX socket.
        host: address and port of the server.
    """

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(
        self,
        take_over: Callable[[], ByteStream],
        hub: Hub,
        peer: tuple[str, str],
        host: tuple[str, str],
    ) -> None:
        self._take_over = take_over
        self._hub = hub
        self._peer = peer
        self._host = host
        self._stream: ByteStream | None = None
        self._task = current_task()
        self._seconds: float | None = None
        self._closed = False

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        return f"<{type(self).__name__} of {self.getpeername()}, {state}>"

    # Receiving.

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Receive up to `size` bytes; b"" at the end. May park.

        Raises:
            BlockingIOError: there are no bytes and the socket is non-blocking.
            ConnectionAbortedError: the request was cancelled.
            TimeoutError: the timeout of the socket has expired.
        """
        if size < 0:
            raise ValueError("negative buffersize in recv")
        return self._perform(self._recv, size, flags) if size else b""

    def recv_into(
        self, buffer: bytearray | memoryview, size: int = 0, flags: int = 0
    ) -> int:
        """Receive into `buffer`; return the number of bytes. Otherwise as `recv`."""
        with memoryview(buffer).cast("B") as view:
            data = self.recv(size or len(view), flags)
            view[: len(data)] = data
        return len(data)

    def recvfrom(self, size: int, flags: int = 0) -> tuple[bytes, None]:
        """Receive as `recv`; a stream socket names no sender."""
        return self.recv(size, flags), None

    def _recv(self, size: int, flags: int) -> bytes:
        stream = self._opened()
        peek = bool(flags & socket.MSG_PEEK)
        if stream.available:
            return stream.receive(size, peek)
        if not stream.at_end and (self._seconds == 0 or flags & _MSG_DONTWAIT):
            raise BlockingIOError(errno.EAGAIN, "no bytes of the client have arrived")
        return self._limited(stream.receive, size, peek)

    # Sending.

    def send(self, data: bytes | bytearray | memoryview, flags: int = 0) -> int:
        """Send all of `data`; return its length. Parks while the client is slow.

        Raises:
            BrokenPipeError: the client has disconnected.
            ConnectionAbortedError: the request was cancelled.
            TimeoutError: the timeout of the socket has expired.
        """
        with memoryview(data) as view:
            block = view.tobytes()
        self._perform(self._send, block)
        return len(block)

    def sendall(self, data: bytes | bytearray | memoryview, flags: int = 0) -> None:
        """Send all of `data`, as `send` does."""
        self.send(data)

    def sendmsg(
        self, buffers: Iterable[bytes | bytearray | memoryview], *args: object
    ) -> int:
        """Send all buffers in one piece. Ancillary data is not supported."""
        if args and args[0]:
            raise OSError(errno.EOPNOTSUPP, "ancillary data cannot be sent")
        return self.send(b"".join(buffers))

    def _send(self, data: bytes) -> None:
        stream = self._opened()
        if self._seconds == 0:
            # Non-blocking sends would need a buffer: park instead.
            stream.send(data)
        else:
            self._limited(stream.send, data)

    # The end.

    def close(self) -> None:
        """Close the connection after all bytes are sent. May park."""
        if not self._closed:
            self._closed = True
            self._perform(self._close)

    def _close(self) -> None:
        stream = self._taken_over()
        try:
            stream.close()
        except ClientDisconnected:
            return  # it is closed

    def shutdown(self, how: int) -> None:
        """Shut down one direction, or both, as `socket.shutdown` does. May park.

        After SHUT_WR the client reads the end of file, and `recv` still returns its
        bytes. After SHUT_RD `recv` returns the bytes that have arrived, then b"".

        Raises:
            OSError: `how` is invalid, or the socket is closed.
        """
        if how not in (socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR):
            raise OSError(errno.EINVAL, f"shutdown({how!r}): give SHUT_RD or the like")
        self._perform(self._shutdown, how)

    def _shutdown(self, how: int) -> None:
        stream = self._opened()
        if how != socket.SHUT_RD:
            stream.end_sending()
        if how != socket.SHUT_WR:
            stream.end_receiving()

    def detach(self) -> int:
        """Raise OSError: there is no descriptor to give away."""
        raise OSError(
            errno.EOPNOTSUPP,
            "the connection has no descriptor of its own; use recv() and send()",
        )

    def __enter__(self) -> UpgradedSocket:
        """Return the socket; the end of the block closes it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the connection."""
        self.close()

    # Other methods of sockets.

    def fileno(self) -> int:
        """Return a descriptor for select() and poll(); -1 after `close`.

        Readable while `recv` would not wait, and always writable. It is not that of
        the connection: do not read from it. It belongs to this object.
        """
        return -1 if self._closed else self._perform(self._fileno)

    def _fileno(self) -> int:
        return self._opened().fileno()

    def settimeout(self, seconds: float | None) -> None:
        """Set the timeout of `recv` and `send`; None for none, 0 to never wait."""
        if seconds is not None and seconds < 0:
            raise ValueError("Timeout value out of range")
        self._seconds = seconds

    def gettimeout(self) -> float | None:
        """Return the timeout in seconds; None if there is none."""
        return self._seconds

    def setblocking(self, blocking: bool) -> None:
        """Set the timeout to None or to 0."""
        self._seconds = None if blocking else 0.0

    def getblocking(self) -> bool:
        """Return whether the timeout is not 0."""
        return self._seconds != 0

    def setsockopt(self, *args: object) -> None:
        """No-op: the server sets the options of its connections."""

    def getsockopt(self, level: int, option: int, size: int = 0) -> int | bytes:
        """Return 0, or `size` zero bytes: SO_ERROR reports no error."""
        return bytes(size) if size else 0

    def getpeername(self) -> tuple[str, int] | str:
        """Return address and port of the client; "" on a UNIX socket."""
        return _address(*self._peer)

    def getsockname(self) -> tuple[str, int] | str:
        """Return address and port of the server; "" on a UNIX socket."""
        return _address(*self._host)

    def makefile(
        self, mode: str = "r", buffering: int | None = None, **text: Any
    ) -> Any:
        """Return a file on the connection, as `socket.makefile` does.

        Closing the file does not close the connection.
        """
        if not set(mode) <= set("rwb"):
            raise ValueError(f"invalid mode {mode!r} (only r, w, b allowed)")
        reads = "r" in mode or "w" not in mode
        raw = _SocketFile(self, reads, "w" in mode)
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("unbuffered streams must be binary")
            return raw
        size = (
            io.DEFAULT_BUFFER_SIZE if buffering is None or buffering < 0 else buffering
        )
        file: Any
        if "w" not in mode:
            file = io.BufferedReader(raw, size)
        elif not reads:
            file = io.BufferedWriter(raw, size)
        else:
            file = io.BufferedRWPair(raw, raw, size)
        return file if "b" in mode else io.TextIOWrapper(file, **text)

    # The task that makes a call.

    def _opened(self) -> ByteStream:
        if self._closed:
            raise OSError(errno.EBADF, "the socket is closed")
        return self._taken_over()

    def _taken_over(self) -> ByteStream:
        if self._stream is None:
            self._stream = self._take_over()
        return self._stream

    def _limited(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `function` with the timeout of the socket."""
        if not self._seconds:
            return function(*args, **kwargs)
        limit = timeout(self._seconds)
        try:
            with limit:
                return function(*args, **kwargs)
        except TimedOut:
            if limit.expired:
                raise TimeoutError("timed out") from None
            raise

    def _perform(
        self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Call `function` in a task; raise the exceptions of sockets."""
        call = in_task_of_thread()
        try:
            if call is not None:
                return call(function, *args, **kwargs)
            if get_ident() == self._hub.thread:
                return function(*args, **kwargs)
            return _in_new_task(self._hub, partial(function, *args, **kwargs))
        except ClientDisconnected as error:
            raise BrokenPipeError(errno.EPIPE, str(error)) from error
        except (Cancelled, RequestTimeout) as error:
            if call is not None or current_task() is self._task:
                raise
            # Threads of the application expect the exceptions of sockets.
            raise ConnectionAbortedError(errno.ECONNABORTED, str(error)) from error


def _in_new_task(hub: Hub, function: Callable[[], T]) -> T:
    """Call `function` in a new task of `hub`; block this real thread until then."""
    done = real_lock()
    done.acquire()
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            done.release()

    def start() -> None:
        try:
            hub.spawn(Task(hub, run, name="a call of a socket in a thread"))
        except NotInGreenlet as error:  # the reactor has stopped
            errors.append(error)
            done.release()

    if hub.closed:
        raise OSError(errno.EBADF, "the server has stopped")
    hub.call_from_thread(start)
    done.acquire()
    if errors:
        try:
            raise errors.pop()
        finally:
            errors.clear()
    return results.pop()


def _address(host: str, port: str) -> tuple[str, int] | str:
    return (host, int(port)) if port else ""


class _SocketFile(io.RawIOBase):
    """The raw file below `UpgradedSocket.makefile`."""

    def __init__(self, skt: UpgradedSocket, reads: bool, writes: bool) -> None:
        self._socket = skt
        self._reads = reads
        self._writes = writes

    def readable(self) -> bool:
        return self._reads

    def writable(self) -> bool:
        return self._writes

    def readinto(self, buffer: Any) -> int:
        return self._socket.recv_into(buffer)

    def write(self, data: Any) -> int:
        return self._socket.send(data)

    def fileno(self) -> int:
        return self._socket.fileno()
