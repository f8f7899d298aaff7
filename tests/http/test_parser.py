"""Tests of `txgreenwsgi._http.parser`: the request stream of a connection."""

from __future__ import annotations

import random
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.head import END, Refusal, RequestHead
from txgreenwsgi._http.known_lines import KnownLines
from txgreenwsgi._http.parser import HeadLimits, RequestParser

from .accepted import CHUNKED, GET, HOSTS_ACCEPTED, PLAIN, POST, READ
from .refused import HOSTS_REFUSED, REFUSED
from .streams import (
    GOOD,
    NothingKnown,
    bytewise,
    events,
    joined,
    mutated,
    outcome,
    parser,
    split,
)


class StreamTests(SynchronousTestCase):
    """The tables of streams, fed whole and byte by byte."""

    def test_accepted(self) -> None:
        """A valid stream yields the same requests, however it is split."""
        for sentence, (stream, expected) in READ.items():
            self.assertEqual(events([stream]), expected, sentence)
            self.assertEqual(events(bytewise(stream)), expected, sentence)

    def test_refused(self) -> None:
        """An invalid stream yields one refusal with the right status, and no more."""
        for sentence, (status, stream) in REFUSED.items():
            whole = events([stream, GET + b"\r\n"])
            self.assertEqual(outcome(whole), status, sentence)
            self.assertEqual(events([*bytewise(stream), GET]), whole, sentence)
            heads = [event for event in whole if isinstance(event, RequestHead)]
            self.assertEqual(len(heads), stream.startswith(CHUNKED), sentence)

    def test_refused_after_a_valid_request(self) -> None:
        """A valid request before an invalid one is reported."""
        for sentence, (status, stream) in REFUSED.items():
            found = events([GET + b"\r\n" + stream])
            self.assertEqual(found[:2], [PLAIN, END], sentence)
            self.assertEqual(outcome(found), status, sentence)

    def test_hosts_refused(self) -> None:
        """An invalid host is refused, in Host and in a target (RFC 9112 3.2)."""
        for sentence, host in HOSTS_REFUSED.items():
            head = b"GET / HTTP/1.%d\r\nHost: %b\r\n\r\n"
            self.assertEqual(outcome(events([head % (1, host)])), 400, sentence)
            self.assertEqual(outcome(events([head % (0, host)])), 400, sentence)
            if not set(host) & set(b"/?"):
                head = b"GET http://%b/ HTTP/1.1\r\nHost: x\r\n\r\n"
                self.assertEqual(outcome(events([head % host])), 400, sentence)

    def test_hosts_accepted(self) -> None:
        """A valid host is reported unchanged (RFC 9112 3.2)."""
        for sentence, host in HOSTS_ACCEPTED.items():
            found = events([b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"])
            expected = {"HTTP_HOST": host.decode("ascii")}
            self.assertEqual(found, [replace(PLAIN, variables=expected), END], sentence)

    def test_any_split(self) -> None:
        """The events do not depend on how a stream is split, nor on the cache.

        Compares a parser whose heads are all validated by llhttp with parsers that
        share a cache of lines.
        """
        shared = KnownLines(limit=8)
        for seed in range(4000):
            chance = random.Random(seed)
            stream = mutated(chance)
            slow = RequestParser(lines=NothingKnown())
            expected = joined(slow.feed(stream))
            for pieces in ([stream], split(stream, chance), split(stream, chance)):
                fast = RequestParser(lines=shared)
                found = [event for piece in pieces for event in fast.feed(piece)]
                self.assertEqual(joined(found), expected, f"seed {seed}: {stream!r}")
                self.assertNotIn(b"", found)
                self.assertEqual(fast.idle, slow.idle, f"seed {seed}: {stream!r}")

    def test_good_streams(self) -> None:
        """Valid requests are parsed to their end."""
        for sentence, stream in GOOD.items():
            found = events([stream])
            self.assertEqual(outcome(found), 0, sentence)
            self.assertIs(found[-1], END, sentence)


class IdleTests(SynchronousTestCase):
    """`RequestParser.idle`: True if closing the connection loses no request."""

    def test_new(self) -> None:
        """A parser is idle before the first byte."""
        self.assertTrue(parser().idle)

    def test_busy(self) -> None:
        """A parser is busy from the first byte of a request to the last."""
        for stream in (
            GET + b"\r\n",
            POST + b"Content-Length: 3\r\n\r\nabc",
            CHUNKED + b"1\r\na\r\n0\r\nA: b\r\n\r\n",
        ):
            reader = parser()
            for piece in bytewise(stream[:-1]):
                reader.feed(piece)
                self.assertFalse(reader.idle)
            reader.feed(stream[-1:])
            self.assertTrue(reader.idle)

    def test_empty_lines(self) -> None:
        """Empty lines between requests leave the parser idle."""
        reader = parser()
        for piece in bytewise(b"\r\n\r\n" + GET + b"\r\n\r\n\r"):
            reader.feed(piece)
        self.assertTrue(reader.idle)
        self.assertEqual(reader.feed(b"\n" + GET + b"\r\n"), [PLAIN, END])

    def test_nothing(self) -> None:
        """Feeding b"" is a no-op."""
        reader = parser()
        self.assertEqual(reader.feed(b""), [])
        self.assertTrue(reader.idle)
        reader.feed(GET)
        self.assertEqual(reader.feed(b""), [])
        self.assertFalse(reader.idle)

    def test_last_request(self) -> None:
        """After the last request of a connection the parser stays idle."""
        reader = parser()
        reader.feed(GET + b"Connection: close\r\n\r\n")
        self.assertEqual(reader.feed(GET + b"\r\n"), [])
        self.assertTrue(reader.idle)

    def test_refused(self) -> None:
        """After a refusal the parser is not idle."""
        reader = parser()
        reader.feed(b"\0")
        self.assertFalse(reader.idle)


class LimitTests(SynchronousTestCase):
    """`HeadLimits`: data from clients is never buffered without a bound."""

    limits = HeadLimits(size=200, fields=5, target=20, trailers=30, chunk_extensions=12)

    def _refused(self, beginning: bytes, endless: bytes) -> tuple[int, int]:
        """Feed `endless` repeatedly; return the status and the number of bytes fed."""
        whole = events([beginning + endless * 1000], self.limits)
        reader = parser(self.limits)
        for fed, byte in enumerate(bytewise(beginning + endless * 1000), 1):
            found = reader.feed(byte)
            if status := outcome(found):
                self.assertEqual(
                    found[-1], whole[-1], "the refusal depends on the split"
                )
                return status, fed
        self.fail("never refused")

    def test_target(self) -> None:
        """An endless target gets 414 one byte beyond the limit."""
        self.assertEqual(self._refused(b"GET /", b"a"), (414, len("GET ") + 21))

    def test_target_at_the_limit(self) -> None:
        """The limit of the target is exact, for cached lines as well."""
        known = KnownLines()
        line = b"GET /%b HTTP/1.1\r\nHost: x\r\n\r\n"
        roomy = RequestParser(HeadLimits(), known)
        tight = RequestParser(self.limits, known)
        at, beyond = line % (b"a" * 19), line % (b"a" * 20)
        self.assertEqual(outcome(roomy.feed(at + beyond)), 0)
        self.assertEqual(outcome(tight.feed(at)), 0)
        self.assertEqual(outcome(tight.feed(beyond)), 414)

    def test_size(self) -> None:
        """An endless value gets 431 one byte beyond the limit."""
        self.assertEqual(self._refused(GET + b"A: ", b"a"), (431, 201))

    def test_size_of_lines(self) -> None:
        """Endless field lines get 431 one byte beyond the limit."""
        self.assertEqual(self._refused(GET, b"A: b\r\n"), (431, 201))

    def test_size_without_a_colon(self) -> None:
        """An endless field name gets 431 one byte beyond the limit."""
        self.assertEqual(self._refused(GET, b"a"), (431, 201))

    def test_size_at_the_limit(self) -> None:
        """The limit of the head's size is exact."""
        head = GET + b"A: %b\r\n\r\n"
        room = 200 - len(head % b"")
        at, beyond = head % (b"a" * room), head % (b"a" * (room + 1))
        for pieces in ([at], bytewise(at)):
            self.assertEqual(outcome(events(pieces, self.limits)), 0)
        for pieces in ([beyond], [beyond * 3], bytewise(beyond)):
            self.assertEqual(outcome(events(pieces, self.limits)), 431)

    def test_size_smaller_than_the_target(self) -> None:
        """The size limit applies even if the limit of the target is higher."""
        limits = HeadLimits(size=50, target=100)
        stream = b"GET /" + b"a" * 60
        self.assertEqual(outcome(events([stream], limits)), 431)
        self.assertEqual(outcome(events(bytewise(stream), limits)), 431)

    def test_size_is_of_the_head(self) -> None:
        """Data after a head does not count toward its size."""
        body = POST + b"Content-Length: 300\r\n\r\n" + b"a" * 300
        for pieces in ([body + GET + b"\r\n"], bytewise(body + GET + b"\r\n")):
            self.assertEqual(events(pieces, self.limits)[-2:], [PLAIN, END])

    def test_fields(self) -> None:
        """One field more than the limit gets 431."""
        at = GET + b"A: b\r\n" * 4 + b"\r\n"
        beyond = GET + b"A: b\r\n" * 5 + b"\r\n"
        self.assertEqual(outcome(events([at], self.limits)), 0)
        self.assertEqual(outcome(events([beyond], self.limits)), 431)
        self.assertEqual(outcome(events(bytewise(beyond), self.limits)), 431)

    def test_empty_lines(self) -> None:
        """Eight empty lines before a request are skipped; endless ones get 400."""
        self.assertEqual(events([b"\r\n" * 8 + GET + b"\r\n"]), [PLAIN, END])
        self.assertEqual(self._refused(b"\r\n", b"\r\n"), (400, 17))

    def test_empty_lines_between(self) -> None:
        """Empty lines are counted for each request separately."""
        stream = (b"\r\n" * 5 + GET + b"\r\n") * 3
        self.assertEqual(events([stream]), [PLAIN, END] * 3)
        self.assertEqual(events(bytewise(stream)), [PLAIN, END] * 3)

    def test_chunk_extension(self) -> None:
        """An endless chunk extension gets 400."""
        status, fed = self._refused(CHUNKED + b"1;", b"a")
        self.assertEqual(status, 400)
        self.assertLessEqual(fed, len(CHUNKED) + 12 + 19)

    def test_chunk_extension_at_the_limit(self) -> None:
        """The limit of a chunk extension is exact."""
        line = CHUNKED + b"0000000000000001;%b\r\n"
        short = CHUNKED + b"1;%b\r\n"
        for stream, status in (
            (line % (b"a" * 11), 0),
            (line % (b"a" * 12), 400),
            (short % (b"a" * 11), 0),
            (short % (b"a" * 12), 400),
        ):
            self.assertEqual(outcome(events([stream], self.limits)), status)
            self.assertEqual(outcome(events(bytewise(stream), self.limits)), status)

    def test_chunk_size_line(self) -> None:
        """Endless digits of a chunk size get 400."""
        status, fed = self._refused(CHUNKED, b"0")
        self.assertEqual(status, 400)
        self.assertLessEqual(fed, len(CHUNKED) + 12 + 19)

    def test_bad_white_space_counts(self) -> None:
        """White space around a chunk extension counts towards its limit."""
        for beginning in (b"1", b"1;", b"1;a", b"1;a=", b'1;a="b"'):
            for space in (b" ", b"\t"):
                status, fed = self._refused(CHUNKED + beginning, space)
                self.assertEqual(status, 400)
                self.assertLessEqual(fed, len(CHUNKED) + 12 + 19)

    def test_chunk_extensions_together(self) -> None:
        """Many small chunk extensions get 400 as well (CVE-2023-39326)."""
        chunk = b"1;abc\r\na\r\n"
        good = CHUNKED + chunk * 3 + b"0\r\n\r\n"
        self.assertEqual(events([good], self.limits)[1:], [b"aaa", END])
        self.assertEqual(self._refused(CHUNKED, chunk)[0], 400)

    def test_trailer(self) -> None:
        """An endless trailer gets 431."""
        status, fed = self._refused(CHUNKED + b"0\r\nA: ", b"b")
        self.assertEqual(status, 431)
        self.assertLessEqual(fed, len(CHUNKED) + 3 + 33)

    def test_trailers_together(self) -> None:
        """Endless trailers get 431; trailers within the limit are discarded."""
        good = CHUNKED + b"0\r\n" + b"A: b\r\n" * 5 + b"\r\n"
        for pieces in ([good], bytewise(good)):
            self.assertIs(events(pieces, self.limits)[-1], END)
        self.assertEqual(self._refused(CHUNKED + b"0\r\n", b"A: b\r\n")[0], 431)
        beyond = CHUNKED + b"0\r\n" + b"A: b\r\n" * 4 + b"A: bc\r\n\r\n"
        for pieces in ([beyond], bytewise(beyond)):
            self.assertEqual(outcome(events(pieces, self.limits)), 431)

    def test_no_trailers(self) -> None:
        """Limits of 0 accept chunked bodies without extensions and trailers."""
        limits = HeadLimits(trailers=0, chunk_extensions=0)
        body = CHUNKED + b"1\r\na\r\n0\r\n"
        for pieces in ([body + b"\r\n"], bytewise(body + b"\r\n")):
            self.assertEqual(events(pieces, limits)[1:], [b"a", END])
        trailer = body + b"A:b\r\n\r\n"
        self.assertEqual(outcome(events([trailer], limits)), 431)
        self.assertEqual(outcome(events(bytewise(trailer), limits)), 431)


class EarlyTests(SynchronousTestCase):
    """Invalid data is refused at once: its end might never arrive."""

    def test_before_the_head_ends(self) -> None:
        """An invalid head is refused at its first invalid byte."""
        for sentence, stream, status in (
            ("a TLS handshake", b"\x16", 400),
            ("a space", b" ", 400),
            ("a tunnel", b"CONNECT ", 501),
            ("an endless method", b"G" * 257, 501),
            ("a fragment", b"GET /#", 400),
            ("an invalid target", b"GET a ", 400),
            ("no version", b"GET /\r", 400),
            ("another version", b"GET / HTTP/3.0", 505),
            ("another protocol", b"GET / R", 400),
            ("LF after the version", b"GET / HTTP/1.1\n", 400),
            ("LF in a field", GET + b"A: b\n", 400),
            ("LF after CR LF", GET + b"\n", 400),
            ("CR alone", b"\rG", 400),
        ):
            reader = parser()
            for piece in bytewise(stream[:-1]):
                self.assertEqual(reader.feed(piece), [], sentence)
            self.assertEqual(outcome(reader.feed(stream[-1:])), status, sentence)


class BodyTests(SynchronousTestCase):
    """Events with the data of a body."""

    def test_not_copied(self) -> None:
        """Data within a body of known length is reported without a copy."""
        reader = parser()
        reader.feed(POST + b"Content-Length: 20\r\n\r\n")
        data, last = b"0123456789", b"abcdefghij"
        (first,) = reader.feed(data)
        self.assertIs(first, data)
        found = reader.feed(last)
        self.assertIs(found[0], last)
        self.assertEqual(found[1:], [END])

    def test_without_delay(self) -> None:
        """Each byte of a body is reported as soon as it is fed."""
        for head, pieces in (
            (POST + b"Content-Length: 3\r\n\r\n", (b"a", b"b", b"c")),
            (CHUNKED, (b"3\r\na", b"b", b"c")),
        ):
            reader = parser()
            reader.feed(head)
            for data in pieces:
                self.assertEqual(reader.feed(data)[0], data[-1:])

    def test_chunks_joined(self) -> None:
        """Chunks fed together are reported as one piece."""
        reader = parser()
        found = reader.feed(CHUNKED + b"1\r\na\r\n2\r\nbc\r\n3\r\nd")
        self.assertEqual(found[1:], [b"abcd"])
        self.assertEqual(reader.feed(b"ef\r\n0\r\n\r\n"), [b"ef", END])

    def test_chunks_before_a_refusal(self) -> None:
        """Data before an invalid chunk is reported before the refusal."""
        found = parser().feed(CHUNKED + b"1\r\na\r\n2\r\nbc\r\nx\r\n")
        self.assertEqual(found[1], b"abc")
        self.assertEqual(outcome(found), 400)

    def test_large_length(self) -> None:
        """A Content-Length of 18 digits is accepted."""
        reader = parser()
        (head,) = reader.feed(POST + b"Content-Length: 999999999999999999\r\n\r\n")
        assert isinstance(head, RequestHead)
        self.assertEqual(head.content_length, 999_999_999_999_999_999)


class HeadTests(SynchronousTestCase):
    """Heads, refusals and END as seen by their receiver."""

    def test_variables_are_not_shared(self) -> None:
        """Changes to the variables of one head do not affect another."""
        reader = parser()
        for _ in range(3):
            head = reader.feed(GET + b"\r\n")[0]
            assert isinstance(head, RequestHead)
            self.assertEqual(head.variables, {"HTTP_HOST": "x"})
            head.variables.clear()

    def test_refusal_names_the_reason(self) -> None:
        """The reason of a refusal is one line of 10 to 80 printable characters."""
        for sentence, (_, stream) in REFUSED.items():
            last = events([stream])[-1]
            assert isinstance(last, Refusal)
            self.assertRegex(last.reason, r"\A[ -~]{10,80}\Z", sentence)

    def test_repr_of_end(self) -> None:
        """END has a readable repr."""
        self.assertEqual(repr(END), "END")
