"""Notifications to systemd, received on a socket of the test."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from typing import Any

from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from txgreenwsgi._twistd import notify
from txgreenwsgi._twistd.notify import RETRY_SECONDS, STATUS_SECONDS, Notifier


class NotifyCase(SynchronousTestCase):
    """A notification socket, and a clock."""

    def setUp(self) -> None:
        """Bind the socket in the abstract namespace."""
        self.clock = Clock()
        self.server = self.bind(f"\0txgreenwsgi-{os.getpid()}-{id(self)}")
        self.address = "@" + self.server.getsockname()[1:].decode()

    def bind(self, address: str) -> socket.socket:
        """Return a non-blocking datagram socket."""
        server = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(server.close)
        server.bind(address)
        server.setblocking(False)
        return server

    def notifier(self, *arguments: Any) -> Notifier:
        """Return a notifier that is closed at the end of the test."""
        made = Notifier(*arguments)
        self.addCleanup(made.close)
        return made

    def received(self, server: socket.socket | None = None) -> list[str]:
        """Return the messages since the last call."""
        messages: list[str] = []
        with contextlib.suppress(BlockingIOError):
            while True:
                messages.append((server or self.server).recv(4096).decode())
        return messages


class MessageTests(NotifyCase):
    """The messages of sd_notify(3)."""

    def test_path(self) -> None:
        """The address may be a path."""
        path = os.path.join(short_folder(self), "notify")
        server = self.bind(path)
        self.notifier(path).ready()
        self.assertEqual(self.received(server), ["READY=1"])

    def test_states(self) -> None:
        """Each state is one datagram."""
        notifier = self.notifier(self.address)
        self.patch(time, "clock_gettime_ns", lambda clock: 5_000_999)
        notifier.ready()
        notifier.reloading()
        notifier.ready()
        notifier.status("4 workers,\n17 requests")
        notifier.status("4 workers, 17 requests")
        notifier.send_main_pid(77)
        notifier.stopping(42.5)
        self.assertEqual(
            self.received(),
            [
                "READY=1",
                "RELOADING=1\nMONOTONIC_USEC=5000",
                "READY=1",
                "STATUS=4 workers, 17 requests",
                "MAINPID=77",
                "STOPPING=1\nEXTEND_TIMEOUT_USEC=42500000",
            ],
        )

    def test_while_stopping(self) -> None:
        """A service that stops does not become ready, and stops once."""
        notifier = self.notifier(self.address)
        notifier.stopping(1)
        notifier.stopping(9)
        notifier.reloading()
        notifier.ready()
        self.assertEqual(self.received(), ["STOPPING=1\nEXTEND_TIMEOUT_USEC=1000000"])
        notifier.start(self.clock)  # the service starts again
        notifier.ready()
        self.assertEqual(self.received(), ["READY=1"])

    def test_long_grace_period(self) -> None:
        """The extension is at most the largest number of systemd."""
        self.notifier(self.address).stopping(1e300)
        self.assertEqual(
            self.received(), [f"STOPPING=1\nEXTEND_TIMEOUT_USEC={2**63 - 1}"]
        )

    def test_main_process(self) -> None:
        """A daemon that twistd has forked names itself; the first process does not."""
        notifier = self.notifier(self.address)
        notifier.main_process()
        self.assertEqual(self.received(), [])
        self.patch(os, "getpid", lambda: 123)
        notifier.main_process()
        self.assertEqual(self.received(), ["MAINPID=123"])

    def test_not_started_by_systemd(self) -> None:
        """Without NOTIFY_SOCKET nothing is sent, repeated or logged."""
        with capturedLogs() as events:
            notifier = self.notifier("", 30)
            notifier.main_process()
            notifier.start(self.clock, lambda: "text")
            notifier.ready()
            notifier.stopping(5)
        self.assertFalse(notifier)
        self.assertEqual(events, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(notifier.environ(), {})


class EnvironmentTests(NotifyCase):
    """The variables of the environment."""

    def taken(self, **environ: str) -> tuple[Notifier, dict[str, str]]:
        """Return the notifier of an environment, and the environment after it."""
        notifier = Notifier.taken_from(environ)
        self.addCleanup(notifier.close)
        return notifier, environ

    def test_taken(self) -> None:
        """The variables are removed, so that children do not inherit them."""
        pid = str(os.getpid())
        notifier, left = self.taken(
            NOTIFY_SOCKET=self.address,
            WATCHDOG_USEC="30000000",
            WATCHDOG_PID=pid,
            OTHER="x",
        )
        self.assertTrue(notifier)
        self.assertEqual(left, {"OTHER": "x"})
        self.assertEqual(
            notifier.environ(),
            {
                "NOTIFY_SOCKET": self.address,
                "WATCHDOG_USEC": "30000000",
                "WATCHDOG_PID": pid,
            },
        )

    def test_no_watchdog(self) -> None:
        """The watchdog needs a number, and a WATCHDOG_PID of this process if any."""
        for environ in (
            {},
            {"WATCHDOG_USEC": "soon"},
            {"WATCHDOG_USEC": "-5"},
            {"WATCHDOG_USEC": "0"},
            {"WATCHDOG_USEC": "9" * 20},
            {"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"},
        ):
            notifier, left = self.taken(NOTIFY_SOCKET=self.address, **environ)
            self.assertEqual(notifier.environ(), {"NOTIFY_SOCKET": self.address})
            self.assertEqual(left, {})
            notifier.start(self.clock)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_socket(self) -> None:
        """Without NOTIFY_SOCKET there is no watchdog either."""
        notifier, left = self.taken(WATCHDOG_USEC="30000000")
        self.assertFalse(notifier)
        self.assertEqual(left, {})


class RepeatedTests(NotifyCase):
    """The status and the watchdog."""

    def test_watchdog(self) -> None:
        """The reactor pings at a third of the time, until `stop`."""
        notifier = self.notifier(self.address, 30.0)
        notifier.start(self.clock)
        self.assertEqual(self.received(), ["WATCHDOG=1"])
        self.clock.advance(9.9)
        self.assertEqual(self.received(), [])
        self.clock.advance(0.1)
        self.assertEqual(self.received(), ["WATCHDOG=1"])
        self.clock.pump([10] * 5)
        self.assertEqual(self.received(), ["WATCHDOG=1"] * 5)
        notifier.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_unwell(self) -> None:
        """The owner can omit pings."""
        well = [True, False, True]
        notifier = self.notifier(self.address, 30.0)
        notifier.start(self.clock, is_well=lambda: well.pop(0))
        self.clock.pump([10, 10])
        self.assertEqual(self.received(), ["WATCHDOG=1"] * 2)

    def test_status(self) -> None:
        """The status is sent if it has changed, and not more often."""
        count = 0
        notifier = self.notifier(self.address)
        notifier.start(self.clock, lambda: f"{count} requests")
        self.assertEqual(self.received(), ["STATUS=0 requests"])
        count = 5
        self.clock.advance(STATUS_SECONDS - 1)
        self.assertEqual(self.received(), [])
        self.clock.advance(1)
        self.assertEqual(self.received(), ["STATUS=5 requests"])
        self.clock.pump([STATUS_SECONDS] * 3)
        self.assertEqual(self.received(), [])

    def test_started_again(self) -> None:
        """A second `start` replaces the first."""
        notifier = self.notifier(self.address, 30.0)
        for _ in range(2):
            notifier.start(self.clock)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)


class FailureTests(NotifyCase):
    """Messages that cannot be sent."""

    def test_missing_socket(self) -> None:
        """A missing socket is logged once; the server goes on."""
        for address in (
            "/nowhere/notify",
            f"@txgreenwsgi-nowhere-{os.getpid()}",
            "vsock:2:1234",
            "relative",
            "/" + "x" * 200,
        ):
            with capturedLogs() as events:
                notifier = self.notifier(address, 30.0)
                notifier.start(self.clock)
                notifier.ready()
                self.clock.pump([10, 10])
                notifier.stopping(5)
            [line] = [formatEvent(event) for event in events]
            self.assertIn(f"NOTIFY_SOCKET={address!r} (", line or "")
            self.assertIn("Type=notify does not become active", line or "")
            notifier.close()

    def test_new_socket(self) -> None:
        """If systemd has made a new socket at the address, that is used."""
        path = os.path.join(short_folder(self), "notify")
        first = self.bind(path)
        notifier = self.notifier(path)
        first.close()
        os.unlink(path)
        second = self.bind(path)
        with capturedLogs() as events:
            notifier.ready()
        self.assertEqual(self.received(second), ["READY=1"])
        self.assertEqual(events, [])

    def test_gone(self) -> None:
        """The loss of the socket is logged once, and a later one is used."""
        path = os.path.join(short_folder(self), "notify")
        first = self.bind(path)
        notifier = self.notifier(path)
        first.close()
        with capturedLogs() as events:
            notifier.status("a")
            notifier.status("b")
        self.assertEqual(len(events), 1)
        os.unlink(path)
        second = self.bind(path)
        notifier.status("c")
        self.assertEqual(self.received(second), ["STATUS=c"])

    def fill(self) -> None:
        """Send other datagrams to the socket until it has no room."""
        other = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(other.close)
        other.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                other.sendto(b"X=1", self.server.getsockname())

    def test_full(self) -> None:
        """Without room, states wait and arrive in order; pings are dropped."""
        notifier = self.notifier(self.address, 30.0)
        self.fill()
        notifier.send_main_pid(5)  # before the reactor runs
        notifier.start(self.clock)
        notifier.ready()
        self.clock.pump([RETRY_SECONDS] * 3)
        self.received()
        self.clock.pump([RETRY_SECONDS] * 2)
        self.assertEqual(self.received(), ["MAINPID=5", "READY=1"])
        self.clock.advance(10)
        self.assertEqual(self.received(), ["WATCHDOG=1"])

    def test_full_for_ever(self) -> None:
        """Messages that wait for room are limited, and dropped at the end."""
        notifier = self.notifier(self.address)
        notifier.start(self.clock)
        self.fill()
        for number in range(2000):
            notifier.status(str(number))
        self.received()
        arrived: list[str] = []
        for _ in range(200):
            self.clock.advance(RETRY_SECONDS)
            arrived += self.received()
        self.assertEqual(len(arrived), 100)
        self.assertEqual(arrived[-1], "STATUS=1999")
        self.fill()
        notifier.ready()
        notifier.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_other_errors(self) -> None:
        """An error other than a full socket is logged, and does not raise."""

        class Broken(socket.socket):
            def send(self, data: Any, flags: int = 0) -> int:
                raise OSError(errno.EPERM, "no permission")

        self.patch(notify, "real_socket", Broken)
        with capturedLogs() as events:
            notifier = self.notifier(self.address)
            notifier.ready()
            notifier.ready()
        [line] = [formatEvent(event) for event in events]
        self.assertIn("no permission", line or "")
