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
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from twisted.internet.protocol import ProcessProtocol

from txgreenwsgi.green import patched

from . import worker_program
from .boot import LINK_FD, LOG_FD, PAGE_FD, STACKS_FD, TLS_FD, Boot
from .link import Link
from .logs import LogReader
from .memory_files import StacksFile
from .messages import close_descriptors
from .stacks import FORCED_STACKS_SIGNAL, STACKS_SIGNAL

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from twisted.internet.error import ProcessDone, ProcessTerminated
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from .messages import Message
    from .slots import Process, Worker

__all__ = [
    "Channels",
    "Launcher",
    "MasterEvents",
    "Stacks",
    "WorkerProcess",
    "as_patched",
    "end_of",
    "shared_descriptors",
    "spawn_python",
    "worker_environment",
]

#: Variables that systemd passes to the master alone.
_OF_MASTER: Final = (
    *("NOTIFY_SOCKET", "WATCHDOG_PID", "WATCHDOG_USEC"),
    *("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"),
)

#: The buffer of the log's socket pair; the kernel may allow less.
_LOG_BUFFER_BYTES: Final = 1 << 20

#: Time for Python to write its stacks; less than `STACKS_SECONDS`.
FORCE_SECONDS: Final = 0.6


def worker_environment(environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the environment of a worker."""
    return {name: value for name, value in environ.items() if name not in _OF_MASTER}


class MasterEvents(Protocol):
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

    master: MasterEvents

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
        channels = Channels()
        process = _SpawnedProcess(worker, self.master, channels, self._reactor)
        try:
            pid = spawn_python(
                process,
                channels,
                self._reactor,
                shared_descriptors(self._page, self._tls),
                f"slot={worker.slot.index + 1}",
                # A debugger reads from the terminal.
                has_terminal=self._boot.development and os.isatty(0),
            )
        except BaseException:
            process.discard()
            raise
        process.started(pid)
        process.send(self._boot.for_worker(worker).message())
        return process


def shared_descriptors(page: int, tls: int) -> dict[int, int]:
    """Return the descriptors that all workers have, by their numbers there.

    Args:
        page: that of the shared page.
        tls: that of the secrets and files of TLS; -1 without TLS.
    """
    return {PAGE_FD: page, **({} if tls < 0 else {TLS_FD: tls})}


class Channels:
    """The connections between the master and another process.

    Attributes:
        link: the master's end of the link.
        log: the master's end of the log.
        their_link: the other end of the link.
        their_log: the other end of the log.
        stacks: the file for stacks, which both have.
    """

    def __init__(self) -> None:
        self.link, self.their_link = socket.socketpair()
        self.log, self.their_log = socket.socketpair()
        for each in (self.log, self.their_log):
            for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                each.setsockopt(socket.SOL_SOCKET, option, _LOG_BUFFER_BYTES)
        self.stacks = StacksFile()

    def close_theirs(self) -> None:
        """Close the ends that the other process has."""
        self.their_link.close()
        self.their_log.close()


def spawn_python(
    protocol: ProcessProtocol,
    channels: Channels,
    reactor: Any,
    descriptors: Mapping[int, int],
    label: str,
    *,
    has_terminal: bool = False,
) -> int:
    """Start Python for a worker, or for a process that forks workers.

    Args:
        protocol: is told when the process has ended.
        channels: the process gets the other ends.
        reactor: the installed reactor; it runs.
        descriptors: further descriptors by their numbers in the process.
        label: shown in the command line.
        has_terminal: whether the process reads from the terminal.

    Returns:
        The process id.

    Raises:
        OSError: the process cannot be started.
    """
    null = _null_device()
    # Python ends by these signals until `worker_program` handles them. The mask is
    # inherited, so they wait.
    mask = signal.pthread_sigmask(
        signal.SIG_BLOCK, [STACKS_SIGNAL, FORCED_STACKS_SIGNAL]
    )
    try:
        transport = reactor.spawnProcess(
            protocol,
            sys.executable,
            _command(label),
            env=worker_environment(),
            childFDs={
                0: 0 if has_terminal else null,
                1: 1,
                2: 2,
                LINK_FD: channels.their_link.fileno(),
                LOG_FD: channels.their_log.fileno(),
                STACKS_FD: channels.stacks.fd,
                **descriptors,
            },
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        channels.close_theirs()
        os.close(null)
    pid: int = transport.pid
    return pid


def _command(label: str) -> list[str]:
    flags = _interpreter_flags()
    return as_patched([sys.executable, *flags, worker_program.__file__, label])


def as_patched(command: list[str]) -> list[str]:
    """Return a command of Python that is patched from its start if this process was.

    Args:
        command: the command without patching.
    """
    if not patched.record.modules:
        return command
    start = (
        f"import sys; sys.path[:] = {sys.path!r}; "
        "from txgreenwsgi.patched import main; main(sys.argv[1:])"
    )
    return [sys.executable, *_interpreter_flags(), "-c", start, *command]


def _interpreter_flags() -> list[str]:
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


def _null_device() -> int:
    """Return a descriptor at the end of its file."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError:  # in a changed root directory
        reading, writing = os.pipe()
        os.close(writing)
        return reading


class Stacks:
    """The stacks of one process.

    Args:
        file: the process writes them to it; owned by this object.
        reactor: the reactor.
        kill: sends a signal to the process. A no-op if it has ended.
    """

    def __init__(
        self, file: StacksFile, reactor: IReactorTime, kill: Callable[[int], object]
    ) -> None:
        self._file = file
        self._reactor = reactor
        self._kill = kill
        self._forcing: IDelayedCall | None = None

    def begin(self) -> None:
        """Let the process write its stacks; in C if Python does not do it soon.

        A no-op if the process has ended.
        """
        self._cancel()
        if self._file.fd < 0:
            return
        self._file.clear()
        self._kill(STACKS_SIGNAL)
        self._forcing = self._reactor.callLater(FORCE_SECONDS, self._force)

    def _force(self) -> None:
        if not self._file.read():
            self._kill(FORCED_STACKS_SIGNAL)

    def _cancel(self) -> None:
        if self._forcing is not None and self._forcing.active():
            self._forcing.cancel()

    def read(self) -> str:
        """Return the stacks that were written since `begin`; "" after `close`."""
        return self._file.read()

    def close(self) -> None:
        """Close the file, when the process has ended."""
        self._cancel()
        self._file.close()


class WorkerProcess:
    """One process of a worker: its link, log and stacks.

    Args:
        worker: the worker.
        master: gets its messages.
        channels: owned by this object.
        reactor: the reactor.
    """

    def __init__(
        self, worker: Worker, master: MasterEvents, channels: Channels, reactor: Any
    ) -> None:
        self._worker = worker
        self._master = master
        self._stacks = Stacks(channels.stacks, reactor, self.kill)
        self._reactor = reactor
        self._ended = False
        self._link = Link(channels.link, reactor, self._received, self._lost)
        self._log = LogReader(channels.log, reactor, f"worker {worker.number}")
        self.pid = 0

    def started(self, pid: int) -> None:
        """Take the process id."""
        self.pid = pid
        self._log.name = f"worker {self._worker.number} (pid {pid})"

    def send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        self._link.send(message, descriptors)

    def kill(self, number: int) -> None:
        if not self._ended:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def begin_stacks(self) -> None:
        self._stacks.begin()

    def stacks(self) -> str:
        return self._stacks.read()

    def _received(self, message: Message, descriptors: list[int]) -> None:
        close_descriptors(descriptors)  # a worker sends none
        self._master.received(self._worker, message)

    def _lost(self) -> None:
        self._master.lost(self._worker)

    def discard(self) -> None:
        """Close everything: the process could not be started."""
        self._link.close()
        self._log.finish()
        self._ended = True
        self._stacks.close()

    def ended(self, status: int | None, number: int | None) -> None:
        """Pass on the last messages and log lines, and then the end.

        Args:
            status: the exit status; None if it is unknown, or a signal ended it.
            number: that signal; None without one.
        """
        self._link.finish()
        self._log.finish()
        self._ended = True
        self._stacks.close()
        self._master.exited(self._worker, status, number)


class _SpawnedProcess(WorkerProcess, ProcessProtocol):
    """A process that the master has started itself."""

    def processEnded(self, reason: Failure) -> None:
        """Pass on the end."""
        if not self.pid:  # within `spawnProcess`
            self._reactor.callLater(0, self.processEnded, reason)
            return
        self.ended(*end_of(reason))


def end_of(reason: Failure) -> tuple[int | None, int | None]:
    """Return the exit status of a process, or None, and the signal that ended it."""
    end = cast("ProcessDone | ProcessTerminated", reason.value)
    number = end.signal
    if isinstance(number, signal.Signals):
        number = int(number)
    status = end.exitCode
    if number is None and status is None:
        status = 0
    return status, number
