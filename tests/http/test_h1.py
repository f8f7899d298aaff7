"""Tests of `http.h1.Connection`: states of both directions, and response bytes."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.trial.unittest import SynchronousTestCase

from tests.matrices import ILLEGAL, assert_event, assert_table, matrix
from txgreenwsgi._http.common_fields import CommonFields
from txgreenwsgi._http.framing import CHUNKED, CLOSE, LENGTH, NONE
from txgreenwsgi._http.h1 import SENDING, Connection
from txgreenwsgi._http.head import END, Refusal, RequestHead
from txgreenwsgi._http.parser import RECEIVING, HeadLimits
from txgreenwsgi._http.writer import CONTINUE, LAST_CHUNK, EarlyHints, ResponseHead
from txgreenwsgi._states import IllegalTransition

if TYPE_CHECKING:
    from collections.abc import Callable

    Act = Callable[[Connection], object]
    Sent = bytes | tuple[bytes, ...]

#: The length from which blocks are sent as parts of their own.
LONG = 16384


def connection(added: tuple[tuple[str, str], ...] = ()) -> Connection:
    """Return a new connection without a Server field."""
    return Connection(HeadLimits(), CommonFields("", added))


def request(
    http: Connection, method: str = "GET", version: str = "HTTP/1.1", *fields: str
) -> None:
    """Receive a request without a body, and begin it."""
    lines = [f"{method} / {version}", "Host: x", *fields, "", ""]
    head = http.feed("\r\n".join(lines).encode(), True)[0]
    assert isinstance(head, RequestHead), head
    http.begin(head)


def response(status: str = "200 OK", *fields: tuple[str, str]) -> ResponseHead:
    """Return a response head with a Date of its own, so that bytes are known."""
    return ResponseHead(status, [("Date", "today"), *fields])


def send_head(
    http: Connection,
    head: ResponseHead | None = None,
    length: int | None = None,
    block: bytes = b"",
    end: bool = False,
    persist: bool = True,
) -> Sent:
    """Send a head; by default that of a response of unknown length."""
    return http.send_head(head or response(), length, block, end, persist)


def joined(data: Sent) -> bytes:
    """Return sent bytes as one object."""
    return data if isinstance(data, bytes) else b"".join(data)


class SendingStateTests(SynchronousTestCase):
    """The states of the sending side."""

    MATRIX = matrix(
        """
                 | request | interim | head | data | end      | last end | answer
        idle     | awaited | -       | -    | -    | -        | -        | last
        awaited  | -       | awaited | body | -    | -        | -        | last
        body     | -       | -       | -    | body | complete | last     | -
        complete | awaited | -       | -    | -    | -        | -        | last
        last     | -       | -       | -    | -    | -        | -        | -
        switched | -       | -       | -    | -    | -        | -        | -
        """
    )
    #: No call of `Connection` causes the event "switch".
    SWITCH = matrix(
        """
                 | switch
        idle     | -
        awaited  | switched
        body     | -
        complete | -
        last     | -
        switched | -
        """
    )

    def head_of_request(self) -> RequestHead:
        """Return a request head that another connection has received."""
        head = connection().feed(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")[0]
        assert isinstance(head, RequestHead)
        return head

    def in_state(self, state: str) -> Connection:
        """Return a connection whose sending side was brought into `state`."""
        http = connection()
        if state != "idle":
            request(http)
        if state in ("body", "complete", "last"):
            send_head(http, persist=state != "last")
        if state in ("complete", "last"):
            http.send_end()
        self.assertEqual(http.sending, state)
        return http

    def hint(self, http: Connection) -> Sent:
        """Send early hints."""
        return http.send_early_hints(EarlyHints([("Link", "</a>")]))

    def end_last(self, http: Connection) -> None:
        """End a response after which the connection closes."""
        http.persistent = False
        http.send_end()

    def events(self) -> dict[str, Act]:
        """Return a call for each event that a caller can cause."""
        return {
            "request": lambda http: http.begin(self.head_of_request()),
            "interim": Connection.send_continue,
            "head": send_head,
            "data": lambda http: http.send_data(b"block"),
            "end": Connection.send_end,
            "last end": self.end_last,
            "answer": lambda http: http.send_answer(response(), b""),
        }

    def test_table(self) -> None:
        """The table allows the listed events in each state, and no others."""
        expected = {
            state: row | self.SWITCH[state] for state, row in self.MATRIX.items()
        }
        assert_table(self, SENDING, expected)

    def test_connection(self) -> None:
        """Each call moves a connection as the table tells, or raises the one error."""
        for state in ("idle", "awaited", "body", "complete", "last"):
            for event, act in self.events().items():
                http = self.in_state(state)
                assert_event(
                    self,
                    self.MATRIX[state][event],
                    partial(act, http),
                    partial(getattr, http, "sending"),
                    f"{event!r} in {state!r}",
                )

    def test_head_with_the_end(self) -> None:
        """A head that carries the whole response completes it."""
        for persist, state in ((True, "complete"), (False, "last")):
            http = self.in_state("awaited")
            send_head(http, None, 1, b"a", True, persist)
            self.assertEqual(http.sending, state)

    def test_second_request(self) -> None:
        """A complete response is followed by the next one, as often as desired."""
        http = connection()
        for _ in range(3):
            request(http)
            send_head(http, None, 1, b"a", True)
            self.assertEqual((http.sending, http.persistent), ("complete", True))

    def test_early_hints(self) -> None:
        """Early hints are legal where 100 Continue is, any number of times."""
        for state in self.MATRIX:
            if state == "switched":
                continue  # no call leads there
            http = self.in_state(state)
            if self.MATRIX[state]["interim"] == ILLEGAL:
                self.assertRaises(IllegalTransition, self.hint, http)
                continue
            for _ in range(2):
                data = joined(self.hint(http))
                self.assertEqual(
                    data, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
                )
                self.assertEqual(http.send_continue(), CONTINUE)
            self.assertEqual(http.sending, self.MATRIX[state]["interim"])

    def test_connection_close_of_the_head(self) -> None:
        """`Connection: close` of the application ends the connection, said once."""
        for value, persistent in (("close", False), ("keep-alive", True)):
            http = connection()
            request(http)
            head = response("200 OK", ("Connection", value))
            data = joined(http.send_head(head, 1, b"a", True, True))
            self.assertEqual(http.persistent, persistent)
            self.assertEqual(data.count(b"Connection"), not persistent)
            self.assertEqual(data.count(b"Connection: close\r\n"), not persistent)

    def test_bytes_that_are_no_request(self) -> None:
        """An answer is possible without a request, once."""
        http = connection()
        http.send_answer(response("400 Bad Request"), b"")
        self.assertFalse(http.persistent)
        self.assertEqual(http.sending, "last")


class ReceivingStateTests(SynchronousTestCase):
    """The states of the receiving side."""

    MATRIX = matrix(
        """
                     | length      | chunked      | end  | last end | stop
        head         | length body | chunked body | head | ended    | refused
        length body  | -           | -            | head | ended    | refused
        chunked body | -           | -            | head | ended    | refused
        ended        | -           | -            | -    | -        | refused
        refused      | -           | -            | -    | -        | refused
        """
    )

    POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
    #: The bytes that bring a connection into each state.
    BEGINNINGS: Final = {
        "head": b"",
        "length body": POST + b"Content-Length: 2\r\n\r\na",
        "chunked body": POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        "ended": b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        "refused": b"x\r\n\r\n",
    }
    #: The bytes that cause an event in a state.
    BYTES: Final = {
        ("head", "length"): POST + b"Content-Length: 1\r\n\r\n",
        ("head", "chunked"): POST + b"Transfer-Encoding: chunked\r\n\r\n",
        ("head", "end"): POST + b"\r\n",
        ("head", "last end"): POST + b"Connection: close\r\n\r\n",
        ("length body", "end"): b"b",
        ("length body", "last end"): b"b",
        ("chunked body", "end"): b"0\r\n\r\n",
        ("chunked body", "last end"): b"0\r\n\r\n",
    }

    def in_state(self, state: str, event: str = "") -> Connection:
        """Return a connection that was brought into `state`.

        Its request is the last one if `event` is "last end".
        """
        http = connection()
        beginning = self.BEGINNINGS[state]
        if event == "last end":
            beginning = beginning.replace(b"x\r\n", b"x\r\nConnection: close\r\n", 1)
        http.feed(beginning)
        self.assertEqual(http.receiving, state)
        return http

    def test_table(self) -> None:
        """The table allows the listed events in each state, and no others."""
        assert_table(self, RECEIVING, self.MATRIX)

    def test_bytes(self) -> None:
        """Received bytes cause all legal events but "stop", and no illegal one."""
        for state, row in self.MATRIX.items():
            for event, following in row.items():
                if event == "stop" or following == ILLEGAL:
                    self.assertNotIn((state, event), self.BYTES)
                    continue
                http = self.in_state(state, event)
                http.feed(self.BYTES[state, event])
                self.assertEqual(http.receiving, following, (state, event))

    def test_stop(self) -> None:
        """`stop` refuses all further bytes, in every state."""
        for state in self.MATRIX:
            http = self.in_state(state)
            http.stop()
            self.assertEqual(http.receiving, self.MATRIX[state]["stop"], state)
            self.assertEqual(http.feed(self.POST + b"\r\n"), [], state)

    def test_stop_receiving(self) -> None:
        """`stop_receiving` also closes the connection after the response."""
        for state in self.MATRIX:
            http = self.in_state(state)
            http.stop_receiving()
            self.assertEqual((http.receiving, http.persistent), ("refused", False))

    def test_refusal(self) -> None:
        """Invalid bytes stop the receiving side, wherever they occur."""
        for state, invalid in (
            ("head", b"x\r\n\r\n"),
            ("chunked body", b"x\r\n"),
        ):
            http = self.in_state(state)
            self.assertIsInstance(http.feed(invalid)[-1], Refusal)
            self.assertEqual(http.receiving, "refused", state)

    def test_bytes_in_final_states(self) -> None:
        """Bytes after the last request or a refusal are ignored."""
        for state in ("ended", "refused"):
            http = self.in_state(state)
            self.assertEqual(http.feed(self.POST + b"\r\n"), [])
            self.assertEqual(http.receiving, state)

    def test_piece(self) -> None:
        """A piece of a body by length is consumed without a change of state."""
        for state in self.MATRIX:
            http = self.in_state(state)
            # One byte is left of the body by length: any piece may be its end.
            self.assertFalse(http.is_piece(b"b"), state)
        http = connection()
        http.feed(self.POST + b"Content-Length: 3\r\n\r\na")
        self.assertTrue(http.is_piece(b"b"))
        self.assertEqual(http.receiving, "length body")
        self.assertEqual(http.feed(b"c"), [b"c", END])


#: Method, version, status and length of a response; its framing, and the lines that
#: the server adds to the head.
FRAMINGS: dict[str, tuple[tuple[str, str, str, int | None], str, bytes]] = {
    "a known length is declared": (
        ("GET", "HTTP/1.1", "200 OK", 5),
        LENGTH,
        b"Content-Length: 5\r\n",
    ),
    "a length of zero is declared": (
        ("GET", "HTTP/1.1", "200 OK", 0),
        LENGTH,
        b"Content-Length: 0\r\n",
    ),
    "a body of unknown length is chunked": (
        ("GET", "HTTP/1.1", "200 OK", None),
        CHUNKED,
        b"Transfer-Encoding: chunked\r\n",
    ),
    "HTTP/1.0 supports Content-Length": (
        ("GET", "HTTP/1.0", "200 OK", 5),
        LENGTH,
        b"Content-Length: 5\r\nConnection: close\r\n",
    ),
    "HTTP/1.0 does not support chunks (section 7.1)": (
        ("GET", "HTTP/1.0", "200 OK", None),
        CLOSE,
        b"Connection: close\r\n",
    ),
    "HEAD has no body (rule 1)": (("HEAD", "HTTP/1.1", "200 OK", None), NONE, b""),
    "HEAD has no body even with a known length, which is declared": (
        ("HEAD", "HTTP/1.1", "200 OK", 5),
        NONE,
        b"Content-Length: 5\r\n",
    ),
    "HEAD declares no length of zero: GET may have a body": (
        ("HEAD", "HTTP/1.1", "200 OK", 0),
        NONE,
        b"",
    ),
    "HEAD has no body in HTTP/1.0": (
        ("HEAD", "HTTP/1.0", "200 OK", None),
        NONE,
        b"Connection: close\r\n",
    ),
    "204 has no body and no length (rule 1; RFC 9110 section 8.6)": (
        ("GET", "HTTP/1.1", "204 No Content", None),
        NONE,
        b"",
    ),
    "204 declares no known length": (
        ("GET", "HTTP/1.1", "204 No Content", 5),
        NONE,
        b"",
    ),
    "304 has no body (rule 1)": (
        ("GET", "HTTP/1.1", "304 Not Modified", 5),
        NONE,
        b"",
    ),
    "304 has no body in HTTP/1.0": (
        ("GET", "HTTP/1.0", "304 Not Modified", None),
        NONE,
        b"Connection: close\r\n",
    ),
    "304 to HEAD has no body": (
        ("HEAD", "HTTP/1.1", "304 Not Modified", 5),
        NONE,
        b"",
    ),
    "errors have bodies": (
        ("POST", "HTTP/1.1", "500 Internal Server Error", None),
        CHUNKED,
        b"Transfer-Encoding: chunked\r\n",
    ),
    "205 may have a length": (
        ("POST", "HTTP/1.1", "205 Reset Content", 0),
        LENGTH,
        b"Content-Length: 0\r\n",
    ),
}


class HeadTests(SynchronousTestCase):
    """`send_head`: framing (RFC 9112 section 6.3) and persistence (section 9.3)."""

    def test_framing(self) -> None:
        """The framing depends on method, version, status and length as tabulated."""
        for name, (given, framing, lines) in FRAMINGS.items():
            method, version, status, length = given
            http = connection()
            request(http, method, version)
            sent = send_head(http, response(status), length)
            self.assertEqual(http.framing, framing, name)
            expected = b"HTTP/1.1 %b\r\nDate: today\r\n%b\r\n" % (
                status.encode(),
                lines,
            )
            self.assertEqual(sent, expected, name)

    def test_length_of_the_application(self) -> None:
        """A Content-Length of the application is sent once, also with HEAD and 304."""
        for method, status in (
            ("GET", "200 OK"),
            ("HEAD", "200 OK"),
            ("GET", "304 Not Modified"),
        ):
            http = connection()
            request(http, method)
            head = response(status, ("Content-Length", "7"))
            sent = joined(send_head(http, head, 7))
            self.assertEqual(sent.count(b"Content-Length: 7\r\n"), 1, (method, status))
            self.assertEqual(sent.count(b"Content-Length"), 1, (method, status))

    def test_length_with_204(self) -> None:
        """A Content-Length with 204 is dropped (RFC 9110 section 8.6)."""
        http = connection()
        request(http)
        head = response("204 No Content", ("Content-Length", "0"))
        self.assertNotIn(b"Content-Length", joined(send_head(http, head)))

    def test_close(self) -> None:
        """The connection closes where the server, the client or the framing wants."""
        for name, version, fields, length, persist in (
            ("the server", "HTTP/1.1", (), 1, False),
            ("the client", "HTTP/1.1", ("Connection: close",), 1, True),
            ("HTTP/1.0 by default", "HTTP/1.0", (), 1, True),
            ("framing by close", "HTTP/1.0", ("Connection: keep-alive",), None, True),
        ):
            http = connection()
            request(http, "GET", version, *fields)
            sent = joined(send_head(http, None, length, b"", False, persist))
            self.assertIn(b"Connection: close\r\n", sent, name)
            self.assertNotIn(b"keep-alive", sent, name)
            self.assertFalse(http.persistent, name)

    def test_keep_alive(self) -> None:
        """A persistent connection is announced to HTTP/1.0 only."""
        for version, line in (
            ("HTTP/1.1", b""),
            ("HTTP/1.0", b"Connection: keep-alive\r\n"),
        ):
            http = connection()
            request(http, "GET", version, "Connection: keep-alive")
            sent = joined(send_head(http, None, 1))
            self.assertTrue(sent.endswith(b"Content-Length: 1\r\n" + line + b"\r\n"))
            self.assertTrue(http.persistent)

    def test_fields_of_the_deployer(self) -> None:
        """The deployer's fields are added unless the application has set them."""
        for fields, value in (((), b"added"), ((("X-Name", "own"),), b"own")):
            http = connection((("X-Name", "added"),))
            request(http)
            sent = joined(send_head(http, response("200 OK", *fields), 1))
            self.assertEqual(sent.count(b"X-Name"), 1)
            self.assertIn(b"X-Name: " + value + b"\r\n", sent)

    def test_first_block(self) -> None:
        """The first block follows the head in one object, in its framing."""
        for length, framed in ((5, b"block"), (None, b"5\r\nblock\r\n")):
            http = connection()
            request(http)
            sent = send_head(http, None, length, b"block")
            assert isinstance(sent, bytes)
            self.assertEqual(sent.partition(b"\r\n\r\n")[2], framed)

    def test_long_first_block(self) -> None:
        """A long first block is a part of its own and is not copied."""
        for size, long in ((LONG - 1, False), (LONG, True)):
            block = b"x" * size
            for length, before, after in (
                (size, b"", ()),
                (None, b"%x\r\n" % size, (b"\r\n",)),
            ):
                http = connection()
                request(http)
                sent = send_head(http, None, length, block)
                self.assertEqual(isinstance(sent, tuple), long, size)
                body = joined(sent).partition(b"\r\n\r\n")[2]
                self.assertEqual(body, before + block + b"".join(after))
                if isinstance(sent, tuple):
                    self.assertIs(sent[1], block)
                    self.assertEqual(sent[2:], after)


class BodyTests(SynchronousTestCase):
    """`send_data` and `send_end`."""

    def responding(self, length: int | None, version: str = "HTTP/1.1") -> Connection:
        """Return a connection in the middle of a response."""
        http = connection()
        request(http, "GET", version)
        send_head(http, None, length)
        return http

    def test_blocks_by_length(self) -> None:
        """Blocks of a body of known length are sent unchanged, as its end is."""
        http = self.responding(LONG + 1)
        for block in (b"x", b"x" * LONG):
            self.assertIs(http.send_data(block), block)
        self.assertEqual(http.send_end(), b"")

    def test_blocks_until_close(self) -> None:
        """Blocks that end with the connection are sent unchanged."""
        http = self.responding(None, "HTTP/1.0")
        self.assertEqual(http.send_data(b"x"), b"x")
        self.assertEqual(http.send_end(), b"")
        self.assertEqual(http.sending, "last")

    def test_chunks(self) -> None:
        """Each block is a chunk, and a last chunk ends the body (section 7.1)."""
        http = self.responding(None)
        self.assertEqual(http.send_data(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")
        self.assertEqual(http.send_end(), LAST_CHUNK)

    def test_long_chunk(self) -> None:
        """A long block is a part of its own and is not copied."""
        http = self.responding(None)
        block = b"x" * (LONG - 1)
        self.assertIsInstance(http.send_data(block), bytes)
        block += b"x"
        sent = http.send_data(block)
        self.assertEqual(sent, (b"4000\r\n", block, b"\r\n"))
        self.assertIs(sent[1], block)

    def test_no_body(self) -> None:
        """The end of a response without a body is no bytes."""
        http = connection()
        request(http, "HEAD")
        send_head(http)
        self.assertEqual(http.send_end(), b"")


class AnswerTests(SynchronousTestCase):
    """`send_answer` and `send_continue`."""

    def answer(self, http: Connection) -> bytes:
        """Send an answer of three bytes."""
        head = response("503 Service Unavailable", ("Content-Length", "3"))
        return http.send_answer(head, b"no\n")

    HEAD = (
        b"HTTP/1.1 503 Service Unavailable\r\nDate: today\r\nContent-Length: 3\r\n"
        b"Connection: close\r\n\r\n"
    )

    def test_answer(self) -> None:
        """An answer is a whole response that closes the connection."""
        http = connection()
        request(http)
        self.assertEqual(self.answer(http), self.HEAD + b"no\n")
        self.assertFalse(http.persistent)

    def test_answer_to_head(self) -> None:
        """The answer to HEAD has the length of its body, and no body."""
        http = connection()
        request(http, "HEAD")
        self.assertEqual(self.answer(http), self.HEAD)

    def test_answer_after_head(self) -> None:
        """The answer to bytes behind a HEAD request has a body."""
        http = connection()
        request(http, "HEAD")
        send_head(http, None, None, b"", True)
        self.assertEqual(self.answer(http), self.HEAD + b"no\n")

    def test_answer_with_added_fields(self) -> None:
        """An answer has the deployer's fields."""
        http = connection((("X-Name", "added"),))
        self.assertIn(b"X-Name: added\r\n", self.answer(http))

    def test_interim(self) -> None:
        """Interim responses precede the final one (RFC 9110 section 15.2)."""
        http = connection()
        request(http)
        self.assertEqual(http.send_continue(), CONTINUE)
        self.assertEqual(http.send_continue(), CONTINUE)
        self.assertIn(b"200 OK", joined(send_head(http, None, 0, b"", True)))
        self.assertEqual(http.sending, "complete")
