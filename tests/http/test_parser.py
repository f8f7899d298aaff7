"""What `txgreenwsgi._http.parser` promises about whole connections."""

from __future__ import annotations

import random
from dataclasses import replace

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.head import END, Refusal, RequestHead
from txgreenwsgi._http.known_lines import KnownLines
from txgreenwsgi._http.parser import Event, HeadLimits, RequestParser

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


READ: dict[str, tuple[bytes, list[Event]]] = {
    "a request without a body ends at once (RFC 9112 6.3)": (
        GET + b"\r\n",
        [PLAIN, END],
    ),
    "an empty line before a request line is skipped (RFC 9112 2.2)": (
        b"\r\n\r\n" + GET + b"\r\n",
        [PLAIN, END],
    ),
    "white space around a value is not part of it (RFC 9112 5)": (
        GET + b"A:1\r\nB: \t 2 \t \r\nC:\r\nD: \t \r\n\r\n",
        [_head(HTTP_A="1", HTTP_B="2", HTTP_C="", HTTP_D=""), END],
    ),
    "a value keeps what is inside it (RFC 9110 5.5)": (
        GET + b"A: 1 \t  2: 3\r\n\r\n",
        [_head(HTTP_A="1 \t  2: 3"), END],
    ),
    "bytes beyond ASCII in a value are latin-1 (PEP 3333, String Types)": (
        GET + b"A: \xfc\xa0\xff\x80\r\n\r\n",
        [_head(HTTP_A="\xfc\xa0\xff\x80"), END],
    ),
    "names do not depend on case (RFC 9110 5.1)": (
        b"GET / HTTP/1.1\r\nhOST: x\r\nx-FoO: 1\r\n\r\n",
        [_head(HTTP_X_FOO="1"), END],
    ),
    "fields of one name are joined in order (RFC 9110 5.3)": (
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
    "a body by length may look like anything (RFC 9112 6.2)": (
        POST + b"Content-Length: 26\r\n\r\n" + b"GET / HTTP/1.1\r\nHost: x\r\n\r",
        [
            replace(_post(CONTENT_LENGTH="26"), content_length=26),
            b"GET / HTTP/1.1\r\nHost: x\r\n\r"[:26],
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
    "an empty chunked body has no data (RFC 9112 7.1)": (
        CHUNKED + b"0\r\n\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            END,
        ],
    ),
    "trailers never become fields, and the next request is read (RFC 9110 6.5.1)": (
        CHUNKED + b"1\r\na\r\n0\r\nX-Foo: 1\r\nHost: y\r\n\r\n" + GET + b"\r\n",
        [
            replace(_post(HTTP_TRANSFER_ENCODING="chunked"), content_length=None),
            b"a",
            END,
            PLAIN,
            END,
        ],
    ),
    "the name of a coding does not depend on case (RFC 9112 7)": (
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
    "HTTP/1.0 lives on if it asks for it (RFC 9112 9.3)": (
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
    "HTTP/1.0 ends the connection otherwise, and what follows is ignored": (
        b"GET / HTTP/1.0\r\nHost: x\r\n\r\n" + GET + b"\r\n",
        [replace(PLAIN, version="HTTP/1.0", keep_alive=False), END],
    ),
    "what follows Connection: close is ignored (RFC 9112 9.6)": (
        GET + b"Connection: x ,\tClose\r\n\r\n" + b"\0 no request",
        [replace(_head(HTTP_CONNECTION="x ,\tClose"), keep_alive=False), END],
    ),
    "close is found in any of several Connection fields (RFC 9110 7.6.1)": (
        GET + b"Connection: close\r\nConnection: keep-alive\r\n\r\n" + GET,
        [replace(_head(HTTP_CONNECTION="close, keep-alive"), keep_alive=False), END],
    ),
    "the body of a last request is delivered (RFC 9112 9.6)": (
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
    "an expectation is told when a body is to come (RFC 9110 10.1.1)": (
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
    "an expectation is told when a chunked body is to come (RFC 9110 10.1.1)": (
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
    "there is nothing to continue without a body (RFC 9110 10.1.1)": (
        GET + b"Expect: 100-continue\r\n\r\n",
        [_head(HTTP_EXPECT="100-continue"), END],
    ),
    "HTTP/1.0 cannot expect 100 (RFC 9110 10.1.1)": (
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
    "an empty Expect expects nothing (RFC 9110 5.6.1)": (
        GET + b"Expect:\r\n\r\n",
        [_head(HTTP_EXPECT=""), END],
    ),
    "an upgrade that nobody wants is an ordinary request (RFC 9110 7.8)": (
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
    "an upgrade may have a body by length (RFC 9110 7.8)": (
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
    "Upgrade counts only where Connection lists it (RFC 9110 7.8)": (
        GET + b"Upgrade: h2c\r\n\r\n",
        [_head(HTTP_UPGRADE="h2c"), END],
    ),
    "Connection may list an upgrade that is not there (RFC 9110 7.8)": (
        GET + b"Connection: upgrade\r\n\r\n",
        [_head(HTTP_CONNECTION="upgrade"), END],
    ),
    "HTTP/1.0 cannot upgrade (RFC 9110 7.8)": (
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
    "pipelined requests come in order (RFC 9112 9.3.2)": (
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

REFUSED: dict[str, tuple[int, bytes]] = {
    # RFC 9112 2.2: line ends
    "LF ends the request line (RFC 9112 2.2)": (400, b"GET / HTTP/1.1\nHost: x\r\n"),
    "LF ends a field line (RFC 9112 2.2)": (400, GET + b"A: b\nC: d\r\n\r\n"),
    "LF ends the head (RFC 9112 2.2)": (400, GET + b"\n"),
    "LF and LF end the head (RFC 9112 2.2)": (400, GET[:-2] + b"\n\n"),
    "LF CR ends a line (RFC 9112 2.2)": (400, GET + b"A: b\n\r\r\n\r\n"),
    "LF comes before a request line (RFC 9112 2.2)": (400, b"\n" + GET),
    "CR comes before a request line (RFC 9112 2.2)": (400, b"\r" + GET),
    "CR comes twice before a request line (RFC 9112 2.2)": (400, b"\r\r\n" + GET),
    "CR stands in a value (RFC 9112 2.2)": (400, GET + b"A: b\rc\r\n\r\n"),
    "CR stands at the end of a value (RFC 9112 2.2)": (400, GET + b"A: b\r\r\n\r\n"),
    "CR stands at the beginning of a line (RFC 9112 2.2)": (
        400,
        GET + b"\rA: b\r\n\r\n",
    ),
    "CR ends the request line (RFC 9112 2.2)": (400, b"GET / HTTP/1.1\rHost: x"),
    # RFC 9112 3: the request line
    "the request line begins with a space (RFC 9112 3)": (400, b" " + GET),
    "the request line is a TLS handshake (RFC 9112 3)": (400, b"\x16\x03\x01\x02"),
    "there are two spaces before the target (RFC 9112 3)": (
        400,
        b"GET  / HTTP/1.1\r\n",
    ),
    "there are two spaces behind the target (RFC 9112 3)": (
        400,
        b"GET /  HTTP/1.1\r\n",
    ),
    "there is a tab before the target (RFC 9112 3)": (400, b"GET\t/ HTTP/1.1\r\n"),
    "there is a tab behind the target (RFC 9112 3)": (400, b"GET /\tHTTP/1.1\r\n"),
    "the request line ends with a space (RFC 9112 3)": (400, b"GET / HTTP/1.1 \r\n"),
    "the target has a space (RFC 9112 3.2)": (400, b"GET /a b HTTP/1.1\r\n"),
    "there is no target (RFC 9112 3)": (400, b"GET HTTP/1.1\r\n"),
    "there is only a method (RFC 9112 3)": (400, b"GET\r\n"),
    "the method is no token (RFC 9110 9.1)": (400, b"G(T / HTTP/1.1\r\n"),
    "the method is unknown (RFC 9110 9.1)": (501, b"BREW /pot HTTP/1.1\r\n"),
    "the method begins like a known one (RFC 9110 9.1)": (
        501,
        b"GETS / HTTP/1.1\r\n",
    ),
    "the method is in lower case (RFC 9110 9.1)": (501, b"get / HTTP/1.1\r\n"),
    "the method is endless (RFC 9112 3)": (501, b"G" * 33),
    "the method asks for a tunnel (RFC 9110 9.3.6)": (
        501,
        b"CONNECT x:443 HTTP/1.1\r\n",
    ),
    "the method is of RTSP (RFC 9110 9.1)": (501, b"PLAY / HTTP/1.1\r\n"),
    # RFC 9112 2.3: versions
    "the version is that of HTTP/0.9, and so missing (RFC 9112 3)": (
        400,
        b"GET /\r\n",
    ),
    "the version is 0.9 (RFC 9110 2.5)": (505, b"GET / HTTP/0.9\r\n"),
    "the version is 1.2 (RFC 9110 15.6.6)": (505, b"GET / HTTP/1.2\r\n"),
    "the version is 2.0 (RFC 9110 15.6.6)": (505, b"GET / HTTP/2.0\r\n"),
    "the version has two digits (RFC 9112 2.3)": (400, b"GET / HTTP/1.10\r\n"),
    "the version has no minor (RFC 9112 2.3)": (400, b"GET / HTTP/1\r\n"),
    "the version is in lower case (RFC 9112 2.3)": (400, b"GET / http/1.1\r\n"),
    "the version is another protocol's (RFC 9112 2.3)": (400, b"GET / ICE/1.0\r\n"),
    "the preface of HTTP/2 is sent (RFC 9113 3.4)": (
        505,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    # RFC 9112 3.2: targets and Host
    "the target has a fragment (RFC 9112 3.2)": (400, b"GET /a#b HTTP/1.1\r\n"),
    "the target has a byte beyond ASCII (RFC 9112 3.2)": (
        400,
        b"GET /\xc3\xa4 HTTP/1.1\r\n",
    ),
    "the target has a control character (RFC 9112 3.2)": (
        400,
        b"GET /\x01 HTTP/1.1\r\n",
    ),
    "the target has a NUL (RFC 9112 3.2)": (400, b"GET /\0 HTTP/1.1\r\n"),
    "the target does not begin with a slash (RFC 9112 3.2.1)": (
        400,
        b"GET a/b HTTP/1.1\r\n",
    ),
    "the target is only a query (RFC 9112 3.2.1)": (400, b"GET ?a HTTP/1.1\r\n"),
    "the target is an asterisk for GET (RFC 9112 3.2.4)": (
        400,
        b"GET * HTTP/1.1\r\n",
    ),
    "the target is an asterisk and more (RFC 9112 3.2.4)": (
        400,
        b"OPTIONS *?a HTTP/1.1\r\n",
    ),
    "the target has another scheme (RFC 9110 7.4)": (
        400,
        b"GET ftp://x/ HTTP/1.1\r\n",
    ),
    "the target has a scheme and one slash (RFC 9112 3.2.2)": (
        400,
        b"GET http:/x HTTP/1.1\r\n",
    ),
    "the target has a scheme and no host (RFC 9110 4.2.1)": (
        400,
        b"GET http:///x HTTP/1.1\r\n",
    ),
    "the target has a port and no host (RFC 9110 4.2.1)": (
        400,
        b"GET http://:80/ HTTP/1.1\r\n",
    ),
    "the target has userinfo (RFC 9110 4.2.4)": (
        400,
        b"GET http://u:p@x/ HTTP/1.1\r\n",
    ),
    "the target is an authority for GET (RFC 9112 3.2.3)": (
        400,
        b"GET x:80 HTTP/1.1\r\n",
    ),
    "HTTP/1.1 has no Host (RFC 9112 3.2)": (400, b"GET / HTTP/1.1\r\nA: b\r\n\r\n"),
    "HTTP/1.1 has no fields (RFC 9112 3.2)": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "absolute-form has no Host (RFC 9112 3.2.2)": (
        400,
        b"GET http://x/ HTTP/1.1\r\n\r\n",
    ),
    "Host is there only with an underscore (RFC 9112 3.2)": (
        400,
        b"GET / HTTP/1.1\r\nHo_st: x\r\n\r\n",
    ),
    "Host comes twice (RFC 9112 3.2)": (400, GET + b"Host: y\r\n\r\n"),
    "Host comes twice alike (RFC 9112 3.2)": (400, GET + b"host: x\r\n\r\n"),
    "Host comes twice in absolute-form (RFC 9112 3.2)": (
        400,
        b"GET http://x/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ),
    "Host comes twice in HTTP/1.0 (RFC 9112 3.2)": (
        400,
        b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    ),
    # RFC 9112 5: field lines
    "there is a space before the colon (RFC 9112 5.1)": (
        400,
        GET + b"A : b\r\n\r\n",
    ),
    "there is a tab before the colon (RFC 9112 5.1)": (
        400,
        GET + b"Content-Length\t: 0\r\n\r\n",
    ),
    "a field line is folded (RFC 9112 5.2)": (400, GET + b"A: b\r\n c\r\n\r\n"),
    "a field line is folded with a tab (RFC 9112 5.2)": (
        400,
        GET + b"A: b\r\n\tc: d\r\n\r\n",
    ),
    "the first field line begins with a space (RFC 9112 2.2)": (
        400,
        b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    ),
    "a field has no name (RFC 9112 5)": (400, GET + b": b\r\n\r\n"),
    "a field has no colon (RFC 9112 5)": (400, GET + b"A\r\n\r\n"),
    "a name is no token (RFC 9110 5.1)": (400, GET + b"A(b): c\r\n\r\n"),
    "a name has a byte beyond ASCII (RFC 9110 5.1)": (400, GET + b"\xc4: b\r\n\r\n"),
    "a name has a NUL (RFC 9110 5.1)": (400, GET + b"A\0: b\r\n\r\n"),
    "a value has a NUL (RFC 9110 5.5)": (400, GET + b"A: b\0c\r\n\r\n"),
    "a value has a control character (RFC 9110 5.5)": (
        400,
        GET + b"A: \x08\r\n\r\n",
    ),
    "a value has a DEL (RFC 9110 5.5)": (400, GET + b"A: \x7f\r\n\r\n"),
    # RFC 9112 6: framing
    "Transfer-Encoding comes with Content-Length (RFC 9112 6.1)": (
        400,
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "Content-Length comes with Transfer-Encoding (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    ),
    "Transfer-Encoding is of HTTP/1.0 (RFC 9112 6.1)": (
        400,
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "a coding is before chunked (RFC 9112 6.1)": (
        501,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    ),
    "a coding is before chunked, in two fields (RFC 9112 6.1)": (
        501,
        POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "chunked is not the last coding (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    ),
    "there is no chunked coding (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: gzip\r\n\r\n",
    ),
    "identity is a coding (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: identity\r\n\r\n",
    ),
    "chunked comes twice (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    ),
    "chunked comes twice, in two fields (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "the coding only ends like chunked (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    ),
    "chunked has a parameter (RFC 9112 7.1)": (
        400,
        POST + b"Transfer-Encoding: chunked;a=b\r\n\r\n",
    ),
    "chunked is quoted (RFC 9112 7)": (
        400,
        POST + b'Transfer-Encoding: "chunked"\r\n\r\n',
    ),
    "the list of codings has an empty element (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: ,chunked\r\n\r\n",
    ),
    "the list of codings ends with a comma (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: chunked,\r\n\r\n",
    ),
    "Transfer-Encoding is empty (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding:\r\n\r\n",
    ),
    "chunked has a vertical tab (RFC 9110 5.5)": (
        400,
        POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n",
    ),
    "chunked has a no-break space (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: chunked\xa0\r\n\r\n",
    ),
    "Content-Length has a sign (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: +3\r\n\r\n",
    ),
    "Content-Length is negative (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: -3\r\n\r\n",
    ),
    "Content-Length is a list (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 3,3\r\n\r\n",
    ),
    "Content-Length is hexadecimal (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 0x3\r\n\r\n",
    ),
    "Content-Length has a space inside (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length:  3 4\r\n\r\n",
    ),
    "Content-Length has an underscore inside (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 1_0\r\n\r\n",
    ),
    "Content-Length has a point (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 3.0\r\n\r\n",
    ),
    "Content-Length is a digit of latin-1 (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: \xb2\r\n\r\n",
    ),
    "Content-Length is empty (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length:\r\n\r\n",
    ),
    "Content-Length comes twice (RFC 9112 6.3)": (
        400,
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    ),
    "Content-Length comes twice alike (RFC 9112 6.3)": (
        400,
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
    ),
    "Content-Length is more than a machine counts (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    ),
    "Content-Length is more than anybody sends (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 9223372036854775808\r\n\r\n",
    ),
    "Content-Length has more digits than int() takes (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ),
    "Content-Type comes twice (RFC 9110 8.3)": (
        400,
        POST + b"Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n",
    ),
    # RFC 9110 10.1.1
    "an expectation is unknown (RFC 9110 10.1.1)": (
        417,
        POST + b"Expect: more\r\nContent-Length: 1\r\n\r\n",
    ),
    "an expectation is not the only one (RFC 9110 10.1.1)": (
        417,
        POST + b"Expect: 100-continue, more\r\nContent-Length: 1\r\n\r\n",
    ),
    # RFC 9112 7.1: chunks, behind a head that is good
    "a chunk size has a sign (RFC 9112 7.1)": (400, CHUNKED + b"+5\r\nhello\r\n"),
    "a chunk size is negative (RFC 9112 7.1)": (400, CHUNKED + b"-5\r\nhello\r\n"),
    "a chunk size has 0x (RFC 9112 7.1)": (400, CHUNKED + b"0x5\r\nhello\r\n"),
    "a chunk size has an underscore (RFC 9112 7.1)": (400, CHUNKED + b"1_0\r\n"),
    "a chunk size has a space before (RFC 9112 7.1)": (400, CHUNKED + b" 5\r\n"),
    "a chunk size has a space behind (RFC 9112 7.1)": (400, CHUNKED + b"5 \r\n"),
    "a chunk size has a tab behind (RFC 9112 7.1)": (400, CHUNKED + b"5\t\r\n"),
    "a chunk size has a space before an extension (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5 ;a\r\n",
    ),
    "a chunk extension has a space (RFC 9112 7.1.1)": (400, CHUNKED + b"5; a\r\n"),
    "a chunk extension has no name (RFC 9112 7.1.1)": (400, CHUNKED + b"5;\r\n"),
    "a chunk extension has no value (RFC 9112 7.1.1)": (400, CHUNKED + b"5;a=\r\n"),
    "a chunk extension has a control (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b'5;a="\x01"\r\n',
    ),
    "a chunk extension has an open quote (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b'5;a="b\r\n',
    ),
    "a chunk extension has a CR (RFC 9112 7.1.1)": (400, CHUNKED + b"5;a\rb\r\n"),
    "a chunk size is empty (RFC 9112 7.1)": (400, CHUNKED + b"\r\n"),
    "a chunk size is no number (RFC 9112 7.1)": (400, CHUNKED + b"g\r\n"),
    "a chunk size ends with LF (RFC 9112 7.1)": (400, CHUNKED + b"5\nhello\r\n"),
    "a chunk size ends with CR (RFC 9112 7.1)": (400, CHUNKED + b"5\rhello\n\r\n"),
    "a chunk size overflows 64 bits (RFC 9112 7.1)": (
        400,
        CHUNKED + b"10000000000000000\r\n",
    ),
    "a chunk size overflows 63 bits (RFC 9112 7.1)": (
        400,
        CHUNKED + b"8000000000000000\r\n",
    ),
    "a chunk is longer than its size (RFC 9112 7.1)": (
        400,
        CHUNKED + b"5\r\nhelloX\r\n0\r\n\r\n",
    ),
    "a chunk is shorter than its size (RFC 9112 7.1)": (
        400,
        CHUNKED + b"6\r\nhello\r\n0\r\n\r\n",
    ),
    "a chunk ends with LF (RFC 9112 7.1)": (400, CHUNKED + b"5\r\nhello\n0\r\n\r\n"),
    "a chunk ends with CR (RFC 9112 7.1)": (400, CHUNKED + b"5\r\nhello\r0\r\n\r\n"),
    "a chunk has no end (RFC 9112 7.1)": (400, CHUNKED + b"5\r\nhello0\r\n\r\n"),
    "a trailer has a space before the colon (RFC 9112 7.1.2)": (
        400,
        CHUNKED + b"0\r\nA : b\r\n\r\n",
    ),
    "a trailer is folded (RFC 9112 7.1.2)": (400, CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n"),
    "a trailer has a NUL (RFC 9112 7.1.2)": (400, CHUNKED + b"0\r\nA: \0\r\n\r\n"),
    "a trailer ends with LF (RFC 9112 7.1.2)": (400, CHUNKED + b"0\r\nA: b\n\r\n"),
    "the last chunk ends with LF (RFC 9112 7.1)": (400, CHUNKED + b"0\r\n\n"),
    "a request follows the last chunk too early (RFC 9112 7.1)": (
        400,
        CHUNKED + b"0\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    ),
}

HOSTS_REFUSED: dict[str, bytes] = {
    "a space": b"a b",
    "a comma": b"a,b",
    "a slash": b"a/b",
    "a backslash": b"a\\b",
    "a query": b"a?b",
    "a fragment": b"a#b",
    "userinfo": b"u@a",
    "a scheme": b"http://a",
    "a port that is none": b"a:b",
    "a port with a sign": b"a:+8",
    "two ports": b"a:1:2",
    "a port of six digits": b"a:123456",
    "a percent sign alone": b"a%b",
    "a quote": b'a"b',
    "an angle bracket": b"<a>",
    "a brace": b"{a}",
    "a byte beyond ASCII": b"\xe4",
    "an open bracket": b"[::1",
    "a closing bracket": b"::1]",
    "an IPv6 address without brackets": b"::1",
    "empty brackets": b"[]",
    "something behind brackets": b"[::1]a",
    "a zone": b"[fe80::1%25eth0]",
}

HOSTS_ACCEPTED: dict[str, bytes] = {
    "a name": b"example.com",
    "a name with a port": b"example.com:8080",
    "a port that is empty": b"example.com:",
    "an IPv4 address": b"127.0.0.1:80",
    "an IPv6 address": b"[::ffff:127.0.0.1]:80",
    "an address of the future": b"[v1.fe80::a+b]",
    "a name of a container": b"my_app-1",
    "percent-encoding": b"a%20b",
    "no name": b"",
    "only a port": b":80",
}


class StreamTests(SynchronousTestCase):
    """The tables, fed whole and byte by byte."""

    def test_read(self) -> None:
        """A good stream gives the same requests, however it is split."""
        for sentence, (stream, expected) in READ.items():
            self.assertEqual(events([stream]), expected, sentence)
            self.assertEqual(events(bytewise(stream)), expected, sentence)

    def test_refused(self) -> None:
        """A bad stream gets one refusal with the right status, whatever follows."""
        for sentence, (status, stream) in REFUSED.items():
            whole = events([stream, GET + b"\r\n"])
            self.assertEqual(outcome(whole), status, sentence)
            self.assertEqual(events([*bytewise(stream), GET]), whole, sentence)
            heads = [event for event in whole if isinstance(event, RequestHead)]
            self.assertEqual(len(heads), stream.startswith(CHUNKED), sentence)

    def test_refused_behind_a_good_request(self) -> None:
        """A request that came before a bad one is not lost."""
        for sentence, (status, stream) in REFUSED.items():
            found = events([GET + b"\r\n" + stream])
            self.assertEqual(found[:2], [PLAIN, END], sentence)
            self.assertEqual(outcome(found), status, sentence)

    def test_hosts_refused(self) -> None:
        """What cannot be a host is refused, in Host and in a target (RFC 9112 3.2)."""
        for sentence, host in HOSTS_REFUSED.items():
            head = b"GET / HTTP/1.%d\r\nHost: %b\r\n\r\n"
            self.assertEqual(outcome(events([head % (1, host)])), 400, sentence)
            self.assertEqual(outcome(events([head % (0, host)])), 400, sentence)
            if not set(host) & set(b"/?"):
                head = b"GET http://%b/ HTTP/1.1\r\nHost: x\r\n\r\n"
                self.assertEqual(outcome(events([head % host])), 400, sentence)

    def test_hosts_accepted(self) -> None:
        """What can be a host reaches the application as it is (RFC 9112 3.2)."""
        for sentence, host in HOSTS_ACCEPTED.items():
            found = events([b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"])
            expected = {"HTTP_HOST": host.decode("ascii")}
            self.assertEqual(found, [replace(PLAIN, variables=expected), END], sentence)

    def test_any_split(self) -> None:
        """How a stream is split changes nothing, good or bad, whatever came before.

        Compares a parser that has each head judged by llhttp with one that shares
        the lines it knows with all others.
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
        """Requests that every client may send are read to their end."""
        for sentence, stream in GOOD.items():
            found = events([stream])
            self.assertEqual(outcome(found), 0, sentence)
            self.assertIs(found[-1], END, sentence)


class IdleTests(SynchronousTestCase):
    """`RequestParser.idle`: may the connection be closed without losing a request?"""

    def test_new(self) -> None:
        """A connection is idle before its first byte."""
        self.assertTrue(parser().idle)

    def test_busy(self) -> None:
        """It is not idle from the first byte of a request to the last one."""
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
        """Empty lines between requests are no beginning of another."""
        reader = parser()
        for piece in bytewise(b"\r\n\r\n" + GET + b"\r\n\r\n\r"):
            reader.feed(piece)
        self.assertTrue(reader.idle)
        self.assertEqual(reader.feed(b"\n" + GET + b"\r\n"), [PLAIN, END])

    def test_nothing(self) -> None:
        """Feeding nothing changes nothing."""
        reader = parser()
        self.assertEqual(reader.feed(b""), [])
        self.assertTrue(reader.idle)
        reader.feed(GET)
        self.assertEqual(reader.feed(b""), [])
        self.assertFalse(reader.idle)

    def test_last_request(self) -> None:
        """Behind a last request it is idle for good."""
        reader = parser()
        reader.feed(GET + b"Connection: close\r\n\r\n")
        self.assertEqual(reader.feed(GET + b"\r\n"), [])
        self.assertTrue(reader.idle)

    def test_refused(self) -> None:
        """Behind a refusal it is not: something did arrive."""
        reader = parser()
        reader.feed(b"\0")
        self.assertFalse(reader.idle)


class LimitTests(SynchronousTestCase):
    """`HeadLimits`: nothing that a client sends is kept without a bound."""

    limits = HeadLimits(size=200, fields=5, target=20, trailers=30, chunk_extensions=12)

    def _refused(self, beginning: bytes, endless: bytes) -> tuple[int, int]:
        """Feed `endless` again and again; return the status, and at which byte."""
        whole = events([beginning + endless * 1000], self.limits)
        reader = parser(self.limits)
        for fed, byte in enumerate(bytewise(beginning + endless * 1000), 1):
            found = reader.feed(byte)
            if status := outcome(found):
                self.assertEqual(found[-1], whole[-1], "split, it differs")
                return status, fed
        self.fail("never refused")

    def test_target(self) -> None:
        """An endless target gets 414 one byte beyond the limit."""
        self.assertEqual(self._refused(b"GET /", b"a"), (414, len("GET ") + 21))

    def test_target_at_the_limit(self) -> None:
        """A target may be as long as the limit says, and not longer, known or not."""
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
        """So do endless lines."""
        self.assertEqual(self._refused(GET, b"A: b\r\n"), (431, 201))

    def test_size_without_a_colon(self) -> None:
        """So does an endless name."""
        self.assertEqual(self._refused(GET, b"a"), (431, 201))

    def test_size_at_the_limit(self) -> None:
        """A head may be as long as the limit says, and not longer."""
        head = GET + b"A: %b\r\n\r\n"
        room = 200 - len(head % b"")
        at, beyond = head % (b"a" * room), head % (b"a" * (room + 1))
        for pieces in ([at], bytewise(at)):
            self.assertEqual(outcome(events(pieces, self.limits)), 0)
        for pieces in ([beyond], [beyond * 3], bytewise(beyond)):
            self.assertEqual(outcome(events(pieces, self.limits)), 431)

    def test_size_smaller_than_the_target(self) -> None:
        """The size holds where the limit of the target would allow more."""
        limits = HeadLimits(size=50, target=100)
        stream = b"GET /" + b"a" * 60
        self.assertEqual(outcome(events([stream], limits)), 431)
        self.assertEqual(outcome(events(bytewise(stream), limits)), 431)

    def test_size_is_of_the_head(self) -> None:
        """What follows a head does not count for its size."""
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
        """They are counted anew for each request."""
        stream = (b"\r\n" * 5 + GET + b"\r\n") * 3
        self.assertEqual(events([stream]), [PLAIN, END] * 3)
        self.assertEqual(events(bytewise(stream)), [PLAIN, END] * 3)

    def test_chunk_extension(self) -> None:
        """An endless chunk extension gets 400."""
        status, fed = self._refused(CHUNKED + b"1;", b"a")
        self.assertEqual(status, 400)
        self.assertLessEqual(fed, len(CHUNKED) + 12 + 19)

    def test_chunk_size_line(self) -> None:
        """Endless digits of a chunk size get 400."""
        status, fed = self._refused(CHUNKED, b"0")
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
        """Endless trailers get 431, those within the limit are dropped."""
        good = CHUNKED + b"0\r\n" + b"A: b\r\n" * 5 + b"\r\n"
        for pieces in ([good], bytewise(good)):
            self.assertIs(events(pieces, self.limits)[-1], END)
        self.assertEqual(self._refused(CHUNKED + b"0\r\n", b"A: b\r\n")[0], 431)
        beyond = CHUNKED + b"0\r\n" + b"A: b\r\n" * 4 + b"A: bc\r\n\r\n"
        for pieces in ([beyond], bytewise(beyond)):
            self.assertEqual(outcome(events(pieces, self.limits)), 431)

    def test_no_trailers(self) -> None:
        """A limit of 0 still lets a chunked body end."""
        limits = HeadLimits(trailers=0, chunk_extensions=0)
        body = CHUNKED + b"1\r\na\r\n0\r\n"
        for pieces in ([body + b"\r\n"], bytewise(body + b"\r\n")):
            self.assertEqual(events(pieces, limits)[1:], [b"a", END])
        trailer = body + b"A:b\r\n\r\n"
        self.assertEqual(outcome(events([trailer], limits)), 431)
        self.assertEqual(outcome(events(bytewise(trailer), limits)), 431)


class EarlyTests(SynchronousTestCase):
    """What cannot become good is refused before its end, for nobody may send it."""

    def test_before_the_head_ends(self) -> None:
        """Bad beginnings are refused at the byte that makes them bad."""
        for sentence, stream, status in (
            ("a TLS handshake", b"\x16", 400),
            ("a space", b" ", 400),
            ("an unknown method", b"BREW ", 501),
            ("a fragment", b"GET /#", 400),
            ("a target of no form", b"GET a ", 400),
            ("no version", b"GET /\r", 400),
            ("another version", b"GET / HTTP/3.0", 505),
            ("another protocol", b"GET / R", 400),
            ("LF behind the version", b"GET / HTTP/1.1\n", 400),
            ("LF in a field", GET + b"A: b\n", 400),
            ("LF behind CR LF", GET + b"\n", 400),
            ("CR alone", b"\rG", 400),
        ):
            reader = parser()
            for piece in bytewise(stream[:-1]):
                self.assertEqual(reader.feed(piece), [], sentence)
            self.assertEqual(outcome(reader.feed(stream[-1:])), status, sentence)


class BodyTests(SynchronousTestCase):
    """How the data of a body is passed on."""

    def test_not_copied(self) -> None:
        """What is fed in the midst of a body by length is passed on as it is."""
        reader = parser()
        reader.feed(POST + b"Content-Length: 20\r\n\r\n")
        data, last = b"0123456789", b"abcdefghij"
        (first,) = reader.feed(data)
        self.assertIs(first, data)
        found = reader.feed(last)
        self.assertIs(found[0], last)
        self.assertEqual(found[1:], [END])

    def test_as_it_comes(self) -> None:
        """No byte of a body waits for another one."""
        for head, pieces in (
            (POST + b"Content-Length: 3\r\n\r\n", (b"a", b"b", b"c")),
            (CHUNKED, (b"3\r\na", b"b", b"c")),
        ):
            reader = parser()
            reader.feed(head)
            for data in pieces:
                self.assertEqual(reader.feed(data)[0], data[-1:])

    def test_chunks_as_they_are(self) -> None:
        """Whole chunks come one by one."""
        reader = parser()
        found = reader.feed(CHUNKED + b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n")
        self.assertEqual(found[1:], [b"a", b"bc", END])

    def test_large_length(self) -> None:
        """A body may be as long as anybody can send."""
        reader = parser()
        (head,) = reader.feed(POST + b"Content-Length: 999999999999999999\r\n\r\n")
        assert isinstance(head, RequestHead)
        self.assertEqual(head.content_length, 999_999_999_999_999_999)


class HeadTests(SynchronousTestCase):
    """What a head is to its receiver."""

    def test_variables_are_its_own(self) -> None:
        """An application that changes its environ changes nobody else's."""
        reader = parser()
        for _ in range(3):
            head = reader.feed(GET + b"\r\n")[0]
            assert isinstance(head, RequestHead)
            self.assertEqual(head.variables, {"HTTP_HOST": "x"})
            head.variables.clear()

    def test_refusal_names_the_reason(self) -> None:
        """A refusal says why, without what the client sent."""
        for sentence, (_, stream) in REFUSED.items():
            last = events([stream])[-1]
            assert isinstance(last, Refusal)
            self.assertRegex(last.reason, r"\A[ -~]{10,80}\Z", sentence)

    def test_end_says_so(self) -> None:
        """END can be told in a log."""
        self.assertEqual(repr(END), "END")
