"""Pillow, bcrypt and argon2-cffi after `txgreenwsgi.monkey.patch_heavy`.

These libraries are large, so the tests exist only in an environment that has them:

    python3 -m venv heavy && heavy/bin/pip install . Pillow bcrypt argon2-cffi
    heavy/bin/python -m twisted.trial tests.integration.test_heavy_libraries

Each test is a program of its own, because it patches.
"""

from __future__ import annotations

import subprocess
import sys
import textwrap
from importlib.util import find_spec

from twisted.trial.unittest import SynchronousTestCase

_START = """
import io, socket, sys, tempfile, threading
from twisted.internet import reactor
from txgreenwsgi import monkey, react, sleep, spawn
{before}
monkey.patch_heavy(warn=False)
{after}

def parks(function, *args, **kwargs):
    # Not callLater: the reactor makes the calls of threads, such as the one that ends
    # the wait, before those.
    ran = []
    reactor.callFromThread(ran.append, None)
    result = function(*args, **kwargs)
    return bool(ran), result

def main():
{main}
    print("passed", flush=True)

react(main)
"""

_IMAGES = """
large = Image.linear_gradient("L").resize((1500, 1000)).convert("RGB")
small = large.resize((20, 10))
for name, args in (
    ("convert", ("L",)), ("rotate", (30,)), ("transpose", (0,)), ("copy", ()),
    ("crop", ((0, 0, 900, 900),)), ("filter", (ImageFilter.BLUR,)), ("split", ()),
    ("tobytes", ()), ("histogram", ()), ("reduce", (2,)), ("quantize", (8,)),
    ("thumbnail", ((500, 500),)), ("point", ([0] * 768,)), ("getbbox", ()),
):
    assert parks(getattr(large.copy(), name), *args)[0], name
    assert not parks(getattr(small.copy(), name), *args)[0], name
assert parks(small.resize, (2000, 2000))[0]  # the result is large
assert parks(small.resize, size=(2000, 2000))[0]
assert parks(Image.blend, large, large, 0.5)[0]
assert parks(Image.merge, "RGB", large.split())[0]
assert parks(ImageChops.add, image1=large, image2=large)[0]
assert not parks(ImageChops.add, small, small)[0]
here = threading.get_ident()
threads = set()
large.point(lambda value: threads.add(threading.get_ident()) or value)
assert threads == {here}  # the application's function

for kind in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "PPM"):
    file = io.BytesIO()
    assert parks(large.save, file, kind)[0], kind
    parked, image = parks(Image.open, io.BytesIO(file.getvalue()))
    assert not parked and image.size == large.size, kind
    assert parks(image.load)[0], kind
    assert not parks(image.load)[0], kind  # decoded
    assert image.getpixel((3, 4)) is not None
    image.close()
    plain = io.BytesIO()
    small.save(plain, kind)
    with Image.open(io.BytesIO(plain.getvalue())) as image:
        assert not parks(image.load)[0], kind

# A stream of the task: encoded in a thread, written in the task.
class Stream:
    def __init__(self):
        self.parts, self.threads = [], set()
    def write(self, data):
        self.threads.add(threading.get_ident())
        self.parts.append(data)
stream = Stream()
assert parks(large.save, stream, "JPEG")[0]
assert stream.threads == {here}
assert Image.open(io.BytesIO(b"".join(stream.parts))).size == large.size

# A file that only the task may read, such as a socket's.
class Source(io.RawIOBase):
    def __init__(self, data):
        self.inner, self.threads = io.BytesIO(data), set()
    def read(self, size=-1):
        self.threads.add(threading.get_ident())
        return self.inner.read(size)
    def seek(self, *args):
        return self.inner.seek(*args)
    def tell(self):
        return self.inner.tell()
source = Source(file.getvalue())
with Image.open(source) as image:
    image.thumbnail((100, 100))
assert source.threads == {here}

# Files on the disk, and a class derived from one of `io`.
class Derived(io.BytesIO):
    threads = set()
    def read(self, *args):
        self.threads.add(threading.get_ident())
        return super().read(*args)
with tempfile.TemporaryFile() as opened, tempfile.NamedTemporaryFile() as named, \\
        tempfile.SpooledTemporaryFile() as spooled:
    for target in (opened, named, spooled, named.name):
        assert parks(large.save, target, "JPEG")[0], target
        with Image.open(target) as image:
            assert parks(image.load)[0], target
with Image.open(Derived(file.getvalue())) as image:
    image.load()
assert Derived.threads == {here}

# Errors are Pillow's own.
broken = Image.open(io.BytesIO(file.getvalue()[:2000]))
try:
    broken.load()
except OSError as error:
    assert "truncated" in str(error), error
else:
    raise AssertionError("no error")
try:
    large.save(io.BytesIO(), "NONE")
except KeyError:
    pass
"""

_HASHES = """
hashed = parks(bcrypt.hashpw, b"password", bcrypt.gensalt(4))
assert hashed[0]
assert parks(bcrypt.checkpw, b"password", hashed[1]) == (True, True)
assert parks(bcrypt.checkpw, b"wrong", hashed[1]) == (True, False)
hasher = argon2.PasswordHasher(time_cost=1, memory_cost=1024)
parked, text = parks(hasher.hash, "password")
assert parked and parks(hasher.verify, text, "password") == (True, True)
try:
    hasher.verify(text, "wrong")
except argon2.exceptions.VerifyMismatchError:
    pass
else:
    raise AssertionError("no error")
"""

_PIL = "from PIL import Image, ImageChops, ImageFilter"


class _ProgramTestCase(SynchronousTestCase):
    def run_program(self, main: str, before: str = "", after: str = "") -> None:
        """Run `main` in a task, after imports before and after patching."""
        program = _START.format(
            before=before, after=after, main=textwrap.indent(main, "    ")
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=240,
            stdin=subprocess.DEVNULL,
        )
        self.assertIn("passed", done.stdout, done.stderr)


if find_spec("PIL") is not None:

    class PillowTests(_ProgramTestCase):
        """Operations on large images park; those on small ones do not."""

        def test_imported_later(self) -> None:
            """The usual order: patch, then import."""
            self.run_program(_IMAGES, after=_PIL)

        def test_imported_before(self) -> None:
            """Pillow and its plugins may have been imported before."""
            self.run_program(_IMAGES, before=f"{_PIL}\nImage.init()")


if find_spec("bcrypt") is not None and find_spec("argon2") is not None:

    class PasswordTests(_ProgramTestCase):
        """Password hashes of other libraries park."""

        def test_imported_later(self) -> None:
            """The usual order: patch, then import."""
            self.run_program(_HASHES, after="import argon2, bcrypt")
