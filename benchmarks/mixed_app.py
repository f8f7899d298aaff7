"""The application of `benchmarks.mixed`: a trivial page and eight kinds of work.

    python -m benchmarks.mixed_app FOLDER

creates the files that the work needs. The servers find them in `$MIXED_FOLDER`.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
import sqlite3
import sys
import time
import zlib
from contextlib import closing
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["WORK", "application", "prepare"]

FOLDER = Path(os.environ.get("MIXED_FOLDER", "."))
#: The trivial page.
HELLO = b"Hello, world!\n"
_WORDS = ("green", "thread", "task", "reactor", "wait", "page", "lock", "queue")
_JPEG_SIZE = (4096, 3072)
_FILE_MEGABYTES = 50
_READ_BYTES = 65536


def _pbkdf2() -> bytes:
    """Check a password, as a login does."""
    return hashlib.pbkdf2_hmac("sha256", b"password", b"salt", 300_000)


def _loop() -> bytes:
    """Compute in Python."""
    total = 0
    for number in range(1_200_000):
        total += number * number
    return b"%d" % total


def _image() -> bytes:
    """Make a thumbnail of a photograph of 8 MB."""
    image: Any = _pillow()
    with image.open(FOLDER / "photograph.jpeg") as photograph:
        # Not `thumbnail`, which would decode only every eighth line.
        small = photograph.resize((800, 600), reducing_gap=2.0)
    file = io.BytesIO()
    small.save(file, "jpeg")
    return file.getvalue()


def _pillow() -> Any:
    from PIL import Image

    return Image


def _sqlite() -> bytes:
    """Write five times to a database file, with fsync."""
    with closing(sqlite3.connect(FOLDER / "database.sqlite", 60.0)) as connection:
        for number in range(5):
            with connection:
                connection.execute("INSERT INTO note (text) VALUES (?)", (number,))
    return b"5"


def _files() -> bytes:
    """Read 50 MB of files."""
    size = 0
    for number in range(5):
        with open(FOLDER / f"file-{number}", "rb") as file:
            while block := file.read(_READ_BYTES):
                size += len(block)
    return b"%d" % size


def _zlib() -> bytes:
    """Compress 3 MB."""
    return zlib.compress(_text_of(3_000_000))


def _text_of(size: int) -> bytes:
    text = _texts.get(size)
    if text is None:
        chance = random.Random(1)  # the same in each server
        text = " ".join(chance.choices(_WORDS, k=size // 5)).encode()[:size]
        _texts[size] = text
    return text


_texts: dict[int, bytes] = {}
_TEMPLATE = """\
<table>
{% for row in rows -%}
<tr><td>{{ row }}</td><td>{{ words[row % 8] }}</td><td>{{ row * row }}</td></tr>
{% endfor -%}
</table>
"""


def _template() -> bytes:
    """Render a page of 5 MB from a Jinja2 template."""
    rendered: str = _compiled().render(rows=range(90_000), words=_WORDS)
    return rendered.encode()


def _compiled() -> Any:
    template = _templates.get(_TEMPLATE)
    if template is None:
        from jinja2 import Environment

        template = _templates[_TEMPLATE] = Environment(autoescape=True).from_string(
            _TEMPLATE
        )
    return template


_templates: dict[str, Any] = {}


def _pack(start_response: StartResponse) -> Iterable[bytes]:
    """Send a pack of a git repository, as for a clone; it comes by `write`."""
    repo, server, web = (_dulwich(name) for name in ("repo", "server", "web"))
    repository = repo.Repo(str(FOLDER / "repository"))
    want = b"want %s thin-pack side-band-64k ofs-delta\n" % repository.head()
    body = b"%04x%s00000009done\n" % (len(want) + 4, want)
    environ = {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/git-upload-pack",
        "CONTENT_TYPE": "application/x-git-upload-pack-request",
        "wsgi.input": io.BytesIO(body),
    }
    git = web.HTTPGitApplication(server.DictBackend({"/": repository}))
    try:
        yield from git(environ, start_response)
    finally:
        repository.close()


def _dulwich(name: str) -> Any:
    return import_module(f"dulwich.{name}")


#: The kinds of work: name -> function that returns the response.
WORK: dict[str, Callable[[], bytes]] = {
    "pbkdf2": _pbkdf2,
    "loop": _loop,
    "image": _image,
    "sqlite": _sqlite,
    "files": _files,
    "zlib": _zlib,
    "template": _template,
}


def application(
    environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Serve the trivial page at `/`, work at `/work/NAME`, a wait at `/sleep`."""
    path = environ["PATH_INFO"]
    if path == "/work/pack":
        return _pack(start_response)
    if path == "/":
        body = HELLO
    elif path == "/sleep":
        time.sleep(1)
        body = b"1"
    else:
        body = WORK[path.removeprefix("/work/")]()
    fields = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", fields)
    return [body]


def prepare(folder: Path) -> None:
    """Create the files of all kinds of work in an empty folder."""
    with closing(sqlite3.connect(folder / "database.sqlite")) as connection:
        connection.execute("CREATE TABLE note (text)")
        connection.commit()
    chance = random.Random(1)  # the same in each run
    for number in range(5):
        with open(folder / f"file-{number}", "wb") as file:
            for _ in range(_FILE_MEGABYTES // 5):
                file.write(chance.randbytes(1 << 20))
    _photograph(folder / "photograph.jpeg")
    _repository(folder / "repository", chance)


def _photograph(path: Path) -> None:
    """Write a JPEG of 12 megapixels and about 8 MB."""
    image: Any = _pillow()
    noise = image.effect_noise(_JPEG_SIZE, 40)
    shades = image.linear_gradient("L").resize(_JPEG_SIZE)
    merged = image.merge("RGB", (noise, shades, noise.transpose(0)))
    quality = 95
    while True:
        file = io.BytesIO()
        merged.save(file, "jpeg", quality=quality)
        if file.tell() < 8_500_000:
            break
        quality -= 3
    path.write_bytes(file.getvalue())


def _repository(path: Path, chance: random.Random) -> None:
    """Create a repository with 300 text files of 30 kB."""
    porcelain = _dulwich("porcelain")
    repository = porcelain.init(str(path))
    letters = "0123456789abcdefghijklmnopqrstuvwxyz \n"
    names = []
    for number in range(300):
        name = f"file-{number}.txt"
        (path / name).write_text("".join(chance.choices(letters, k=30_000)))
        names.append(str(path / name))
    porcelain.add(repository, names)
    author = b"Benchmark <benchmark@example.com>"
    porcelain.commit(repository, message=b"All", author=author, committer=author)
    repository.object_store.pack_loose_objects()
    repository.close()


if __name__ == "__main__":
    prepare(Path(sys.argv[1]))
