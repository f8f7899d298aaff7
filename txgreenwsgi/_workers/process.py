"""The process of a worker: descriptors, messages, log and end.

The worker is another execution of Python. It inherits the descriptors that `boot` names
and no others: no reactor, no thread, no lock.

It knows processes. It must never decide which of them run.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from twisted.internet.protocol import ProcessProtocol

from txgreenwsgi.green import patched

from . import worker_program
from .boot import LINK_FD, LOG_FD, PAGE_FD, STACKS_FD, TLS_FD, Boot
from .link import Link, Message
from .logs import LogReader
from .stacks import STACKS_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from twisted.internet.error import ProcessDone, ProcessTerminated
    from twisted.python.failure import Failure

    from .slots import Process, Worker

__all__ = ["Launcher", "worker_environment"]

#: Variables that systemd passes to the master alone.
_OF_MASTER: Final = (
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"),
)

#: The buffer of the log's socket pair; the kernel may allow less.
_LOG_BUFFER_BYTES: Final = 1 << 20

_MAX_STACKS_BYTES: Final = 1 << 16


def worker_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a worker."""
    return {name: value for name, value in environ.items() if name not in _OF_MASTER}


class _Master(Protocol):
    """The part of the master that a process calls."""

    def received(self, worker: Worker, message: Message) -> None:
        """Handle a message."""

    def lost(self, worker: Worker) -> None:
        """Handle the end of the link."""

    def exited(self, worker: Worker, status: int | None, number: int | None) -> None:
        """Handle the end of the process."""


class Launcher:
    """Starts the processes of workers.

    Args:
        boot: the start message, completed for each worker.
        reactor: the installed reactor; it runs.
        page: the descriptor of the shared page.
        tls: the descriptor of the secrets for TLS; -1 if no endpoint uses TLS.

    Attributes:
        master: gets the messages; set before the first launch.
    """

    master: _Master

    def __init__(self, boot: Boot, reactor: object, page: int, tls: int = -1) -> None:
        self._boot = boot
        self._reactor: Any = reactor
        self._page = page
        self._tls = tls

    def launch(self, worker: Worker) -> Process:
        """Start the process of a worker.

        Raises:
            OSError: the process cannot be started.
        """
        name = f"worker {worker.number}"
        link, their_link = socket.socketpair()
        log, their_log = socket.socketpair()
        stacks = _memory_file()
        null = _null_device()
        theirs = [their_link, their_log]
        try:
            for each in (log, their_log):
                for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    each.setsockopt(socket.SOL_SOCKET, option, _LOG_BUFFER_BYTES)
            process = _WorkerProcess(worker, self.master, stacks, self._reactor)
            transport = self._reactor.spawnProcess(
                process,
                sys.executable,
                _command(worker),
                env=worker_environment(),
                childFDs={
                    # A debugger reads from the terminal.
                    0: 0 if self._boot.development and os.isatty(0) else null,
                    1: 1,
                    2: 2,
                    LINK_FD: their_link.fileno(),
                    LOG_FD: their_log.fileno(),
                    PAGE_FD: self._page,
                    STACKS_FD: stacks,
                    **({} if self._tls < 0 else {TLS_FD: self._tls}),
                },
            )
        except BaseException:
            link.close()
            log.close()
            os.close(stacks)
            raise
        finally:
            for each in theirs:
                each.close()
            os.close(null)
        process.started(transport.pid, link, log, name)
        boot = replace(
            self._boot,
            slot=worker.slot.index,
            number=worker.number,
            record=worker.record,
            name=name,
            failure=worker.failure,
        )
        process.send(boot.message())
        return process


def _command(worker: Worker) -> list[str]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    program = [
        sys.executable,
        *flags,
        worker_program.__file__,
        f"slot={worker.slot.index + 1}",
    ]
    if not patched.record.modules:
        return program
    # The master was patched from the start of Python, and so is the worker.
    start = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from txgreenwsgi.patched import main; main(sys.argv[1:])"
    )
    return [sys.executable, *flags, "-c", start, *program]


def _memory_file() -> int:
    """Return the descriptor of a file without a name."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("txgreenwsgi-stacks")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _null_device() -> int:
    """Return a descriptor at the end of its file."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:  # in a changed root directory
        reading, writing = os.pipe()
        os.close(writing)
        return reading


class _WorkerProcess(ProcessProtocol):
    """One process."""

    def __init__(
        self, worker: Worker, master: _Master, stacks: int, reactor: Any
    ) -> None:
        self._worker = worker
        self._master = master
        self._stacks = stacks
        self._reactor = reactor
        self._ended = False
        self.pid = 0

    def started(
        self, pid: int, link: socket.socket, log: socket.socket, name: str
    ) -> None:
        """Connect the process."""
        self.pid = pid
        self._link = Link(link, self._reactor, self._received, self._lost)
        self._log = LogReader(log, self._reactor, f"{name} (pid {pid})")

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        self._link.send(message, descriptors)

    def kill(self, number: int) -> None:
        if not self._ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def begin_stacks(self) -> None:
        if not self._ended:
            os.ftruncate(self._stacks, 0)
            os.lseek(self._stacks, 0, os.SEEK_SET)
            self.kill(STACKS_SIGNAL)

    def stacks(self) -> str:
        if self._ended:
            return ""
        return os.pread(self._stacks, _MAX_STACKS_BYTES, 0).decode("utf-8", "replace")

    def _received(self, message: Message, descriptors: list[int]) -> None:
        for fd in descriptors:  # a worker sends none
            os.close(fd)
        self._master.received(self._worker, message)

    def _lost(self) -> None:
        self._master.lost(self._worker)

    def processEnded(self, reason: Failure) -> None:
        """Pass on the last messages and log lines, and then the end."""
        if not self.pid:  # within `spawnProcess`
            self._reactor.callLater(0, self.processEnded, reason)
            return
        end = cast("ProcessDone | ProcessTerminated", reason.value)
        self._link.finish()
        self._log.finish()
        self._ended = True
        os.close(self._stacks)
        number = end.signal
        if isinstance(number, signal.Signals):
            number = int(number)
        status = end.exitCode
        if number is None and status is None:
            status = 0
        self._master.exited(self._worker, status, number)
