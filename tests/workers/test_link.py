"""The link between master and worker."""

from __future__ import annotations

import json
import os
import socket
from typing import Any, cast

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._workers.link import Link

from .memory_fds import FakeReactor


class LinkTests(SynchronousTestCase):
    """Messages over a socket pair."""

    def setUp(self) -> None:
        """Make a link and its other end."""
        self.reactor = FakeReactor()
        ours, self.other = socket.socketpair()
        self.addCleanup(self.other.close)
        self.messages: list[dict[str, Any]] = []
        self.descriptors: list[int] = []
        self.losses = 0
        self.link = Link(ours, cast("Any", self.reactor), self.received, self.lost)
        self.addCleanup(self.link.close)

    def received(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Record a message."""
        self.messages.append(message)
        self.descriptors += descriptors

    def lost(self) -> None:
        """Count the losses."""
        self.losses += 1

    def test_lines_in_pieces(self) -> None:
        """Messages arrive whole, however their bytes are divided."""
        data = b'{"do": "one"}\n{"do": "two"}\n'
        for byte in data:
            self.other.send(bytes([byte]))
            self.link.doRead()
        self.assertEqual(self.messages, [{"do": "one"}, {"do": "two"}])
        self.other.send(data)
        self.link.doRead()
        self.assertEqual(len(self.messages), 4)

    def test_descriptors(self) -> None:
        """Descriptors arrive with their message; the sender may close its own."""
        reading, writing = os.pipe()
        self.link.send({"do": "adopt"}, [reading, writing])
        os.close(reading)
        os.close(writing)
        data, fds, _, _ = socket.recv_fds(self.other, 1000, 10)
        self.assertEqual(json.loads(data), {"do": "adopt", "descriptors": 2})
        socket.send_fds(self.other, [b'{"do": "a"}\n{"do": "b", "desc'], fds)
        self.link.doRead()
        self.assertEqual(self.messages, [{"do": "a"}])
        self.other.send(b'riptors": 2}\n')
        self.link.doRead()
        self.assertEqual(len(self.descriptors), 2)
        os.write(self.descriptors[1], b"x")
        self.assertEqual(os.read(self.descriptors[0], 1), b"x")
        for fd in (*self.descriptors, *fds):
            os.close(fd)

    def test_other_end_that_does_not_read(self) -> None:
        """Messages wait for room, with their descriptors, in order."""
        reading, writing = os.pipe()
        for number in range(2000):
            self.link.send({"number": number, "text": "x" * 1000}, [reading])
        os.close(reading)
        os.close(writing)
        self.assertIn(self.link, self.reactor.writers)
        data = b""
        count = 0
        while self.link in self.reactor.writers or count < 2000:
            more, fds, _, _ = socket.recv_fds(self.other, 65536, 200)
            data += more
            count += len(fds)
            for fd in fds:
                os.close(fd)
            self.link.doWrite()
            if data.count(b"\n") == 2000:
                break
        numbers = [json.loads(line)["number"] for line in data.splitlines()]
        self.assertEqual(numbers, list(range(2000)))
        self.assertEqual(count, 2000)

    def test_lost(self) -> None:
        """The end of the stream is reported once, after the last message."""
        self.other.send(b'{"do": "last"}\n')
        self.other.close()
        self.link.doRead()
        self.assertEqual((len(self.messages), self.losses), (1, 0))
        self.link.doRead()
        self.assertEqual(self.losses, 1)
        self.assertNotIn(self.link, self.reactor.readers)
        self.link.send({"do": "nothing"})
        self.link.close()
        self.assertEqual(self.losses, 1)

    def test_send_to_a_process_that_has_ended(self) -> None:
        """A failed write is not an error; reading reports the end."""
        self.other.close()
        self.link.send({"do": "drain"})
        self.assertNotIn(self.link, self.reactor.writers)
        self.link.doRead()
        self.assertEqual(self.losses, 1)

    def test_finish(self) -> None:
        """The remaining messages of a process that has ended are passed on."""
        self.other.send(b'{"event": "failed"}\n')
        self.other.close()
        self.link.finish()
        self.assertEqual((self.messages, self.losses), ([{"event": "failed"}], 0))
        self.assertEqual(self.link.fileno(), -1)
