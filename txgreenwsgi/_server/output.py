"""Bytes out: the two ways in which a transport takes them.

On a plain TCP or UNIX connection we send straight to the socket. Twisted's
`transport.write` sends on a later turn of the reactor, which costs a turn for
each response and delays each block behind whatever the application does next;
and what a slow client has not taken would be copied into the transport. Here it
stays where it is, and the task is parked until the socket takes more.

Everything else (TLS above all) goes through `transport.write` and its producer
interface.

This file knows transports and parks tasks. It must never know HTTP.
"""

from __future__ import annotations

import errno
import os
import socket
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.interfaces import IPullProducer, IPushProducer
from twisted.internet.tcp import Connection
from zope.interface import implementer

from txgreenwsgi._switching.errors import ClientDisconnected
from txgreenwsgi._switching.greenlets import Suspension, require_task
from txgreenwsgi._switching.waiting import sleep

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.interfaces import ITransport

__all__ = ["Output", "late_writer", "output_for", "two_writers"]

#: What `sendfile` says of a file that it cannot send, or that cannot be read.
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

#: A transport is given so much at once: it tells that the client is behind, and
#: that the client has caught up, between one piece and the next.
_PIECE_BYTES = 65536

# Linux holds back a short packet until the next send: a head leaves with the
# first bytes of its file.
_MSG_MORE = getattr(socket, "MSG_MORE", 0)

_CAN_SENDFILE = hasattr(os, "sendfile")


class Output(Protocol):
    """What an exchange sends through. Everything but `send_last` may park.

    One task sends at a time.

    Attributes:
        waiting: the suspension of the task that waits for the client.
        left_behind: whether the transport may hold some of what was sent.
    """

    waiting: Suspension | None
    left_behind: bool

    def send(self, data: bytes) -> None:
        """Send `data`; returns when the client is not behind."""

    def send_parts(self, *parts: bytes) -> None:
        """Send long parts one after the other, without joining them."""

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        """Send a head and `count` bytes of a file by the kernel.

        Returns:
            How many bytes of the file were sent, 0 at its end; None, with
            nothing sent, where the kernel cannot.
        """

    def turn(self) -> None:
        """Park for a turn of the reactor; nobody else sends in between."""

    def hand_over(self) -> None:
        """Return when what was sent has left this process, as far as it can."""

    def send_last(self, data: bytes) -> None:
        """Send `data` before the connection is closed. Never parks."""

    def more_waits(self) -> bool:
        """Whether the client has sent what was not read, as far as can be seen."""

    def detach(self) -> None:
        """Nothing more is sent; the transport may close."""

    def disconnected(self) -> None:
        """The connection is gone: whoever is told of that knows, and is let go.

        Else the two would hold each other until the garbage collector came.
        """


@implementer(IPullProducer)
class SocketOutput:
    """Straight to the socket of a plain connection.

    Twisted's buffers stay empty as long as we are the only ones who send, so the
    transport is asked for just one thing: to tell when the socket is writable. It
    tells a pull producer whenever its (empty) buffer has been "sent".
    """

    __slots__ = ("_broken", "_socket", "_transport", "left_behind", "waiting")

    def __init__(self, transport: Connection, broken: Callable[[], object]) -> None:
        self._transport = transport
        self._socket: Any = transport.getHandle()
        self._broken = broken
        self.left_behind = False
        self.waiting: Suspension | None = None

    def send(self, data: bytes) -> None:
        if self.waiting is not None:
            raise two_writers()
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
            raise two_writers()
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
            # A timeout of the application's, perhaps. What it sends next would
            # be taken for the rest of this.
            self._broken()
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
            raise two_writers()
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
                # Some file systems cannot do it, and an error of the disk is
                # the application's to know: reading the file tells which.
                block = os.pread(fd, min(left, _PIECE_BYTES), offset)
                self._send_rest(memoryview(block))
                sent = len(block)
            if sent == 0:
                break  # the file has become shorter
            offset += sent
            left -= sent
        return count - left

    def turn(self) -> None:
        task = require_task("write()")
        self.waiting = suspension = Suspension(task, "a turn")
        task.hub.at_next_turn(suspension.resume)
        try:
            suspension.wait()
        finally:
            self.waiting = None

    def hand_over(self) -> None:
        pass

    def send_last(self, data: bytes) -> None:
        try:
            sent = self._socket.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            self._broken()
            return
        if sent != len(data):
            self.left_behind = True
            self._transport.write(data[sent:])

    def more_waits(self) -> bool:
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT))
        except OSError:
            return False

    def detach(self) -> None:
        # Who waits goes on waiting, for the connection to be lost.
        self._transport.unregisterProducer()

    def disconnected(self) -> None:
        self._broken = _nobody

    def _lost(self) -> ClientDisconnected:
        self._broken()
        return ClientDisconnected("the client has closed the connection")

    def _wait_writable(self) -> None:
        transport = self._transport
        suspension = Suspension(require_task("write()"), "the client to take more")
        # This calls resumeProducing() at once, which finds nobody waiting.
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

    # What the transport calls.

    def resumeProducing(self) -> None:
        suspension, self.waiting = self.waiting, None
        if suspension is not None:
            self._transport.unregisterProducer()
            suspension.resume()

    def stopProducing(self) -> None:
        # The connection is lost: the channel is told, and ends the wait.
        pass


@implementer(IPushProducer)
class TransportOutput:
    """Through `transport.write`, paused and resumed by the transport."""

    __slots__ = ("_broken", "_paused", "_transport", "waiting")

    left_behind = True

    def __init__(self, transport: Any, broken: Callable[[], object]) -> None:
        self._transport = transport
        self._broken = broken
        self._paused = False
        self.waiting: Suspension | None = None
        transport.registerProducer(self, True)

    def send(self, data: bytes) -> None:
        if self.waiting is not None:
            raise two_writers()
        self._transport.write(data[:_PIECE_BYTES])
        self._wait_for_client(len(data) > _PIECE_BYTES)
        for start in range(_PIECE_BYTES, len(data), _PIECE_BYTES):
            end = start + _PIECE_BYTES
            self._transport.write(data[start:end])
            self._wait_for_client(end < len(data))

    def send_parts(self, *parts: bytes) -> None:
        # Here everything is copied once more anyway.
        self.send(b"".join(parts))

    def _wait_for_client(self, more: bool) -> None:
        """Wait while the transport holds too much; `more` of the block is to come."""
        while self._paused:
            self.waiting = suspension = Suspension(
                require_task("write()"), "the client to take more"
            )
            try:
                suspension.wait()
            except BaseException:
                if more:
                    self._broken()
                raise
            finally:
                self.waiting = None

    def turn(self) -> None:
        sleep(0)

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> int | None:
        return None

    def hand_over(self) -> None:
        # TLS gathers small writes until the next turn, and the connection below
        # sends in the turn after that.
        sleep(0)
        sleep(0)

    def send_last(self, data: bytes) -> None:
        self._transport.write(data)

    def more_waits(self) -> bool:
        return False

    def detach(self) -> None:
        self._transport.unregisterProducer()

    def disconnected(self) -> None:
        self._broken = _nobody

    # What the transport calls, from inside its write() too: only flags are set.

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        if self.waiting is not None:
            self.waiting.resume()

    def stopProducing(self) -> None:
        self._paused = False


def _nobody() -> None:
    """Is told what nobody has to be told any more."""


def two_writers() -> RuntimeError:
    """What a second task gets that sends while the first one waits."""
    return RuntimeError("two tasks write the response of one request at the same time")


def late_writer() -> ValueError:
    """What a task gets that sends when the response is complete."""
    return ValueError("the response was written to after its end")


def output_for(transport: ITransport, broken: Callable[[], object]) -> Output:
    """The way out for `transport`.

    `broken` is called when nothing more can be sent in good order: a send has
    failed, or was interrupted in the middle.
    """
    if isinstance(transport, Connection) and not transport.TLS:
        return SocketOutput(transport, broken)
    return TransportOutput(transport, broken)
