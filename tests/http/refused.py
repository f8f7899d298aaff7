"""What the parser must refuse: streams by the sentence that says why.

Knows the status that each deserves. Each is fed whole and byte by byte.
"""

from __future__ import annotations

from .accepted import CHUNKED, GET, POST

__all__ = ["HOSTS_REFUSED", "REFUSED"]

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
    "the version has a colon (RFC 9112 2.3)": (400, b"GET / HTTP/:.1\r\n"),
    "the minor version is a colon (RFC 9112 2.3)": (400, b"GET / HTTP/1.:\r\n"),
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
