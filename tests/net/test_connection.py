"""Tests of a connection as a file, in memory."""

from __future__ import annotations

import csv
import gc
import io
import json
import sys
import threading
from email.parser import BytesParser
from http.client import HTTPConnection, HTTPResponse
from smtplib import SMTP
from typing import Any

from txgreenwsgi import Cancelled, Suspension, TimedOut, timeout
from txgreenwsgi.net import BUFFER_BYTES, Connection

from .tasks import Peer, TaskTestCase


class ReadingTests(TaskTestCase):
    """Reading."""

    def setUp(self) -> None:
        """Make a peer."""
        super().setUp()
        self.peer = Peer(self)
        self.connection = self.peer.connection

    def test_read_waits_for_all(self) -> None:
        """`read(n)` returns n bytes, however they arrive, and keeps the rest."""
        task = self.begin(self.connection.read, 5)
        self.peer.send(b"ab", b"cd")
        self.assertFalse(task.done)
        self.peer.send(b"efg")
        self.assertEqual(self.result(task), b"abcde")
        self.assertEqual(self.run_now(self.connection.read, 2), b"fg")
        self.assertEqual(self.run_now(self.connection.read, 0), b"")

    def test_read_to_the_end(self) -> None:
        """`read()` returns all up to the end, then b""; `read(n)` the remainder."""
        task = self.begin(self.connection.read)
        self.peer.send(b"ab", b"cd")
        self.peer.end_connection()
        self.assertEqual(self.result(task), b"abcd")
        self.assertEqual(self.run_now(self.connection.read), b"")
        other = Peer(self)
        short = self.begin(other.connection.read, 9)
        other.send(b"abc")
        other.half_close()
        self.assertEqual(self.result(short), b"abc")
        self.assertEqual(self.run_now(other.connection.read, None), b"")

    def test_recv(self) -> None:
        """`recv(n)` waits for one byte and returns at most n available ones."""
        task = self.begin(self.connection.recv, 3)
        self.assertFalse(task.done)
        self.peer.send(b"abcd")
        self.assertEqual(self.result(task), b"abc")
        self.assertEqual(self.run_now(self.connection.recv, 3), b"d")
        self.peer.half_close()
        self.assertEqual(self.run_now(self.connection.recv, 3), b"")
        with self.assertRaisesRegex(ValueError, "at least 1 byte"):
            self.run_now(self.connection.recv, 0)

    def test_lines(self) -> None:
        """Lines have their newlines, except the last one; then b"" follows."""
        task = self.begin(self.connection.readline)
        self.peer.send(b"o", b"ne\ntwo\nth")
        self.assertEqual(self.result(task), b"one\n")
        self.assertEqual(self.run_now(self.connection.readline), b"two\n")
        last = self.begin(self.connection.readline)
        self.peer.send(b"ree")
        self.peer.half_close()
        self.assertEqual(self.result(last), b"three")
        self.assertEqual(self.run_now(self.connection.readline), b"")

    def test_limited_lines(self) -> None:
        """`readline(limit)` returns at most `limit` bytes."""
        self.peer.send(b"abcdef\nx")
        read = self.connection.readline
        self.assertEqual(self.run_now(read, 4), b"abcd")
        self.assertEqual(self.run_now(read, 0), b"")
        self.assertEqual(self.run_now(read, 3), b"ef\n")
        task = self.begin(read, 2)
        self.peer.send(b"y")
        self.assertEqual(self.result(task), b"xy")

    def test_iteration(self) -> None:
        """Iteration and `readlines` return the lines up to the end."""
        task: Any = self.begin(list, self.connection)
        self.peer.send(b"one\n", b"two\nthr", b"ee")
        self.peer.half_close()
        self.assertEqual(self.result(task), [b"one\n", b"two\n", b"three"])
        other = Peer(self)
        lines = self.begin(other.connection.readlines, 5)
        other.send(b"one\ntwo\nthree\n")
        self.assertEqual(self.result(lines), [b"one\n", b"two\n"])
        rest = self.begin(other.connection.readlines)
        other.half_close()
        self.assertEqual(self.result(rest), [b"three\n"])

    def test_until(self) -> None:
        """`readuntil` returns all up to the mark, also one split across reads."""
        task = self.begin(self.connection.readuntil, b"\r\n\r\n")
        self.peer.send(b"head\r", b"\n\r", b"\nbody")
        self.assertEqual(self.result(task), b"head\r\n\r\n")
        self.assertEqual(self.run_now(self.connection.read, 4), b"body")
        with self.assertRaisesRegex(ValueError, "at least one byte"):
            self.run_now(self.connection.readuntil, b"")

    def test_until_the_end(self) -> None:
        """The end without the mark raises EOFError; the data remains readable."""
        task = self.begin(self.connection.readuntil, b"!")
        self.peer.send(b"abc")
        self.peer.half_close()
        with self.assertRaisesRegex(EOFError, "without b'!' after 3 bytes"):
            self.result(task)
        self.assertEqual(self.run_now(self.connection.read), b"abc")

    def test_until_a_limit(self) -> None:
        """No mark within the limit raises ValueError; the data remains readable."""
        task = self.begin(self.connection.readuntil, b"!", 4)
        self.peer.send(b"abc", b"d")
        with self.assertRaisesRegex(ValueError, "first 4 bytes"):
            self.result(task)
        self.peer.send(b"!")
        with self.assertRaisesRegex(ValueError, "first 4 bytes"):
            self.run_now(self.connection.readuntil, b"!", 4)
        self.assertEqual(self.run_now(self.connection.readuntil, b"!", 5), b"abcd!")

    def test_readinto(self) -> None:
        """`readinto` fills the buffer; `read1` returns the available bytes."""
        self.peer.send(b"abcdef")
        buffer = bytearray(4)
        self.assertEqual(self.run_now(self.connection.readinto, buffer), 4)
        self.assertEqual(buffer, b"abcd")
        self.assertEqual(self.run_now(self.connection.read1), b"ef")
        self.assertEqual(self.run_now(self.connection.read1, 0), b"")

    def test_reading_is_paused(self) -> None:
        """Reading from the peer pauses when the buffer is full."""
        self.peer.send(b"x" * (BUFFER_BYTES - 1))
        self.assertFalse(self.peer.paused)
        self.peer.send(b"x")
        self.assertTrue(self.peer.paused)
        self.run_now(self.connection.read, 10)
        self.assertFalse(self.peer.paused)

    def test_more_than_the_buffer(self) -> None:
        """A read of more than the buffer size resumes reading from the peer."""
        self.peer.send(b"x" * BUFFER_BYTES)
        task = self.begin(self.connection.read, BUFFER_BYTES + 10)
        self.assertFalse(self.peer.paused)
        self.peer.send(b"y" * 10)
        self.assertEqual(len(self.result(task)), BUFFER_BYTES + 10)
        line = self.begin(self.connection.readline)
        self.peer.send(b"x" * BUFFER_BYTES)
        self.assertFalse(self.peer.paused)
        self.peer.send(b"\n")
        self.assertEqual(len(self.result(line)), BUFFER_BYTES + 1)

    def test_lost(self) -> None:
        """A lost connection raises, after the received data was read."""
        task = self.begin(self.connection.read, 10)
        self.peer.send(b"abc")
        self.peer.lose_connection()
        with self.assertRaisesRegex(ConnectionResetError, "lost.*reset") as caught:
            self.result(task)
        self.assertIsNotNone(caught.exception.__cause__)
        self.assertEqual(self.run_now(self.connection.recv, 10), b"abc")
        with self.assertRaises(ConnectionResetError):
            self.run_now(self.connection.recv, 10)
        with self.assertRaises(ConnectionResetError):
            self.run_now(self.connection.write, b"x")

    def test_interrupted(self) -> None:
        """An interrupted read loses no data."""

        def impatient() -> bytes:
            try:
                with timeout(2.0):
                    return self.connection.read(6)
            except TimedOut:
                return self.connection.read(6)

        task = self.begin(impatient)
        self.peer.send(b"abc")
        self.reactor.advance(2.0)
        self.peer.send(b"def")
        self.assertEqual(self.result(task), b"abcdef")

    def test_two_readers(self) -> None:
        """A second task that reads at the same time gets a clear error."""
        first = self.begin(self.connection.read, 1)
        with self.assertRaisesRegex(RuntimeError, "let one task read at a time"):
            self.run_now(self.connection.read, 1)
        self.peer.send(b"a")
        self.assertEqual(self.result(first), b"a")


class WritingTests(TaskTestCase):
    """Writing."""

    def setUp(self) -> None:
        """Make a peer."""
        super().setUp()
        self.peer = Peer(self)
        self.connection = self.peer.connection

    def test_write(self) -> None:
        """Data is sent in order; the number of bytes is returned."""
        self.assertEqual(self.run_now(self.connection.write, b"abc"), 3)
        self.assertEqual(self.run_now(self.connection.write, bytearray(b"d")), 1)
        self.run_now(self.connection.writelines, [b"e\n", b"f\n"])
        self.run_now(self.connection.sendall, memoryview(b"g"))
        self.run_now(self.connection.flush)
        self.assertEqual(self.peer.received, b"abcde\nf\ng")

    def test_pressure(self) -> None:
        """`write` parks while the transport's buffer is full."""
        self.peer.take_no_more()
        task = self.begin(self.connection.write, b"abc")
        self.assertFalse(task.done)
        self.assertIn("to receive more data", str(task.waiting_on))
        self.peer.take()
        self.assertEqual(self.result(task), 3)

    def test_long_data_goes_in_pieces(self) -> None:
        """Long data is passed to the transport in chunks."""
        data = bytes(range(256)) * 4096
        self.peer.take_no_more()
        task = self.begin(self.connection.write, data)
        seen = []
        while not task.done:
            seen.append(len(self.peer.received))
            self.peer.take()
        self.assertEqual(seen, [262144, 524288, 786432, 1048576])
        self.assertEqual(self.peer.received, data)

    def test_lost_while_waiting(self) -> None:
        """A peer that disconnects during a write ends it with an error."""
        for end in (Peer.end_connection, Peer.lose_connection):
            peer = Peer(self)
            peer.take_no_more()
            task = self.begin(peer.connection.write, b"abc")
            end(peer)
            with self.assertRaises(ConnectionResetError):
                self.result(task)

    def test_after_the_peer_has_ended_its_half(self) -> None:
        """Writing is possible after the peer has closed its half."""
        self.peer.half_close()
        self.run_now(self.connection.write, b"answer")
        self.assertEqual(self.peer.received, b"answer")


class EndingTests(TaskTestCase):
    """Closing."""

    def setUp(self) -> None:
        """Make a peer."""
        super().setUp()
        self.peer = Peer(self)
        self.connection = self.peer.connection

    def test_close(self) -> None:
        """`close` closes cleanly; later calls raise."""
        self.connection.close()
        self.connection.close()
        self.assertTrue(self.peer.transport.disconnecting)
        self.assertFalse(self.peer.transport.disconnected)
        self.assertIsNone(
            self.peer.transport.producer
        )  # otherwise it would wait for the producer
        for method in (self.connection.read, self.connection.flush):
            with self.assertRaisesRegex(ValueError, "closed locally"):
                self.run_now(method)
        with self.assertRaisesRegex(ValueError, "closed locally"):
            self.run_now(self.connection.write, b"x")

    def test_close_wakes(self) -> None:
        """Waits on a connection that is closed raise an error."""
        reader = self.begin(self.connection.read)
        self.peer.take_no_more()
        writer = self.begin(self.connection.write, b"x")
        self.connection.close()
        self.peer.send(b"too late")
        self.reactor.settle()
        with self.assertRaisesRegex(ValueError, "closed locally"):
            self.result(reader)
        with self.assertRaisesRegex(ValueError, "closed locally"):
            self.result(writer)

    def test_wait_closed(self) -> None:
        """`wait_closed` returns when the connection is lost."""
        self.connection.close()
        task = self.begin(self.connection.wait_closed)
        self.assertFalse(task.done)
        self.peer.end_connection()
        self.assertIsNone(self.result(task))
        self.assertIsNone(self.run_now(self.connection.wait_closed))

    def test_peer_that_takes_nothing(self) -> None:
        """A peer that does not receive the data is aborted after 30 seconds."""
        self.connection.close()
        self.reactor.advance(29.0)
        self.assertFalse(self.peer.transport.disconnected)
        self.reactor.advance(1.0)
        self.assertTrue(self.peer.transport.disconnected)

    def test_closed_while_paused(self) -> None:
        """Closing a paused connection resumes reading and drops the data."""
        self.peer.send(b"x" * BUFFER_BYTES)
        self.assertTrue(self.peer.paused)
        self.connection.close()
        self.assertFalse(self.peer.paused)
        self.peer.send(b"y")
        self.assertEqual(self.connection.buffered, 0)

    def test_abort(self) -> None:
        """`abort` closes the connection at once."""
        task = self.begin(self.connection.read)
        self.connection.abort()
        self.assertTrue(self.peer.transport.disconnected)
        with self.assertRaisesRegex(ValueError, "closed locally"):
            self.result(task)

    def test_after_the_end(self) -> None:
        """Closing a lost connection is a no-op."""
        self.peer.end_connection()
        self.connection.close()
        self.connection.abort()
        self.assertTrue(self.connection.closed)

    def test_context_manager(self) -> None:
        """A `with` block closes the connection; after an error it aborts it."""
        with self.connection as connection:
            self.assertIs(connection, self.connection)
        self.assertTrue(self.peer.transport.disconnecting)
        self.assertFalse(self.peer.transport.disconnected)
        other = Peer(self)
        with self.assertRaises(KeyError), other.connection:
            raise KeyError
        self.assertTrue(other.transport.disconnected)

    def test_cancelled(self) -> None:
        """A cancelled writer leaves no waiter in its connection."""
        self.peer.take_no_more()
        writer = self.begin(self.connection.write, b"x")
        wait = writer.suspension
        assert isinstance(wait, Suspension)
        writer.cancel()
        self.reactor.settle()
        with self.assertRaises(Cancelled):
            self.result(writer)
        del writer
        gc.collect()
        # The other reference is the argument of getrefcount.
        self.assertEqual(sys.getrefcount(wait), 2)

    def test_shown(self) -> None:
        """The repr has the peer and the state, also after the end."""
        self.assertRegex(repr(self.connection), "192.168.1.1.* open>")
        self.peer.end_connection()
        self.assertRegex(repr(self.connection), "192.168.1.1.* lost>")
        self.connection.close()
        self.assertRegex(repr(self.connection), "192.168.1.1.* closed>")
        self.assertIn("10.0.0.1", str(self.connection.host))


class FileTests(TaskTestCase):
    """Libraries that use files and sockets, unchanged."""

    def setUp(self) -> None:
        """Make a peer."""
        super().setUp()
        self.peer = Peer(self)
        self.connection = self.peer.connection

    def test_csv(self) -> None:
        """The csv module reads and writes rows as they arrive."""

        def rows() -> list[list[str]]:
            with self.connection.makefile("rw", newline="") as file:
                reader, writer = csv.reader(file), csv.writer(file)
                found = [next(reader)]
                writer.writerow(["more", "please"])
                found.extend(reader)
                return found

        task = self.begin(rows)
        self.peer.send(b'one,"a, ', b'b"\r\n')
        self.assertEqual(self.peer.received, b"more,please\r\n")
        self.peer.send("zwei,ü\r\n".encode())
        self.peer.half_close()
        self.assertEqual(self.result(task), [["one", "a, b"], ["zwei", "ü"]])

    def test_json(self) -> None:
        """The json module loads from a connection."""
        task: Any = self.begin(json.load, self.connection)
        self.peer.send(b'{"a": ', b"[1, 2]}")
        self.peer.half_close()
        self.assertEqual(self.result(task), {"a": [1, 2]})

    def test_email(self) -> None:
        """The email parser, which wraps it in a text file, parses it."""
        task = self.begin(BytesParser().parse, self.connection)
        self.peer.send(b"Subject: tea\r\n\r", b"\nat five")
        self.peer.half_close()
        self.assertEqual(self.result(task)["Subject"], "tea")

    def test_text_wrapper(self) -> None:
        """`io.TextIOWrapper` accepts a connection."""
        task = self.begin(lambda: io.TextIOWrapper(self.connection).readline())  # type: ignore[type-var]
        self.peer.send("grüße\nmore".encode())
        self.assertEqual(self.result(task), "grüße\n")
        self.assertFalse(self.connection.seekable() or self.connection.isatty())
        self.assertTrue(self.connection.readable() and self.connection.writable())

    def test_http_client(self) -> None:
        """The http.client module keeps the connection alive between requests."""

        def fetch() -> list[bytes]:
            http = HTTPConnection("example.org")
            http.sock = self.connection
            bodies = []
            for path in ("/one", "/two"):
                http.request("GET", path)
                bodies.append(http.getresponse().read())
            http.close()
            return bodies

        task = self.begin(fetch)
        self.assertIn(b"GET /one HTTP/1.1", self.peer.received)
        self.peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n", b"\r\nab")
        self.assertIn(b"GET /two HTTP/1.1", self.peer.received)
        self.peer.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.peer.send(b"3\r\ncde\r\n", b"0\r\n\r\n")
        self.assertEqual(self.result(task), [b"ab", b"cde"])
        self.assertTrue(self.peer.transport.disconnecting)

    def test_response_outlives_close(self) -> None:
        """A response can be read after http.client has closed its socket."""

        def fetch() -> bytes:
            http = HTTPConnection("example.org")
            http.sock = self.connection
            http.request("GET", "/")
            response: HTTPResponse = http.getresponse()
            assert http.sock is None  # the response has Connection: close
            body = response.read()
            response.close()
            return body

        task = self.begin(fetch)
        self.peer.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n", b"ab")
        self.assertFalse(self.peer.transport.disconnecting)
        self.assertTrue(self.connection.closed)
        self.peer.send(b"cd")
        self.peer.half_close()
        self.assertEqual(self.result(task), b"abcd")
        self.assertTrue(self.peer.transport.disconnecting)

    def test_smtplib(self) -> None:
        """The smtplib module has a conversation over it."""

        def send() -> tuple[int, bytes]:
            smtp = SMTP(local_hostname="here")
            smtp.sock = self.connection  # type: ignore[assignment]
            smtp.getreply()
            smtp.ehlo()
            smtp.sendmail("a@here", ["b@there"], "Subject: tea\r\n\r\nat five\r\n")
            return smtp.quit()

        task = self.begin(send)
        for reply in (b"220 hi", b"250-there\r\n250 SIZE 1000"):
            self.peer.send(reply + b"\r\n")
        for reply in (b"250 a", b"250 b", b"354 go on", b"250 taken", b"221 bye"):
            self.peer.send(reply + b"\r\n")
        self.assertEqual(self.result(task), (221, b"bye"))
        self.assertIn(b"Subject: tea\r\n\r\nat five\r\n.\r\n", self.peer.received)

    def test_modes(self) -> None:
        """A file allows the operations of its mode until it is closed."""
        for mode in ("", "a", "b", "r+"):
            with self.assertRaisesRegex(ValueError, "not a mode for a connection"):
                self.connection.makefile(mode)
        reader = self.connection.makefile("rb")
        writer = self.connection.makefile("wb")
        self.assertTrue(reader.readable() and not reader.writable())
        with self.assertRaises(io.UnsupportedOperation):
            reader.write(b"x")
        with self.assertRaises(io.UnsupportedOperation):
            writer.read()
        self.peer.send(b"abcd\nef")
        self.assertEqual(self.run_now(reader.read, 1), b"a")
        self.assertEqual(self.run_now(reader.read1, 1), b"b")
        self.assertEqual(self.run_now(reader.readline), b"cd\n")
        reader.close()
        reader.close()
        with self.assertRaisesRegex(ValueError, "closed file"):
            reader.read()
        # The connection stays open until it and its last file are closed.
        self.run_now(writer.write, b"x")
        self.connection.close()
        self.run_now(writer.write, b"y")
        self.assertFalse(self.peer.transport.disconnecting)
        writer.close()
        self.assertTrue(self.peer.transport.disconnecting)
        self.assertEqual(self.peer.received, b"xy")

    def test_last_file_closed_in_a_thread(self) -> None:
        """A file closed in another thread leaves the transport to the reactor's."""
        file = self.connection.makefile("rb")
        self.connection.close()
        asked: list[Any] = []
        self.patch(self.hub, "call_from_thread", asked.append)
        thread = threading.Thread(target=file.close)
        thread.start()
        thread.join()
        self.assertFalse(self.peer.transport.disconnecting)
        (call,) = asked
        call()
        self.assertTrue(self.peer.transport.disconnecting)

    def test_aborted_under_a_file(self) -> None:
        """A file of an aborted connection raises."""
        file = self.connection.makefile("rb")
        self.connection.abort()
        with self.assertRaisesRegex(ValueError, "closed locally"):
            self.run_now(file.read)
        file.close()
        self.assertIsInstance(self.connection, Connection)
