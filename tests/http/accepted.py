"""Streams that the parser must accept, with their events, by the rule they test.

Each is fed whole and byte by byte; adjacent pieces of a body are joined into one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from txgreenwsgi._http.head import END, RequestHead

if TYPE_CHECKING:
    from txgreenwsgi._http.parser import Event

__all__ = ["CHUNKED", "GET", "HOSTS_ACCEPTED", "PLAIN", "POST", "READ"]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

PLAIN = RequestHead(
    method="GET",
    target=b"/",
    path="/",
    query="",
    version="HTTP/1.1",
    variables={"HTTP_HOST": "x"},
    content_length=0,
    keep_alive=True,
    expects_continue=False,
    upgrade="",
)


def _head(**variables: str) -> RequestHead:
    return replace(PLAIN, variables={"HTTP_HOST": "x", **variables})


def _post(**variables: str) -> RequestHead:
    return replace(_head(**variables), method="POST")


METHODS = ("BREW", "get", "PLAY", "GETS", "CONNECTS", "!#$%&'*+-.^_`|~0", "M" * 256)


READ: dict[str, tuple[bytes, list[Event]]] = {
    "a request without a body ends at once (RFC 9112 6.3)": (
        GET + b"\r\n",
        [PLAIN, END],
    ),
    "an empty line before a request line is skipped (RFC 9112 2.2)": (
        b"\r\n\r\n" + GET + b"\r\n",
        [PLAIN, END],
    ),
    "white space around a value is removed (RFC 9112 5)": (
        GET + b"A:1\r\nB: \t 2 \t \r\nC:\r\nD: \t \r\n\r\n",
        [_head(HTTP_A="1", HTTP_B="2", HTTP_C="", HTTP_D=""), END],
    ),
    "white space inside a value is kept (RFC 9110 5.5)": (
        GET + b"A: 1 \t  2: 3\r\n\r\n",
        [_head(HTTP_A="1 \t  2: 3"), END],
    ),
    "non-ASCII bytes in a value are latin-1 (PEP 3333, String Types)": (
        GET + b"A: \xfc\xa0\xff\x80\r\n\r\n",
        [_head(HTTP_A="\xfc\xa0\xff\x80"), END],
    ),
    "names are case-insensitive (RFC 9110 5.1)": (
        b"GET / HTTP/1.1\r\nhOST: x\r\nx-FoO: 1\r\n\r\n",
        [_head(HTTP_X_FOO="1"), END],
    ),
    "repeated fields are joined in order (RFC 9110 5.3)": (
        GET + b"A: 1\r\nB: 2\r\na: 3\r\nA:\r\n\r\n",
        [_head(HTTP_A="1, 3, ", HTTP_B="2"), END],
    ),
    "Cookie fields are joined with a semicolon (RFC 6265 5.4)": (
        GET + b"Cookie: a=1\r\nCookie: b=2; c=3\r\n\r\n",
        [_head(HTTP_COOKIE="a=1; b=2; c=3"), END],
    ),
    "a name with an underscore cannot pose as one with a hyphen": (
        GET + b"X_Foo: 1\r\nX-Bar: 2\r\nX_Bar: 3\r\nContent_Length: 5\r\n\r\n",
        [_head(HTTP_X_BAR="2"), END],
    ),
    "Proxy does not become HTTP_PROXY (CVE-2016-5385)": (
        GET + b"Proxy: evil\r\nproxy: worse\r\n\r\n",
        [PLAIN, END],
    ),
    "Content-Type and Content-Length have no HTTP_ (RFC 3875 4.1.2, 4.1.3)": (
        POST + b"Content-Type: a/b\r\nContent-Length: 3\r\n\r\nabc",
        [
            replace(
                _post(CONTENT_TYPE="a/b", CONTENT_LENGTH="3"),
                content_length=3,
            ),
            b"abc",
            END,
        ],
    ),
    "a body with Content-Length may look like a request (RFC 9112 6.2)": (
        POST + b"Content-Length: 26\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: x\r\n\r",
        [
            replace(_post(CONTENT_LENGTH="26"), content_length=26),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r",
            END,
        ],
    ),
    "GET may have a body (RFC 9110 9.3.1)": (
        GET + b"Content-Length: 1\r\n\r\na" + GET + b"\r\n",
        [
            replace(_head(CONTENT_LENGTH="1"), content_length=1),
            b"a",
            END,
            PLAIN,
            END,
        ],
    ),
    "leading zeros do not change a length (RFC 9110 8.6)": (
        POST + b"Content-Length: 00000000000000000000000003\r\n\r\nabc",
        [
            replace(
                _post(CONTENT_LENGTH="00000000000000000000000003"), content_length=3
            ),
            b"abc",
            END,
        ],
    ),
    "a chunked body has no length (RFC 9112 7.1)": (
        CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            b"hello world",
            END,
        ],
    ),
    "chunk sizes are hexadecimal, in either case (RFC 9112 7.1)": (
        CHUNKED
        + b"1a\r\n"
        + b"a" * 26
        + b"\r\n000B\r\n"
        + b"b" * 11
        + b"\r\n0\r\n\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            b"a" * 26 + b"b" * 11,
            END,
        ],
    ),
    "a chunk size may have 63 bits (RFC 9112 7.1)": (
        CHUNKED + b"7fffffffffffffff\r\nabc",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            b"abc",
        ],
    ),
    "bad white space around chunk extensions is removed (RFC 9112 7.1.1)": (
        CHUNKED + b"2 ;a\r\nab\r\n2\t; \ta\r\ncd\r\n"
        b'1 ; a = b\r\ne\r\n1;a\t=\t"b ; \\"c" ; d ;e= f\r\nf\r\n'
        b"0 \t;\t last\r\n\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            b"abcdef",
            END,
        ],
    ),
    "an empty chunked body has no data (RFC 9112 7.1)": (
        CHUNKED + b"0\r\n\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            END,
        ],
    ),
    "trailers are discarded, and the next request is parsed (RFC 9110 6.5.1)": (
        CHUNKED + b"1\r\na\r\n0\r\nX-Foo: 1\r\nHost: y\r\n\r\n" + GET + b"\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            b"a",
            END,
            PLAIN,
            END,
        ],
    ),
    "the name of a coding is case-insensitive (RFC 9112 7)": (
        POST + b"Transfer-Encoding:\tCHUNKED \r\n\r\n0\r\n\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="CHUNKED"), content_length=None),
            END,
        ],
    ),
    "absolute-form replaces Host (RFC 9112 3.2.2)": (
        b"GET http://y:8/p%20q?r=s HTTP/1.1\r\nHost: x\r\n\r\n",
        [
            replace(
                PLAIN,
                target=b"http://y:8/p%20q?r=s",
                path="/p q",
                query="r=s",
                variables={"HTTP_HOST": "y:8"},
            ),
            END,
        ],
    ),
    "absolute-form without a path means the root (RFC 9110 4.2.3)": (
        b"GET HTTPS://y?q HTTP/1.1\r\nHost: \r\n\r\n",
        [
            replace(
                PLAIN,
                target=b"HTTPS://y?q",
                query="q",
                variables={"HTTP_HOST": "y"},
            ),
            END,
        ],
    ),
    "absolute-form gives HTTP/1.0 a Host (RFC 9112 3.2.2)": (
        b"GET http://y/ HTTP/1.0\r\n\r\n",
        [
            replace(
                PLAIN,
                target=b"http://y/",
                version="HTTP/1.0",
                variables={"HTTP_HOST": "y"},
                keep_alive=False,
            ),
            END,
        ],
    ),
    "any token is a method, and its case is kept (RFC 9110 9.1)": (
        b"".join(
            b"%b / HTTP/1.1\r\nHost: x\r\n\r\n" % method.encode() for method in METHODS
        ),
        [event for method in METHODS for event in (replace(PLAIN, method=method), END)],
    ),
    "a method that llhttp does not know has a body by its fields (RFC 9112 6)": (
        b"BREW / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\na" + GET + b"\r\n",
        [
            replace(_head(CONTENT_LENGTH="1"), method="BREW", content_length=1),
            b"a",
            END,
            PLAIN,
            END,
        ],
    ),
    "OPTIONS * has an asterisk for a path (RFC 9112 3.2.4)": (
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        [replace(PLAIN, method="OPTIONS", target=b"*", path="*"), END],
    ),
    "Host may be empty (RFC 9112 3.2)": (
        b"GET / HTTP/1.1\r\nHost:\r\n\r\n",
        [replace(PLAIN, variables={"HTTP_HOST": ""}), END],
    ),
    "HTTP/1.0 needs no Host (RFC 9112 3.2)": (
        b"GET / HTTP/1.0\r\n\r\n",
        [replace(PLAIN, version="HTTP/1.0", variables={}, keep_alive=False), END],
    ),
    "HTTP/1.0 with keep-alive in a list is persistent (RFC 9112 9.3)": (
        b"GET / HTTP/1.0\r\nConnection: x, KEEP-Alive\r\n\r\n" + GET + b"\r\n",
        [
            replace(
                PLAIN,
                version="HTTP/1.0",
                variables={"HTTP_CONNECTION": "x, KEEP-Alive"},
            ),
            END,
            PLAIN,
            END,
        ],
    ),
    "HTTP/1.0 with keep-alive is persistent (RFC 9112 9.3)": (
        b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n",
        [
            replace(
                PLAIN,
                version="HTTP/1.0",
                variables={"HTTP_CONNECTION": "Keep-Alive"},
            ),
            END,
        ],
    ),
    "close wins over keep-alive (RFC 9112 9.3)": (
        b"GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n",
        [
            replace(
                PLAIN,
                version="HTTP/1.0",
                variables={"HTTP_CONNECTION": "keep-alive, close"},
                keep_alive=False,
            ),
            END,
        ],
    ),
    "HTTP/1.0 without keep-alive ends the connection; further data is ignored": (
        b"GET / HTTP/1.0\r\nHost: x\r\n\r\n" + GET + b"\r\n",
        [replace(PLAIN, version="HTTP/1.0", keep_alive=False), END],
    ),
    "data after Connection: close is ignored (RFC 9112 9.6)": (
        GET + b"Connection: x ,\tClose\r\n\r\n" + b"\0 no request",
        [replace(_head(HTTP_CONNECTION="x ,\tClose"), keep_alive=False), END],
    ),
    "close is found in any of several Connection fields (RFC 9110 7.6.1)": (
        GET + b"Connection: close\r\nConnection: keep-alive\r\n\r\n" + GET,
        [replace(_head(HTTP_CONNECTION="close, keep-alive"), keep_alive=False), END],
    ),
    "the body of the last request is delivered (RFC 9112 9.6)": (
        POST + b"Connection: close\r\nContent-Length: 3\r\n\r\nabcGET",
        [
            replace(
                _post(HTTP_CONNECTION="close", CONTENT_LENGTH="3"),
                content_length=3,
                keep_alive=False,
            ),
            b"abc",
            END,
        ],
    ),
    "an expectation is reported if a body follows (RFC 9110 10.1.1)": (
        POST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\na",
        [
            replace(
                _post(HTTP_EXPECT="100-Continue", CONTENT_LENGTH="1"),
                content_length=1,
                expects_continue=True,
            ),
            b"a",
            END,
        ],
    ),
    "an expectation is reported if a chunked body follows (RFC 9110 10.1.1)": (
        POST + b"Transfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n0\r\n\r\n",
        [
            replace(
                _post(HTTP_TRANSFER_ENCODING="chunked", HTTP_EXPECT="100-continue"),
                content_length=None,
                expects_continue=True,
            ),
            END,
        ],
    ),
    "an expectation without a body is ignored (RFC 9110 10.1.1)": (
        GET + b"Expect: 100-continue\r\n\r\n",
        [_head(HTTP_EXPECT="100-continue"), END],
    ),
    "an expectation in HTTP/1.0 is ignored (RFC 9110 10.1.1)": (
        b"GET / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\na",
        [
            replace(
                PLAIN,
                version="HTTP/1.0",
                variables={"HTTP_EXPECT": "100-continue", "CONTENT_LENGTH": "1"},
                content_length=1,
                keep_alive=False,
            ),
            b"a",
            END,
        ],
    ),
    "an empty Expect is ignored (RFC 9110 5.6.1)": (
        POST + b"Expect: ,\r\nContent-Length: 1\r\n\r\na",
        [
            replace(_post(HTTP_EXPECT=",", CONTENT_LENGTH="1"), content_length=1),
            b"a",
            END,
        ],
    ),
    "a request with Upgrade is an ordinary request (RFC 9110 7.8)": (
        GET + b"Connection: Upgrade\r\nUpgrade: h2c, x\r\n\r\n" + GET + b"\r\n",
        [
            replace(
                _head(HTTP_CONNECTION="Upgrade", HTTP_UPGRADE="h2c, x"),
                upgrade="h2c, x",
            ),
            END,
            PLAIN,
            END,
        ],
    ),
    "an upgrade may have a body with Content-Length (RFC 9110 7.8)": (
        POST
        + b"Connection: upgrade\r\nUpgrade: a\r\nContent-Length: 2\r\n\r\nab"
        + GET
        + b"\r\n",
        [
            replace(
                _post(HTTP_CONNECTION="upgrade", HTTP_UPGRADE="a", CONTENT_LENGTH="2"),
                content_length=2,
                upgrade="a",
            ),
            b"ab",
            END,
            PLAIN,
            END,
        ],
    ),
    "an upgrade may have a chunked body (RFC 9110 7.8)": (
        POST
        + b"Connection: upgrade\r\nUpgrade: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"2\r\nab\r\n0\r\n\r\n"
        + GET
        + b"\r\n",
        [
            replace(
                _post(
                    HTTP_CONNECTION="upgrade",
                    HTTP_UPGRADE="a",
                    HTTP_TRANSFER_ENCODING="chunked",
                ),
                content_length=None,
                upgrade="a",
            ),
            b"ab",
            END,
            PLAIN,
            END,
        ],
    ),
    "Upgrade is ignored unless Connection lists it (RFC 9110 7.8)": (
        GET + b"Upgrade: h2c\r\n\r\n",
        [_head(HTTP_UPGRADE="h2c"), END],
    ),
    "Upgrade is ignored if Connection lists another word (RFC 9110 7.8)": (
        GET + b"Connection: upgrades\r\nUpgrade: h2c\r\n\r\n",
        [_head(HTTP_CONNECTION="upgrades", HTTP_UPGRADE="h2c"), END],
    ),
    "Connection may list upgrade without an Upgrade field (RFC 9110 7.8)": (
        GET + b"Connection: upgrade\r\n\r\n",
        [_head(HTTP_CONNECTION="upgrade"), END],
    ),
    "Upgrade in HTTP/1.0 is ignored (RFC 9110 7.8)": (
        b"GET / HTTP/1.0\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
        [
            replace(
                PLAIN,
                version="HTTP/1.0",
                variables={"HTTP_CONNECTION": "upgrade", "HTTP_UPGRADE": "h2c"},
                keep_alive=False,
            ),
            END,
        ],
    ),
    "pipelined requests are reported in order (RFC 9112 9.3.2)": (
        GET
        + b"\r\n"
        + POST
        + b"Content-Length: 2\r\n\r\nab\r\n"
        + CHUNKED
        + b"1\r\nc\r\n0\r\n\r\n"
        + GET
        + b"\r\n",
        [
            PLAIN,
            END,
            replace(_post(CONTENT_LENGTH="2"), content_length=2),
            b"ab",
            END,
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            b"c",
            END,
            PLAIN,
            END,
        ],
    ),
}

HOSTS_ACCEPTED: dict[str, bytes] = {
    "a name": b"example.com",
    "a name with a port": b"example.com:8080",
    "an empty port": b"example.com:",
    "an IPv4 address with a port": b"127.0.0.1:80",
    "an IPv6 address with a port": b"[::ffff:127.0.0.1]:80",
    "a future IP address format": b"[v1.fe80::a+b]",
    "a name with an underscore": b"my_app-1",
    "percent-encoding": b"a%20b",
    "an empty host": b"",
    "only a port": b":80",
}
