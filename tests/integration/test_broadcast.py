"""examples/broadcast.py: server-sent events of several processes, with a real Redis."""

from __future__ import annotations

import json
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import redis
from twisted.trial.unittest import SynchronousTestCase

from .command_server import CommandServer
from .processes import (
    ANSWER_SECONDS,
    CHECKOUT,
    LOOPBACK,
    RawClient,
    Server,
    ServerProcess,
    free_ports,
    start,
    wait_for,
)
from .services import Redis

APP = "--app=examples.broadcast:app"
READERS = 20
#: Much less than the graceful timeout of 30 s.
SOON_SECONDS = 15.0


class Reader:
    """A browser's EventSource: reads events and remembers the last id."""

    def __init__(self, server: Server, last_id: str = "") -> None:
        self.last_id = last_id
        self._client: RawClient = server.connect()
        field = f"Last-Event-ID: {last_id}\r\n" if last_id else ""
        self._client.send(
            f"GET /events HTTP/1.1\r\nHost: localhost\r\n{field}\r\n".encode()
        )
        head = self._client.read_until(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise AssertionError(head)
        if b"\r\nTransfer-Encoding: chunked\r\n" not in head:
            raise AssertionError(head)
        self.blocks = [self.block()]

    def block(self) -> str:
        """Return the next block of the response; "" is its end."""
        size = int(self._client.read_until(b"\r\n"), 16)
        data = b""
        while len(data) < size + 2:
            data += self._client.read_until(b"\n")
        return data[:size].decode()

    def text(self) -> str:
        """Return the next line, and remember its id.

        Raises:
            AssertionError: the response has ended, or is silent.
        """
        while True:
            block = self.block()
            if not block:
                raise AssertionError("the response has ended")
            text = self.line_of(block)
            if text is not None:
                return text

    def line_of(self, block: str) -> str | None:
        """Return the line in a block and remember its id; None for a comment."""
        found = re.fullmatch(r"id: (\S+)\ndata: (.*)\n\n", block)
        if found is None:
            return None
        self.last_id = found[1]
        return str(json.loads(found[2]))

    def close(self) -> None:
        """Disconnect."""
        self._client.socket.close()


class BroadcastTests(SynchronousTestCase):
    """Two server processes and one Redis server."""

    def setUp(self) -> None:
        """Start Redis."""
        service = Redis()
        service.__enter__()
        self.addCleanup(service.__exit__, None, None, None)
        self.client = redis.Redis(LOOPBACK, service.port, decode_responses=True)
        self.addCleanup(self.client.close)
        self.url = f"redis://{LOOPBACK}:{service.port}"

    def serve(self, *options: str) -> ServerProcess:
        """Start a server process."""
        return start(
            self,
            *("greenwsgi", APP, f"--listen=tcp:0:interface={LOOPBACK}", *options),
            environ={"REDIS_URL": self.url},
        )

    def read(self, server: Server, last_id: str = "") -> Reader:
        """Connect a reader; the test's cleanup disconnects it."""
        reader = Reader(server, last_id)
        self.addCleanup(reader.close)
        return reader

    def say(self, server: Server, *texts: str) -> None:
        """Post lines, one after the other."""
        for text in texts:
            answer = server.fetch(
                "/say",
                "POST",
                f"text={text}",
                {"Content-Type": "application/x-www-form-urlencoded"},
            )
            self.assertEqual(answer.status, 303, answer.text)

    def wait_readers(self, count: int) -> None:
        """Wait until a number of connections read lines."""
        wait_for(
            lambda: len(self.reading()) == count, f"{count} readers", ANSWER_SECONDS
        )

    def reading(self) -> list[dict[str, Any]]:
        """Return the connections on which a server process reads lines."""
        clients: Any = self.client.client_list()
        blocked = [each for each in clients if "b" in each["flags"]]
        self.assertEqual({each["cmd"] for each in blocked} - {"xread"}, set())
        return blocked

    def test_fan_out(self) -> None:
        """Every browser gets every line in order, over one connection a process."""
        servers = [self.serve(), self.serve()]
        readers = [self.read(server) for server in servers for _ in range(READERS // 2)]
        self.wait_readers(2)  # one a process
        said = [f"line-{number}" for number in range(10)]
        for number, text in enumerate(said):
            self.say(servers[number % 2], text)
        for reader in readers:
            self.assertEqual([reader.text() for _ in said], said)
        # Each reads on as soon as it has passed a line on.
        self.wait_readers(2)
        # The tasks end when there is nothing to read for.
        for reader in readers:
            reader.close()
        self.say(servers[0], "a write to a closed connection ends its request")
        self.say(servers[0], "again")
        self.wait_readers(0)
        late = self.read(servers[1])
        self.assertEqual([late.text() for _ in said], said)

    def test_resumed(self) -> None:
        """A browser that moves to another process misses no line and gets none twice.

        The response ends at once when its server stops, and is complete.
        """
        first, second = self.serve(), self.serve()
        reader = self.read(first)
        self.say(first, "one", "two")
        self.assertEqual([reader.text(), reader.text()], ["one", "two"])
        self.say(second, "three")
        self.assertEqual(reader.text(), "three")
        first.ask_to_stop()
        self.assertEqual(reader.block(), "")
        self.say(second, "four", "five")
        again = self.read(second, reader.last_id)
        self.say(second, "six")
        self.assertEqual(
            [again.text() for _ in range(3)], ["four", "five", "six"], again.blocks
        )
        again.close()
        first.wait_ended(SOON_SECONDS)

    def test_reload(self) -> None:
        """Two workers that reload lose no line, and repeat none, for any browser."""
        (port,) = free_ports(1)
        server = CommandServer(
            self,
            [
                *("examples.broadcast:app", "--workers=2", "--health-path=/-"),
                *(f"--listen=tcp:{port}:interface={LOOPBACK}", "--control=none"),
            ],
            CHECKOUT,
            port,
            environ={"REDIS_URL": self.url},
        )
        server.wait_ready()
        server.wait_for(
            lambda: server.log().count(" is ready") == 2, "two workers", ANSWER_SECONDS
        )

        def follow(reader: Reader) -> tuple[list[str], int]:
            """Return the lines up to the last one, and the number of connections."""
            received: list[str] = []
            connections = 1
            while not (received and received[-1] == "last"):
                block = reader.block()
                if not block:  # the worker stops
                    reader.close()
                    reader = self.read(server, reader.last_id)
                    connections += 1
                elif (text := reader.line_of(block)) is not None:
                    received.append(text)
            return received, connections

        readers = [self.read(server) for _ in range(READERS)]
        self.say(server, "first")
        self.assertEqual([reader.text() for reader in readers], ["first"] * READERS)
        self.wait_readers(2)  # one a worker
        with ThreadPoolExecutor(READERS) as pool:
            followed = [pool.submit(follow, reader) for reader in readers]
            server.process.send_signal(signal.SIGHUP)
            said: list[str] = []
            while server.log().count(" has ended") < 2:  # both old workers
                said.append(f"line-{len(said)}")
                self.say(server, said[-1])
                self.assertLess(len(said), 3000, server.log())
            said.append("last")
            self.say(server, "last")
            for each in followed:
                received, connections = each.result(ANSWER_SECONDS)
                self.assertEqual(received, said)
                self.assertGreater(connections, 1)
        server.stop()

    def test_lost_connections(self) -> None:
        """Lines that are published while a process has no connection arrive later."""
        server = self.serve()
        reader = self.read(server)
        self.say(server, "before")
        self.assertEqual(reader.text(), "before")
        for number in range(3):
            self.wait_readers(1)
            self.client.client_kill_filter(_id=self.reading()[0]["id"])
            self.client.xadd("broadcast", {"text": f"during-{number}"})
            self.assertEqual(reader.text(), f"during-{number}")

    def test_broken_stream(self) -> None:
        """If reading fails for good, the responses end; a reader can begin anew."""
        server = self.serve()
        reader = self.read(server)
        self.say(server, "before")
        self.assertEqual(reader.text(), "before")
        self.wait_readers(1)
        self.client.set("broadcast", "another type")
        self.assertEqual(reader.block(), "")
        server.wait_logged("WRONGTYPE")
        self.client.delete("broadcast")
        again = self.read(server, reader.last_id)
        self.say(server, "after")
        self.assertEqual(again.text(), "after")

    def test_slow_browser(self) -> None:
        """A browser that does not read is disconnected; others get every line.

        It resumes after the last line that it has received.
        """
        server = self.serve()
        slow, fast = self.read(server), self.read(server)
        self.say(server, "first")
        self.assertEqual([slow.text(), fast.text()], ["first", "first"])
        self.wait_readers(1)
        filler = "x" * 400_000
        said = []
        for number in range(150):
            said.append(f"{number}-{filler}")
            self.client.xadd("broadcast", {"text": said[-1]})
            self.assertEqual(fast.text(), said[-1])
        received = []
        with self.assertRaises(AssertionError):
            while True:
                received.append(slow.text())
        self.assertEqual(received, said[: len(received)])
        self.assertLess(len(received), 60)
        again = self.read(server, slow.last_id)
        rest = [again.text() for _ in said[len(received) :]]
        self.assertEqual(received + rest, said)

    def test_requests(self) -> None:
        """Bad lines get 400, a bad last id counts as none, the page is there."""
        server = self.serve()
        self.assertIn("EventSource", server.fetch("/").text)
        fields = {"Content-Type": "application/x-www-form-urlencoded"}
        for body in ("", "text=", "text=%20", "other=1", "text=" + "x" * 501):
            answer = server.fetch("/say", "POST", body, fields)
            self.assertEqual(answer.status, 400, body)
        self.say(server, "one%0Aid%3A%20forged")
        for last_id in ("-", "$", "abc", "1-1-1", "9" * 30 + "-0"):
            reader = self.read(server, last_id)
            self.assertEqual(reader.text(), "one\nid: forged")
            reader.close()
