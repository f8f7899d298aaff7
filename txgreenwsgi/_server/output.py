"""Sending with backpressure: the implementations of `Output` for HTTP/1.1.

On a plain TCP or UNIX connection, `SocketOutput` writes straight to the socket.
Twisted's `transport.write` sends in a later reactor turn, which costs a
turn per response and delays each block behind the application's next
computation; and the transport would copy the bytes that a slow client has not
accepted. Here they stay in the application's block, and the task parks until the
socket is writable.

On our own TLS, `DirectOutput` does the same through its transport, which encrypts into
the socket. All other transports use `transport.write` and the producer interface.

This file knows transports and parks tasks. It must never know HTTP.
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import sys
import termios
from typing import TYPE_CHECKING, Final, Protocol

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from txgreenwsgi._native import lanes
from txgreenwsgi._serving.stream import concurrent_write_error, park_for_turn
from txgreenwsgi._switching.errors import ClientDisconnected
from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.waiting import sleep

if TYPE_CHECKING:
    from txgreenwsgi._serving.stream import Output

    from .transports import Consumer, DirectTransport, StreamTransport

__all__ = [
    "UNKNOWN",
    "DirectOutput",
    "Sender",
    "SocketOutput",
    "TransportOutput",
    "output_for",
    "shows_progress",
    "unaccepted_bytes",
]

#: Errors of `sendfile` that concern the file, not the socket.
_FILE_ERRORS = frozenset(
    {
        errno.EINVAL,
        errno.EIO,
        errno.ENOSYS,
        errno.EOPNOTSUPP,
        errno.EOVERFLOW,
        errno.ESTALE,
    }
)

#: Size of the pieces in which blocks are written to a transport, which can pause its
#: producer between two pieces.
_PIECE_BYTES = 65536

# Linux delays a short packet until the next send, so that a head leaves with the
# first bytes of its file.
_MSG_MORE = getattr(socket, "MSG_MORE", 0)

#: In place of a result of `unaccepted_bytes` where there is none yet.
UNKNOWN: Final = -1

_CAN_SENDFILE = hasattr(os, "sendfile")


class Sender(Protocol):
    """The owner of an output."""

    def send_failed(self) -> None:
        """Drop the connection: a send failed or was interrupted halfway."""


@lanes.with_lanes
@implementer(IPullProducer)
class SocketOutput(lanes.SocketOutputState):
    """Output that writes straight to the socket of a plain connection.

    Twisted's write buffer stays empty: the transport only reports that the socket is
    writable, by calling the pull producer whenever its (empty) buffer has been
    "sent".

    Args:
        transport: the transport of the connection.
        sender: the owner of the connection. A reference to it takes less memory
            than one to a bound method.
    """

    __slots__ = lanes.slots(
        lanes.SocketOutputState,
        (
            "_sender",
            "_socket",
            "_transport",
            "may_buffer",
            "waiting",
        ),
    )

    flushing = False

    def __init__(self, transport: Connection, sender: Sender) -> None:
        self._transport = transport
        self._socket: socket.socket = transport.getHandle()
        self._sender = sender
        self.may_buffer = False
        self.waiting: Suspension | None = None

    def send(self, data: bytes) -> None:
        if self.waiting is not None:
            raise concurrent_write_error()
        try:
            sent: int = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._lost() from error
        if sent != len(data):
            self._send_rest(memoryview(data)[sent:])

    def send_parts(self, *parts: bytes) -> None:
        if self.waiting is not None:
            raise concurrent_write_error()
        try:
            sent = self._socket.sendmsg(parts)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise self._lost() from error
        for part in parts:
            if sent >= len(part):
                sent -= len(part)
            else:
                self._send_rest(memoryview(part)[sent:])
                sent = 0

    def _send_rest(self, view: memoryview) -> None:
        try:
            while view:
                sent = self._send_some(view)
                view = view[sent:]
                if view:
                    self._wait_writable()
        except BaseException:
            # For example, a timeout set by the application. The client would take
            # the next block for the rest of this one.
            self._sender.send_failed()
            raise

    def _send_some(self, data: bytes | memoryview) -> int:
        try:
            sent: int = self._socket.send(data)
        except BlockingIOError:
            return 0
        except OSError as error:
            raise self._lost() from error
        return sent

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        if not _CAN_SENDFILE or self._socket.fileno() < 0:
            return None
        if self.waiting is not None:
            raise concurrent_write_error()
        if head:
            try:
                sent = self._socket.send(head, _MSG_MORE)
            except BlockingIOError:
                sent = 0
            except OSError as error:
                raise self._lost() from error
            self._send_rest(memoryview(head)[sent:])
        left = count
        while left:
            try:
                sent = os.sendfile(self._socket.fileno(), fd, offset, left)
            except BlockingIOError:
                self._wait_writable()
                continue
            except OSError as error:
                if error.errno not in _FILE_ERRORS:
                    raise self._lost() from error
                # Either the file system does not support sendfile(), or the disk
                # fails. Then this read raises the error in the application.
                block = os.pread(fd, min(left, _PIECE_BYTES), offset)
                self._send_rest(memoryview(block))
                sent = len(block)
            if sent == 0:
                break  # the file was truncated
            offset += sent
            left -= sent
        return count - left

    def turn(self) -> None:
        park_for_turn(self)

    def flush(self) -> None:
        pass

    def send_last(self, data: bytes) -> bool:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._sender.send_failed()
            return False
        if sent == len(data):
            return True
        self.may_buffer = True
        self._transport.write(data[sent:])
        return False

    def has_unread_input(self) -> bool:
        return _has_bytes(self._socket)

    def detach(self) -> None:
        # A parked task stays parked until the connection is lost.
        self._transport.unregisterProducer()

    def disconnected(self) -> None:
        self._sender = _NO_SENDER

    def _lost(self) -> ClientDisconnected:
        self._sender.send_failed()
        return ClientDisconnected("the client has closed the connection")

    def _wait_writable(self) -> None:
        transport = self._transport
        suspension = Suspension(require_task("write()"), "the client to take more")
        # This calls resumeProducing() at once, while `waiting` is still None.
        transport.registerProducer(self, False)
        transport.startWriting()
        self.waiting = suspension
        try:
            suspension.wait()
        except BaseException:
            self.waiting = None
            transport.unregisterProducer()
            transport.stopWriting()
            raise

    # Called by the transport.

    def resumeProducing(self) -> None:
        suspension, self.waiting = self.waiting, None
        if suspension is not None:
            self._transport.unregisterProducer()
            suspension.resume()

    def stopProducing(self) -> None:
        # The connection is lost; the channel ends the wait.
        pass


@implementer(IPushProducer)
class TransportOutput:
    """Output through `transport.write` and the push producer interface.

    Args:
        transport: the transport of the connection; anything with `write` and
            `registerProducer`.
        sender: as for `SocketOutput`.
    """

    __slots__ = ("_paused", "_sender", "_transport", "flushing", "waiting")

    may_buffer = True

    def __init__(self, transport: Consumer, sender: Sender) -> None:
        self._transport = transport
        self._sender = sender
        self._paused = False
        self.flushing = False
        self.waiting: Suspension | None = None
        transport.registerProducer(self, True)

    def send(self, data: bytes) -> None:
        if self.waiting is not None:
            raise concurrent_write_error()
        self._transport.write(data[:_PIECE_BYTES])
        self._wait_for_client(len(data) > _PIECE_BYTES)
        for start in range(_PIECE_BYTES, len(data), _PIECE_BYTES):
            end = start + _PIECE_BYTES
            self._transport.write(data[start:end])
            self._wait_for_client(end < len(data))

    def send_parts(self, *parts: bytes) -> None:
        # The transport copies the data in any case.
        self.send(b"".join(parts))

    def wait(self) -> None:
        """Park while the transport's buffer is full."""
        self._wait_for_client(False)

    def _wait_for_client(self, more: bool) -> None:
        """Park while the transport's buffer is full.

        `more` means that the rest of the block follows.
        """
        while self._paused:
            self.waiting = suspension = Suspension(
                require_task("write()"), "the client to take more"
            )
            try:
                suspension.wait()
            except BaseException:
                if more:
                    self._sender.send_failed()
                raise
            finally:
                self.waiting = None

    def turn(self) -> None:
        self._sleep(1)

    def _sleep(self, turns: int) -> None:
        self.flushing = True
        try:
            for _ in range(turns):
                sleep(0)
        finally:
            self.flushing = False

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        return None

    def flush(self) -> None:
        # TLS coalesces small writes until the next turn, and the transport
        # below it sends in the turn after that.
        self._sleep(2)

    def send_last(self, data: bytes) -> bool:
        self._transport.write(data)
        return not self._paused

    def has_unread_input(self) -> bool:
        return has_unread_bytes(self._transport)

    def detach(self) -> None:
        self._transport.unregisterProducer()

    def disconnected(self) -> None:
        self._sender = _NO_SENDER

    # Called by the transport, also from inside its write(): these only set flags.

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self.waiting is not None:
            self.waiting.resume()

    def stopProducing(self) -> None:
        self._paused = False


class DirectOutput(TransportOutput):
    """Output to a transport that sends at once, such as our own TLS.

    A slow client makes the task park, as with `SocketOutput`. What is left of a piece
    then is in the transport, and stays valid if the wait is interrupted.

    Args:
        transport: the transport of the connection.
        sender: as for `SocketOutput`.
    """

    __slots__ = ()

    may_buffer = False

    _transport: DirectTransport

    def send(self, data: bytes) -> None:
        self.send_parts(data)

    def send_parts(self, *parts: bytes) -> None:
        if self.waiting is not None:
            raise concurrent_write_error()
        transport = self._transport
        if sum(map(len, parts)) <= 2 * _PIECE_BYTES:
            transport.writeSequence(parts)
        else:
            for data in parts:
                view = memoryview(data)
                for start in range(0, len(view), _PIECE_BYTES):
                    transport.write(view[start : start + _PIECE_BYTES])
                    if self._paused:
                        self._wait_for_client(True)
        if transport.lost:
            self._sender.send_failed()
            raise ClientDisconnected("the client has closed the connection")
        if self._paused:
            self._wait_for_client(False)

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        left = count
        while left:
            try:
                block = os.pread(fd, min(left, _PIECE_BYTES), offset)
            except OSError:
                if head:
                    self.send(head)
                raise
            if not block:
                break  # the file was truncated
            self.send_parts(head, block)
            head = b""
            offset += len(block)
            left -= len(block)
        if head:
            self.send(head)
        return count - left

    def flush(self) -> None:
        pass

    def progressed(self) -> None:
        """Restart the time limit of the wait: the client has accepted a part."""
        waiting = self.waiting
        if waiting is not None and waiting.task is not None:
            waiting.progressed(waiting.task.hub.seconds())

    def send_last(self, data: bytes) -> bool:
        self._transport.write(data)
        return not self._paused and not self._transport.lost

    def receive(self, size: int) -> bytes:
        """Read about `size` bytes from the client; b"" if none are there."""
        return self._transport.receive(size)

    def release_memory(self) -> None:
        """Release the memory that long messages have left. Call between requests."""
        self._transport.release_memory()


def tcp_connection(transport: object) -> Connection | None:
    """Return the TCP or UNIX connection that `transport` is, or is a layer above."""
    while transport is not None and not isinstance(transport, Connection):
        transport = getattr(transport, "transport", None)
    return transport


def has_unread_bytes(transport: object) -> bool:
    """Return whether the socket below `transport` has bytes that were not read."""
    below = tcp_connection(transport)
    return below is not None and bool(below.connected) and _has_bytes(below.getHandle())


def unaccepted_bytes(transport: object) -> int:
    """Return how many sent bytes the client's kernel has not accepted yet.

    Linux reports a socket as writable only when a third of its send buffer is free, and
    that buffer grows to 4 MB (tcp_wmem in tcp(7)): a client that plays music accepts
    bytes all the time, and no send succeeds for minutes.

    Returns:
        The number; 0 where the system does not tell. Other systems than Linux report a
        socket as writable sooner.
    """
    below = tcp_connection(transport)
    if below is None or not below.connected:
        return 0
    fd = below.getHandle().fileno()
    if fd < 0:
        return 0  # in memory
    try:
        found = fcntl.ioctl(fd, termios.TIOCOUTQ, bytes(4))
    except OSError:
        return 0  # not Linux
    return int.from_bytes(found, sys.byteorder)


def shows_progress(before: int, now: int) -> bool:
    """Return whether the client has accepted bytes between two `unaccepted_bytes`.

    More bytes are progress too: the transport had some left, and the kernel had room
    for them.
    """
    return before != UNKNOWN and now != before


def _has_bytes(skt: socket.socket) -> bool:
    """Return whether the kernel buffers unread bytes of the peer."""
    try:
        return bool(skt.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
    except OSError:
        return False


class _NoSender:
    """Discards late notifications."""

    def send_failed(self) -> None:
        """Do nothing."""


_NO_SENDER = _NoSender()


def output_for(transport: StreamTransport, sender: Sender) -> Output:
    """Return the output of a connection.

    Args:
        transport: the transport of the connection.
        sender: as for `SocketOutput`.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        return SocketOutput(transport, sender)
    if getattr(transport, "sends_at_once", False):
        direct: DirectTransport = transport  # type: ignore[assignment]
        return DirectOutput(direct, sender)
    return TransportOutput(transport, sender)
