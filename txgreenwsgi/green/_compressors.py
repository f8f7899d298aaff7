"""Compressors and decompressors that work in a thread while the task waits.

Each object wraps one of `zlib`, `bz2` or `lzma` and has its attributes and methods.
Small amounts are processed directly. The amounts add up, so that a loop over small
blocks also lets other requests run.

It knows the interfaces of these modules. It must never know what the data are.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from typing import TYPE_CHECKING, Any, Final

from ._heavy_calls import run_heavy, run_heavy_on_shared, size_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

__all__ = [
    "BZ2_BYTES",
    "DEFLATE_BYTES",
    "INFLATE_BYTES",
    "LZMA_BYTES",
    "REPLACED",
    "BZ2Compressor",
    "BZ2Decompressor",
    "LZMACompressor",
    "LZMADecompressor",
]

# Input sizes, in bytes, from which a call takes about 0.3 ms or more: twice the cost of
# the thread.
DEFLATE_BYTES: Final = 32768
#: Small, because the output may be a thousand times as long.
INFLATE_BYTES: Final = 16384
BZ2_BYTES: Final = 4096
#: Creating the encoder takes most of the time.
LZMA_BYTES: Final = 1024
LZMA_DECODE_BYTES: Final = 4096
#: Bytes of output that take as long to produce as one byte of input to compress.
OUTPUT_PER_INPUT: Final = 8

_deflate: Any = zlib.compress
_inflate: Any = zlib.decompress
_make_deflater: Any = zlib.compressobj
_make_inflater: Any = zlib.decompressobj


def compress(data: object, /, *args: object, **kwargs: object) -> Any:
    """As `zlib.compress`. May park if the data are large."""
    if size_of(data) < DEFLATE_BYTES:
        return _deflate(data, *args, **kwargs)
    run = run_heavy if type(data) is bytes else run_heavy_on_shared
    return run(_deflate, data, *args, **kwargs)


def decompress(data: object, /, *args: object, **kwargs: object) -> Any:
    """As `zlib.decompress`. May park if the data are large."""
    if size_of(data) < INFLATE_BYTES:
        return _inflate(data, *args, **kwargs)
    run = run_heavy if type(data) is bytes else run_heavy_on_shared
    return run(_inflate, data, *args, **kwargs)


class _Deflater:
    """As the object that `zlib.compressobj` returns."""

    __slots__ = ("_bytes", "_inner")

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        # Bytes processed since the last call in a thread.
        self._bytes = 0

    def compress(self, data: object, /) -> Any:
        """As the original. May park."""
        self._bytes += size_of(data)
        if self._bytes < DEFLATE_BYTES:
            return self._inner.compress(data)
        self._bytes = 0
        return run_heavy_on_shared(self._inner.compress, data)

    def flush(self, *args: object) -> Any:
        """As the original. Never parks: little data is left."""
        return self._inner.flush(*args)

    def copy(self) -> Self:
        """As the original. Never parks."""
        return type(self)(self._inner.copy())

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: object) -> Self:
        return self.copy()


class _Decoder:
    """The common part of all decompressors."""

    __slots__ = ("_bytes", "_inner")
    _limit = INFLATE_BYTES

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        # Bytes processed since the last call in a thread.
        self._bytes = 0

    def _decode(
        self, function: Callable[..., Any], size: int, *args: Any, **kwargs: Any
    ) -> Any:
        self._bytes += size
        if self._bytes < self._limit:
            output = function(*args, **kwargs)
            self._bytes += len(output) // OUTPUT_PER_INPUT
            return output
        self._bytes = 0
        return run_heavy_on_shared(function, *args, **kwargs)

    @property
    def eof(self) -> Any:
        """As the original."""
        return self._inner.eof

    @property
    def unused_data(self) -> Any:
        """As the original."""
        return self._inner.unused_data


class _Inflater(_Decoder):
    """As the object that `zlib.decompressobj` returns."""

    __slots__ = ()

    def decompress(self, data: object, /, *args: object, **kwargs: object) -> Any:
        """As the original. May park."""
        return self._decode(
            self._inner.decompress, size_of(data), data, *args, **kwargs
        )

    def flush(self, *args: object) -> Any:
        """As the original. May park."""
        tail = len(self._inner.unconsumed_tail)
        return self._decode(self._inner.flush, tail, *args)

    def copy(self) -> Self:
        """As the original. Never parks."""
        return type(self)(self._inner.copy())

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: object) -> Self:
        return self.copy()

    @property
    def unconsumed_tail(self) -> Any:
        """As the original."""
        return self._inner.unconsumed_tail


_Deflater.__name__ = _Deflater.__qualname__ = "Compress"
_Inflater.__name__ = _Inflater.__qualname__ = "Decompress"


def compressobj(*args: object, **kwargs: object) -> Any:
    """As `zlib.compressobj`; its methods may park."""
    return _Deflater(_make_deflater(*args, **kwargs))


def decompressobj(*args: object, **kwargs: object) -> Any:
    """As `zlib.decompressobj`; its methods may park."""
    return _Inflater(_make_inflater(*args, **kwargs))


class _StreamDecoder(_Decoder):
    """The common part of the decompressor classes."""

    __slots__ = ()
    _original: Any

    def __init__(self, *args: object, **kwargs: object) -> None:
        super().__init__(type(self)._original(*args, **kwargs))

    def decompress(self, data: object, max_length: int = -1) -> Any:
        """As the original. May park."""
        return self._decode(self._inner.decompress, size_of(data), data, max_length)

    @property
    def needs_input(self) -> Any:
        """As the original."""
        return self._inner.needs_input


class BZ2Decompressor(_StreamDecoder):
    """As `bz2.BZ2Decompressor`; `decompress` may park."""

    __slots__ = ()
    _original = bz2.BZ2Decompressor
    _limit = BZ2_BYTES


class LZMADecompressor(_StreamDecoder):
    """As `lzma.LZMADecompressor`; `decompress` may park."""

    __slots__ = ()
    _original = lzma.LZMADecompressor
    _limit = LZMA_DECODE_BYTES

    @property
    def check(self) -> Any:
        """As the original."""
        return self._inner.check


class _BlockEncoder:
    """The common part of the compressors that process their input in large blocks.

    The call that completes a block of up to 900 KB takes 100 ms. Input is collected
    here, so that this call is never one with a few bytes.
    """

    __slots__ = ("_collected", "_inner", "_is_large", "_size")
    _original: Any
    _limit = 0

    def __init__(self, *args: object, **kwargs: object) -> None:
        self._inner = type(self)._original(*args, **kwargs)
        self._collected: list[bytes] = []
        # Bytes in `_collected`; -1 after `flush`.
        self._size = 0
        # True once the object has got much data, which `flush` may have to process.
        self._is_large = False

    def compress(self, data: Any, /) -> Any:
        """As the original. May park."""
        size = size_of(data)
        if not size or self._size < 0:
            return self._inner.compress(data)  # nothing to do, or raises
        if self._size + size < self._limit:
            self._size += size
            self._collected.append(bytes(data))
            return b""
        self._is_large = True
        if self._collected:
            data = self._take(data)
        return run_heavy_on_shared(self._inner.compress, data)

    def flush(self) -> Any:
        """As the original. May park."""
        data = self._take()
        self._size = -1
        if not self._is_large:
            return self._finish(data)
        return run_heavy_on_shared(self._finish, data)

    def _take(self, *more: bytes) -> bytes:
        data = b"".join([*self._collected, *more])
        self._collected.clear()
        self._size = 0
        return data

    def _finish(self, data: bytes) -> Any:
        head = self._inner.compress(data) if data else b""
        return head + self._inner.flush()


class BZ2Compressor(_BlockEncoder):
    """As `bz2.BZ2Compressor`; its methods may park."""

    __slots__ = ()
    _original = bz2.BZ2Compressor
    _limit = BZ2_BYTES


class LZMACompressor(_BlockEncoder):
    """As `lzma.LZMACompressor`; its methods may park."""

    __slots__ = ()
    _original = lzma.LZMACompressor
    _limit = LZMA_BYTES


#: The replacements, by module and name.
REPLACED: dict[str, dict[str, Any]] = {
    "zlib": {
        "compress": compress,
        "compressobj": compressobj,
        "decompress": decompress,
        "decompressobj": decompressobj,
    },
    "bz2": {"BZ2Compressor": BZ2Compressor, "BZ2Decompressor": BZ2Decompressor},
    "lzma": {"LZMACompressor": LZMACompressor, "LZMADecompressor": LZMADecompressor},
}

if "_ZlibDecompressor" in vars(zlib):  # since Python 3.12, for gzip

    class ZlibDecompressor(_StreamDecoder):
        """As `zlib._ZlibDecompressor`; `decompress` may park."""

        __slots__ = ()
        _original: Any = vars(zlib)["_ZlibDecompressor"]

    REPLACED["zlib"]["_ZlibDecompressor"] = ZlibDecompressor
