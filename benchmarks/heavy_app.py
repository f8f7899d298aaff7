"""An application with one kind of heavy work at each path, and a trivial page.

`/collect` calls the garbage collector, as some applications do after each request.
"""

from __future__ import annotations

import gc
import hashlib
import io
import os
import sqlite3
import tempfile
import zlib
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Undo the pinning to one CPU: threads are to use the others.
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, range(os.cpu_count() or 1))

_FOLDER = tempfile.mkdtemp(prefix="benchmarks-heavy-")
_TEXT = b"".join(b"%d lines of text\n" % number for number in range(250_000))
_PACKED = zlib.compress(_TEXT)


def _pbkdf2() -> None:
    hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 200_000)


def _scrypt() -> None:
    hashlib.scrypt(b"password", salt=b"salt", n=2**14, r=8, p=1)


def _deflate() -> None:
    zlib.compress(_TEXT)


def _inflate() -> None:
    for _ in range(8):
        zlib.decompress(_PACKED)


def _bz2() -> None:
    import_module("bz2").compress(_TEXT[:800_000])


def _lzma() -> None:
    import_module("lzma").compress(_TEXT[:800_000])


def _sqlite() -> None:
    with closing(sqlite3.connect(f"{_FOLDER}/orders.db", timeout=60)) as connection:
        connection.execute("pragma journal_mode=wal")
        connection.execute("create table if not exists orders (number, text)")
        with connection:
            connection.executemany(
                "insert into orders values (?, ?)",
                [(number, "text" * 20) for number in range(20_000)],
            )
        connection.execute("select count(distinct text) from orders").fetchone()
        with connection:
            connection.execute("delete from orders")


def _fsync() -> None:
    with tempfile.TemporaryFile(dir=_FOLDER) as file:
        file.write(_TEXT)
        file.flush()
        os.fsync(file.fileno())


def _photo() -> bytes:
    """Return a JPEG of twelve megapixels."""
    image: Any = import_module("PIL.Image")
    file = io.BytesIO()
    image.effect_noise((4000, 3000), 40).convert("RGB").save(file, "JPEG", quality=92)
    return file.getvalue()


_photos: list[bytes] = []


def _pillow() -> None:
    image: Any = import_module("PIL.Image")
    with image.open(io.BytesIO(_photos[0])) as photo:
        photo.resize((800, 600)).convert("L").save(io.BytesIO(), "JPEG")


def _collect() -> None:
    gc.collect()


WORK: dict[str, Callable[[], None]] = {
    "pbkdf2": _pbkdf2,
    "scrypt": _scrypt,
    "sqlite": _sqlite,
    "pillow": _pillow,
    "zlib": _deflate,
    "unzlib": _inflate,
    "bz2": _bz2,
    "lzma": _lzma,
    "fsync": _fsync,
    "collect": _collect,
}


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Do the work that the path names; by default, none."""
    name = environ["PATH_INFO"].strip("/")
    if name == "prepare-pillow":
        _photos.append(_photo())
    elif name:
        WORK[name]()
    body = b"done\n"
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
