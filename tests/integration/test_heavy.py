"""Heavy calls in tasks: which run in threads, their results, and interruptions.

`txgreenwsgi.monkey.patch_heavy` is tested in other processes: this one stays
unpatched.
"""

from __future__ import annotations

import bz2
import hashlib
import lzma
import os
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from twisted.internet import reactor as installed
from twisted.trial.unittest import SynchronousTestCase, TestCase

from txgreenwsgi import Cancelled, TimedOut, in_greenlet, offload, sleep, spawn, timeout
from txgreenwsgi.green import heavy

from .processes import serve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

reactor: Any = installed

SMALL = b"txgreenwsgi"
LARGE = b"".join(b"%d," % number for number in range(30000))
KILOBYTE = LARGE[:1024]


def module(name: str) -> Any:
    """Return the replacements in a module as a namespace."""
    return SimpleNamespace(**heavy.replacements()[name])


def parks(function: Callable[[], object]) -> bool:
    """Return whether the reactor runs while the task calls `function`."""
    ran: list[None] = []
    # Not callLater: the reactor makes the calls of threads, such as the one that ends
    # the wait, before those.
    reactor.callFromThread(ran.append, None)
    function()
    return bool(ran)


def compressed(make: Callable[[], Any], data: bytes) -> bytes:
    """Return `data` compressed by a new object."""
    compressor = make()
    head: bytes = compressor.compress(data)
    return head + compressor.flush()  # type: ignore[no-any-return]


def blocks_of(data: bytes) -> Iterable[bytes]:
    """Yield `data` in pieces of odd sizes."""
    size, start = 1, 0
    while start < len(data):
        yield data[start : start + size]
        start += size
        size = size * 3 % 7919 + 1


class InTaskTests(TestCase):
    """Calls in a task on the real reactor."""

    @in_greenlet
    def test_large_calls_park(self) -> None:
        """Calls with much work let the reactor run; those with little do not."""
        names: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {}
        z, b, x = module("zlib"), module("bz2"), module("lzma")
        h, o = module("hashlib"), module("os")
        packed = {
            "zlib": zlib.compress(LARGE),
            "bz2": bz2.compress(LARGE),
            "lzma": lzma.compress(LARGE),
        }
        names["compress"] = (lambda: z.compress(SMALL), lambda: z.compress(LARGE))
        names["bytearray"] = (
            lambda: z.compress(bytearray(SMALL)),
            lambda: z.compress(bytearray(LARGE)),
        )
        names["compressobj"] = (
            lambda: compressed(z.compressobj, SMALL),
            lambda: compressed(z.compressobj, LARGE),
        )
        names["decompress"] = (
            lambda: z.decompress(zlib.compress(SMALL)),
            lambda: z.decompress(packed["zlib"]),
        )
        names["decompressobj"] = (
            lambda: z.decompressobj().decompress(zlib.compress(SMALL)),
            lambda: z.decompressobj().decompress(packed["zlib"]),
        )
        names["BZ2Compressor"] = (
            lambda: compressed(b.BZ2Compressor, SMALL),
            lambda: compressed(b.BZ2Compressor, LARGE),
        )
        names["BZ2Decompressor"] = (
            lambda: b.BZ2Decompressor().decompress(bz2.compress(SMALL)),
            lambda: b.BZ2Decompressor().decompress(packed["bz2"]),
        )
        names["LZMACompressor"] = (
            lambda: compressed(x.LZMACompressor, SMALL),
            lambda: compressed(x.LZMACompressor, LARGE),
        )
        names["LZMADecompressor"] = (
            lambda: x.LZMADecompressor().decompress(lzma.compress(SMALL)),
            lambda: x.LZMADecompressor().decompress(packed["lzma"]),
        )
        names["pbkdf2_hmac"] = (
            lambda: h.pbkdf2_hmac("sha256", SMALL, SMALL, 10),
            lambda: h.pbkdf2_hmac("sha256", SMALL, SMALL, iterations=20000),
        )
        names["pbkdf2_hmac, long"] = (
            lambda: h.pbkdf2_hmac("sha256", SMALL, SMALL, 10, 32),
            lambda: h.pbkdf2_hmac("sha256", SMALL, SMALL, 10, 32000),
        )
        names["scrypt"] = (
            lambda: h.scrypt(SMALL, salt=SMALL, n=16, r=1, p=1),
            lambda: h.scrypt(SMALL, salt=SMALL, n=1024, r=8, p=1),
        )
        with tempfile.TemporaryFile() as file:
            names["fsync"] = (int, lambda: o.fsync(file.fileno()))
            for name, (small, large) in names.items():
                self.assertFalse(parks(small), name)
                self.assertTrue(parks(large), name)

    @in_greenlet
    def test_small_blocks_add_up(self) -> None:
        """A loop over small blocks lets the reactor run from time to time."""
        z, b = module("zlib"), module("bz2")
        deflater, packer = z.compressobj(), b.BZ2Compressor()
        output = list[bytes]()
        self.assertTrue(
            parks(lambda: output.extend(deflater.compress(KILOBYTE) for _ in "x" * 40))
        )
        output.append(deflater.flush())
        self.assertTrue(parks(lambda: [packer.compress(KILOBYTE) for _ in "x" * 40]))
        inflater = z.decompressobj()
        random = zlib.compress(os.urandom(40000))
        self.assertTrue(
            parks(
                lambda: [inflater.decompress(block) for block in blocks_of(random)],
            )
        )
        self.assertEqual(zlib.decompress(b"".join(output)), KILOBYTE * 40)

    @in_greenlet
    def test_same_output(self) -> None:
        """Output, attributes and errors are those of the originals."""
        z, b, x = module("zlib"), module("bz2"), module("lzma")
        for original, green, decoder in (
            (zlib.compressobj, z.compressobj, z.decompressobj),
            (bz2.BZ2Compressor, b.BZ2Compressor, b.BZ2Decompressor),
            (lzma.LZMACompressor, x.LZMACompressor, x.LZMADecompressor),
        ):
            plain, ours = original(), green()
            expected = plain.compress(LARGE) + plain.flush()
            found = [ours.compress(block) for block in blocks_of(LARGE)]
            self.assertEqual(b"".join([*found, ours.flush()]), expected)
            if green is not z.compressobj:
                self.assertRaises(ValueError, ours.compress, b"more")
                self.assertRaises(ValueError, ours.flush)
            self.assertRaises(TypeError, green().compress, "text")
            unpacked = decoder()
            parts = [unpacked.decompress(part) for part in blocks_of(expected + b"")]
            self.assertEqual(b"".join(parts), LARGE)
            self.assertTrue(unpacked.eof)
            limited = decoder()
            self.assertEqual(limited.decompress(expected, 7), LARGE[:7])
            self.assertFalse(limited.eof)
            rest = decoder()
            rest.decompress(expected + b"rest")
            self.assertEqual(rest.unused_data, b"rest")
        self.assertIsInstance(b.BZ2Compressor, type)
        self.assertRaises(zlib.error, z.decompress, LARGE)
        copy = (first := z.compressobj()).copy()
        self.assertEqual(copy.compress(LARGE), first.compress(LARGE))

    @in_greenlet
    def test_interrupted(self) -> None:
        """An interruption ends the wait for a function; its call runs to the end."""
        begin, end, seen = threading.Event(), threading.Event(), list[str]()

        def compute(*args: object) -> bytes:
            begin.set()
            end.wait(20)
            seen.append("ended")
            return b""

        self.patch(hashlib, "pbkdf2_hmac", compute)
        pbkdf2_hmac = module("hashlib").pbkdf2_hmac
        task = spawn(pbkdf2_hmac, "sha256", b"", b"", 10**6)
        while not begin.is_set():
            sleep(0.001)
        task.cancel()
        with self.assertRaises(Cancelled):
            task.wait()
        self.assertEqual(seen, [])
        end.set()
        while not seen:
            sleep(0.001)

    @in_greenlet
    def test_interrupted_with_an_object(self) -> None:
        """While a thread uses an object of the task, interruptions are deferred."""
        end, seen = threading.Event(), list[bool]()
        self.patch(os, "fsync", lambda fd: end.wait(20))
        fsync = module("os").fsync
        reactor.callLater(0.05, end.set)
        with self.assertRaises(TimedOut), timeout(0.01):
            seen.append(fsync(0))
            sleep(0.001)
        self.assertEqual(seen, [True])

    @in_greenlet
    def test_killed(self) -> None:
        """A task that is being killed cannot wait: the call is direct."""
        z, found = module("zlib"), list[bytes]()

        def run() -> None:
            try:
                sleep(1000)
            finally:
                found.append(z.compress(LARGE))

        task = spawn(run)
        sleep(0)
        reactor.callLater(0, task.kill)
        sleep(0.01)
        self.assertEqual(found, [zlib.compress(LARGE)])

    @in_greenlet
    def test_in_a_thread(self) -> None:
        """In a real thread, the call is made there."""
        threads = list[int]()

        def note(*args: object) -> bytes:
            threads.append(threading.get_ident())
            return b""

        self.patch(hashlib, "pbkdf2_hmac", note)
        pbkdf2_hmac = module("hashlib").pbkdf2_hmac

        def call() -> None:
            threads.append(threading.get_ident())
            pbkdf2_hmac("sha256", b"", b"", 10**6)

        offload(call)
        self.assertEqual(threads[0], threads[1])
        self.assertNotEqual(threads[0], threading.get_ident())


class OutsideTaskTests(SynchronousTestCase):
    """Calls in the reactor greenlet."""

    def test_direct(self) -> None:
        """The calls are direct, with the same results."""
        z = module("zlib")
        self.assertEqual(z.compress(LARGE, 1), zlib.compress(LARGE, 1))
        self.assertEqual(z.decompress(zlib.compress(LARGE)), LARGE)
        self.assertEqual(
            module("hashlib").pbkdf2_hmac("sha1", b"a", b"b", 3000),
            hashlib.pbkdf2_hmac("sha1", b"a", b"b", 3000),
        )
        with tempfile.TemporaryFile() as file:
            module("os").fsync(file.fileno())
        self.assertRaises(ValueError, module("os").fsync, -1)

    def test_wrong_arguments(self) -> None:
        """Wrong arguments raise the errors of the originals."""
        h, z = module("hashlib"), module("zlib")
        self.assertRaises(TypeError, h.pbkdf2_hmac, "sha1", b"a", b"b", "many")
        self.assertRaises(ValueError, h.pbkdf2_hmac, "sha1", b"a", b"b", -1)
        self.assertRaises(TypeError, h.scrypt, b"a")
        self.assertRaises(TypeError, z.compress)
        self.assertRaises(TypeError, z.compress, "text")


_PATCHED = """
import warnings
from twisted.internet import reactor
from zlib import compress
import early
from txgreenwsgi import monkey, react

with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    monkey.patch_heavy()
    monkey.patch_heavy()
assert not caught, caught[0]
assert monkey.is_patched("heavy")

import bz2, gzip, hashlib, io, lzma, os, sqlite3, tarfile, zipfile, zlib
assert early.compress is zlib.compress is compress
assert early.original[0] is monkey.original("zlib", "compress") is not zlib.compress
DATA = b"".join(b"%d," % number for number in range(30000))

def main():
    for package in (gzip, bz2, lzma, zlib):
        assert package.decompress(package.compress(DATA)) == DATA
    for package in (gzip, bz2, lzma):
        file = io.BytesIO()
        with package.open(file, "wb") as packed:
            for start in range(0, len(DATA), 777):
                packed.write(DATA[start:start + 777])
        file.seek(0)
        with package.open(file) as packed:
            assert packed.read() == DATA
    for kind in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", kind) as archive:
            archive.writestr("a", DATA)
        assert zipfile.ZipFile(file).read("a") == DATA
    for kind in ("gz", "bz2", "xz"):
        file = io.BytesIO()
        with tarfile.open(None, "w|" + kind, file) as archive:
            member = tarfile.TarInfo("a")
            member.size = len(DATA)
            archive.addfile(member, io.BytesIO(DATA))
        file.seek(0)
        with tarfile.open(None, "r:" + kind, file) as archive:
            assert archive.extractfile("a").read() == DATA
    with sqlite3.connect(":memory:") as connection:
        assert isinstance(connection, sqlite3.Connection)
        assert type(connection).__module__ == "txgreenwsgi.green.sqlite3"
        connection.execute("create table t (a)")
        connection.execute("insert into t values (?)", (DATA,))
        assert connection.execute("select a from t").fetchall() == [(DATA,)]
    connection.close()
    from sqlite3 import dbapi2
    assert dbapi2.connect is sqlite3.connect
    print("passed", flush=True)

react(main)
"""


class PatchTests(SynchronousTestCase):
    """`patch_heavy` in another process."""

    def test_standard_library(self) -> None:
        """Modules that use the patched ones work, also if imported before."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        (folder / "early.py").write_text(
            "from zlib import compress\noriginal = [compress]\n"
        )
        (folder / "main.py").write_text(_PATCHED)
        done = subprocess.run(
            [sys.executable, str(folder / "main.py")],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertIn("passed", done.stdout, done.stderr)


_APP = """
import sqlite3

def application(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/insert":
        connection = sqlite3.connect("shop.db", timeout=60)
        with connection:
            connection.execute("insert into orders values (1)")
        connection.close()
        return [b"inserted"]
    return [b"hello"]
"""


_FROZEN = """
import gc

def application(environ, start_response):
    start_response("200 OK", [])
    return [str(gc.get_freeze_count()).encode()]
"""


class CommandTests(SynchronousTestCase):
    """`twistd greenwsgi --offload heavy` and `--gc`."""

    def test_frozen(self) -> None:
        """The command excludes the application from garbage collection."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        (folder / "frozen.py").write_text(_FROZEN)
        words = ("frozen:application", f"--chdir={folder}")
        self.assertGreater(int(serve(self, *words).fetch("/").body), 10000)
        unchanged = serve(self, *words, "--gc=unchanged")
        self.assertEqual(unchanged.fetch("/").body, b"0")

    def test_locked_database(self) -> None:
        """While one request waits for SQLite's lock, others are answered."""
        folder = Path(self.mktemp()).resolve()
        folder.mkdir()
        (folder / "shop.py").write_text(textwrap.dedent(_APP))
        holder = sqlite3.connect(folder / "shop.db", isolation_level=None)
        self.addCleanup(holder.close)
        holder.execute("create table orders (number)")
        server = serve(self, "shop:application", f"--chdir={folder}", "--offload=heavy")
        holder.execute("begin exclusive")
        with ThreadPoolExecutor(1) as pool:
            inserted = pool.submit(server.fetch, "/insert")
            for _ in range(20):
                self.assertEqual(server.fetch("/").body, b"hello")
            self.assertFalse(inserted.done())
            holder.execute("commit")
            self.assertEqual(inserted.result().body, b"inserted")
        self.assertEqual(holder.execute("select number from orders").fetchall(), [(1,)])
