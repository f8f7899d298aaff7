"""Static files: paths that the server answers with files of a directory.

A WSGI application, so that the files reach every transport, by `wsgi.file_wrapper` and
sendfile() where the connection allows it.

A file is served if it is a regular file in the directory after all symbolic links were
followed. The descriptor decides, and not the path: the path may lead elsewhere a moment
later.

Knows files and the fields about them. Must never know transports.
"""

from __future__ import annotations

import errno
import mimetypes
import os
import stat
from contextlib import suppress
from io import FileIO
from time import monotonic, time
from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.logger import Logger

from txgreenwsgi.monitoring.log_limit import LogLimit

from .content_codings import preferred_coding
from .environ import in_environ, is_below
from .preconditions import (
    FAILED,
    NOT_MODIFIED,
    UNSATISFIABLE,
    Validators,
    evaluate,
    format_date,
    selected_range,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

__all__ = ["LOG_SECONDS", "StaticDirectoryError", "StaticFiles", "content_type"]

_log = Logger()

#: Minimum time between two log lines about files that cannot be read.
LOG_SECONDS: Final = 60.0

#: Codings with the suffixes of compressed files, the best one first.
_CODINGS: Final = {"br": ".br", "zstd": ".zst", "gzip": ".gz"}

_FLAGS: Final[int] = (
    os.O_RDONLY
    # Opening a FIFO must not block.
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
)

# The path does not lead to a file that can be opened.
_MISSING: Final = frozenset(
    {
        *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG),
        *(errno.EISDIR, errno.ENXIO, errno.ENODEV, errno.EINVAL, errno.EILSEQ),
    }
)

# Not from files of the system: the types must be the same on every machine.
_TYPES: Final = mimetypes.MimeTypes()
for _type, _suffixes in {
    "text/javascript": (".js", ".mjs"),
    "application/json": (".json", ".map"),
    "application/manifest+json": (".webmanifest",),
    "application/wasm": (".wasm",),
    "application/xml": (".xml",),
    "font/otf": (".otf",),
    "font/ttf": (".ttf",),
    "font/woff": (".woff",),
    "font/woff2": (".woff2",),
    "image/avif": (".avif",),
    "image/jxl": (".jxl",),
    "image/vnd.microsoft.icon": (".ico",),
    "image/webp": (".webp",),
    "text/markdown": (".md",),
    "video/mp4": (".m4v",),
    "audio/mp4": (".m4a",),
    "application/x-7z-compressed": (".7z",),
}.items():
    for _suffix in _suffixes:
        _TYPES.add_type(_type, _suffix)

# The types of compressed files, which are sent as they are.
_COMPRESSED: Final = {
    "br": "application/x-brotli",
    "bzip2": "application/x-bzip2",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
    "zstd": "application/zstd",
}


def content_type(name: str) -> str:
    """Return the value of Content-Type for a file name."""
    # Without a directory, and not as a URL: "a:b" is a file too.
    kind, coding = _TYPES.guess_type("./" + name.rpartition("/")[2])
    if coding is not None:
        return _COMPRESSED.get(coding, "application/octet-stream")
    if name.endswith(".zst"):
        return _COMPRESSED["zstd"]
    if kind is None:
        return "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") else kind


class StaticDirectoryError(Exception):
    """A directory of static files cannot be used.

    Attributes:
        given: the prefix and the directory, such as "/static=assets".
        problem: the reason, as a clause that continues "the directory ...".
    """

    def __init__(self, given: str, problem: str) -> None:
        super().__init__(f"{given} {problem}")
        self.given = given
        self.problem = problem


class _Opened(NamedTuple):
    """An open file.

    Attributes:
        fd: its descriptor; the receiver closes it.
        status: of the descriptor.
        coding: the content coding of its bytes; "" for none.
        varies: whether another Accept-Encoding selects another file.
    """

    fd: int
    status: os.stat_result
    coding: str = ""
    varies: bool = False


class _Directory:
    """One directory, below one prefix.

    Attributes:
        prefix: such as "/static", as in PATH_INFO.
    """

    def __init__(self, prefix: str, path: str) -> None:
        self.prefix = in_environ(prefix)
        self._path = os.fsencode(os.path.abspath(path))
        try:
            self._find()
        except OSError as error:
            raise StaticDirectoryError(
                f"{prefix}={path}",
                f"names no directory that can be read ({error.strerror})",
            ) from error

    def _find(self) -> None:
        """Find the directory: it may be a symbolic link that is replaced."""
        fd = os.open(self._path, _FLAGS | getattr(os, "O_DIRECTORY", 0))
        try:
            status = os.fstat(fd)
            if not stat.S_ISDIR(status.st_mode):
                raise NotADirectoryError(
                    errno.ENOTDIR, os.strerror(errno.ENOTDIR), self._path
                )
            self._real = _real_path(fd, self._path, status)
        finally:
            os.close(fd)

    def open(self, name: bytes, accepted: str) -> _Opened | None:
        """Open a file; None if there is none to serve.

        Args:
            name: the path below the directory, without slashes at its ends.
            accepted: the value of Accept-Encoding.

        Raises:
            OSError: the file exists, and cannot be opened.
        """
        path = b"%b/%b" % (self._path, name)
        opened = self._open(path)
        if opened is None:
            return None
        try:
            available = [
                coding
                for coding, suffix in _CODINGS.items()
                if _is_current(path + suffix.encode(), opened.status)
            ]
            if not available:
                return opened
            coding = preferred_coding(accepted, available)
            other = None
            if coding:
                other = self._open(path + _CODINGS[coding].encode())
            if other is None:
                return _Opened(opened.fd, opened.status, varies=True)
        except BaseException:
            os.close(opened.fd)
            raise
        os.close(opened.fd)
        return _Opened(other.fd, other.status, coding, varies=True)

    def _open(self, path: bytes) -> _Opened | None:
        try:
            fd = os.open(path, _FLAGS)
        except OSError as error:
            if error.errno in _MISSING:
                return None
            raise
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and self._contains(fd, path, status):
                return _Opened(fd, status)
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return None

    def _contains(self, fd: int, path: bytes, status: os.stat_result) -> bool:
        """Return whether an open file is in the directory."""
        try:
            real = _real_path(fd, path, status)
            if self._is_above(real):
                return True
            self._find()  # it may have been replaced
        except OSError:
            return False
        return self._is_above(real)

    def _is_above(self, real: bytes) -> bool:
        return real.startswith(self._real.rstrip(b"/") + b"/")


def _real_path(fd: int, path: bytes, status: os.stat_result) -> bytes:
    """Return the path of an open file, without symbolic links.

    Raises:
        OSError: it is not known.
    """
    with suppress(OSError):
        # The kernel's own knowledge about the descriptor; Linux only.
        return os.readlink(b"/proc/self/fd/%d" % fd)
    real = os.path.realpath(path)
    if not os.path.samestat(os.lstat(real), status):
        raise FileNotFoundError(errno.ENOENT, "the path leads to another file", path)
    return real


def _is_current(path: bytes, original: os.stat_result) -> bool:
    """Return whether a compressed file exists and is not older than the original."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return False
    return stat.S_ISREG(status.st_mode) and int(status.st_mtime) >= int(
        original.st_mtime
    )


def _name_of(rest: str) -> bytes | None:
    """Return the name of a file below its directory; None if there can be none.

    Args:
        rest: the decoded path behind the prefix, with its slash; each character is a
            byte.
    """
    # A name that begins with a dot is hidden, or leads to another directory.
    if "\0" in rest or "\\" in rest or "/." in rest or "//" in rest:
        return None
    name = rest[1:]
    if not name or name.endswith("/"):
        return None
    return name.encode("latin-1")


class StaticFiles:
    """A WSGI application for all static files of a server.

    Args:
        directories: prefixes such as "/static", and the directory of each.
        max_age: seconds for which a client may use a file without asking; 0 to ask each
            time.

    Raises:
        StaticDirectoryError: a directory cannot be used.
    """

    def __init__(
        self, directories: Iterable[tuple[str, str]], max_age: float = 0
    ) -> None:
        # The longest prefix counts.
        self._directories = sorted(
            (_Directory(prefix, path) for prefix, path in directories),
            key=lambda each: -len(each.prefix),
        )
        self._cache_control = f"max-age={int(max_age)}" if max_age else "no-cache"
        self._log_rate = LogLimit(monotonic, LOG_SECONDS)

    def serves(self, path: str) -> bool:
        """Return whether a path is below one of the prefixes."""
        return self._directory_of(path) is not None

    def _directory_of(self, path: str) -> _Directory | None:
        for directory in self._directories:
            if is_below(directory.prefix, path):
                return directory
        return None

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request for a path that `serves` accepts."""
        path = environ["PATH_INFO"]
        directory = self._directory_of(path)
        assert directory is not None
        method = environ["REQUEST_METHOD"]
        if method not in ("GET", "HEAD"):
            return _answer(
                start_response, "405 Method Not Allowed", [("Allow", "GET, HEAD")]
            )
        name = _name_of(path[len(directory.prefix) :])
        opened = None
        if name is not None:
            try:
                opened = directory.open(name, environ.get("HTTP_ACCEPT_ENCODING", ""))
            except PermissionError as error:
                self._log_unreadable(error)
        if opened is None:
            return _answer(start_response, "404 Not Found")
        file = FileIO(opened.fd)  # closes the descriptor
        try:
            return self._respond(environ, start_response, path, opened, file)
        except BaseException:
            file.close()
            raise

    def _respond(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        path: str,
        opened: _Opened,
        file: FileIO,
    ) -> Iterable[bytes]:
        """Send the file, a part of it, or the fields about it."""
        status = opened.status
        size = status.st_size
        now = time()
        # A date in the future is not permitted (RFC 9110 section 8.8.2.1).
        modified = min(int(status.st_mtime), int(now))
        suffix = f"-{opened.coding}" if opened.coding else ""
        etag = f'"{status.st_mtime_ns:x}-{size:x}{suffix}"'
        fields = [("ETag", etag), ("Cache-Control", self._cache_control)]
        if opened.varies:
            fields.append(("Vary", "Accept-Encoding"))
        validators = Validators(etag, modified)
        result = evaluate(environ, validators)
        if result == NOT_MODIFIED:
            file.close()
            start_response("304 Not Modified", fields)
            return []
        if result == FAILED:
            file.close()
            return _answer(start_response, "412 Precondition Failed")
        fields.append(("Last-Modified", format_date(modified)))
        fields.append(("Accept-Ranges", "bytes"))
        if opened.coding:
            fields.append(("Content-Encoding", opened.coding))
        line, start, end = "200 OK", 0, size
        is_get = environ["REQUEST_METHOD"] == "GET"
        part = selected_range(environ, validators, size, now) if is_get else None
        if part == UNSATISFIABLE:
            file.close()
            return _answer(
                start_response,
                "416 Range Not Satisfiable",
                [("Content-Range", f"bytes */{size}"), ("Accept-Ranges", "bytes")],
            )
        if part is not None:
            line, (start, end) = "206 Partial Content", part
            fields.append(("Content-Range", f"bytes {start}-{end - 1}/{size}"))
        fields.append(("Content-Type", content_type(path)))
        fields.append(("Content-Length", str(end - start)))
        start_response(line, fields)
        if not is_get:
            file.close()
            return []
        file.seek(start)
        body: Iterable[bytes] = environ["wsgi.file_wrapper"](file)
        return body

    def _log_unreadable(self, error: OSError) -> None:
        if self._log_rate.may_log():
            _log.warn(
                "static file answered 404, because it cannot be read ({error}). Logged "
                "once a minute",
                error=error,
            )


def _answer(
    start_response: StartResponse, status: str, fields: Iterable[tuple[str, str]] = ()
) -> list[bytes]:
    """Send a short text about the status."""
    body = f"{status[4:]}\n".encode()
    start_response(
        status,
        [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Content-Length", str(len(body))),
            *fields,
        ],
    )
    return [body]
