"""Static files: which file is served, and with which fields."""

from __future__ import annotations

import gzip
import os
import socket
from email.utils import formatdate
from pathlib import Path
from typing import Any

from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._wsgi import static_files
from txgreenwsgi._wsgi.files import FileWrapper
from txgreenwsgi._wsgi.static_files import (
    LOG_SECONDS,
    StaticDirectoryError,
    StaticFiles,
    content_type,
)

OLD = 784111777


class Answer:
    """A response."""

    def __init__(self, status: str, fields: list[tuple[str, str]], body: bytes) -> None:
        self.status = int(status[:3])
        self.fields = dict(fields)
        assert len(self.fields) == len(fields), fields
        self.body = body


class StaticCase(SynchronousTestCase):
    """A directory of files."""

    def setUp(self) -> None:
        """Create the directory, and one beside it."""
        self.top = Path(self.mktemp()).absolute()
        self.root = self.top / "static"
        self.root.mkdir(parents=True)
        self.outside = self.top / "static-secret"
        self.outside.mkdir()
        (self.outside / "key").write_text("secret")
        self.write("a.txt", b"0123456789")

    def write(self, name: str, data: bytes, modified: int = OLD) -> Path:
        """Write a file."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (modified, modified))
        return path

    def files(self, max_age: float = 60) -> StaticFiles:
        """Return the application."""
        return StaticFiles([("/static", str(self.root))], max_age)

    def get(
        self,
        path: str,
        files: StaticFiles | None = None,
        method: str = "GET",
        **fields: Any,
    ) -> Answer:
        """Return the answer to a request below the prefix."""
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method,
            "PATH_INFO": "/static" + path,
            "wsgi.file_wrapper": FileWrapper,
        }
        environ.update((f"HTTP_{name.upper()}", text) for name, text in fields.items())
        started: list[Any] = []

        def start_response(*arguments: Any) -> Any:
            started.append(arguments)

        before = set(os.listdir("/proc/self/fd"))
        body: Any = (files or self.files())(environ, start_response)
        data = b"".join(body)
        if hasattr(body, "close"):
            body.close()
        self.assertEqual(set(os.listdir("/proc/self/fd")), before, "a file is open")
        [(status, given)] = started
        length = dict(given).get("Content-Length")
        if length is not None and method == "GET":
            data = data[: int(length)]  # as the server does
        return Answer(status, given, data)

    def assert_missing(self, *paths: str) -> None:
        """Fail unless all paths get 404, with nothing about the file."""
        files = self.files()
        for path in paths:
            answer = self.get(path, files)
            self.assertEqual((answer.status, answer.body), (404, b"Not Found\n"), path)
            self.assertEqual(set(answer.fields), {"Content-Type", "Content-Length"})


class PathTests(StaticCase):
    """Which file is served."""

    def test_files(self) -> None:
        """Files of the directory and of directories in it are served."""
        self.write("css/deep/site.css", b"body{}")
        self.write("a b+c%20.txt", b"odd")
        self.write("x..y", b"dots")
        for path, body in (
            ("/a.txt", b"0123456789"),
            ("/css/deep/site.css", b"body{}"),
            ("/a b+c%20.txt", b"odd"),
            ("/x..y", b"dots"),
        ):
            answer = self.get(path)
            self.assertEqual((answer.status, answer.body), (200, body), path)

    def test_any_bytes(self) -> None:
        """A name is the bytes of the path, in whatever encoding."""
        for name in ("caf\xe9".encode(), b"\xff\xfe", b"new\nline"):
            with open(os.path.join(os.fsencode(self.root), name), "wb") as file:
                file.write(b"found")
            self.assertEqual(self.get("/" + name.decode("latin-1")).body, b"found")

    def test_missing(self) -> None:
        """Missing files, directories and their names with a slash get 404."""
        self.write("sub/index.html", b"index")
        self.assert_missing(
            *(
                "",
                "/",
                "/nothing",
                "/sub",
                "/sub/",
                "/a.txt/",
                "/a.txt/b",
            ),
            *("//a.txt", "/sub//index.html", "/" + "x" * 300, "/" + "x/" * 3000 + "x"),
        )

    def test_hidden(self) -> None:
        """Names that begin with a dot get 404."""
        self.write(".env", b"secret")
        self.write(".git/config", b"secret")
        self.write("sub/.hidden", b"secret")
        self.write("sub/file", b"")
        self.assert_missing(
            *("/.env", "/.git/config", "/sub/.hidden", "/./a.txt", "/sub/../a.txt"),
            *("/.", "/..", "/sub/.", "/sub/.."),
        )

    def test_escape(self) -> None:
        """No path leads out of the directory."""
        self.assert_missing(
            "/../static-secret/key",
            "/../../etc/passwd",
            "/a/../../static-secret/key",
            "/..\\static-secret\\key",
            "/a.txt\0",
            "/a.txt\0.css",
            "/%2e%2e/static-secret/key",  # decoded once already
            f"/{self.outside}/key",
            f"{self.outside}/key",
            "/" + str(self.outside)[1:] + "/key",
        )

    def test_similar_prefix(self) -> None:
        """Only paths below the prefix are its own."""
        files = self.files()
        for path, served in (
            ("/static", True),
            ("/static/", True),
            ("/static/x", True),
            ("/static-secret/key", False),
            ("/statics", False),
            ("/static\\..\\x", False),
            ("/", False),
            ("", False),
            ("/x/static/a.txt", False),
            ("*", False),
        ):
            self.assertEqual(files.serves(path), served, path)

    def test_links(self) -> None:
        """Symbolic links are followed inside of the directory only."""
        self.write("sub/real.txt", b"real")
        for name, target in (
            ("inside.txt", "sub/real.txt"),
            ("twice.txt", "inside.txt"),
            ("absolute.txt", str(self.root / "sub/real.txt")),
            ("directory", "sub"),
            ("outside", "../static-secret/key"),
            ("outside-absolute", str(self.outside / "key")),
            ("outside-directory", "../static-secret"),
            ("through", "outside-directory"),
            ("dangling", "nowhere"),
            ("loop", "loop"),
            ("itself", "."),
        ):
            (self.root / name).symlink_to(target)
        for path in ("inside.txt", "twice.txt", "absolute.txt", "directory/real.txt"):
            self.assertEqual(self.get(f"/{path}").body, b"real", path)
        self.assertEqual(self.get("/itself/itself/a.txt").status, 200)
        self.assert_missing(
            *("/outside", "/outside-absolute", "/outside-directory/key", "/dangling"),
            *("/through/key", "/loop", "/itself", "/directory"),
        )

    def test_links_without_proc(self) -> None:
        """The same, if the system does not tell the path of a descriptor."""

        def readlink(path: Any) -> Any:
            raise FileNotFoundError

        self.patch(os, "readlink", readlink)
        # `realpath` uses it too.
        real = {
            os.fsencode(self.root / "a.txt"): os.fsencode(self.root / "a.txt"),
            os.fsencode(self.root): os.fsencode(self.root),
            os.fsencode(self.root / "outside"): os.fsencode(self.outside / "key"),
            os.fsencode(self.root / "moved"): os.fsencode(self.root / "a.txt"),
        }
        self.patch(os.path, "realpath", real.__getitem__)
        (self.root / "outside").symlink_to("../static-secret/key")
        self.write("moved", b"another file")
        self.assertEqual(self.get("/a.txt").status, 200)
        self.assert_missing("/outside", "/moved")

    def test_special_files(self) -> None:
        """FIFOs, sockets and devices get 404, and do not block."""
        os.mkfifo(self.root / "fifo")
        (self.root / "null").symlink_to("/dev/null")
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        here = os.getcwd()
        os.chdir(self.root)  # the address of a socket is short
        try:
            server.bind("socket")
        finally:
            os.chdir(here)
        self.assert_missing("/fifo", "/null", "/socket")

    def test_replaced_directory(self) -> None:
        """The directory may be a symbolic link that a deployment replaces."""
        link = self.top / "current"
        link.symlink_to("static")
        files = StaticFiles([("/static", str(link))])
        self.assertEqual(self.get("/a.txt", files).body, b"0123456789")
        new = self.top / "new"
        new.mkdir()
        (new / "a.txt").write_bytes(b"new")
        os.symlink("new", self.top / "next")
        os.replace(self.top / "next", link)
        self.assertEqual(self.get("/a.txt", files).body, b"new")
        (new / "out").symlink_to(self.root / "a.txt")
        self.assertEqual(self.get("/out", files).status, 404)
        link.unlink()
        self.assertEqual(self.get("/a.txt", files).status, 404)

    def test_relative_directory(self) -> None:
        """A relative directory is found once; the process may leave it."""
        here = os.getcwd()
        self.addCleanup(os.chdir, here)
        os.chdir(self.top)
        files = StaticFiles([("/static", "static")])
        os.chdir("/")
        self.assertEqual(self.get("/a.txt", files).status, 200)

    def test_longest_prefix(self) -> None:
        """Of several prefixes the longest counts."""
        files = StaticFiles(
            [("/static", str(self.root)), ("/static/key", str(self.outside))]
        )
        self.assertEqual(self.get("/a.txt", files).body, b"0123456789")
        self.assertEqual(self.get("/key/key", files).body, b"secret")
        self.assertEqual(self.get("/key/a.txt", files).status, 404)

    def test_directory_that_cannot_be_used(self) -> None:
        """A missing directory, and a file, are errors that name the argument."""
        for path, problem in (
            (self.top / "nowhere", "No such file or directory"),
            (self.root / "a.txt", "Not a directory"),
        ):
            error = self.assertRaises(
                StaticDirectoryError, StaticFiles, [("/static", str(path))]
            )
            self.assertEqual(error.given, f"/static={path}")
            self.assertIn(problem, error.problem)

    def test_unreadable(self) -> None:
        """A file without permission gets 404, and is logged once a minute."""
        times = [100.0]
        self.patch(static_files, "monotonic", lambda: times[0])
        really_open = os.open

        def no_permission(path: Any, *arguments: Any, **keywords: Any) -> int:
            if os.fsencode(path).endswith(b"a.txt"):
                raise PermissionError(13, "Permission denied", path)
            return really_open(path, *arguments, **keywords)

        files = self.files()
        self.patch(os, "open", no_permission)
        with capturedLogs() as events:
            for _ in range(3):
                self.assertEqual(self.get("/a.txt", files).status, 404)
            times.append(times.pop() + LOG_SECONDS)
            self.assertEqual(self.get("/a.txt", files).status, 404)
        self.assertEqual(len(events), 2)
        self.assertIn("Permission denied", formatEvent(events[0]) or "")

    def test_other_errors(self) -> None:
        """Errors of the system are not taken for missing files."""

        def exhausted(path: Any, *arguments: Any) -> int:
            raise OSError(24, "Too many open files")

        files = self.files()
        self.patch(os, "open", exhausted)
        self.assertRaises(
            OSError, files, {"REQUEST_METHOD": "GET", "PATH_INFO": "/static/a"}, None
        )


class FieldTests(StaticCase):
    """The fields of a response."""

    def test_whole_file(self) -> None:
        """A file has its type, length, validators and expiry."""
        answer = self.get("/a.txt")
        etag = answer.fields.pop("ETag")
        self.assertRegex(etag, r'\A"[0-9a-f]+-a"\Z')
        self.assertEqual(
            answer.fields,
            {
                "Content-Type": "text/plain; charset=utf-8",
                "Content-Length": "10",
                "Last-Modified": "Sun, 06 Nov 1994 08:49:37 GMT",
                "Cache-Control": "max-age=60",
                "Accept-Ranges": "bytes",
            },
        )
        self.assertEqual(
            self.get("/a.txt", self.files(0)).fields["Cache-Control"], "no-cache"
        )

    def test_head(self) -> None:
        """HEAD has the fields of GET, and ignores a range (section 14.2)."""
        expected = self.get("/a.txt").fields
        cases: list[dict[str, Any]] = [
            {},
            {"range": "bytes=0-1"},
            {"range": "bytes=50-"},
        ]
        for fields in cases:
            answer = self.get("/a.txt", method="HEAD", **fields)
            self.assertEqual((answer.status, answer.body), (200, b""))
            self.assertEqual(answer.fields, expected)
        self.assertEqual(self.get("/nothing", method="HEAD").status, 404)

    def test_other_methods(self) -> None:
        """Other methods get 405, whether or not the file exists."""
        for method in ("POST", "PUT", "DELETE", "OPTIONS", "get", "PROPFIND"):
            for path in ("/a.txt", "/nothing", ""):
                answer = self.get(path, method=method)
                self.assertEqual(answer.status, 405)
                self.assertEqual(answer.fields["Allow"], "GET, HEAD")

    def test_empty_file(self) -> None:
        """An empty file has a length of 0."""
        self.write("empty", b"")
        answer = self.get("/empty")
        self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertEqual(answer.fields["Content-Length"], "0")
        self.assertEqual(self.get("/empty", range="bytes=-5").status, 200)
        self.assertEqual(self.get("/empty", range="bytes=0-").status, 416)

    def test_ranges(self) -> None:
        """One range gets 206; one outside of the file gets 416."""
        for text, body, content_range in (
            ("bytes=2-4", b"234", "bytes 2-4/10"),
            ("bytes=7-", b"789", "bytes 7-9/10"),
            ("bytes=-3", b"789", "bytes 7-9/10"),
            ("bytes=0-99", b"0123456789", "bytes 0-9/10"),
        ):
            answer = self.get("/a.txt", range=text)
            self.assertEqual((answer.status, answer.body), (206, body))
            self.assertEqual(answer.fields["Content-Range"], content_range)
            self.assertEqual(answer.fields["Content-Length"], str(len(body)))
            for name in ("ETag", "Last-Modified", "Cache-Control", "Content-Type"):
                self.assertIn(name, answer.fields)
        answer = self.get("/a.txt", range="bytes=10-")
        self.assertEqual(answer.status, 416)
        self.assertEqual(answer.fields["Content-Range"], "bytes */10")
        self.assertEqual(answer.fields["Content-Type"], "text/plain; charset=utf-8")
        self.assertNotIn("ETag", answer.fields)
        for text in ("bytes=1-2,4-5", "bytes=2-1", "nonsense"):
            self.assertEqual(self.get("/a.txt", range=text).status, 200)

    def test_if_range(self) -> None:
        """A range of another version gets the whole file."""
        etag = self.get("/a.txt").fields["ETag"]
        for condition, status in (
            (etag, 206),
            ('"other"', 200),
            (f"W/{etag}", 200),
            ("Sun, 06 Nov 1994 08:49:37 GMT", 206),
            ("Sun, 06 Nov 1994 08:49:38 GMT", 200),
        ):
            answer = self.get("/a.txt", range="bytes=0-1", if_range=condition)
            self.assertEqual(answer.status, status, condition)

    def test_conditions(self) -> None:
        """304 has the fields of section 15.4.5 and no others; 412 is a text."""
        etag = self.get("/a.txt").fields["ETag"]
        unchanged: list[dict[str, Any]] = [
            {"if_none_match": etag},
            {"if_none_match": f'"x", W/{etag}'},
            {"if_none_match": "*"},
            {"if_modified_since": "Sun, 06 Nov 1994 08:49:37 GMT"},
            {"if_none_match": etag, "range": "bytes=0-1"},
        ]
        for fields in unchanged:
            for method in ("GET", "HEAD"):
                answer = self.get("/a.txt", method=method, **fields)
                self.assertEqual((answer.status, answer.body), (304, b""))
                self.assertEqual(
                    answer.fields, {"ETag": etag, "Cache-Control": "max-age=60"}
                )
        changed: list[dict[str, Any]] = [
            {"if_match": '"x"'},
            {"if_unmodified_since": "Sun, 06 Nov 1994 08:49:36 GMT"},
        ]
        for fields in changed:
            self.assertEqual(self.get("/a.txt", **fields).status, 412)
        # A missing file has no preconditions that could change the answer.
        self.assertEqual(self.get("/nothing", if_none_match="*").status, 404)

    def test_versions(self) -> None:
        """The entity tag changes with time and size, and with them only."""
        etags = [self.get("/a.txt").fields["ETag"] for _ in range(2)]
        self.write("a.txt", b"0123456789", OLD + 1)
        etags.append(self.get("/a.txt").fields["ETag"])
        self.write("a.txt", b"012345678", OLD + 1)
        etags.append(self.get("/a.txt").fields["ETag"])
        self.assertEqual(len(set(etags)), 3)

    def test_future(self) -> None:
        """A time in the future is not sent (section 8.8.2.1)."""
        now = 2_000_000_000
        self.patch(static_files, "time", lambda: now + 0.5)
        self.write("a.txt", b"x", now + 500)
        modified = self.get("/a.txt").fields["Last-Modified"]
        self.assertEqual(modified, formatdate(now, usegmt=True))

    def test_types(self) -> None:
        """Types do not depend on the machine; text has a charset."""
        for name, expected in {
            "a.html": "text/html; charset=utf-8",
            "a.css": "text/css; charset=utf-8",
            "a.js": "text/javascript; charset=utf-8",
            "a.mjs": "text/javascript; charset=utf-8",
            "a.json": "application/json",
            "a.js.map": "application/json",
            "a.svg": "image/svg+xml",
            "A.PNG": "image/png",
            "a.webp": "image/webp",
            "a.avif": "image/avif",
            "a.ico": "image/vnd.microsoft.icon",
            "a.woff2": "font/woff2",
            "a.wasm": "application/wasm",
            "a.webmanifest": "application/manifest+json",
            "a.pdf": "application/pdf",
            "a.mp4": "video/mp4",
            "a.tar.gz": "application/gzip",
            "a.js.gz": "application/gzip",
            "a.js.br": "application/x-brotli",
            "a.js.zst": "application/zstd",
            "a.svgz": "application/gzip",
            "a": "application/octet-stream",
            "a.unknown": "application/octet-stream",
            "data:text/html,x": "application/octet-stream",
            "dir.html/a": "application/octet-stream",
        }.items():
            self.assertEqual(content_type(name), expected, name)


class CompressedTests(StaticCase):
    """Compressed files beside the originals."""

    def setUp(self) -> None:
        """Write an original and its compressed files."""
        super().setUp()
        self.plain = b"body { color: red }" * 100
        self.packed = gzip.compress(self.plain)
        self.write("site.css", self.plain)
        self.write("site.css.gz", self.packed)
        self.write("site.css.br", b"brotli")

    def test_choice(self) -> None:
        """Accept-Encoding selects the file; caches are told."""
        seen = set()
        for accepted, coding, body in (
            ("gzip", "gzip", self.packed),
            ("gzip, br", "br", b"brotli"),
            ("br;q=0.1, gzip", "gzip", self.packed),
            ("", None, self.plain),
            ("gzip;q=0", None, self.plain),
            ("zstd", None, self.plain),
        ):
            answer = self.get("/site.css", accept_encoding=accepted)
            self.assertEqual(answer.body, body, accepted)
            self.assertEqual(answer.fields.get("Content-Encoding"), coding)
            self.assertEqual(answer.fields["Vary"], "Accept-Encoding")
            self.assertEqual(answer.fields["Content-Type"], "text/css; charset=utf-8")
            self.assertEqual(answer.fields["Content-Length"], str(len(body)))
            seen.add(answer.fields["ETag"])
        self.assertEqual(len(seen), 3, "each file has its entity tag")
        self.assertNotIn("Vary", self.get("/a.txt", accept_encoding="gzip").fields)

    def test_zstd(self) -> None:
        """The suffix of Zstandard is .zst."""
        self.write("site.css.zst", b"zstd")
        answer = self.get("/site.css", accept_encoding="gzip, zstd")
        self.assertEqual(answer.fields["Content-Encoding"], "zstd")
        self.assertEqual(answer.body, b"zstd")

    def test_conditions_and_ranges(self) -> None:
        """They apply to the file that is selected."""
        etag = self.get("/site.css", accept_encoding="gzip").fields["ETag"]
        answer = self.get("/site.css", accept_encoding="gzip", if_none_match=etag)
        self.assertEqual(answer.status, 304)
        self.assertEqual(answer.fields["Vary"], "Accept-Encoding")
        self.assertEqual(self.get("/site.css", if_none_match=etag).status, 200)
        answer = self.get("/site.css", accept_encoding="gzip", range="bytes=0-1")
        self.assertEqual((answer.status, answer.body), (206, self.packed[:2]))
        total = len(self.packed)
        self.assertEqual(answer.fields["Content-Range"], f"bytes 0-1/{total}")
        answer = self.get(
            "/site.css", accept_encoding="br", range="bytes=0-1", if_range=etag
        )
        self.assertEqual(answer.status, 200)

    def test_older(self) -> None:
        """A compressed file that is older than the original is not used."""
        self.write("site.css", self.plain, OLD + 1)
        answer = self.get("/site.css", accept_encoding="gzip, br")
        self.assertEqual(answer.body, self.plain)
        self.assertNotIn("Vary", answer.fields)

    def test_without_original(self) -> None:
        """A compressed file alone is not served for the original's name."""
        self.write("only.js.gz", self.packed)
        self.assertEqual(self.get("/only.js", accept_encoding="gzip").status, 404)
        answer = self.get("/only.js.gz", accept_encoding="gzip")
        self.assertEqual(answer.body, self.packed)
        self.assertEqual(answer.fields["Content-Type"], "application/gzip")
        self.assertNotIn("Content-Encoding", answer.fields)

    def test_links(self) -> None:
        """A compressed file outside of the directory is not served."""
        (self.root / "site.css.gz").unlink()
        (self.root / "site.css.gz").symlink_to(self.outside / "key")
        answer = self.get("/site.css", accept_encoding="gzip")
        self.assertEqual(answer.body, self.plain)
        self.assertNotIn("Content-Encoding", answer.fields)
        (self.root / "site.css.br").unlink()
        (self.root / "site.css.br").mkdir()
        self.assertEqual(self.get("/site.css", accept_encoding="br").body, self.plain)
