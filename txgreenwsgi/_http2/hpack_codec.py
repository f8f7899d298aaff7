"""Header compression (HPACK, RFC 7541) for the two directions of a connection.

Requests: the decoder uses the tables of the library hpack with a loop of its own. It
stops storing fields above a limit, and refuses a block far above it before it has cost
much time. Responses: each field is encoded once, as a literal that is in no dynamic
table, and cached for all connections; so a response head is a join of cached bytes.

h2 calls both objects in place of hpack's own. It receives an empty list of fields from
the decoder: `requests.py` validates them, with an answer for each error.

This file must never know the meaning of a field.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hpack.exceptions import (
    HPACKDecodingError,
    InvalidTableSizeError,
    OversizedHeaderListError,
)
from hpack.hpack import Decoder, decode_integer, encode_integer
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["BlockDecoder", "TableUpdate", "encode_fields", "encode_status"]

#: How far above the limits a block is decoded, so that it can be answered with 431.
#: Above that, the connection ends.
EXCESS: Final = 2

#: Size of a field besides its name and value, as in HTTP/1.1: colon, space, CRLF.
_FIELD_BYTES: Final = 4

# Never stored in the table of an intermediary either (RFC 7541 section 7.1.3).
_SECRET: Final = frozenset({b"set-cookie"})

#: A table size update to 0 (RFC 7541 section 6.3).
_NO_TABLE: Final = b"\x20"

_CACHED_VALUE_BYTES: Final = 128
_CACHE_ENTRIES: Final = 1024

_STATIC: Final = HeaderTable.STATIC_TABLE
_STATIC_NAMES: Final = {
    name: index for index, (name, _) in reversed(list(enumerate(_STATIC, 1)))
}
_STATIC_LENGTH: Final = len(_STATIC)


class BlockDecoder(Decoder):
    """The decoder of the requests of one connection.

    Args:
        size: limit on the total size of the fields of a head, in bytes, as
            `HeadLimits.size` counts it.
        fields: limit on the number of fields.

    Attributes:
        fields: the fields of the last block, in order; incomplete if it is oversized.
        size: the total size of all fields of the last block.
        count: their number.
    """

    def __init__(self, size: int, fields: int) -> None:
        super().__init__()
        self._size_limit = size
        self._fields_limit = fields
        self.fields: list[tuple[bytes, bytes]] = []
        self.size = 0
        self.count = 0

    def decode(self, data: bytes, raw: bool = False) -> Iterable[tuple[bytes, bytes]]:  # type: ignore[override]
        """Decode a block into `fields`; return no fields.

        Raises:
            HPACKError: the block is invalid.
            OversizedHeaderListError: it is far larger than the limits.
        """
        table = self.header_table
        dynamic = table.dynamic_entries
        size_limit = self._size_limit * EXCESS
        fields_limit = self._fields_limit * EXCESS
        fields: list[tuple[bytes, bytes]] = []
        size = count = 0
        at = 0
        end = len(data)
        while at < end:
            first = data[at]
            if first & 0x80:
                index = first & 0x7F
                if index == 0x7F:
                    index, used = decode_integer(data[at : at + 8], 7)
                    at += used
                else:
                    at += 1
                if 0 < index <= _STATIC_LENGTH:
                    field = _STATIC[index - 1]
                elif _STATIC_LENGTH < index <= _STATIC_LENGTH + len(dynamic):
                    field = dynamic[index - _STATIC_LENGTH - 1]
                else:
                    raise HPACKDecodingError(f"invalid table index {index}")
            elif first & 0xE0 == 0x20:
                if count:
                    raise HPACKDecodingError("table size update inside of a block")
                new_size, used = decode_integer(data[at : at + 8], 5)
                if new_size > self.max_allowed_table_size:
                    raise InvalidTableSizeError(f"a table of {new_size} bytes")
                self.header_table_size = new_size
                at += used
                continue
            else:
                indexed = first & 0x40
                bits = 6 if indexed else 4
                index, used = decode_integer(data[at : at + 8], bits)
                at += used
                if index:
                    name = table.get_by_index(index)[0]
                else:
                    name, at = _string(data, at, end)
                value, at = _string(data, at, end)
                field = (name, value)
                if indexed:
                    table.add(name, value)
            count += 1
            size += len(field[0]) + len(field[1]) + _FIELD_BYTES
            if count > fields_limit or size > size_limit:
                raise OversizedHeaderListError(
                    f"a head of more than {fields_limit} fields or {size_limit} bytes"
                )
            fields.append(field)
        if self.header_table_size > self.max_allowed_table_size:
            raise InvalidTableSizeError("the table was not reduced")
        self.fields, self.size, self.count = fields, size, count
        return ()


def _string(data: bytes, at: int, end: int) -> tuple[bytes, int]:
    """Return a string literal (RFC 7541 section 5.2) and the index after it."""
    if at >= end:
        raise HPACKDecodingError("truncated header block")
    first = data[at]
    length = first & 0x7F
    if length == 0x7F:
        length, used = decode_integer(data[at : at + 8], 7)
        at += used
    else:
        at += 1
    stop = at + length
    if stop > end:
        raise HPACKDecodingError("truncated header block")
    string = data[at:stop]
    return (decode_huffman(string) if first & 0x80 else string), stop


class TableUpdate:
    """The start of a response head, in place of hpack's encoder.

    No response uses the dynamic table, but a client that reduces its size expects to be
    told (RFC 7541 section 4.2).

    Attributes:
        header_table_size: the size that the client allows. Set by h2.
    """

    __slots__ = ("_size", "_update")

    def __init__(self) -> None:
        self._size = HeaderTable.DEFAULT_SIZE
        self._update = _NO_TABLE

    @property
    def header_table_size(self) -> int:
        """The size that the client allows."""
        return self._size

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        self._size = size
        self._update = _NO_TABLE

    def start(self) -> bytes:
        """Return the bytes before the fields of the next head."""
        update, self._update = self._update, b""
        return update


#: Cache of encoded fields: the line of a field, as in HTTP/1.1, to its encoding.
_encoded: dict[bytes, bytes] = {}
#: Cache of encoded statuses.
_statuses: dict[int, bytes] = {}


def encode_status(code: int) -> bytes:
    """Return the encoded `:status` of a response."""
    encoded = _statuses.get(code)
    if encoded is None:
        text = b"%d" % code
        field = (b":status", text)
        if field in _STATIC:
            encoded = bytes([0x80 | (_STATIC.index(field) + 1)])
        else:
            encoded = _literal(b":status", text)
        _statuses[code] = encoded
    return encoded


def encode_fields(lines: Iterable[bytes]) -> bytes:
    """Return encoded fields.

    Args:
        lines: the lines of the fields, valid and with CRLF, as in HTTP/1.1; empty
            ones are left out.
    """
    parts = []
    for line in lines:
        encoded = _encoded.get(line)
        if encoded is None:
            encoded = _encode_line(line)
        parts.append(encoded)
    return b"".join(parts)


def _encode_line(line: bytes) -> bytes:
    if not line:
        return b""
    name, _, value = line[:-2].partition(b":")
    name, value = name.lower(), value.strip(b" \t")
    encoded = _literal(name, value)
    if name not in _SECRET and len(value) <= _CACHED_VALUE_BYTES:
        if len(_encoded) >= _CACHE_ENTRIES:
            _encoded.clear()
        _encoded[line] = encoded
    return encoded


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a literal field without indexing (RFC 7541 sections 6.2.2, 6.2.3)."""
    kind = 0x10 if name in _SECRET else 0
    index = _STATIC_NAMES.get(name, 0)
    start = encode_integer(index, 4)
    start[0] |= kind
    if not index:
        start += encode_integer(len(name), 7)
        start += name
    return bytes(start + encode_integer(len(value), 7) + value)
