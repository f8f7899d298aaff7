"""Ambiguous requests, with another request pipelined behind each.

A proxy and a server that delimit a request differently disagree about the next one:
that is request smuggling (RFC 9112 section 11.2). Each case is sent through the whole
server, with a second request behind it, which must never reach the application.

This file knows bytes and the paths that the application was called with. It must never
know the parser.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.testing import LeakCheckMixin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from txgreenwsgi.testing import MemoryClient

SECOND = b"GET /second HTTP/1.1\r\nHost: x\r\n\r\n"
HOST = b"POST /first HTTP/1.1\r\nHost: x\r\n"
CHUNKED = HOST + b"Transfer-Encoding: chunked\r\n\r\n"
LENGTH_5 = HOST + b"Content-Length: 5\r\n"
EMPTY = b"0\r\n\r\n"


def _request(*fields: bytes, start: bytes = HOST) -> bytes:
    return start + b"".join(field + b"\r\n" for field in fields) + b"\r\n"


def _chunk(size_line: bytes) -> bytes:
    return CHUNKED + size_line + b"\r\nabcde\r\n" + EMPTY


#: The bytes before the second request, and the status of the response to them.
AMBIGUOUS: dict[str, tuple[int, bytes]] = {
    # Two framing fields, or one with two meanings.
    "Content-Length before Transfer-Encoding: CL.TE (RFC 9112 6.1)": (
        400,
        _request(b"Content-Length: 5", b"Transfer-Encoding: chunked") + EMPTY,
    ),
    "Transfer-Encoding before Content-Length: TE.CL (RFC 9112 6.1)": (
        400,
        _request(b"Transfer-Encoding: chunked", b"Content-Length: 5") + EMPTY,
    ),
    "a length of zero beside chunked: 0.TE (RFC 9112 6.1)": (
        400,
        _request(b"Content-Length: 0", b"Transfer-Encoding: chunked") + EMPTY,
    ),
    "a length that covers the second request beside chunked (RFC 9112 6.1)": (
        400,
        _request(
            b"Content-Length: %d" % (len(EMPTY) + len(SECOND)),
            b"Transfer-Encoding: chunked",
        )
        + EMPTY,
    ),
    "two different lengths: CL.CL (RFC 9112 6.3)": (
        400,
        _request(b"Content-Length: 0", b"Content-Length: %d" % len(SECOND)),
    ),
    "two equal lengths (RFC 9112 6.3)": (
        400,
        _request(b"Content-Length: 5", b"Content-Length: 5") + b"abcde",
    ),
    "a list of lengths (RFC 9112 6.3)": (
        400,
        _request(b"Content-Length: 0, %d" % len(SECOND)),
    ),
    "an unsupported coding beside a length: TE.CL (RFC 9112 6.1)": (
        400,
        _request(b"Transfer-Encoding: xchunked", b"Content-Length: 5") + b"abcde",
    ),
    "two codings in two fields, the last unknown: TE.TE (RFC 9112 6.3)": (
        400,
        _request(b"Transfer-Encoding: chunked", b"Transfer-Encoding: x") + EMPTY,
    ),
    "two codings in two fields, the first unknown: TE.TE (RFC 9112 6.1)": (
        501,
        _request(b"Transfer-Encoding: x", b"Transfer-Encoding: chunked") + EMPTY,
    ),
    "chunked twice (RFC 9112 6.1)": (
        400,
        _request(b"Transfer-Encoding: chunked, chunked") + EMPTY,
    ),
    "identity, which once meant no coding at all (RFC 9112 6.3)": (
        400,
        _request(b"Transfer-Encoding: identity") + EMPTY,
    ),
    "a Transfer-Encoding that says nothing (RFC 9112 6.3)": (
        400,
        _request(b"Transfer-Encoding:") + EMPTY,
    ),
    "Transfer-Encoding of an HTTP/1.0 client (RFC 9112 6.1)": (
        400,
        _request(
            b"Transfer-Encoding: chunked",
            b"Connection: keep-alive",
            start=b"POST /first HTTP/1.0\r\nHost: x\r\n",
        )
        + EMPTY,
    ),
    # A framing field that some readers do not recognize.
    "a space before the colon (RFC 9112 5.1)": (
        400,
        _request(b"Transfer-Encoding : chunked") + EMPTY,
    ),
    "a tab before the colon (RFC 9112 5.1)": (
        400,
        _request(b"Content-Length\t: %d" % len(SECOND)),
    ),
    "a folded Transfer-Encoding (RFC 9112 5.2)": (
        400,
        _request(b"Transfer-Encoding:\r\n chunked") + EMPTY,
    ),
    "a framing field that is folded into another one (RFC 9112 5.2)": (
        400,
        _request(b"X: y\r\n Content-Length: %d" % len(SECOND)),
    ),
    "a framing field as the first line, behind a space (RFC 9112 2.2)": (
        400,
        b"POST /first HTTP/1.1\r\n Transfer-Encoding: chunked\r\nHost: x\r\n\r\n"
        + EMPTY,
    ),
    "a framing field behind a bare LF (RFC 9112 2.2)": (
        400,
        _request(b"X: y\nContent-Length: %d" % len(SECOND)),
    ),
    "a framing field behind a bare CR (RFC 9112 2.2)": (
        400,
        _request(b"X: y\rContent-Length: %d" % len(SECOND)),
    ),
    "a framing field behind a NUL (RFC 9110 5.5)": (
        400,
        _request(b"X: y\0\r\nContent-Length: %d" % len(SECOND)),
    ),
    "a head that ends with two LF (RFC 9112 2.2)": (
        400,
        HOST + b"X: y\n\n",
    ),
    "a head that ends with LF CR LF (RFC 9112 2.2)": (
        400,
        HOST + b"X: y\n\r\n",
    ),
    "a vertical tab before chunked (RFC 9110 5.5)": (
        400,
        _request(b"Transfer-Encoding: \x0bchunked") + EMPTY,
    ),
    "a name with a byte that some drop (RFC 9110 5.1)": (
        400,
        _request(b"Content-Length\x80: %d" % len(SECOND)),
    ),
    "a name with a NUL (RFC 9110 5.1)": (
        400,
        _request(b"Content\0-Length: %d" % len(SECOND)),
    ),
    # A length that number parsers read differently.
    "a length with a sign (RFC 9110 8.6)": (400, _request(b"Content-Length: +5")),
    "a negative length (RFC 9110 8.6)": (400, _request(b"Content-Length: -5")),
    "a hexadecimal length (RFC 9110 8.6)": (400, _request(b"Content-Length: 0x5")),
    "a length with an underscore (RFC 9110 8.6)": (
        400,
        _request(b"Content-Length: 3_4"),
    ),
    "a length with a space (RFC 9110 8.6)": (400, _request(b"Content-Length: 3 4")),
    "a length with a point (RFC 9110 8.6)": (400, _request(b"Content-Length: 5.0")),
    "a length with an exponent (RFC 9110 8.6)": (400, _request(b"Content-Length: 1e1")),
    "a length in superscript (RFC 9110 8.6)": (400, _request(b"Content-Length: \xb2")),
    "an empty length (RFC 9110 8.6)": (400, _request(b"Content-Length:")),
    "a length that is zero in 64 bits (RFC 9110 8.6)": (
        400,
        _request(b"Content-Length: 18446744073709551616"),
    ),
    # Chunks that readers delimit differently.
    "a chunk size with a sign (RFC 9112 7.1)": (400, _chunk(b"+5")),
    "a chunk size with 0x (RFC 9112 7.1)": (400, _chunk(b"0x5")),
    "a chunk size with an underscore (RFC 9112 7.1)": (400, _chunk(b"0_5")),
    "a space before a chunk size (RFC 9112 7.1)": (400, _chunk(b" 5")),
    "a space behind a chunk size (RFC 9112 7.1.1)": (400, _chunk(b"5 ")),
    "a tab behind a chunk size (RFC 9112 7.1.1)": (400, _chunk(b"5\t")),
    "an empty chunk size (RFC 9112 7.1)": (400, _chunk(b"")),
    "a chunk size that is 5 in 64 bits (RFC 9112 7.1)": (
        400,
        _chunk(b"10000000000000005"),
    ),
    "a chunk size that ends with LF (RFC 9112 2.2)": (
        400,
        CHUNKED + b"5\nabcde\r\n" + EMPTY,
    ),
    "a chunk size that ends with CR CR LF (RFC 9112 2.2)": (400, _chunk(b"5\r")),
    "an LF inside of a chunk extension: TERM.EXT (RFC 9112 7.1.1)": (
        400,
        _chunk(b"5;a=b\nc"),
    ),
    "a CR inside of a chunk extension (RFC 9112 7.1.1)": (400, _chunk(b"5;a=b\rc")),
    "an LF inside of a quoted chunk extension (RFC 9112 7.1.1)": (
        400,
        _chunk(b'5;a="b\nc"'),
    ),
    "a chunk extension without a name (RFC 9112 7.1.1)": (400, _chunk(b"5;")),
    "white space behind a chunk size: SIZE.SP (RFC 9112 7.1)": (400, _chunk(b"5 ")),
    "white space behind a chunk extension (RFC 9112 7.1.1)": (400, _chunk(b"5 ; a ")),
    "an LF behind white space before an extension (RFC 9112 7.1.1)": (
        400,
        _chunk(b"5 \n; a"),
    ),
    "a CR behind white space in an extension (RFC 9112 7.1.1)": (
        400,
        _chunk(b"5 ; a \r= b"),
    ),
    "a second size behind white space (RFC 9112 7.1)": (400, _chunk(b"5 0; a")),
    "white space before a chunk size with an extension (RFC 9112 7.1)": (
        400,
        _chunk(b" 5; a"),
    ),
    "a vertical tab as white space (RFC 9110 5.6.3)": (400, _chunk(b"5\x0b;a")),
    "data that is longer than its chunk: SPILL (RFC 9112 7.1)": (
        400,
        CHUNKED + b"5\r\nabcdef\r\n" + EMPTY,
    ),
    "data that is shorter than its chunk (RFC 9112 7.1)": (
        400,
        CHUNKED + b"5\r\nabcd\r\n" + EMPTY,
    ),
    "a chunk that ends with LF (RFC 9112 7.1)": (
        400,
        CHUNKED + b"5\r\nabcde\n" + EMPTY,
    ),
    "a chunk that ends with two other bytes (RFC 9112 7.1)": (
        400,
        CHUNKED + b"5\r\nabcdeXY" + EMPTY,
    ),
    "a last chunk without the empty line, so that a request is a trailer": (
        400,
        CHUNKED + b"5\r\nabcde\r\n0\r\n",
    ),
    "trailers that end with LF (RFC 9112 7.1.2)": (
        400,
        CHUNKED + b"0\r\nX: y\n\r\n",
    ),
    "a folded trailer (RFC 9112 5.2)": (400, CHUNKED + b"0\r\nX: y\r\n z\r\n\r\n"),
    # Request lines that readers cut differently.
    "HTTP/0.9, whose answers have no head (RFC 9112 3)": (400, b"GET /first\r\n"),
    "a third word before the version (RFC 9112 3)": (
        400,
        b"GET /first HTTP/1.1 HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    "a tab for a space (RFC 9112 3)": (
        400,
        b"GET\t/first\tHTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    "a request line that ends with a space (RFC 9112 3)": (
        400,
        b"GET /first HTTP/1.1 \r\nHost: x\r\n\r\n",
    ),
    "a version with two digits (RFC 9112 2.3)": (
        400,
        b"GET /first HTTP/1.10\r\nHost: x\r\n\r\n",
    ),
    "an unknown version (RFC 9112 2.3)": (
        505,
        b"GET /first HTTP/1.9\r\nHost: x\r\n\r\n",
    ),
    "the preface of HTTP/2 (RFC 9113 3.4)": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a tunnel, behind which nothing is HTTP (RFC 9110 9.3.6)": (
        501,
        b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    "a request line inside of a target (RFC 9112 3.2)": (
        400,
        b"GET /first\0 HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    # Hosts that readers choose differently.
    "no Host (RFC 9112 3.2)": (400, b"GET /first HTTP/1.1\r\nX: y\r\n\r\n"),
    "two Hosts (RFC 9112 3.2)": (400, _request(b"Host: y")),
    "a list of Hosts (RFC 9112 3.2)": (
        400,
        b"GET /first HTTP/1.1\r\nHost: x, y\r\n\r\n",
    ),
    "a Host with userinfo (RFC 9110 7.2)": (
        400,
        b"GET /first HTTP/1.1\r\nHost: y@x\r\n\r\n",
    ),
    "a target with userinfo (RFC 9110 4.2.4)": (
        400,
        b"GET http://y@x/first HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
    "an unknown expectation: a body may follow or not": (
        417,
        LENGTH_5 + b"Expect: more\r\n\r\n",
    ),
}

#: Unusual requests that are not ambiguous: the second request is answered.
UNAMBIGUOUS: dict[str, bytes] = {
    "no body": _request(),
    "a body by length": LENGTH_5 + b"\r\nabcde",
    "an unknown method, whose body is framed by its fields (RFC 9112 6)": (
        b"BREW /first HTTP/1.1\r\nHost: x\r\n\r\n"
    ),
    "an unknown method with a body (RFC 9112 6)": (
        LENGTH_5.replace(b"POST", b"BREW") + b"\r\nabcde"
    ),
    "a body that looks like a request": (
        HOST + b"Content-Length: %d\r\n\r\n" % len(SECOND) + SECOND
    ),
    "a length with leading zeros (RFC 9110 8.6)": (
        _request(b"Content-Length: 0005") + b"abcde"
    ),
    "white space around a length (RFC 9112 5)": (
        _request(b"Content-Length: \t5 ") + b"abcde"
    ),
    "a chunked body": _chunk(b"5"),
    "a coding in capitals (RFC 9112 7)": (
        _request(b"TRANSFER-ENCODING: CHUNKED") + EMPTY
    ),
    "a chunk extension with a quoted value (RFC 9112 7.1.1)": _chunk(b'5;a="\\";b"'),
    "bad white space in chunk extensions (RFC 9112 7.1.1)": _chunk(
        b'5 ;\ta = b ; c\t=\t"\\";d"'
    ),
    "bad white space in the extension of the last chunk (RFC 9112 7.1.1)": (
        CHUNKED + b"0 ; a\r\n\r\n"
    ),
    "a last chunk of several zeros (RFC 9112 7.1)": CHUNKED + b"000\r\n\r\n",
    "a trailer that would frame, in a head (RFC 9110 6.5.1)": (
        CHUNKED + b"0\r\nContent-Length: %d\r\n\r\n" % len(SECOND)
    ),
    "framing fields of other names (RFC 9110 5.1)": (
        _request(b"Transfer_Encoding: chunked", b"X-Content-Length: 5")
    ),
    "an empty line before a request (RFC 9112 2.2)": b"\r\n" + _request(),
    "an upgrade that is ignored (RFC 9110 7.8)": (
        _request(b"Connection: upgrade", b"Upgrade: h2c")
    ),
}

#: Requests that end the connection: bytes after them are ignored.
LAST_OF_ITS_CONNECTION: dict[str, bytes] = {
    "close (RFC 9112 9.6)": _request(b"Connection: close"),
    "close among other options (RFC 9110 7.6.1)": (
        _request(b"Connection: keep-alive, CLOSE")
    ),
    "HTTP/1.0 that does not ask for more (RFC 9112 9.3)": (
        b"GET /first HTTP/1.0\r\nHost: x\r\n\r\n"
    ),
}


class Seen:
    """An application that records the paths it was called with.

    Args:
        read: reads the body of a request, or does not.
    """

    def __init__(self, read: Callable[[Any], object]) -> None:
        self.paths: list[str] = []
        self._read = read

    def __call__(
        self, environ: dict[str, Any], start_response: Callable[..., Any]
    ) -> Iterable[bytes]:
        """Record the path, read the body or not, respond."""
        self.paths.append(environ["PATH_INFO"])
        self._read(environ["wsgi.input"])
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"answered"]


#: The ways in which applications treat a body.
READERS: dict[str, Callable[[Any], object]] = {
    "all of it": lambda body: body.read(),
    "line by line": lambda body: list(body),
    "a little": lambda body: body.read(2),
    "nothing": lambda body: None,
}


class DifferentialFramingTests(LeakCheckMixin, SynchronousTestCase):
    """Each stream, whole and byte by byte, with applications that read or do not."""

    def send(
        self, stream: bytes, piece: int, read: Callable[[Any], object]
    ) -> tuple[list[str], MemoryClient]:
        """Return the application after the stream was sent, and its client."""
        seen = Seen(read)
        client = self.serve(seen).connect()
        client.send(stream, piece)
        return seen.paths, client

    def test_ambiguous(self) -> None:
        """A request behind an ambiguous one never reaches the application."""
        for sentence, (status, stream) in AMBIGUOUS.items():
            for piece in (0, 1):
                for how, read in READERS.items():
                    paths, client = self.send(stream + SECOND, piece, read)
                    case = f"{sentence}; read: {how}; in pieces of {piece}"
                    self.assertNotIn("/second", paths, case)
                    self.assertLessEqual(len(paths), 1, case)
                    self.assertTrue(client.closed, case)
                    [response] = client.responses()
                    # A response that was sent before the error in the body stands.
                    answered = paths and how in ("a little", "nothing")
                    statuses = {status, 200} if answered else {status}
                    self.assertIn(response.status, statuses, case)

    def test_ambiguous_split_anywhere(self) -> None:
        """The result does not depend on the splitting of the bytes."""
        for sentence, (status, stream) in AMBIGUOUS.items():
            for cut in range(1, len(stream + SECOND), 7):
                seen = Seen(READERS["all of it"])
                client = self.serve(seen).connect()
                client.send((stream + SECOND)[:cut])
                client.send((stream + SECOND)[cut:])
                [response] = client.responses()
                case = f"{sentence}; cut at {cut}"
                self.assertEqual(response.status, status, case)
                self.assertNotIn("/second", seen.paths, case)

    def test_sent_after_the_refusal(self) -> None:
        """Bytes sent after the refusal never reach the application either."""
        for sentence, (_status, stream) in AMBIGUOUS.items():
            paths, client = self.send(stream, 0, READERS["all of it"])
            for _ in range(3):
                client.send(SECOND)
            self.assertNotIn("/second", paths, sentence)
            self.assertLessEqual(len(client.responses()), 1, sentence)

    def test_unambiguous(self) -> None:
        """A request that all readers delimit alike keeps the connection alive."""
        for sentence, stream in UNAMBIGUOUS.items():
            for piece in (0, 1):
                for how in ("all of it", "line by line"):
                    paths, client = self.send(stream + SECOND, piece, READERS[how])
                    case = f"{sentence}; read: {how}; in pieces of {piece}"
                    self.assertEqual(paths, ["/first", "/second"], case)
                    self.assertFalse(client.closed, case)
                    statuses = [answer.status for answer in client.responses()]
                    self.assertEqual(statuses, [200, 200], case)

    def test_last_of_its_connection(self) -> None:
        """Bytes behind a request that ends the connection are ignored."""
        for sentence, stream in LAST_OF_ITS_CONNECTION.items():
            for piece in (0, 1):
                paths, client = self.send(stream + SECOND, piece, READERS["all of it"])
                self.assertEqual(paths, ["/first"], sentence)
                self.assertTrue(client.closed, sentence)
                self.assertEqual(len(client.responses()), 1, sentence)
