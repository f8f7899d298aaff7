"""Request streams for the parser's tests, and functions that feed them.

Knows nothing of the expected results: those are in the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi._http.head import END, Refusal, RequestHead
from txgreenwsgi._http.known_lines import KnownLines
from txgreenwsgi._http.parser import Event, HeadLimits, RequestParser

if TYPE_CHECKING:
    import random
    from collections.abc import Iterable

__all__ = [
    "ALPHABET",
    "GOOD",
    "LINES",
    "NothingKnown",
    "bytewise",
    "events",
    "joined",
    "mutated",
    "outcome",
    "parser",
    "split",
]

GOOD: dict[str, bytes] = {
    "the smallest request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "HTTP/1.0 without fields": b"GET / HTTP/1.0\r\n\r\n",
    "HTTP/1.0 with keep-alive": (
        b"GET /old?x=1 HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive\r\n\r\n"
    ),
    "a browser": (
        b"GET /articles/list?page=2&sort=%C3%A4 HTTP/1.1\r\n"
        b"Host: www.example.com:8080\r\n"
        b"Connection: keep-alive\r\n"
        b'sec-ch-ua: "Chromium";v="124", "Not-A.Brand";v="99"\r\n'
        b"Upgrade-Insecure-Requests: 1\r\n"
        b"User-Agent: Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/125.0\r\n"
        b"Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n"
        b"Accept-Encoding: gzip, deflate, br\r\n"
        b"Accept-Language: de,en-US;q=0.7,en;q=0.3\r\n"
        b"Cookie: session=0123456789abcdef; theme=dark\r\n\r\n"
    ),
    "white space around values": (
        b"GET /a%20b HTTP/1.1\r\nHost:x\r\nA:\t 1 \t\r\nB:\r\nC: \t\r\n\r\n"
    ),
    "repeated fields": (
        b"GET / HTTP/1.1\r\nHost: x\r\nAccept: a\r\nCookie: a=1\r\naccept: b\r\n"
        b"cookie: b=2\r\n\r\n"
    ),
    "non-ASCII bytes in a value": (
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Name: J\xfcrgen \xe2\x82\xac\r\n\r\n"
    ),
    "dropped names": (
        b"GET / HTTP/1.1\r\nHost: x\r\nX_Foo: 1\r\nProxy: p\r\nX-Foo: 2\r\n\r\n"
    ),
    "a body by length": (
        b"POST /items HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 11\r\n\r\nhello\r\n\r\nwo"
    ),
    "Content-Length of zero": (
        b"PUT /items HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    ),
    "a chunked body": (
        b"POST /items HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5\r\nhello\r\n01a\r\n 0123456\r\n 0123456789abcde\r\n0\r\n\r\n"
    ),
    "chunk extensions and trailers": (
        b"POST /items HTTP/1.1\r\nHost: x\r\ntransfer-encoding: Chunked\r\n\r\n"
        b'3;a;b=c;d="x\\"y;"\r\nabc\r\n0;last\r\nDigest: 1\r\nX-Sum: 2\r\n\r\n'
    ),
    "an expectation": (
        b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 3\r\n\r\nabc"
    ),
    "an upgrade with a body": (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, keep-alive\r\n"
        b"Upgrade: h2c\r\nContent-Length: 3\r\n\r\nabc"
    ),
    "an upgrade with a chunked body": (
        b"POST / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    ),
    "absolute-form": (
        b"GET http://other.example:81/p?q HTTP/1.1\r\nHost: ignored\r\n\r\n"
    ),
    "asterisk-form": b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
    "an empty line before the request line": (
        b"\r\nHEAD /x HTTP/1.1\r\nHost: [::1]:80\r\n\r\n"
    ),
    "the last request of a connection": (
        b"DELETE /items/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ),
}


class NothingKnown(KnownLines):
    """A parser of heads without a cache: llhttp validates every head."""

    def read_head(
        self, head: bytes, fields_limit: int, target_limit: int
    ) -> RequestHead:
        """Parse a head with an empty cache."""
        return KnownLines().read_head(head, fields_limit, target_limit)


def parser(limits: HeadLimits | None = None) -> RequestParser:
    """Return a parser with a cache of its own."""
    return RequestParser(limits or HeadLimits(), KnownLines())


def bytewise(stream: bytes) -> list[bytes]:
    """Split a stream into single bytes."""
    return [stream[i : i + 1] for i in range(len(stream))]


def split(stream: bytes, chance: random.Random) -> list[bytes]:
    """Split a stream into up to six pieces."""
    cuts = sorted(chance.randrange(len(stream) + 1) for _ in range(chance.randrange(6)))
    return [
        stream[begin:end]
        for begin, end in zip([0, *cuts], [*cuts, len(stream)], strict=True)
    ]


def joined(found: Iterable[Event]) -> list[Event]:
    """Join adjacent pieces of a body."""
    result: list[Event] = []
    for event in found:
        last = result[-1] if result else END
        if isinstance(event, bytes) and isinstance(last, bytes):
            result[-1] = last + event
        else:
            result.append(event)
    return result


def events(pieces: Iterable[bytes], limits: HeadLimits | None = None) -> list[Event]:
    """Return the events of a new parser for these pieces, with bodies joined."""
    reader = parser(limits)
    return joined(event for piece in pieces for event in reader.feed(piece))


def outcome(found: list[Event]) -> int:
    """Return the status of the refusal at the end, 0 without one."""
    last = found[-1] if found else END
    return last.status if isinstance(last, Refusal) else 0


# Bytes and strings that affect framing, and their neighbours in parser tables.
ALPHABET = [
    *(bytes((byte,)) for byte in b'\r\n\t\0\x01\x0b\x7f\x80\xff :;,="\\/?#@*%_-+.0159'),
    *(b"\r\n", b"\r\n\r\n", b"\n\r", b"  ", b"0x", b"chunked", b", ", b"HTTP/1.0"),
    *(b"a", b"g", b"G", b"F", b"close", b"100-continue", b"[", b"]", b"http://"),
]
LINES = [
    *(b"Host: y", b"Content-Length: 3", b"Content-Length: 5", b"Connection: close"),
    *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip", b"X_A: 1", b"A: 1"),
    *(b"Expect: 100-continue", b"Expect: more", b"Connection: upgrade", b"Upgrade: x"),
    *(b"Cookie: c=3", b"Content-Type: a/b", b" folded", b"", b"Host : x"),
]


def mutated(chance: random.Random) -> bytes:
    """Return a stream of one to three requests with up to three random mutations."""
    stream = b"".join(chance.choices(list(GOOD.values()), k=chance.randrange(1, 4)))
    for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
        at = chance.randrange(len(stream) + 1)
        match chance.randrange(5):
            case 0:
                stream = stream[:at] + chance.choice(ALPHABET) + stream[at:]
            case 1:
                stream = stream[:at] + chance.choice(ALPHABET) + stream[at + 1 :]
            case 2:
                stream = stream[:at] + stream[at + chance.randrange(1, 4) :]
            case 3:
                end = stream.find(b"\r\n", at) + 2
                stream = stream[:end] + chance.choice(LINES) + b"\r\n" + stream[end:]
            case _:
                lines = stream.split(b"\r\n")
                lines.insert(chance.randrange(len(lines)), chance.choice(lines))
                stream = b"\r\n".join(lines)
    return stream
