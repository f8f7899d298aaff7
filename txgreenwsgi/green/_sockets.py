"""The methods of a green socket.

The descriptor is in non-blocking mode and the original class has a time limit of 0,
whatever limit the socket declares, so that neither the original methods nor other C
code on the descriptor (pyOpenSSL) can block; the declared limit is stored here. In the
reactor greenlet and in threads, operations that wait do so with `poll`.

A descriptor that other code takes over by its number, such as a child process, is
*lent*: it gets the mode that the socket declares, as in the original. See
`_by_number.py`.

It knows sockets and tasks. Names are resolved by `_resolver.py`.
"""

from __future__ import annotations

import _socket
import errno
import os
import posix
import socket as _standard
from array import array
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING, Any, SupportsIndex, TypeVar
from weakref import ref

from txgreenwsgi._parking import descriptors
from txgreenwsgi._parking.descriptors import READ, WRITE
from txgreenwsgi._parking.waits import may_park, yield_to_others
from txgreenwsgi._switching.errors import NotInGreenlet
from txgreenwsgi._switching.running import current_task

from . import _by_number, _resolver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import TypeAlias

    from _typeshed import ReadableBuffer, WriteableBuffer
    from typing_extensions import Self

    from txgreenwsgi._switching.greenlets import Task

    # An address depends on the family; a message is (data, ancillary data, flags,
    # address).
    _Address: TypeAlias = Any
    _Message: TypeAlias = tuple[bytes, list[tuple[int, int, bytes]], int, _Address]
    _MessageInto: TypeAlias = tuple[int, list[tuple[int, int, bytes]], int, _Address]
    _Ancillary: TypeAlias = tuple[int, int, ReadableBuffer]

__all__ = ["GreenSocket"]

T = TypeVar("T")

_DONTWAIT: int = getattr(_socket, "MSG_DONTWAIT", 0)
_WAITALL: int = getattr(_socket, "MSG_WAITALL", 0)
_C = _socket.socket
_recv = _C.recv
_send = _C.send
# Not `os.sendfile`, which may be patched.
_sendfile: Any = getattr(posix, "sendfile", None)
_SCM_RIGHTS: int = getattr(_socket, "SCM_RIGHTS", -1)
_fileno = _C.fileno
_gettimeout = _C.gettimeout
_settimeout = _C.settimeout
_green_sockets = _by_number.green_sockets
_NOT_YET = (errno.EINPROGRESS, errno.EALREADY, errno.EWOULDBLOCK)
#: Interval between attempts to connect to a UNIX listener whose backlog is full: no
#: event reports free space.
_RETRY_SECONDS = 0.005


class GreenSocket(_standard.socket):
    """`socket.socket`, whose methods park the task instead of blocking."""

    __slots__ = ("_lent", "_registration", "_seconds")

    # True in TLS sockets: OpenSSL blocks if the descriptor is in blocking mode, so it
    # is never lent.
    _never_blocking = False

    def __init__(
        self,
        family: int = -1,
        type: int = -1,  # noqa: A002 - the original's
        proto: int = -1,
        fileno: int | None = None,
    ) -> None:
        self._registration: descriptors.Registration | None = None
        self._lent = False
        super().__init__(family, type, proto, fileno)
        self._seconds = seconds = _gettimeout(self)
        if seconds != 0.0:
            _settimeout(self, 0.0)
        _green_sockets[_fileno(self)] = ref(self)

    # Time limits.

    def settimeout(self, value: float | None, /) -> None:
        """Set the time limit of each operation in seconds; None for no limit."""
        if value is None:
            _settimeout(self, None if self._lent else 0.0)
            self._seconds = None
        else:
            _settimeout(self, value)
            self._seconds = seconds = _gettimeout(self)
            if seconds != 0.0:
                _settimeout(self, 0.0)

    def gettimeout(self) -> float | None:
        """Return the time limit of each operation in seconds; None for no limit."""
        return self._seconds

    @property
    def timeout(self) -> float | None:
        """The time limit of each operation in seconds; None for no limit."""
        return self._seconds

    def setblocking(self, flag: bool, /) -> None:
        """Call `settimeout(None)` if `flag`, else `settimeout(0.0)`."""
        self.settimeout(None if flag else 0.0)

    def getblocking(self) -> bool:
        """Return whether operations wait."""
        return self._seconds != 0.0

    # The descriptor in the hands of other code.

    def lend(self) -> None:
        """Give the descriptor the mode that the socket declares, from now on.

        For code that uses the same open file by its number, in this process or in a
        child. The methods of this socket still park. A no-op for TLS sockets.
        """
        if not (self._lent or self._never_blocking):
            self._lent = True
            if self._seconds is None:
                _settimeout(self, None)

    def set_inheritable(self, inheritable: bool) -> None:
        """As `socket.socket.set_inheritable`; lends the descriptor to the child."""
        super().set_inheritable(inheritable)
        if inheritable:
            self.lend()

    # Waiting.

    def _wait(
        self, task: Task[object] | None, direction: int, deadline: float | None
    ) -> None:
        """Wait until the socket may be ready. May park.

        Args:
            task: the current task; None to block.
            direction: READ or WRITE.
            deadline: the deadline by `monotonic`; None for no limit.

        Raises:
            TimeoutError: the deadline has passed.
            OSError: the socket is closed, or was closed during the wait.
        """
        left = None
        if deadline is not None:
            left = deadline - monotonic()
            if left <= 0:
                raise TimeoutError("timed out")
        try:
            if task is not None:
                fd = self.fileno()
                # Stored before the wait, so that `close` finds it.
                registration = descriptors.register(task, fd, self._registration)
                self._registration = registration
                ready = descriptors.wait(task, fd, registration, direction, left, self)
            else:
                ready = descriptors.block(self.fileno(), direction, left)
        except NotInGreenlet:
            if task is None or may_park():
                raise  # the task is being killed
            ready = descriptors.block(self.fileno(), direction, left)
        if not ready:
            raise TimeoutError("timed out")

    def _retry(self, direction: int, operation: Callable[..., T], *args: object) -> T:
        """Return `operation(self, *args)`, waiting while it would block. May park.

        Args:
            direction: READ or WRITE.
            operation: a function that raises BlockingIOError when it would block.
            args: its further arguments.
        """
        task = current_task()
        if task is not None and task.pending_interruption:
            task.raise_pending()  # before the operation, so that no data is lost
        try:
            result = operation(self, *args)
        except BlockingIOError:
            pass
        else:
            if task is not None:
                yield_to_others(task)
            return result
        return self._when_ready(task, direction, operation, *args)

    def _when_ready(
        self,
        task: Task[object] | None,
        direction: int,
        operation: Callable[..., T],
        *args: object,
    ) -> T:
        """As `_retry`, after `operation` has raised BlockingIOError."""
        seconds = self._seconds
        deadline = None if seconds is None else monotonic() + seconds
        while True:
            # Outside the `except`, so that later errors do not get it as context.
            self._wait(task, direction, deadline)
            try:
                return operation(self, *args)
            except BlockingIOError:
                continue

    def _is_plain(self) -> bool:
        """Return whether to call the original method."""
        return self._seconds == 0.0

    # Receiving.

    def recv(self, bufsize: int, flags: int = 0, /) -> bytes:
        """As `socket.socket.recv`. May park."""
        task = current_task()
        if task is not None and not flags and self._seconds != 0.0:
            # Hot path for nearly all calls.
            if task.pending_interruption:
                task.raise_pending()
            try:
                data = _recv(self, bufsize, _DONTWAIT)
            except BlockingIOError:
                pass
            else:
                yield_to_others(task)
                return data
            return self._when_ready(task, READ, _recv, bufsize, _DONTWAIT)
        if flags & _DONTWAIT or self._is_plain():
            return _recv(self, bufsize, flags)
        if flags & _WAITALL and self._seconds is None:
            return self._recv_all(bufsize, flags)
        return self._retry(READ, _recv, bufsize, flags | _DONTWAIT)

    def _recv_all(self, bufsize: int, flags: int) -> bytes:
        # With MSG_DONTWAIT the kernel ignores MSG_WAITALL.
        pieces = []
        left = bufsize
        while left > 0:
            piece = self._retry(READ, _recv, left, flags & ~_WAITALL | _DONTWAIT)
            pieces.append(piece)
            left -= len(piece)
            if not piece:
                break
        return b"".join(pieces)

    def recv_into(
        self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0
    ) -> int:
        """As `socket.socket.recv_into`. May park."""
        if flags & _DONTWAIT or self._is_plain():
            return _C.recv_into(self, buffer, nbytes, flags)
        if flags & _WAITALL and self._seconds is None:
            with memoryview(buffer) as view, view.cast("B") as flat:
                data = self._recv_all(nbytes or len(flat), flags)
                flat[: len(data)] = data
                return len(data)
        count: int = self._retry(READ, _C.recv_into, buffer, nbytes, flags | _DONTWAIT)
        return count

    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, _Address]:
        """As `socket.socket.recvfrom`. May park."""
        if flags & _DONTWAIT or self._is_plain():
            return _C.recvfrom(self, bufsize, flags)
        got: tuple[bytes, _Address] = self._retry(
            READ, _C.recvfrom, bufsize, flags | _DONTWAIT
        )
        return got

    def recvfrom_into(
        self, buffer: WriteableBuffer, nbytes: int = 0, flags: int = 0
    ) -> tuple[int, _Address]:
        """As `socket.socket.recvfrom_into`. May park."""
        if flags & _DONTWAIT or self._is_plain():
            return _C.recvfrom_into(self, buffer, nbytes, flags)
        got: tuple[int, _Address] = self._retry(
            READ, _C.recvfrom_into, buffer, nbytes, flags | _DONTWAIT
        )
        return got

    def recvmsg(self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /) -> _Message:
        """As `socket.socket.recvmsg`. May park."""
        if flags & _DONTWAIT or self._is_plain():
            return _C.recvmsg(self, bufsize, ancbufsize, flags)
        return self._retry(READ, _C.recvmsg, bufsize, ancbufsize, flags | _DONTWAIT)

    def recvmsg_into(
        self,
        buffers: Iterable[WriteableBuffer],
        ancbufsize: int = 0,
        flags: int = 0,
        /,
    ) -> _MessageInto:
        """As `socket.socket.recvmsg_into`. May park."""
        if flags & _DONTWAIT or self._is_plain():
            return _C.recvmsg_into(self, buffers, ancbufsize, flags)
        buffers = tuple(buffers)
        return self._retry(
            READ, _C.recvmsg_into, buffers, ancbufsize, flags | _DONTWAIT
        )

    # Sending.

    def send(self, data: ReadableBuffer, flags: int = 0, /) -> int:
        """As `socket.socket.send`. May park."""
        if flags & _DONTWAIT or self._is_plain():
            return _send(self, data, flags)
        count: int = self._retry(WRITE, _send, data, flags | _DONTWAIT)
        return count

    def sendall(self, data: ReadableBuffer, flags: int = 0, /) -> None:
        """As `socket.socket.sendall`. May park."""
        if flags & _DONTWAIT or self._is_plain():
            _C.sendall(self, data, flags)
            return
        task = current_task()
        if task is not None and task.pending_interruption:
            task.raise_pending()
        flags |= _DONTWAIT
        seconds = self._seconds
        if type(data) is bytes:
            # Hot path: most data fits into the kernel's buffer.
            try:
                sent = _send(self, data, flags)
            except BlockingIOError:
                sent = 0
            if sent == len(data):
                if task is not None:
                    yield_to_others(task)
                return
            data = memoryview(data)[sent:]
        with memoryview(data) as view, view.cast("B") as flat:
            total = len(flat)
            sent = 0
            deadline = None if seconds is None else monotonic() + seconds
            while True:
                full = False
                try:
                    with flat[sent:] as rest:
                        sent += _send(self, rest, flags)
                except BlockingIOError:
                    full = True
                if full:
                    self._wait(task, WRITE, deadline)
                if sent >= total:
                    break
                if deadline is not None and monotonic() > deadline:
                    raise TimeoutError("timed out")
        if task is not None:
            yield_to_others(task)

    def sendto(self, data: ReadableBuffer, *rest: _Address) -> int:
        """As `socket.socket.sendto`. May park."""
        if self._is_plain() or not 1 <= len(rest) <= 2:
            return _C.sendto(self, data, *rest)
        flags = rest[0] if len(rest) == 2 else 0
        address = self._resolved(rest[-1])
        if not isinstance(flags, int) or flags & _DONTWAIT:
            return _C.sendto(self, data, *rest)
        count: int = self._retry(WRITE, _C.sendto, data, flags | _DONTWAIT, address)
        return count

    def sendmsg(
        self,
        buffers: Iterable[ReadableBuffer],
        ancdata: Iterable[_Ancillary] = (),
        flags: int = 0,
        address: _Address = None,
        /,
    ) -> int:
        """As `socket.socket.sendmsg`. May park."""
        if ancdata:
            ancdata = tuple(ancdata)
            _lend_sent(ancdata)
        if flags & _DONTWAIT or self._is_plain():
            return _C.sendmsg(self, buffers, ancdata, flags, address)
        buffers = tuple(buffers)
        if address is not None:
            address = self._resolved(address)
        count: int = self._retry(
            WRITE, _C.sendmsg, buffers, ancdata, flags | _DONTWAIT, address
        )
        return count

    # Connections.

    def _resolved(self, address: _Address) -> _Address:
        """Return `address` with its host name resolved, since `connect` would block."""
        if self.family in (_standard.AF_INET, _standard.AF_INET6):
            return _resolver.resolve_address(
                address, self.family, self.type, self.proto
            )
        return address

    def _nonblocking(self, operation: Callable[..., T], *args: object) -> T:
        """Call an operation without a flags argument in non-blocking mode."""
        if self._seconds is not None:
            return operation(self, *args)
        # Even if it is not lent: a duplicate of the descriptor may have been.
        _settimeout(self, 0.0)
        try:
            return operation(self, *args)
        finally:
            if self._lent:
                _settimeout(self, None)

    def _accept(self) -> tuple[int, _Address]:
        if self._is_plain():
            return _C._accept(self)  # type: ignore[attr-defined,no-any-return]
        # Not with `_retry`: other processes may share a lent descriptor, so its mode is
        # changed only during each attempt.
        task = current_task()
        seconds = self._seconds
        deadline = None if seconds is None else monotonic() + seconds
        while True:
            try:
                pair: tuple[int, _Address] = self._nonblocking(_C._accept)  # type: ignore[attr-defined]
            except BlockingIOError:
                pass
            else:
                if task is not None:
                    yield_to_others(task)
                return pair
            self._wait(task, READ, deadline)

    def accept(self) -> tuple[GreenSocket, _Address]:
        """As `socket.socket.accept`. May park."""
        fd, address = self._accept()
        return self._like(fd), address

    def _like(self, fd: int) -> GreenSocket:
        return GreenSocket(self.family, self.type, self.proto, fileno=fd)

    def connect_ex(self, address: _Address, /) -> int:
        """As `socket.socket.connect_ex`. May park."""
        if self._is_plain():
            return _C.connect_ex(self, address)
        return self._connect(address)

    def _connect(self, address: _Address) -> int:
        # Not `self.connect_ex`, which subclasses such as TLS sockets override.
        task = current_task()
        seconds = self._seconds
        deadline = None if seconds is None else monotonic() + seconds
        address = self._resolved(address)
        while True:
            number: int = self._nonblocking(_C.connect_ex, address)
            if number == errno.EAGAIN and self.family == _standard.AF_UNIX:
                if not self._pause(task, deadline):
                    return errno.EAGAIN
                continue
            if number not in _NOT_YET:
                if task is not None:
                    yield_to_others(task)
                return number
            break
        try:
            self._wait(task, WRITE, deadline)
        except TimeoutError:
            return errno.EWOULDBLOCK
        return self.getsockopt(_standard.SOL_SOCKET, _standard.SO_ERROR)

    def _pause(self, task: Task[object] | None, deadline: float | None) -> bool:
        from .time import sleep

        if deadline is not None and monotonic() >= deadline:
            return False
        sleep(_RETRY_SECONDS)
        return True

    def connect(self, address: _Address, /) -> None:
        """As `socket.socket.connect`. May park."""
        if self._is_plain():
            _C.connect(self, address)
            return
        number = self._connect(address)
        if number == errno.EWOULDBLOCK and self._seconds is not None:
            raise TimeoutError("timed out")
        if number:
            raise OSError(number, os.strerror(number))

    # Files.

    def _sendfile_use_sendfile(
        self, file: Any, offset: int = 0, count: int | None = None
    ) -> int:
        if self._is_plain():
            return super()._sendfile_use_sendfile(file, offset, count)  # type: ignore[misc,no-any-return]
        self._check_sendfile_params(file, offset, count)  # type: ignore[attr-defined]
        give_up: Any = _standard._GiveupOnSendfile  # type: ignore[attr-defined]
        try:
            number = file.fileno()
            size = os.fstat(number).st_size
        except (AttributeError, OSError) as error:
            raise give_up(error) from error
        if not size:
            return 0
        total = 0
        most = 1 << 30
        try:
            while count is None or total < count:
                block = most if count is None else min(most, count - total)
                try:
                    sent = self._retry(
                        WRITE, _send_block, number, offset + total, block
                    )
                except TimeoutError:
                    raise
                except OSError as error:
                    if not total:
                        raise give_up(error) from error
                    raise
                if not sent:
                    break
                total += sent
            return total
        finally:
            if total and hasattr(file, "seek"):
                file.seek(offset + total)

    # Closing.

    def _real_close(self, *args: object) -> None:
        fd = self.fileno()
        _green_sockets.pop(fd, None)
        if self._registration is not None:
            descriptors.unregister(self._registration)
            self._registration = None
        else:
            descriptors.unregister_fd(fd)  # green `select` may have registered it
        super()._real_close(*args)  # type: ignore[misc]
        descriptors.wake_poll_waiters(fd)

    def detach(self) -> int:
        """As `socket.socket.detach`: return the descriptor and release it."""
        descriptors.unregister(self._registration)
        self._registration = None
        # Unless a new socket object has already taken the descriptor over, the caller
        # expects the declared mode.
        if _by_number.is_owner(self.fileno(), self):
            _by_number.forget(self.fileno())
            if self._seconds is None:
                with suppress(OSError):  # the original closed the number
                    _settimeout(self, None)
        return super().detach()

    def dup(self) -> Self:
        """As `socket.socket.dup`."""
        fd = _standard.dup(self.fileno())
        sock = self.__class__(self.family, self.type, self.proto, fileno=fd)
        sock._lent = self._lent
        sock.settimeout(self.gettimeout())
        return sock


def _lend_sent(ancdata: Iterable[object]) -> None:
    """Lend the descriptors that a message carries; their receiver uses them."""
    for item in ancdata:
        if not isinstance(item, (tuple, list)) or len(item) != 3:
            continue  # the original raises
        level, kind, data = item
        if level == _standard.SOL_SOCKET and kind == _SCM_RIGHTS:
            numbers = array("i")
            whole = bytes(data)
            numbers.frombytes(whole[: len(whole) - len(whole) % numbers.itemsize])
            _by_number.lend(numbers)


def _send_block(sock: GreenSocket, file: int, offset: int, count: int) -> int:
    return sock._nonblocking(_os_sendfile, file, offset, count)


def _os_sendfile(
    sock: GreenSocket, file: SupportsIndex, offset: int, count: int
) -> int:
    sent: int = _sendfile(sock.fileno(), int(file), offset, count)
    return sent


GreenSocket.__name__ = GreenSocket.__qualname__ = "socket"
