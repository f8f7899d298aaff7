"""Static files, and WhiteNoise, on every transport."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from whitenoise import WhiteNoise

from txgreenwsgi.settings import SettingError

from .harness import OWN, TEXT, Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .harness import Environ, Server, Start

DATA = bytes(range(256)) * 20
RANGE = [("Range", "bytes=100-299")]


def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with the path."""
    start("200 OK", TEXT)
    return [environ["PATH_INFO"].encode("latin-1")]


class StaticCases(Cases):
    """`static`."""

    def directory(self) -> Path:
        """Return a directory of files."""
        root = Path(self.mktemp()).absolute()
        (root / "sub").mkdir(parents=True)
        (root / "sub" / "data.bin").write_bytes(DATA)
        (root / "empty").write_bytes(b"")
        (root / "site.css").write_bytes(b"body{}")
        (root / "site.css.gz").write_bytes(b"packed")
        os.utime(root / "site.css.gz")
        return root

    def served(self, **settings: Any) -> Server:
        """Return a server of the files and of an application."""
        files = {"/static": str(self.directory())}
        return self.serve(hello, **{"static": files, **settings})

    def test_files_and_application(self) -> None:
        """Paths below the prefix are files; all others are the application's."""
        server = self.served()
        reply = server.begin(target="/static/sub/data.bin")
        self.assert_complete(reply, DATA)
        self.assertEqual(reply.header("Content-Type"), "application/octet-stream")
        self.assertEqual(reply.header("Content-Length"), str(len(DATA)))
        self.assert_complete(server.begin(target="/statics", on=reply), b"/statics")
        self.assert_complete(server.begin(target="/static/empty", on=reply), b"")
        self.assert_complete(server.begin(target="/static/sub", on=reply), status=404)
        self.assertEqual(len(server.app.environs), 1)
        self.assertEqual(
            self.outcomes(),
            [(200, "finished")] * 3 + [(404, "finished")],
        )
        self.assertEqual(self.records[0].bytes_sent, len(DATA))

    def test_default(self) -> None:
        """By default all paths are the application's."""
        server = self.serve(hello)
        self.assert_complete(server.begin(target="/static/x"), b"/static/x")

    def test_head_range_and_condition(self) -> None:
        """HEAD, a range, a revalidation and a wrong method."""
        server = self.served(static_expires=60)
        reply = server.begin("HEAD", "/static/sub/data.bin")
        self.assert_complete(reply, b"")
        self.assertEqual(reply.header("Content-Length"), str(len(DATA)))
        self.assertEqual(reply.header("Cache-Control"), "max-age=60")
        etag = reply.header("ETag") or ""
        reply = server.begin(
            target="/static/sub/data.bin",
            headers=RANGE,
            on=reply,
        )
        self.assert_complete(reply, DATA[100:300], status=206)
        self.assertEqual(reply.header("Content-Range"), f"bytes 100-299/{len(DATA)}")
        reply = server.begin(
            target="/static/sub/data.bin", headers=[("If-None-Match", etag)], on=reply
        )
        self.assert_complete(reply, b"", status=304)
        reply = server.begin(
            target="/static/sub/data.bin", headers=[("Range", "bytes=9999-")], on=reply
        )
        self.assert_complete(reply, status=416)
        reply = server.begin("POST", "/static/sub/data.bin", body=b"x", on=reply)
        self.assert_complete(reply, status=405)
        self.assertEqual(server.app.environs, [])

    def test_compressed(self) -> None:
        """The compressed file beside it is sent as it is."""
        server = self.served()
        reply = server.begin(
            target="/static/site.css", headers=[("Accept-Encoding", "gzip")]
        )
        self.assert_complete(reply, b"packed")
        self.assertEqual(reply.header("Content-Encoding"), "gzip")
        self.assertEqual(reply.header("Vary"), "Accept-Encoding")
        self.assert_complete(server.begin(target="/static/site.css"), b"body{}")

    def test_escape(self) -> None:
        """Encoded dots, slashes, NUL and backslashes do not lead out."""
        server = self.served()
        for target in (
            "/static/%2e%2e/%2e%2e/etc/passwd",
            "/static/..%2f..%2fetc%2fpasswd",
            "/static/%252e%252e/x",
            "/static/..%5c..%5cetc",
            "/static/sub/data.bin%00",
            "/static/%2fetc%2fpasswd",
            "/static//etc/passwd",
        ):
            self.assert_complete(server.begin(target=target), status=404)
        reply = server.begin(target="/static/sub%2fdata.bin")
        self.assert_complete(reply, DATA)
        self.assertEqual(server.app.environs, [])

    def test_other_characters(self) -> None:
        """Paths and names with other characters than ASCII are UTF-8."""
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        (root / "men\xfc.txt").write_bytes(b"soup")
        server = self.serve(hello, static={"/caf\xe9": str(root)})
        reply = server.begin(target="/caf%C3%A9/men%C3%BC.txt")
        self.assert_complete(reply, b"soup")

    def test_large_file(self) -> None:
        """A large file is sent whole."""
        root = self.directory()
        server = self.served(static={"/static": str(root)})
        size = server.large
        (root / "large").write_bytes(bytes(size))
        self.assert_complete(server.begin(target="/static/large"), bytes(size))
        self.assertEqual(self.records[0].bytes_sent, size)

    def test_environ_of_the_deployer(self) -> None:
        """The other settings apply: header fields, and restricted methods."""
        server = self.served(add_header=[("X-Frame-Options", "DENY")], methods="GET")
        reply = server.begin(target="/static/empty")
        self.assert_complete(reply, b"")
        self.assertEqual(reply.header("X-Frame-Options"), "DENY")
        self.assert_complete(server.begin("HEAD", "/static/empty"), status=405)

    def test_strict(self) -> None:
        """With `strict`, files are served too."""
        server = self.served(strict=True)
        self.assert_complete(server.begin(target="/static/sub/data.bin"), DATA)
        self.assertEqual(self.errors(), [])

    def test_missing_directory(self) -> None:
        """A missing directory is an error that names the setting."""
        with self.assertRaises((SettingError, Exception)) as raised:
            self.serve(hello, static={"/static": "/nowhere/static"})
        self.assertIn(
            "static '/static=/nowhere/static' names no directory that can be read (No "
            "such file or directory): give the directory of the files",
            str(raised.exception),
        )


class OwnStaticCases(Cases):
    """Static files over our own HTTP/1.1."""

    def test_prefix(self) -> None:
        """The path is below the prefix; a proxy may have removed that."""
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        (root / "a").write_bytes(b"file")
        server = self.serve(hello, static={"/static": str(root)}, prefix="/app")
        for target in ("/app/static/a", "/static/a"):
            self.assert_complete(server.begin(target=target), b"file")
        self.assert_complete(server.begin(target="/app/x"), b"/x")

    def test_slow_client(self) -> None:
        """A large file waits for a slow client, which may leave."""
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        server = self.serve(hello, static={"/static": str(root)})
        size = server.large
        (root / "large").write_bytes(bytes(size))
        slow = server.begin(target="/static/large", slow=True)
        leaver = server.begin(target="/static/large", slow=True)
        part = server.begin(
            target="/static/large", headers=[("Range", "bytes=1000-")], slow=True
        )
        self.assert_complete(server.begin(target="/other"), b"/other")
        server.disconnect(leaver)
        for reply, rest, status in ((slow, size, 200), (part, size - 1000, 206)):
            server.read(reply)
            self.assert_complete(reply, bytes(rest), status=status)
        server.settle()
        self.assertIn((200, "finished"), self.outcomes())

    def test_truncated_file(self) -> None:
        """A file that shrinks while it is sent is detected by the client."""
        path = Path(self.mktemp()).absolute()
        path.mkdir()
        server = self.serve(hello, static={"/static": str(path)})
        (path / "large").write_bytes(bytes(server.large))
        reply = server.begin(target="/static/large", slow=True)
        os.truncate(path / "large", 1000)
        server.read(reply)
        self.assert_cut(reply)
        self.errors()


class SendfileCases(Cases):
    """Static files on sockets."""

    def test_sendfile(self) -> None:
        """The kernel sends the file, and the part of a file."""
        counts: list[int] = []
        sendfile = os.sendfile

        def counted(*arguments: Any) -> int:
            counts.append(arguments[-1])
            return sendfile(*arguments)

        self.patch(os, "sendfile", counted)
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        (root / "a").write_bytes(DATA)
        server = self.serve(hello, static={"/static": str(root)})
        reply = server.begin(target="/static/a")
        self.assert_complete(reply, DATA)
        reply = server.begin(target="/static/a", headers=RANGE, on=reply)
        self.assert_complete(reply, DATA[100:300], status=206)
        self.assertEqual(counts, [len(DATA), 200])


class WhiteNoiseCases(Cases):
    """WhiteNoise as it is."""

    def test_files(self) -> None:
        """WhiteNoise sends files, parts of them, compressed ones, and 304."""
        root = Path(self.mktemp()).absolute()
        root.mkdir()
        (root / "data.bin").write_bytes(DATA)
        (root / "site.css").write_bytes(b"body{}" * 100)
        (root / "site.css.gz").write_bytes(b"packed")
        server = self.serve(WhiteNoise(hello, root=str(root), prefix="static/"))
        reply = server.begin(target="/static/data.bin")
        self.assert_complete(reply, DATA)
        reply = server.begin("HEAD", "/static/data.bin", on=reply)
        self.assert_complete(reply, b"")
        self.assertEqual(reply.header("Content-Length"), str(len(DATA)))
        modified = reply.header("Last-Modified") or ""
        reply = server.begin(target="/static/data.bin", headers=RANGE, on=reply)
        self.assert_complete(reply, DATA[100:300], status=206)
        reply = server.begin(
            target="/static/data.bin",
            headers=[("If-Modified-Since", modified)],
            on=reply,
        )
        self.assert_complete(reply, b"", status=304)
        reply = server.begin(
            target="/static/site.css", headers=[("Accept-Encoding", "gzip")], on=reply
        )
        self.assert_complete(reply, b"packed")
        self.assertEqual(reply.header("Content-Encoding"), "gzip")
        self.assert_complete(server.begin(target="/x", on=reply), b"/x")


globals().update(on_every_transport(StaticCases, WhiteNoiseCases))
globals().update(on_every_transport(OwnStaticCases, only=OWN))
globals().update(on_every_transport(SendfileCases, only=["Sockets"]))
