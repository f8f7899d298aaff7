"""Header compression: our codec agrees with hpack's."""

from __future__ import annotations

from hpack.exceptions import HPACKError, OversizedHeaderListError
from hpack.hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._http2.hpack_codec import (
    BlockDecoder,
    TableUpdate,
    encode_fields,
    encode_status,
)

NAMES = st.sampled_from([b":path", b"accept", b"x-one", b"x-two", b"cookie"])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=300)), max_size=12)


class BlockDecoderTests(SynchronousTestCase):
    """Requests."""

    @settings(max_examples=100, deadline=None)
    @given(st.lists(st.tuples(FIELDS, st.booleans()), max_size=8))
    def test_encoded_by_hpack(
        self, blocks: list[tuple[list[tuple[bytes, bytes]], bool]]
    ) -> None:
        """Blocks of one connection are decoded in turn."""
        encoder, decoder = Encoder(), BlockDecoder(10**6, 10**6)
        for fields, huffman in blocks:
            decoder.decode(encoder.encode(fields, huffman=huffman))
            self.assertEqual(decoder.fields, fields)
            self.assertEqual(decoder.count, len(fields))
            total = sum(len(name) + len(value) + 4 for name, value in fields)
            self.assertEqual(decoder.size, total)

    @settings(max_examples=300, deadline=None)
    @given(st.binary(max_size=60))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes give the fields, or the error, that hpack gives."""
        decoder, reference = BlockDecoder(10**6, 10**6), Decoder(10**9)
        try:
            expected = [tuple(field) for field in reference.decode(data, raw=True)]
        except HPACKError:
            self.assertRaises(HPACKError, decoder.decode, data)
        else:
            decoder.decode(data)
            self.assertEqual(decoder.fields, expected)
            mine, others = decoder.header_table, reference.header_table
            self.assertEqual(mine.dynamic_entries, others.dynamic_entries)

    def test_limits(self) -> None:
        """Blocks up to twice the limits are decoded."""
        for fields in ([(b"a", b"")] * 20, [(b"a", b"x" * 195)]):
            decoder = BlockDecoder(100, 10)
            block = Encoder().encode(fields)
            decoder.decode(block)
            self.assertEqual(decoder.fields, fields)
            more = Encoder().encode([*fields, (b"b", b"")])
            self.assertRaises(OversizedHeaderListError, decoder.decode, more)


class EncodeTests(SynchronousTestCase):
    """Responses."""

    def test_status(self) -> None:
        """A status of the static table takes one byte."""
        for code in range(100, 1000):
            encoded = encode_status(code)
            decoded = Decoder().decode(encoded, raw=True)
            self.assertEqual(decoded, [(b":status", b"%d" % code)])
        self.assertEqual(len(encode_status(200)), 1)
        self.assertEqual(len(encode_status(404)), 1)

    def test_fields(self) -> None:
        """Names become lower case; no field enters the dynamic table."""
        long = b"y" * 5000
        lines = [
            b"Content-Type: text/plain\r\n",
            b"",
            b"X-Own:  spaces \r\n",
            b"Set-Cookie: a=b\r\n",
            b"X-Long: %b\r\n" % long,
            b"X-Empty: \r\n",
        ]
        for _ in range(2):
            decoder = Decoder(10**6)
            self.assertEqual(
                decoder.decode(encode_fields(lines), raw=True),
                [
                    (b"content-type", b"text/plain"),
                    (b"x-own", b"spaces"),
                    (b"set-cookie", b"a=b"),
                    (b"x-long", long),
                    (b"x-empty", b""),
                ],
            )
            self.assertEqual(len(decoder.header_table.dynamic_entries), 0)
        # Never indexed (RFC 7541 section 7.1.3).
        self.assertEqual(encode_fields([b"Set-Cookie: a=b\r\n"])[0] & 0xF0, 0x10)

    def test_many_fields(self) -> None:
        """The cache of fields is bounded, and full caches give the same bytes."""
        for number in range(3000):
            line = b"X-Number: %d\r\n" % number
            decoded = Decoder().decode(encode_fields([line]), raw=True)
            self.assertEqual(decoded, [(b"x-number", b"%d" % number)])

    def test_table_update(self) -> None:
        """The first head, and each one behind a change, begins with an update."""
        table = TableUpdate()
        self.assertEqual([table.start(), table.start()], [b"\x20", b""])
        table.header_table_size = 100
        self.assertEqual(table.header_table_size, 100)
        self.assertEqual([table.start(), table.start()], [b"\x20", b""])
