"""Streams that the parser must refuse, with the expected status, by their fault.

Each is fed whole and byte by byte.
"""

from __future__ import annotations

from .accepted import CHUNKED, GET, POST

__all__ = ["HOSTS_REFUSED", "REFUSED"]

REFUSED: dict[str, tuple[int, bytes]] = {
    # RFC 9112 2.2: line ends
    "LF ends the request line (RFC 9112 2.2)": (400, b"GET / HTTP/1.1\nHost: x\r\n"),
    "LF ends a field line (RFC 9112 2.2)": (400, GET + b"A: b\nC: d\r\n\r\n"),
    "LF ends the head (RFC 9112 2.2)": (400, GET + b"\n"),
    "LF LF ends the head (RFC 9112 2.2)": (400, GET[:-2] + b"\n\n"),
    "LF CR ends a line (RFC 9112 2.2)": (400, GET + b"A: b\n\r\r\n\r\n"),
    "LF comes before a request line (RFC 9112 2.2)": (400, b"\n" + GET),
    "CR comes before a request line (RFC 9112 2.2)": (400, b"\r" + GET),
    "CR occurs twice before a request line (RFC 9112 2.2)": (400, b"\r\r\n" + GET),
    "CR in a value (RFC 9112 2.2)": (400, GET + b"A: b\rc\r\n\r\n"),
    "CR at the end of a value (RFC 9112 2.2)": (400, GET + b"A: b\r\r\n\r\n"),
    "CR at the beginning of a line (RFC 9112 2.2)": (
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
    "there are two spaces after the target (RFC 9112 3)": (
        400,
        b"GET /  HTTP/1.1\r\n",
    ),
    "there is a tab before the target (RFC 9112 3)": (400, b"GET\t/ HTTP/1.1\r\n"),
    "there is a tab after the target (RFC 9112 3)": (400, b"GET /\tHTTP/1.1\r\n"),
    "the request line ends with a space (RFC 9112 3)": (400, b"GET / HTTP/1.1 \r\n"),
    "the target has a space (RFC 9112 3.2)": (400, b"GET /a b HTTP/1.1\r\n"),
    "there is no target (RFC 9112 3)": (400, b"GET HTTP/1.1\r\n"),
    "there is only a method (RFC 9112 3)": (400, b"GET\r\n"),
    "the method is not a token (RFC 9110 9.1)": (400, b"G(T / HTTP/1.1\r\n"),
    "the method is a tab (RFC 9110 9.1)": (400, b"\t / HTTP/1.1\r\n"),
    "the method ends with a colon (RFC 9110 9.1)": (400, b"GET: / HTTP/1.1\r\n"),
    "the method has a slash (RFC 9110 9.1)": (400, b"GET/ / HTTP/1.1\r\n"),
    "the method has a non-ASCII byte (RFC 9110 9.1)": (400, b"G\xc4T / HTTP/1.1\r\n"),
    "the method is endless (RFC 9112 3)": (501, b"G" * 257),
    "the method is CONNECT (RFC 9110 9.3.6)": (
        501,
        b"CONNECT x:443 HTTP/1.1\r\n",
    ),
    "the method is CONNECT with a path (RFC 9110 9.3.6)": (
        501,
        b"CONNECT / HTTP/1.1\r\n",
    ),
    "the version is that of RTSP (RFC 9112 2.3)": (400, b"PLAY / RTSP/1.0\r\n"),
    # RFC 9112 2.3: versions
    "the version is missing, as in HTTP/0.9 (RFC 9112 3)": (
        400,
        b"GET /\r\n",
    ),
    "the version is 0.9 (RFC 9110 2.5)": (505, b"GET / HTTP/0.9\r\n"),
    "the version is 1.2 (RFC 9110 15.6.6)": (505, b"GET / HTTP/1.2\r\n"),
    "the version is 2.0 (RFC 9110 15.6.6)": (505, b"GET / HTTP/2.0\r\n"),
    "the version has two digits (RFC 9112 2.3)": (400, b"GET / HTTP/1.10\r\n"),
    "the version has no minor number (RFC 9112 2.3)": (400, b"GET / HTTP/1\r\n"),
    "the major version is a colon (RFC 9112 2.3)": (400, b"GET / HTTP/:.1\r\n"),
    "the minor version is a colon (RFC 9112 2.3)": (400, b"GET / HTTP/1.:\r\n"),
    "the version is in lower case (RFC 9112 2.3)": (400, b"GET / http/1.1\r\n"),
    "the version is another protocol's (RFC 9112 2.3)": (400, b"GET / ICE/1.0\r\n"),
    "the request line is the preface of HTTP/2 (RFC 9113 3.4)": (
        505,
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ),
    # RFC 9112 3.2: targets and Host
    "the target has a fragment (RFC 9112 3.2)": (400, b"GET /a#b HTTP/1.1\r\n"),
    "the target has a non-ASCII byte (RFC 9112 3.2)": (
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
    "the target is an asterisk with a query (RFC 9112 3.2.4)": (
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
    "Host is spelt with an underscore (RFC 9112 3.2)": (
        400,
        b"GET / HTTP/1.1\r\nHo_st: x\r\n\r\n",
    ),
    "Host occurs twice (RFC 9112 3.2)": (400, GET + b"Host: y\r\n\r\n"),
    "Host occurs twice with the same value (RFC 9112 3.2)": (
        400,
        GET + b"host: x\r\n\r\n",
    ),
    "Host occurs twice in absolute-form (RFC 9112 3.2)": (
        400,
        b"GET http://x/ HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    ),
    "Host occurs twice in HTTP/1.0 (RFC 9112 3.2)": (
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
    "a name is not a token (RFC 9110 5.1)": (400, GET + b"A(b): c\r\n\r\n"),
    "a name has a non-ASCII byte (RFC 9110 5.1)": (400, GET + b"\xc4: b\r\n\r\n"),
    "a name has a NUL (RFC 9110 5.1)": (400, GET + b"A\0: b\r\n\r\n"),
    "a value has a NUL (RFC 9110 5.5)": (400, GET + b"A: b\0c\r\n\r\n"),
    "a value has a control character (RFC 9110 5.5)": (
        400,
        GET + b"A: \x08\r\n\r\n",
    ),
    "a value has a DEL (RFC 9110 5.5)": (400, GET + b"A: \x7f\r\n\r\n"),
    # RFC 9112 6: framing
    "Transfer-Encoding follows Content-Length (RFC 9112 6.1)": (
        400,
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "Content-Length follows Transfer-Encoding (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
    ),
    "Transfer-Encoding in an HTTP/1.0 request (RFC 9112 6.1)": (
        400,
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "another coding precedes chunked (RFC 9112 6.1)": (
        501,
        POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n",
    ),
    "another coding precedes chunked, in two fields (RFC 9112 6.1)": (
        501,
        POST + b"Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "chunked is not the last coding (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
    ),
    "the only coding is gzip (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: gzip\r\n\r\n",
    ),
    "the only coding is identity (RFC 9112 6.3)": (
        400,
        POST + b"Transfer-Encoding: identity\r\n\r\n",
    ),
    "chunked occurs twice (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n",
    ),
    "chunked occurs twice, in two fields (RFC 9112 6.1)": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "the coding has chunked as a suffix (RFC 9112 6.3)": (
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
    "Content-Length has a decimal point (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 3.0\r\n\r\n",
    ),
    "Content-Length is a non-ASCII digit (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: \xb2\r\n\r\n",
    ),
    "Content-Length is empty (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length:\r\n\r\n",
    ),
    "Content-Length occurs twice (RFC 9112 6.3)": (
        400,
        POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\n",
    ),
    "Content-Length occurs twice with the same value (RFC 9112 6.3)": (
        400,
        POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\n",
    ),
    "Content-Length exceeds 64 bits (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 18446744073709551616\r\n\r\n",
    ),
    "Content-Length exceeds 63 bits (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: 9223372036854775808\r\n\r\n",
    ),
    "Content-Length has more digits than int() accepts (RFC 9110 8.6)": (
        400,
        POST + b"Content-Length: " + b"9" * 5000 + b"\r\n\r\n",
    ),
    "Content-Type occurs twice (RFC 9110 8.3)": (
        400,
        POST + b"Content-Type: a/b\r\nContent-Type: a/b\r\n\r\n",
    ),
    # RFC 9110 10.1.1
    "an expectation is not supported (RFC 9110 10.1.1)": (
        417,
        POST + b"Expect: more\r\nContent-Length: 1\r\n\r\n",
    ),
    "one of two expectations is not supported (RFC 9110 10.1.1)": (
        417,
        POST + b"Expect: 100-continue, more\r\nContent-Length: 1\r\n\r\n",
    ),
    # RFC 9112 7.1: chunks, after a valid head
    "a chunk size has a sign (RFC 9112 7.1)": (400, CHUNKED + b"+5\r\nhello\r\n"),
    "a chunk size is negative (RFC 9112 7.1)": (400, CHUNKED + b"-5\r\nhello\r\n"),
    "a chunk size has 0x (RFC 9112 7.1)": (400, CHUNKED + b"0x5\r\nhello\r\n"),
    "a chunk size has an underscore (RFC 9112 7.1)": (400, CHUNKED + b"1_0\r\n"),
    "a chunk size has a space before it (RFC 9112 7.1)": (400, CHUNKED + b" 5\r\n"),
    "a chunk size has a space after it (RFC 9112 7.1)": (400, CHUNKED + b"5 \r\n"),
    "a chunk size has a tab after it (RFC 9112 7.1)": (400, CHUNKED + b"5\t\r\n"),
    "a chunk extension has a space after its name (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;a \r\n",
    ),
    "a chunk extension has a tab after its value (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;a=b\t\r\n",
    ),
    "a chunk extension has a space after a quoted value (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b'5;a="b" \r\n',
    ),
    "a chunk extension has only white space (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5; \r\n",
    ),
    "a chunk extension has white space and no name (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5 ; ;a\r\n",
    ),
    "a chunk extension has white space and no value (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;a = \r\n",
    ),
    "a chunk extension has a space within its name (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;a b\r\n",
    ),
    "a chunk extension has a space within its value (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;a=b c\r\n",
    ),
    "a chunk extension has a vertical tab before it (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5\x0b;a\r\n",
    ),
    "a chunk extension has a form feed after the semicolon (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;\x0ca\r\n",
    ),
    "a chunk extension has a non-breaking space (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;\xa0a\r\n",
    ),
    "a chunk extension has a NUL before it (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5\x00;a\r\n",
    ),
    "a chunk extension has a CR before the semicolon (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5\r;a\r\n",
    ),
    "a chunk extension has a CR after the semicolon (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;\ra\r\n",
    ),
    "a chunk extension has a LF before the semicolon (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5\n;a\r\n",
    ),
    "a chunk extension has a LF after a space (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5 \n;a\r\n",
    ),
    "a chunk extension is folded (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;\r\n a\r\n",
    ),
    "a chunk extension has a CR in white space (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5;a \r=b\r\n",
    ),
    "a chunk extension ends with LF after white space (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5 ; a\nhello\r\n",
    ),
    "a chunk extension follows white space within the size (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5 0;a\r\n",
    ),
    "a chunk extension follows a size with a space before it (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b" 5;a\r\n",
    ),
    "a chunk extension has no semicolon (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5 a\r\n",
    ),
    "a chunk extension has no semicolon before a value (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b"5 =b\r\n",
    ),
    "a chunk extension has no name (RFC 9112 7.1.1)": (400, CHUNKED + b"5;\r\n"),
    "a chunk extension has no value (RFC 9112 7.1.1)": (400, CHUNKED + b"5;a=\r\n"),
    "a chunk extension has a control character (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b'5;a="\x01"\r\n',
    ),
    "a chunk extension has an open quote (RFC 9112 7.1.1)": (
        400,
        CHUNKED + b'5;a="b\r\n',
    ),
    "a chunk extension has a CR (RFC 9112 7.1.1)": (400, CHUNKED + b"5;a\rb\r\n"),
    "a chunk size is empty (RFC 9112 7.1)": (400, CHUNKED + b"\r\n"),
    "a chunk size is not a number (RFC 9112 7.1)": (400, CHUNKED + b"g\r\n"),
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
    "a chunk has no CRLF (RFC 9112 7.1)": (400, CHUNKED + b"5\r\nhello0\r\n\r\n"),
    "a trailer has a space before the colon (RFC 9112 7.1.2)": (
        400,
        CHUNKED + b"0\r\nA : b\r\n\r\n",
    ),
    "a trailer is folded (RFC 9112 7.1.2)": (400, CHUNKED + b"0\r\nA: b\r\n c\r\n\r\n"),
    "a trailer has a NUL (RFC 9112 7.1.2)": (400, CHUNKED + b"0\r\nA: \0\r\n\r\n"),
    "a trailer ends with LF (RFC 9112 7.1.2)": (400, CHUNKED + b"0\r\nA: b\n\r\n"),
    "the last chunk ends with LF (RFC 9112 7.1)": (400, CHUNKED + b"0\r\n\n"),
    "a request follows the last chunk without an empty line (RFC 9112 7.1)": (
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
    "a port that is not a number": b"a:b",
    "a port with a sign": b"a:+8",
    "two ports": b"a:1:2",
    "a port of six digits": b"a:123456",
    "a lone percent sign": b"a%b",
    "a quote": b'a"b',
    "an angle bracket": b"<a>",
    "a brace": b"{a}",
    "a non-ASCII byte": b"\xe4",
    "an opening bracket only": b"[::1",
    "a closing bracket only": b"::1]",
    "an IPv6 address without brackets": b"::1",
    "empty brackets": b"[]",
    "text after brackets": b"[::1]a",
    "an IPv6 address with a zone": b"[fe80::1%25eth0]",
}
