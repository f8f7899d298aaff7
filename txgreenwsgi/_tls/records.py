"""Encryption and decryption for one connection, in memory that connections share.

pyOpenSSL's `recv` and `send` allocate a buffer and look up the callbacks of the context
at each call, and report missing data by an exception. This module calls the functions
of OpenSSL below them, through pyOpenSSL's own binding. Each connection keeps its state
and two memory BIOs (the input and the output of OpenSSL), which are empty between two
calls; plaintext and ciphertext are in buffers of the listener.

It knows OpenSSL's interface. It must never know sockets.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from OpenSSL import SSL
from OpenSSL._util import ffi, lib

__all__ = ["PIECE_BYTES", "Buffers", "Records", "is_supported"]

#: Maximum size of one `encrypt`.
PIECE_BYTES: Final = 65536

# RFC 8446 section 5.2: a record has at most 2^14 bytes of plaintext.
_RECORD_BYTES: Final = 16384

#: Size of the buffer for plaintext: as much as one read of the socket yields, with the
#: part of a record that OpenSSL holds from before, and room for a last whole record.
_PLAIN_BYTES: Final = 65536 + 3 * _RECORD_BYTES

#: Size of the buffer for ciphertext: a piece with the headers and tags of its records,
#: and other messages such as session tickets.
_CIPHER_BYTES: Final = PIECE_BYTES + 2 * _RECORD_BYTES

#: A BIO keeps the memory of the longest data that it has held. Longer input than this
#: is read where it is, and after longer output the BIO is replaced.
_LONG_BYTES: Final = 4096

_NEEDED: Final = (
    "BIO_get_mem_data",
    "BIO_new",
    "BIO_new_mem_buf",
    "BIO_read",
    "BIO_s_mem",
    "BIO_set_mem_eof_return",
    "BIO_write",
    "ERR_clear_error",
    "SSL_get_error",
    "SSL_read",
    "SSL_set_bio",
    "SSL_shutdown",
    "SSL_write",
)

_ATTRIBUTES: Final = ("_ssl", "_into_ssl", "_from_ssl")

_NULL: Any = ffi.NULL


@cache
def is_supported() -> bool:
    """Return whether pyOpenSSL has what `Records` needs."""
    connection = SSL.Connection(SSL.Context(SSL.TLS_METHOD), None)
    return all(hasattr(lib, name) for name in _NEEDED) and all(
        hasattr(connection, name) for name in _ATTRIBUTES
    )


class Buffers:
    """The memory that the connections of one listener share.

    Its content is valid until the next call of a method of any of their `Records`.
    """

    __slots__ = ("cipher", "cipher_view", "plain", "plain_view")

    def __init__(self) -> None:
        self.plain: Any = ffi.new("char[]", _PLAIN_BYTES)
        self.plain_view: Any = ffi.buffer(self.plain)
        self.cipher: Any = ffi.new("char[]", _CIPHER_BYTES)
        self.cipher_view = memoryview(ffi.buffer(self.cipher))


class Records:
    """The TLS state of one connection, without its socket.

    Call from the reactor greenlet or a task; no method parks. Bytes that OpenSSL wants
    to send (handshakes, alerts) are returned by the next `take`.

    Args:
        connection: a connection in memory, in accept state.
        buffers: memory shared with others in the same thread.

    Attributes:
        connection: as given.
        ended: whether the client has sent close_notify, or `failed`.
        failed: whether the client has violated the protocol.
    """

    __slots__ = (
        "_buffers",
        "_from",
        "_into",
        "_is_large",
        "_ssl",
        "connection",
        "ended",
        "failed",
    )

    def __init__(self, connection: SSL.Connection, buffers: Buffers) -> None:
        self.connection: Any = connection
        self._buffers = buffers
        self._ssl: Any = self.connection._ssl
        self._into: Any = self.connection._into_ssl
        self._from: Any = self.connection._from_ssl
        self.ended = False
        self.failed = False
        # Whether a BIO has held long data.
        self._is_large = True  # the certificates
        if hasattr(lib, "SSL_clear_mode"):
            # A call writes all records of a piece.
            lib.SSL_clear_mode(self._ssl, lib.SSL_MODE_ENABLE_PARTIAL_WRITE)

    def shake(self, data: bytes) -> bool:
        """Continue the handshake with bytes from the client.

        Returns:
            Whether it is complete.

        Raises:
            SSL.Error: it has failed.
        """
        self._feed(data)
        try:
            self.connection.do_handshake()
        except SSL.WantReadError:
            return False
        return True

    def _feed(self, data: bytes) -> None:
        if data and lib.BIO_write(self._into, data, len(data)) != len(data):
            raise MemoryError

    def decrypt(self, data: bytes) -> bytes:
        """Return the plaintext that is complete with these bytes from the client."""
        if len(data) > _LONG_BYTES and self._read_in_place(data):
            plain: bytes = self._decrypt_more()
            # `data` is used up, or not needed any more after an error.
            self._set_bios(_memory_bio(), self._from)
            return plain
        self._feed(data)
        buffers = self._buffers
        size: int = lib.SSL_read(self._ssl, buffers.plain, _PLAIN_BYTES)
        if size > 0 and not lib.BIO_get_mem_data(self._into, _NULL):
            # The common case: one record.
            plain = buffers.plain_view[:size]
            return plain
        return self._decrypt_more(size)

    def _read_in_place(self, data: bytes) -> bool:
        """Make `data` the input of OpenSSL without a copy; return whether it is."""
        if lib.BIO_get_mem_data(self._into, _NULL):
            return False  # after an error
        bio = lib.BIO_new_mem_buf(ffi.from_buffer(data), len(data))
        if bio == _NULL:
            return False
        lib.BIO_set_mem_eof_return(bio, -1)  # as of other BIOs: more may follow
        self._set_bios(bio, self._from)
        return True

    def _set_bios(self, into: Any, out: Any) -> None:
        # The connection owns them from now on, and frees their predecessors.
        lib.SSL_set_bio(self._ssl, into, out)
        self._into = self.connection._into_ssl = into
        self._from = self.connection._from_ssl = out

    def _decrypt_more(self, size: int | None = None) -> bytes:
        """Return the plaintext of all records.

        Args:
            size: the result of the first read; None if there was none.
        """
        plain, view = self._buffers.plain, self._buffers.plain_view
        if size is None:
            size = lib.SSL_read(self._ssl, plain, _PLAIN_BYTES)
        parts: list[bytes] = []
        total = 0
        while size > 0:
            total += size
            if _PLAIN_BYTES - total < _RECORD_BYTES:
                parts.append(view[:total])
                total = 0
            # A read returns the rest of a record if there is room for it. So OpenSSL
            # holds no plaintext when its input is used up.
            if not lib.BIO_get_mem_data(self._into, _NULL):
                break
            size = lib.SSL_read(self._ssl, plain + total, _PLAIN_BYTES - total)
        else:
            self._not_read(size)
        if total:
            parts.append(view[:total])
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _not_read(self, size: int) -> None:
        """Set `ended` and `failed` after a read without data."""
        kind = lib.SSL_get_error(self._ssl, size)
        if kind in (lib.SSL_ERROR_WANT_READ, lib.SSL_ERROR_WANT_WRITE):
            return
        self.ended = True
        if kind != lib.SSL_ERROR_ZERO_RETURN:
            self.failed = True
            # The next call must not take it for its own.
            lib.ERR_clear_error()

    def encrypt(self, data: bytes | memoryview, start: int, size: int) -> bool:
        """Encrypt a part of `data`; `take` returns the ciphertext.

        Args:
            data: the plaintext.
            start: index of the first byte.
            size: number of bytes, at least 1 and at most `PIECE_BYTES`.

        Returns:
            False if the connection does not accept it: it was shut down.
        """
        if size > _LONG_BYTES:
            self._is_large = True
        whole = size == len(data) and type(data) is bytes
        rest: Any = data if whole else ffi.from_buffer(data) + start
        written: int = lib.SSL_write(self._ssl, rest, size)
        if written == size:
            return True
        while 0 < written < size:  # one record at a time
            start += written
            size -= written
            rest = ffi.from_buffer(data) + start
            written = lib.SSL_write(self._ssl, rest, size)
        if written == size:
            return True
        lib.ERR_clear_error()
        return False

    def take(self) -> memoryview | bytes:
        """Return the bytes to send to the client, in the shared buffer if possible."""
        buffers = self._buffers
        size = lib.BIO_read(self._from, buffers.cipher, _CIPHER_BYTES)
        if size < _CIPHER_BYTES:
            return buffers.cipher_view[:size] if size > 0 else b""
        parts = []
        while size > 0:
            parts.append(bytes(buffers.cipher_view[:size]))
            size = lib.BIO_read(self._from, buffers.cipher, _CIPHER_BYTES)
        return b"".join(parts)

    def shut_down(self) -> None:
        """Produce a close_notify (RFC 8446 section 6.1). Call after the handshake."""
        if not self.failed and lib.SSL_shutdown(self._ssl) < 0:
            lib.ERR_clear_error()

    def shrink(self) -> None:
        """Release the memory that long messages have left in the BIOs.

        A no-op unless they are empty.
        """
        if (
            not self._is_large
            or lib.BIO_get_mem_data(self._into, _NULL)
            or lib.BIO_get_mem_data(self._from, _NULL)
        ):
            return
        self._is_large = False
        self._set_bios(_memory_bio(), _memory_bio())


def _memory_bio() -> Any:
    """Return an empty BIO in memory."""
    bio = lib.BIO_new(lib.BIO_s_mem())
    if bio == _NULL:
        raise MemoryError
    return bio
