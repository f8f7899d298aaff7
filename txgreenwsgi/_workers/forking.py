"""Workers that a fork server forks, after it has imported the application.

A reload starts another fork server, so that it loads new code. The old one stays until
its last worker has ended, and reports how.

It knows fork servers and the order of reloads. It must never know the application.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger

from .fork_loop import end_of_status
from .interface import MasterObserver
from .link import Link
from .logs import LogReader
from .messages import close_descriptors
from .process import (
    Channels,
    Stacks,
    WorkerProcess,
    end_of,
    shared_descriptors,
    spawn_python,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.python.failure import Failure

    from .boot import Boot
    from .interface import ReloadResult
    from .messages import Message
    from .process import MasterEvents
    from .slots import Process, Worker

__all__ = ["ForkingLauncher"]

_log = Logger()

#: Time between two looks at a worker whose fork server has ended.
_POLL_SECONDS: Final = 0.1
#: Time after the end of its link for which such a worker is looked at. By then, the
#: master has killed it.
_ZOMBIE_SECONDS: Final = 8.0


class ForkingLauncher(MasterObserver):
    """Starts workers by fork servers. An observer of the master.

    Args:
        boot: the start message of workers, completed for each one.
        entry: the function of a fork server, as "package.module:name".
        reactor: the installed reactor; it runs.
        page: the descriptor of the shared page.
        tls: that of the secrets and files of TLS; -1 without TLS.

    Attributes:
        master: gets the messages; set before the first launch.
    """

    master: MasterEvents

    def __init__(
        self, boot: Boot, entry: str, reactor: Any, page: int, tls: int = -1
    ) -> None:
        self._boot = boot
        self._entry = entry
        self._reactor = reactor
        self._shared = shared_descriptors(page, tls)
        self._current: _ForkServer | None = None
        self._next: _ForkServer | None = None
        self._live: set[_ForkServer] = set()
        self._stopped: Deferred[None] | None = None

    def launch(self, worker: Worker) -> Process:
        """Start the process of a worker.

        Raises:
            OSError: the fork server cannot be started.
        """
        server = self._next or self._current
        if server is None or server.has_ended:
            server = self._start()
            if self._next is not None:
                self._next = server
            else:
                self._current = server
        return server.fork(worker)

    def stop(self) -> Deferred[None]:
        """End the fork servers, when their workers have ended.

        Returns:
            A Deferred that fires when they have.
        """
        self._stopped = Deferred()
        for server in list(self._live):
            server.end()
        self._check_stopped()
        return self._stopped

    def _start(self) -> _ForkServer:
        server = _ForkServer(self, self._boot, self._entry, self._reactor, self._shared)
        self._live.add(server)
        return server

    def server_ended(self, server: _ForkServer) -> None:
        """Forget a fork server. Called by itself."""
        self._live.discard(server)
        self._check_stopped()

    def _check_stopped(self) -> None:
        stopped = self._stopped
        if stopped is not None and not self._live and not stopped.called:
            stopped.callback(None)

    # MasterObserver.

    def reloading(self) -> None:
        """Import the application again, in another process."""
        try:
            self._next = self._start()
        except OSError:
            _log.failure("the fork server cannot be started")

    def reloaded(self, result: ReloadResult) -> None:
        """Use the new fork server, or the old one if a worker has failed."""
        following, self._next = self._next, None
        if following is None:
            return
        retired: _ForkServer | None = following
        if result.succeeded:
            retired, self._current = self._current, following
        if retired is not None:
            retired.end()


class _ForkServer(ProcessProtocol):
    """One fork server, and the workers that it has forked."""

    def __init__(
        self,
        launcher: ForkingLauncher,
        boot: Boot,
        entry: str,
        reactor: Any,
        shared: Mapping[int, int],
    ) -> None:
        self._launcher = launcher
        self._boot = boot
        self._reactor = reactor
        self._begun = reactor.seconds()
        self._pid = 0
        self._reason = ""
        self._ending = False
        self._killed = False
        self.has_ended = False
        self._workers: dict[int, _ForkedProcess] = {}
        channels = Channels()
        self._stacks = Stacks(channels.stacks, reactor, self.signal)
        self._link = Link(channels.link, reactor, self._received, self._lost)
        self._log = LogReader(channels.log, reactor, "fork server")
        try:
            self._pid = spawn_python(self, channels, reactor, shared, "fork-server")
        except BaseException:
            self._link.close()
            self._log.finish()
            self._stacks.close()
            raise
        self._log.name = f"fork server (pid {self._pid})"
        self._link.send(boot.with_entry(entry).message())

    def fork(self, worker: Worker) -> Process:
        """Fork a worker, when the application is imported."""
        channels = Channels()
        master = self._launcher.master
        process = _ForkedProcess(worker, master, channels, self._reactor, self)
        self._workers[worker.number] = process
        boot = self._boot.for_worker(worker).message()
        self._link.send(
            {"do": "fork", "worker": worker.number, "boot": boot},
            [
                channels.their_link.fileno(),
                channels.their_log.fileno(),
                channels.stacks.fd,
            ],
        )
        channels.close_theirs()
        return process

    def end(self) -> None:
        """Let the process end when its last worker has ended."""
        if not self._ending:
            self._ending = True
            self._link.send({"do": "end"})

    def signal(self, number: int) -> None:
        """Send a signal. A no-op if the process has ended."""
        if not self.has_ended:
            self._killed |= number == signal.SIGKILL
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)

    def kill_if_unwanted(self) -> None:
        """Kill the process if all workers that wait for it have been killed."""
        if all(each.pid or each.is_killed for each in self._workers.values()):
            self.signal(signal.SIGKILL)

    def begin_stacks(self) -> None:
        """Let the process write its stacks."""
        self._stacks.begin()

    def stacks(self) -> str:
        """Return the stacks that it has written."""
        return self._stacks.read()

    def forget(self, process: _ForkedProcess) -> None:
        """Forget a worker that has ended."""
        self._workers.pop(process.number, None)

    def _received(self, message: Message, descriptors: list[int]) -> None:
        close_descriptors(descriptors)  # it sends none
        event = message["event"]
        if event == "preloaded":
            _log.info(
                "fork server {pid} has imported the application in {seconds:.1f} s",
                pid=self._pid,
                seconds=self._reactor.seconds() - self._begun,
            )
        elif event == "failed":
            self._reason = message["reason"]
        elif event == "forked":
            process = self._workers.get(message["worker"])
            if process is not None:
                process.started(message["pid"])
        elif event == "refused":
            process = self._workers.get(message["worker"])
            if process is not None:
                process.fail(f"the process cannot be forked ({message['reason']})")
        elif event == "ended":
            for process in list(self._workers.values()):
                if process.pid == message["pid"]:
                    process.ended(message["status"], message["signal"])

    def _lost(self) -> None:
        """No-op: the process ends next."""

    def processEnded(self, reason: Failure) -> None:
        """Fail the workers that were not forked, and watch over the others."""
        if not self._pid:  # within `spawnProcess`
            self._reactor.callLater(0, self.processEnded, reason)
            return
        self._link.finish()
        self._log.finish()
        self.has_ended = True
        self._stacks.close()
        if not self._ending and not self._reason:
            status, number = end_of(reason)
            ended = f"status {status}" if number is None else f"signal {number}"
            self._reason = f"the fork server has ended ({ended})"
            if not self._killed:
                _log.error(
                    "fork server {pid} has ended ({ended}); its workers go on",
                    pid=self._pid,
                    ended=ended,
                )
        for process in list(self._workers.values()):
            if process.pid:
                process.watch()
            else:
                process.fail(self._reason)
        self._launcher.server_ended(self)


class _ForkedProcess(WorkerProcess):
    """A worker that a fork server has forked, or will fork."""

    def __init__(
        self,
        worker: Worker,
        master: MasterEvents,
        channels: Channels,
        reactor: Any,
        server: _ForkServer,
    ) -> None:
        super().__init__(worker, master, channels, reactor)
        self.number = worker.number
        self._server = server
        self._wanted: int | None = None
        self._link_lost: float | None = None

    def started(self, pid: int) -> None:
        """Take the process id, and send a signal that was meant for it."""
        super().started(pid)
        if self._wanted is not None:
            self.kill(self._wanted)

    @property
    def is_killed(self) -> bool:
        """Whether it is to be killed as soon as it is forked."""
        return self._wanted == signal.SIGKILL

    def kill(self, number: int) -> None:
        """Send a signal.

        Before the fork, the import of the application takes too long or is not wanted
        any more: the signal waits, and SIGKILL ends the fork server, unless other
        workers wait for it.
        """
        if self.pid:
            super().kill(number)
            return
        self._wanted = number
        if number == signal.SIGKILL:
            self._server.kill_if_unwanted()

    def begin_stacks(self) -> None:
        """Let the process write its stacks; before the fork, the fork server."""
        if self.pid:
            super().begin_stacks()
        else:
            self._server.begin_stacks()

    def stacks(self) -> str:
        """Return the stacks."""
        return super().stacks() if self.pid else self._server.stacks()

    def fail(self, reason: str) -> None:
        """Report that the worker has never started."""
        if not self._worker.reason:
            self._worker.reason = reason
        self.ended(1, None)

    def watch(self) -> None:
        """Find out by itself when the process has ended: it has lost its parent."""
        self._look()

    def _lost(self) -> None:
        self._link_lost = self._reactor.seconds()
        super()._lost()

    def _look(self) -> None:
        if self._ended:
            return
        try:
            # The first process of a container adopts it.
            found, status = os.waitpid(self.pid, os.WNOHANG)
        except ChildProcessError:
            try:
                os.kill(self.pid, 0)
            except ProcessLookupError:
                self.ended(None, None)
                return
        else:
            if found:
                self.ended(*end_of_status(status))
                return
        lost = self._link_lost
        if lost is not None and self._reactor.seconds() - lost > _ZOMBIE_SECONDS:
            # Its new parent does not wait for it.
            self.ended(None, None)
            return
        self._reactor.callLater(_POLL_SECONDS, self._look)

    def ended(self, status: int | None, number: int | None) -> None:
        """Pass on the end."""
        if not self._ended:
            self._server.forget(self)
            super().ended(status, number)
