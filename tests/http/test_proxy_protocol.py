"""The header of the PROXY protocol, versions 1 and 2."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http.proxy_protocol import (
    MAX_BYTES,
    MAX_LINE_BYTES,
    SIGNATURE,
    Place,
    ProxyHeader,
    ProxyHeaderError,
    ProxyHeaderReader,
    crc32c,
)

from .proxy_headers import binary, checksummed, field, line
from .test_fuzz_channel import RUNS

NO_PLACES = ProxyHeader(None, None)
INET = binary("192.0.2.1", "198.51.100.2", 4321, 443)
INET6 = binary("2001:db8::1", "2001:db8::2", 4321, 443)
UNIX = SIGNATURE + b"\x21\x31" + struct.pack(">H", 216) + bytes(216)


def read(data: bytes, **accepted: bool) -> ProxyHeader | None:
    """Return the header in complete bytes."""
    reader = ProxyHeaderReader(**accepted)
    header = reader.feed(data)
    assert not reader.rest, reader.rest
    return header


class LineTests(SynchronousTestCase):
    """Version 1 (section 2.1)."""

    def test_addresses(self) -> None:
        """A line names the addresses and the ports of both ends."""
        for data, source, destination in [
            (
                b"PROXY TCP4 192.0.2.1 198.51.100.2 4321 443\r\n",
                Place("192.0.2.1", "4321"),
                Place("198.51.100.2", "443"),
            ),
            (
                b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
                Place("255.255.255.255", "65535"),
                Place("255.255.255.255", "65535"),
            ),
            (
                b"PROXY TCP6 2001:DB8:0::1 ::1 0 1\r\n",
                Place("2001:db8::1", "0"),
                Place("::1", "1"),
            ),
            (
                b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff "
                b"ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
                Place("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "65535"),
                Place("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "65535"),
            ),
            (
                b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:c633:6402 1 2\r\n",
                Place("192.0.2.1", "1"),
                Place("198.51.100.2", "2"),
            ),
        ]:
            self.assertEqual(read(data), ProxyHeader(source, destination))

    def test_unknown(self) -> None:
        """The rest of a line with UNKNOWN is ignored."""
        for rest in (b"", b" ", b" ffff::1 ffff::2 65535 65535", b" x" * 30):
            self.assertEqual(read(b"PROXY UNKNOWN" + rest + b"\r\n"), NO_PLACES)

    def test_malformed(self) -> None:
        """Lines that do not match exactly are errors."""
        for data in (
            b"PROXY \r\n",
            b"PROXY TCP4\r\n",
            b"PROXY TCP5 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY tcp4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1  192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r 2\r\n",
            b"PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2.256 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 192.0.2 192.0.2.2 1 2\r\n",
            b"PROXY TCP4 ::1 ::2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 ::2 1 2\r\n",
            b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY TCP6 fe80::1%lo ::2 1 2\r\n",
            b"PROXY TCP6 ::1::2 ::2 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
            b"PROXY TCP4 192.0.2.1 192.0.2.2  2\r\n",
            b"PROXY TCP4 192.0.2.1\t192.0.2.2 1 2\r\n",
            b"PROXY TCP4 \xd9\xa1.0.2.1 192.0.2.2 1 2\r\n",
            b"PROXY UNKNOWNS\r\n",
            b"PROXY UNKNOWN\n",
            b"PROXY UNKNOWN a\rb\r\n",
            b"PROXY UNKNOWN \0\r\n",
            b"PROXY \r\nUNKNOWN\r\n",
        ):
            error = self.assertRaises(ProxyHeaderError, read, data)
            self.assertIn("header of version 1", str(error), data)

    def test_length(self) -> None:
        """A line of 107 bytes is accepted; a longer one is refused early."""
        start = b"PROXY UNKNOWN "
        longest = start + b"x" * (MAX_LINE_BYTES - len(start) - 2) + b"\r\n"
        self.assertEqual(len(longest), MAX_LINE_BYTES)
        self.assertEqual(read(longest), NO_PLACES)
        reader = ProxyHeaderReader()
        self.assertIsNone(reader.feed(longest[:-2] + b"x"))
        error = self.assertRaises(ProxyHeaderError, reader.feed, b"\r\n")
        self.assertIn("more than 107 bytes", str(error))
        endless = start + b"x" * MAX_LINE_BYTES
        error = self.assertRaises(ProxyHeaderError, read, endless)
        self.assertIn("more than 107 bytes", str(error))


class BinaryTests(SynchronousTestCase):
    """Version 2 (section 2.2)."""

    def test_addresses(self) -> None:
        """A header names the addresses and the ports of both ends."""
        self.assertEqual(
            read(INET),
            ProxyHeader(Place("192.0.2.1", "4321"), Place("198.51.100.2", "443")),
        )
        self.assertEqual(
            read(INET6),
            ProxyHeader(Place("2001:db8::1", "4321"), Place("2001:db8::2", "443")),
        )
        self.assertEqual(
            read(binary("::ffff:192.0.2.1", "::1", 1, 2)),
            ProxyHeader(Place("192.0.2.1", "1"), Place("::1", "2")),
        )

    def test_unix(self) -> None:
        """A client on a UNIX socket has neither address nor port."""
        self.assertEqual(read(UNIX), ProxyHeader(Place("", ""), None))

    def test_local(self) -> None:
        """The content of LOCAL is ignored, also if it is invalid."""
        for family in (0x00, 0x11, 0x21, 0x31, 0xFF):
            for content in (b"", b"x" * 12, b"\x03\xff\xff", b"x" * 500):
                data = SIGNATURE + bytes([0x20, family])
                data += struct.pack(">H", len(content)) + content
                self.assertEqual(read(data), NO_PLACES)

    def test_unspecified(self) -> None:
        """Families and transports without a stream client keep the peer."""
        for family, size in (
            *((0x00, 0), (0x00, 9), (0x01, 3), (0x10, 12), (0x12, 12)),
            *((0x20, 36), (0x22, 36), (0x30, 216), (0x32, 216)),
        ):
            data = SIGNATURE + bytes([0x21, family]) + struct.pack(">H", size)
            self.assertEqual(read(data + bytes(size)), NO_PLACES, hex(family))

    def test_malformed(self) -> None:
        """Other versions, commands and families, and short addresses, are errors."""
        for start, size, problem in (
            (b"\x11\x11", 12, "version or command 0x11"),
            (b"\x31\x11", 12, "version or command 0x31"),
            (b"\x22\x11", 12, "version or command 0x22"),
            (b"\x00\x00", 0, "version or command 0x00"),
            (b"\x21\x41", 12, "address family 0x41"),
            (b"\x21\x13", 12, "address family 0x13"),
            (b"\x21\xff", 12, "address family 0xff"),
            (b"\x21\x11", 11, "too short for its addresses"),
            (b"\x21\x11", 0, "too short for its addresses"),
            (b"\x21\x21", 35, "too short for its addresses"),
            (b"\x21\x31", 215, "too short for its addresses"),
        ):
            data = SIGNATURE + start + struct.pack(">H", size) + bytes(size)
            error = self.assertRaises(ProxyHeaderError, read, data)
            self.assertIn(problem, str(error))

    def test_fields(self) -> None:
        """Fields (TLVs) are skipped; a truncated one is an error."""
        known = read(INET)
        fields = field(1, b"h2") + field(2, b"shop.test") + field(4, b"")
        fields += field(5, b"x" * 128) + field(0xEA, b"\x01vpce")
        for data in (INET, INET6):
            self.assertEqual(read(data), read(_extended(data, fields)))
        self.assertEqual(read(_extended(INET, field(0x30, bytes(5000)))), known)
        for tail in (b"\x04", b"\x04\x00", b"\x04\x00\x01", field(4, b"ab")[:-1]):
            data = _extended(INET, fields + tail)
            error = self.assertRaises(ProxyHeaderError, read, data)
            self.assertIn("truncated field", str(error))

    def test_tls(self) -> None:
        """The field about TLS says whether the client speaks TLS with the proxy."""
        for content, is_tls in (
            (b"\x01" + bytes(4) + field(0x21, b"TLSv1.3"), True),
            (b"\x07" + bytes(4), True),
            (b"\x00" + bytes(4), False),
            (b"\x06" + bytes(4), False),
            (b"\x01", True),
            (b"", False),
        ):
            header = read(_extended(INET, field(0x20, content)))
            assert header is not None
            self.assertEqual(header.is_tls, is_tls, content)

    def test_checksum(self) -> None:
        """A checksum that is given must be that of the whole header."""
        self.assertEqual(crc32c(b"123456789"), 0xE3069283)  # RFC 3720 appendix B.4
        self.assertEqual(crc32c(bytes(32)), 0x8A9136AA)
        fields = field(2, b"shop.test") + field(3, bytes(4)) + field(4, b"x")
        good = checksummed(_extended(INET, fields))
        self.assertEqual(read(good), read(INET))
        value = good.index(field(3, b"")[:1] + b"\x00\x04") + 3
        for at in (*range(16, 28), *range(value, value + 4), len(good) - 1):
            broken = good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :]
            error = self.assertRaises(ProxyHeaderError, read, broken)
            self.assertIn("wrong checksum", str(error))
        for content in (b"", b"abc", bytes(5)):
            data = _extended(INET, field(3, content))
            error = self.assertRaises(ProxyHeaderError, read, data)
            self.assertIn("wrong checksum", str(error))

    def test_length(self) -> None:
        """A header of 16 KiB is accepted; a longer one is refused at its length."""
        fields = field(4, bytes(MAX_BYTES - len(INET) - 3))
        longest = _extended(INET, fields)
        self.assertEqual(len(longest), MAX_BYTES)
        self.assertEqual(read(longest), read(INET))
        start = SIGNATURE + b"\x21\x11" + struct.pack(">H", MAX_BYTES - 15)
        error = self.assertRaises(ProxyHeaderError, read, start)
        self.assertIn("16385 bytes, which is more than 16384", str(error))
        self.assertIn("TLV", error.remedy)


class EitherTests(SynchronousTestCase):
    """Versions, and bytes that are no header."""

    def test_no_header(self) -> None:
        """Anything else is an error at the first byte that differs."""
        for data in (
            b"G",
            b"GET / HTTP/1.1\r\n",
            b"PO",
            b"PRI * HTTP/2.0",
            b"PROXIED",
            b"PROXY\r\n",
            b"\x16\x03\x01",
            b"\r\n\r\nG",
            b"\n",
            b"\r\n\r\n\0\r\nQUIT\r\n",
            b" PROXY",
        ):
            error = self.assertRaises(ProxyHeaderError, read, data)
            self.assertEqual(str(error), "has sent no header")
            self.assertIn("PROXY protocol", error.remedy)

    def test_versions(self) -> None:
        """A version that is not accepted is an error of its own."""
        lined = line("192.0.2.1", "192.0.2.2", 1, 2)
        self.assertIsNotNone(read(lined, v2=False))
        self.assertIsNotNone(read(INET, v1=False))
        error = self.assertRaises(ProxyHeaderError, read, lined, v1=False)
        self.assertEqual(str(error), "has sent a header of version 1")
        self.assertEqual(error.remedy, "let it send version 2")
        error = self.assertRaises(ProxyHeaderError, read, INET, v2=False)
        self.assertEqual(str(error), "has sent a header of version 2")
        for data in (b"P", b"PROXY"):
            self.assertIsNone(read(data, v1=False))
        self.assertIsNone(read(SIGNATURE[:-1], v2=False))

    def test_splits(self) -> None:
        """A header may arrive in any two pieces; what follows it is kept."""
        for data in (INET, INET6, UNIX, line("::1", "::2", 65535, 1)):
            expected = read(data)
            for at in range(len(data)):
                reader = ProxyHeaderReader()
                self.assertIsNone(reader.feed(data[:at]))
                self.assertEqual(reader.feed(data[at:] + b"GET /"), expected)
                self.assertEqual(reader.rest, b"GET /")
            reader = ProxyHeaderReader()
            for byte in data[:-1]:
                self.assertIsNone(reader.feed(bytes([byte])))
            self.assertEqual(reader.feed(data[-1:]), expected)


def _extended(data: bytes, fields: bytes) -> bytes:
    """Return a header with further fields."""
    length = struct.pack(">H", len(data) - 16 + len(fields))
    return data[:14] + length + data[16:] + fields


ADDRESSES = st.ip_addresses(v=4) | st.ip_addresses(v=6)
PORTS = st.integers(0, 65535)


class PropertyTests(SynchronousTestCase):
    """Generated headers."""

    @RUNS
    @given(
        ADDRESSES, ADDRESSES, PORTS, PORTS, st.booleans(), st.lists(st.integers(1, 60))
    )
    def test_round_trip(
        self,
        source: object,
        destination: object,
        source_port: int,
        destination_port: int,
        as_line: bool,
        cuts: list[int],
    ) -> None:
        """Each header is read as it was written, in any pieces."""
        ends = [ip_address(str(source)), ip_address(str(destination))]
        if ends[0].version != ends[1].version:
            ends[1] = ends[0]
        write = line if as_line else binary
        data = write(str(ends[0]), str(ends[1]), source_port, destination_port)
        reader = ProxyHeaderReader()
        header = None
        stream = data + b"rest"
        for cut in [*cuts, len(stream)]:
            piece, stream = stream[:cut], stream[cut:]
            header = reader.feed(piece)
            if header is not None:
                break
        assert header is not None
        self.assertEqual(reader.rest + stream, b"rest")
        mapped = [getattr(end, "ipv4_mapped", None) or end for end in ends]
        self.assertEqual(
            header,
            ProxyHeader(
                Place(str(mapped[0]), str(source_port)),
                Place(str(mapped[1]), str(destination_port)),
            ),
        )

    @RUNS
    @given(
        st.sampled_from((b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, INET, UNIX)),
        st.binary(max_size=300),
        st.integers(1, 400),
    )
    def test_any_bytes(self, start: bytes, data: bytes, cut: int) -> None:
        """Any bytes are a header, an error, or incomplete; pieces do not matter."""
        data = start + data
        self.assertEqual(outcome(data), outcome(data[:cut], data[cut:]))

    @RUNS
    @given(st.integers(0, len(INET6) - 1), st.integers(0, 255))
    def test_changed_byte(self, at: int, byte: int) -> None:
        """A header with a changed byte is read, refused, or awaits more bytes."""
        data = checksummed(_extended(INET6, field(3, bytes(4))))
        outcome(data[:at] + bytes([byte]) + data[at + 1 :])


def outcome(*pieces: bytes) -> object:
    """Return the header and the rest, the error, or None if it is incomplete."""
    reader = ProxyHeaderReader()
    seen = b""
    for piece in pieces:
        seen += piece
        try:
            header = reader.feed(piece)
        except ProxyHeaderError as error:
            return str(error)
        if header is not None:
            return header, reader.rest + b"".join(pieces)[len(seen) :]
    return None
