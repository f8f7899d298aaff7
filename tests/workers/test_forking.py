"""Fork servers, as the master sees them; their processes are fakes."""

from __future__ import annotations

import json
import os
import signal
import socket
from typing import TYPE_CHECKING, Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._workers import forking
from txgreenwsgi._workers.boot import Boot
from txgreenwsgi._workers.forking import ForkingLauncher
from txgreenwsgi._workers.interface import ReloadResult
from txgreenwsgi._workers.slots import Slot, Worker

if TYPE_CHECKING:
    from collections.abc import Mapping

    from twisted.internet.interfaces import IReadDescriptor
    from twisted.internet.protocol import ProcessProtocol

    from txgreenwsgi._workers.process import Channels


class FakeReactor(Clock):
    """A clock that watches descriptors."""

    def __init__(self) -> None:
        super().__init__()
        self.readers: set[IReadDescriptor] = set()
        self.addReader = self.readers.add
        self.removeReader = self.readers.discard
        self.addWriter = self.removeWriter = lambda writer: None

    def read(self) -> None:
        """Let each descriptor read once."""
        for reader in list(self.readers):
            reader.doRead()


class FakeServer:
    """The process of a fork server."""

    def __init__(
        self, reactor: FakeReactor, protocol: ProcessProtocol, channels: Channels
    ) -> None:
        self._reactor = reactor
        self._protocol = protocol
        self.link = channels.their_link
        self._log = channels.their_log
        self._input = b""

    def received(self) -> list[dict[str, Any]]:
        """Return the messages of the master since the last call."""
        self.link.setblocking(False)
        try:
            while True:
                data, descriptors, _, _ = socket.recv_fds(self.link, 1 << 20, 100)
                for fd in descriptors:
                    os.close(fd)
                if not data:
                    break
                self._input += data
        except BlockingIOError:
            pass
        *lines, self._input = self._input.split(b"\n")
        return [json.loads(line) for line in lines]

    def forks(self) -> list[int]:
        """Return the numbers of the workers to fork since the last call."""
        return [each["worker"] for each in self.received() if each.get("do") == "fork"]

    def send(self, **message: Any) -> None:
        """Send a message to the master."""
        self.link.sendall(json.dumps(message).encode() + b"\n")
        self._reactor.read()

    def end(self, number: int | None = None) -> None:
        """End."""
        self.link.close()
        self._log.close()
        reason = ProcessTerminated(signal=number) if number else ProcessDone(0)
        self._protocol.processEnded(Failure(reason))


class FakeMaster:
    """The master."""

    def __init__(self) -> None:
        self.ends: list[tuple[int, int | None, int | None]] = []

    def received(self, worker: Worker, message: object) -> None:
        """A no-op."""

    def lost(self, worker: Worker) -> None:
        """A no-op."""

    def exited(self, worker: Worker, status: int | None, number: int | None) -> None:
        """Record the end of a worker."""
        self.ends.append((worker.number, status, number))


class ForkingTests(SynchronousTestCase):
    """`ForkingLauncher`."""

    def setUp(self) -> None:
        """Make a launcher whose processes are fakes."""
        self.reactor = FakeReactor()
        self.servers: list[FakeServer] = []
        self.launched: list[tuple[Worker, Any]] = []
        self.signals: list[tuple[int, int]] = []
        self.gone: set[int] = set()
        self.patch(forking, "spawn_python", self.spawn)
        self.patch(os, "kill", self.kill)
        self.launcher = ForkingLauncher(
            Boot(entry="worker"), "fork_server", self.reactor, 5
        )
        self.master = self.launcher.master = FakeMaster()
        self.addCleanup(self.close)

    def close(self) -> None:
        """Close all descriptors that are left."""
        for server in self.servers:
            if server.link.fileno() >= 0:
                server.end()
        ended = {number for number, _, _ in self.master.ends}
        for worker, process in self.launched:
            if worker.number not in ended:
                process.ended(0, None)

    def spawn(
        self,
        protocol: ProcessProtocol,
        channels: Channels,
        reactor: object,
        shared: Mapping[int, int],
        label: str,
    ) -> int:
        """Start a fake process."""
        self.servers.append(FakeServer(self.reactor, protocol, channels))
        return 100 + len(self.servers)

    def kill(self, pid: int, number: int) -> None:
        """Record a signal."""
        if pid in self.gone:
            raise ProcessLookupError
        if number:
            self.signals.append((pid, number))

    def launch(self, number: int) -> tuple[Worker, Any]:
        """Launch a worker."""
        worker = Worker(number, Slot(0), 0.0)
        process: Any = self.launcher.launch(worker)
        worker.process = process
        self.launched.append((worker, process))
        return worker, process

    def test_fork(self) -> None:
        """One fork server forks all workers, and reports their ends."""
        _, first = self.launch(1)
        self.launch(2)
        (server,) = self.servers
        self.assertEqual(server.received()[0]["entry"], "fork_server")
        self.assertEqual(first.pid, 0)
        server.send(event="preloaded")
        server.send(event="forked", worker=1, pid=11)
        server.send(event="forked", worker=2, pid=12)
        self.assertEqual(first.pid, 11)
        first.kill(signal.SIGTERM)
        self.assertEqual(self.signals, [(11, signal.SIGTERM)])
        server.send(event="ended", pid=11, status=3, signal=None)
        server.send(event="ended", pid=12, status=None, signal=9)
        self.assertEqual(self.master.ends, [(1, 3, None), (2, None, 9)])

    def test_refused(self) -> None:
        """A worker that cannot be forked fails, with the reason."""
        worker, _ = self.launch(1)
        self.servers[0].send(event="refused", worker=1, reason="no memory")
        self.assertEqual(self.master.ends, [(1, 1, None)])
        self.assertEqual(worker.reason, "the process cannot be forked (no memory)")

    def test_failed_import(self) -> None:
        """If the application cannot be imported, all waiting workers fail."""
        worker, _ = self.launch(1)
        self.launch(2)
        self.servers[0].send(event="failed", reason="SyntaxError")
        self.servers[0].end()
        self.assertEqual(self.master.ends, [(1, 1, None), (2, 1, None)])
        self.assertEqual(worker.reason, "SyntaxError")

    def test_signal_before_the_fork(self) -> None:
        """SIGTERM waits for the fork; SIGKILL ends an import that hangs."""
        _, first = self.launch(1)
        first.kill(signal.SIGTERM)
        self.assertEqual(self.signals, [])
        self.servers[0].send(event="forked", worker=1, pid=11)
        self.assertEqual(self.signals, [(11, signal.SIGTERM)])
        _, second = self.launch(2)
        second.kill(signal.SIGKILL)
        self.assertEqual(self.signals[1:], [(101, signal.SIGKILL)])

    def test_killed_before_the_fork(self) -> None:
        """A fork server lives on for other workers, but not for killed ones."""
        _, first = self.launch(1)
        _, second = self.launch(2)
        first.kill(signal.SIGTERM)
        first.kill(signal.SIGKILL)
        self.assertEqual(self.signals, [])
        self.servers[0].send(event="forked", worker=1, pid=11)
        self.assertEqual(self.signals, [(11, signal.SIGKILL)])
        second.kill(signal.SIGKILL)
        self.assertEqual(self.signals[1:], [(101, signal.SIGKILL)])

    def test_reload(self) -> None:
        """A reload forks from a new server; the old one ends after success."""
        self.launch(1)
        self.launcher.reloading()
        self.launch(2)
        old, new = self.servers
        self.assertEqual((old.forks(), new.forks()), ([1], [2]))
        self.launcher.reloaded(ReloadResult(True, 1))
        self.assertEqual(old.received(), [{"do": "end"}])
        self.launch(3)
        self.assertEqual(new.forks(), [3])

    def test_failed_reload(self) -> None:
        """After a failure, the old one stays in use."""
        self.launch(1)
        self.launcher.reloading()
        self.launch(2)
        old, new = self.servers
        old.forks()
        new.forks()
        self.launcher.reloaded(ReloadResult(False, 0, "SyntaxError"))
        self.assertEqual(new.received(), [{"do": "end"}])
        self.launch(3)
        self.assertEqual(old.forks(), [3])

    def test_crash(self) -> None:
        """Workers outlive a fork server that has crashed; a new one is started."""
        _, first = self.launch(1)
        self.servers[0].send(event="forked", worker=1, pid=11)
        self.servers[0].end(signal.SIGSEGV)
        self.reactor.advance(1)
        self.assertEqual(self.master.ends, [])
        self.launch(2)
        self.assertEqual(self.servers[1].forks(), [2])
        first.kill(signal.SIGKILL)
        self.assertEqual(self.signals, [(11, signal.SIGKILL)])
        self.gone.add(11)
        self.reactor.advance(0.2)
        self.assertEqual(self.master.ends, [(1, None, None)])

    def test_stop(self) -> None:
        """The launcher has stopped when all fork servers have ended."""
        self.launch(1)
        self.launcher.reloading()
        stopped = self.launcher.stop()
        for server in self.servers:
            self.assertIn({"do": "end"}, server.received())
        self.servers[0].end()
        self.assertNoResult(stopped)
        self.servers[1].end()
        self.successResultOf(stopped)

    def test_stop_without_servers(self) -> None:
        """Without any, it stops at once."""
        self.successResultOf(self.launcher.stop())
