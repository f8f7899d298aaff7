"""Changes of the wall clock, and stalls of the server's process."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .processes import ANSWER_SECONDS, CHECKOUT, LOOPBACK, RawClient, start

if TYPE_CHECKING:
    from collections.abc import Callable

    from .processes import ServerProcess

APP = "tests.integration.clock_app:app"

#: A `sitecustomize` that shifts the wall clock by the number in a file.
SHIFT = """\
import os, time
def shift(path, open=os.open, read=os.read, close=os.close, real=time.time):
    def shifted():
        fd = open(path, os.O_RDONLY)
        try:
            return real() + float(read(fd, 50))
        finally:
            close(fd)
    def of_now(function):
        return lambda *seconds: function(*(seconds or [shifted()]))
    time.time, time.gmtime = shifted, of_now(time.gmtime)
shift(os.environ["WALL_CLOCK_SHIFT"])
"""

HOUR = 3600

#: The format of times in twisted.web's access log.
LOG_TIME = "%d/%b/%Y:%H:%M:%S %z"

TAC = """\
from twisted.application.service import Application
from txgreenwsgi import service
application = Application("web")
service(
    "tests.integration.clock_app:app",
    listen=["tcp:0:interface=127.0.0.1"],
    patch="all",
    request_timeout=600,
).setServiceParent(application)
"""


def request(target: str, *fields: str, method: str = "GET", body: bytes = b"") -> bytes:
    """Return a request, after which the server closes the connection."""
    lines = [f"{method} {target} HTTP/1.1", "Host: test", "Connection: close", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


class WallClockTests(SynchronousTestCase):
    """The wall clock is set by hand, by NTP, or when a virtual machine resumes."""

    def setUp(self) -> None:
        """Create a wall clock that the test sets."""
        self.folder = Path(self.mktemp())
        self.folder.mkdir()
        self.folder = self.folder.resolve()
        (self.folder / "sitecustomize.py").write_text(SHIFT)
        self.set_clock(0)
        path = os.pathsep.join([str(self.folder), str(CHECKOUT)])
        self.environ = {
            "PYTHONPATH": path,
            "WALL_CLOCK_SHIFT": str(self.folder / "shift"),
        }

    def set_clock(self, seconds: float) -> None:
        """Set the wall clock of the server, as a difference to the real one."""
        new = self.folder / "new"
        new.write_text(str(seconds))
        new.rename(self.folder / "shift")

    def assert_steady(self, connect: Callable[[], RawClient]) -> None:
        """Let requests of all kinds begin, set the clock, and check their ends."""
        shift = 0
        for step in (-HOUR, 2 * HOUR, -HOUR - 20):
            clients = [connect() for _ in range(4)]
            clients[0].send(request("/waits?1"))
            clients[1].send(request("/sleep?1"))
            clients[2].send(request("/", method="POST", body=b"abcdef")[:-3])
            clients[3].send(request("/")[:20])
            with connect() as first:  # its response comes after the bytes above
                first.send(request("/"))
                first.read_all()
            shift += step
            self.set_clock(shift)
            # A new timer, in case the reactor sleeps until an older one.
            with connect() as second:
                second.send(request("/sleep?0.2"))
                self.assert_wall_time(self.assert_answered(second, b""), shift)
            clients[2].send(b"def")
            clients[3].send(request("/")[20:])
            for client, body in zip(clients, (b"[]", b"", b"abcdef", b""), strict=True):
                with client:
                    self.assert_answered(client, body)

    def assert_answered(self, client: RawClient, body: bytes) -> datetime:
        """Fail unless the response has the body; return its Date."""
        answer = client.read_all()
        self.assertIn(b" 200 OK\r\n", answer)
        self.assertEqual(answer.partition(b"\r\n\r\n")[2], body)
        found = re.search(rb"Date: ([^\r]*)", answer)
        assert found is not None
        return parsedate_to_datetime(found[1].decode())

    def assert_wall_time(self, date: datetime, shift: float) -> None:
        """Fail unless a time is that of the shifted wall clock, within 20 minutes."""
        self.assertLess(abs(date.timestamp() - time.time() - shift), HOUR / 3)

    def assert_served(self, *options: str) -> None:
        """Check a server of the command, its access log, and its shutdown."""
        log = self.folder / "access.log"
        server = start(
            self,
            *options,
            "greenwsgi",
            f"--app={APP}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            "--request-timeout=600",
            "--header-timeout=600",
            "--body-timeout=600",
            f"--access-log={log}",
            "--access-log-format=json",
            environ=self.environ,
        )
        self.assert_steady(server.connect)
        durations = re.findall(r'"duration": ([-0-9.e]+)', log.read_text())
        self.assertGreaterEqual(len(durations), 18)
        for duration in durations:
            self.assertTrue(0 <= float(duration) < 600, durations)
        # The shutdown: the clock is set while a request is in its grace period.
        with server.connect() as client:
            client.send(request("/sleep?1"))
            server.fetch("/")
            server.ask_to_stop()
            server.wait_logged("SIGTERM")
            self.set_clock(-HOUR)
            self.assertIn(b" 200 OK", client.read_all())
        server.wait_ended()

    def test_default_reactor(self) -> None:
        """Timers, deadlines and durations are not affected."""
        self.assert_served()

    def test_select(self) -> None:
        """So it is with select()."""
        self.assert_served("--reactor=select")

    def test_poll(self) -> None:
        """So it is with poll()."""
        self.assert_served("--reactor=poll")

    def test_asyncio(self) -> None:
        """So it is with asyncio."""
        self.assert_served("--reactor=asyncio")

    def test_tac(self) -> None:
        """A service in a .tac file is not affected either."""
        tac = self.folder / "web.tac"
        tac.write_text(TAC)
        self.assert_steady(start(self, "-y", str(tac), environ=self.environ).connect)

    def test_embedded(self) -> None:
        """A GreenSite and a GreenWSGIResource in another program are not affected.

        twisted.web's own access log stays on the wall clock.
        """
        log = self.folder / "web.log"
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.clock_app", str(log)],
            cwd=CHECKOUT,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
        )
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        assert process.stdout is not None
        self.addCleanup(process.stdout.close)
        ports = [int(process.stdout.readline()) for _ in range(2)]

        def connect_to(port: int) -> Callable[[], RawClient]:
            address = (LOOPBACK, port)
            return lambda: RawClient(socket.create_connection(address, ANSWER_SECONDS))

        for port in ports:
            self.set_clock(0)
            self.assert_steady(connect_to(port))
        self.set_clock(10 * HOUR)
        connect = connect_to(ports[1])
        with connect() as client:
            client.send(request("/sleep?2.5"))  # twisted.web caches it for a second
            client.read_all()
        *_, last = re.findall(r"\[(.*?)\]", log.read_text())
        self.assert_wall_time(datetime.strptime(last, LOG_TIME), 10 * HOUR)


class StallTests(SynchronousTestCase):
    """The process does nothing for longer than each timeout."""

    #: The timeouts of the server, in seconds, and the duration of the stall.
    LIMIT, STALL = 6, 7

    def serve(self, *options: str) -> ServerProcess:
        """Start a server."""
        limits = [
            f"--{name}={self.LIMIT}"
            for name in (
                "request-timeout",
                "header-timeout",
                "body-timeout",
                "write-timeout",
                "keep-alive",
            )
        ]
        return start(
            self,
            *options,
            "greenwsgi",
            f"--app={APP}",
            f"--listen=tcp:0:interface={LOOPBACK}",
            *limits,
        )

    def assert_in_time(
        self, server: ServerProcess, stall: Callable[[], object]
    ) -> None:
        """Let requests begin, and send the rest of them during a stall."""
        upstream = socket.create_server((LOOPBACK, 0))
        self.addCleanup(upstream.close)
        upstream.settimeout(ANSWER_SECONDS)
        idle, head, body, waits, steps = (server.connect() for _ in range(5))
        steps.send(request("/steps?2"))
        waits.send(request(f"/receive?{upstream.getsockname()[1]}"))
        peer, _ = upstream.accept()
        self.addCleanup(peer.close)
        idle.send(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")
        idle.read_until(b"\r\n\r\n")
        head.send(request("/")[:20])
        body.send(request("/", method="POST", body=b"abcdef")[:-3])
        stall()
        time.sleep(self.STALL / 2)
        peer.sendall(b"received")
        idle.send(request("/"))
        head.send(request("/")[20:])
        body.send(b"def")
        time.sleep(self.STALL / 2)
        os.kill(server.pid, signal.SIGCONT)
        for client, content in (
            (idle, b""),
            (head, b""),
            (body, b"abcdef"),
            (waits, b"received"),
            (steps, b""),
        ):
            with client:
                answer = client.read_all()
                self.assertIn(b" 200 OK\r\n", answer)
                self.assertEqual(answer.partition(b"\r\n\r\n")[2], content)

    def assert_stopped(self, *options: str) -> None:
        """Check a process that is stopped and continued."""
        server = self.serve(*options)
        self.assert_in_time(server, lambda: os.kill(server.pid, signal.SIGSTOP))

    def test_stopped_process(self) -> None:
        """Clients that sent in time while the process was stopped are served."""
        self.assert_stopped()

    def test_stopped_process_with_asyncio(self) -> None:
        """So it is with asyncio."""
        self.assert_stopped("--reactor=asyncio")

    def test_blocking_view(self) -> None:
        """Clients that sent in time while a view blocked the server are served."""
        server = self.serve()
        with server.connect() as blocking:

            def block() -> None:
                blocking.send(request(f"/block?{self.STALL + 1}"))

            self.assert_in_time(server, block)
            self.assertIn(b" 200 OK", blocking.read_all())
