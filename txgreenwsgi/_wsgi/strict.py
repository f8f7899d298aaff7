"""`--strict`: every violation of PEP 3333 by the application is an error.

The gateway and the response head accept some violations that are common and harmless.
The checks here reject them, and whatever `wsgiref.validate` rejects, except `read()`
without a size, which PEP 3333 allows and Flask uses. They run around the application,
so the rest of the server is the same with and without them.

Knows PEP 3333. Must never know how a response is sent.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from txgreenwsgi._http.framing import BODILESS_CODES
from txgreenwsgi._http.writer import HOP_BY_HOP, InvalidField

from .files import FileWrapper
from .input import InputProxy

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment

    from .errors import Errors
    from .gateway import Application

__all__ = ["StrictApplication"]

# wsgiref.validate requires these forms, which CGI can pass on. The space is required,
# the reason is not (RFC 9112 section 4).
_STATUS = re.compile(r"[0-9]{3} .*", re.DOTALL)
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
_CONTROL = re.compile(r"[\x00-\x1f]")


class StrictApplication:
    """An application whose violations of PEP 3333 raise exceptions.

    Args:
        application: The application to check.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    def __repr__(self) -> str:
        return repr(self._application)

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Call the application, and return its response with checks."""
        _check_environ(environ)
        environ["wsgi.input"] = _Input(environ["wsgi.input"])
        environ["wsgi.errors"] = _Errors(environ["wsgi.errors"])
        start = _StartResponse(start_response)
        blocks = self._application(environ, start)
        kind: type[object] = type(blocks)
        if kind is FileWrapper or not hasattr(kind, "__iter__"):
            return blocks  # the gateway reports an object without an iterator
        if issubclass(kind, str | bytes):
            raise TypeError(
                f"the application {self!r:.80} returned {kind.__name__}: return a list "
                "with one block, [b'...'] (PEP 3333)"
            )
        if kind is list or kind is tuple:
            for block in blocks:
                _check_block(block, "a block of the response")
            if blocks:
                start.check_called()
            return blocks
        checked = _CountedBlocks if hasattr(kind, "__len__") else _Blocks
        return checked(blocks, start)


class _StartResponse:
    """A `start_response` that checks its arguments.

    Attributes:
        called: True after a call that returned.
    """

    def __init__(self, start_response: StartResponse) -> None:
        self._start_response: Any = start_response
        self.called = False

    def __call__(self, *args: Any, **keywords: Any) -> Callable[[bytes], object]:
        if keywords or not 2 <= len(args) <= 3:
            given = [*map(repr, args), *(f"{name}=..." for name in keywords)]
            raise TypeError(
                f"start_response({', '.join(given):.80}): give two or three positional "
                "arguments: status, headers, exc_info (PEP 3333)"
            )
        status, headers, *rest = args
        _check_status(status)
        _check_headers(headers)
        _check_content_type(status, headers)
        if rest and not (rest[0] is None or isinstance(rest[0], tuple)):
            raise TypeError(
                f"exc_info is {rest[0]!r:.80}: give None or sys.exc_info() (PEP 3333)"
            )
        try:
            write = self._start_response(*args)
        finally:
            del args, rest  # the traceback in exc_info refers to this frame: a cycle
        self.called = True

        def checked_write(data: bytes) -> None:
            _check_block(data, "the argument of write()")
            write(data)

        return checked_write

    def check_called(self) -> None:
        """Raise unless the application has called `start_response`."""
        if not self.called:
            raise AssertionError(
                "the application sent a block without having called start_response "
                "(PEP 3333)"
            )


class _Blocks:
    """The iterable of an application, which is iterated once."""

    def __init__(self, blocks: Iterable[bytes], start: _StartResponse) -> None:
        self._blocks = blocks
        self._start = start

    def __iter__(self) -> Iterator[bytes]:
        for block in self._blocks:
            _check_block(block, "a block of the response")
            self._start.check_called()
            yield block

    def close(self) -> None:
        close = getattr(self._blocks, "close", None)
        if close is not None:
            close()


class _CountedBlocks(_Blocks):
    """An iterable whose type has `__len__`, from which the gateway derives a length."""

    def __len__(self) -> int:
        return len(self._blocks)  # type: ignore[arg-type]


class _Input(InputProxy):
    """`wsgi.input`, with the calls of PEP 3333, "Input and Error Streams"."""

    __slots__ = ()

    def close(self) -> None:
        raise AssertionError("wsgi.input must not be closed by the application")

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.body)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.body, name)


class _Errors:
    """`wsgi.errors`, with the calls of PEP 3333."""

    __slots__ = ("_errors",)

    def __init__(self, errors: Errors) -> None:
        self._errors = errors

    def write(self, text: str) -> int:
        if type(text) is not str:
            raise TypeError(
                f"wsgi.errors.write() takes a str, not {type(text).__name__}: "
                f"{text!r:.60} (PEP 3333)"
            )
        return self._errors.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._errors.flush()

    def close(self) -> None:
        raise AssertionError("wsgi.errors must not be closed by the application")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._errors, name)


def _check_environ(environ: WSGIEnvironment) -> None:
    """Raise if the variables that the deployer can set contradict PEP 3333."""
    for name in ("HTTP_CONTENT_TYPE", "HTTP_CONTENT_LENGTH"):
        if name in environ:
            raise AssertionError(
                f"the environ has {name}: use {name.removeprefix('HTTP_')} (PEP 3333)"
            )
    for name in ("SCRIPT_NAME", "PATH_INFO"):
        path = environ[name]
        if path and not path.startswith("/"):
            raise AssertionError(
                f"{name} is {path!r}: begin it with a slash (PEP 3333)"
            )
    if environ["SCRIPT_NAME"] == "/":
        raise AssertionError("SCRIPT_NAME is '/': use '' for the root (PEP 3333)")


def _check_status(status: object) -> None:
    if type(status) is not str:
        raise TypeError(
            f"the status must be a str such as '200 OK', not {status!r} (PEP 3333)"
        )
    if not _STATUS.fullmatch(status):
        raise InvalidField(
            f"the status is invalid: {status!r}; expected three digits, a space and a "
            "reason, such as '200 OK' (PEP 3333)"
        )


def _check_headers(headers: object) -> None:
    if type(headers) is not list:
        raise TypeError(
            f"start_response takes the headers as a list, not {headers!r:.80} "
            "(PEP 3333)"
        )
    for field in headers:
        if type(field) is not tuple or len(field) != 2:
            raise TypeError(
                f"a response field must be a tuple (name, value), not {field!r:.80} "
                "(PEP 3333)"
            )
        if not all(type(text) is str for text in field):
            raise TypeError(
                f"names and values of response fields must be str, not {field!r:.80} "
                "(PEP 3333)"
            )
        _check_field(*field)


def _check_field(name: str, value: str) -> None:
    lower = name.lower()
    if lower in HOP_BY_HOP:
        raise InvalidField(
            f"the response field {name} is hop-by-hop: applications must not send it "
            "(PEP 3333, Other HTTP Features)"
        )
    if lower == "status":
        raise InvalidField(
            f"{name} is not a response field: give the status as the first argument of "
            "start_response (PEP 3333)"
        )
    if not _NAME.fullmatch(name):
        raise InvalidField(
            f"{name!r} is not a field name: use letters, digits and hyphens, with a "
            "letter at the beginning and no hyphen at the end"
        )
    if _CONTROL.search(value):
        raise InvalidField(
            f"the value of the response field {name} contains a control character: "
            f"{value!r} (PEP 3333)"
        )


def _check_content_type(status: str, headers: list[tuple[str, str]]) -> None:
    found = any(name.lower() == "content-type" for name, _ in headers)
    if int(status[:3]) in BODILESS_CODES:
        if found:
            raise InvalidField(
                f"a response {status!r} has no content, but a Content-Type: remove it"
            )
    elif not found:
        raise InvalidField(
            f"the response {status!r} has no Content-Type: add it to {headers!r:.80}"
        )


def _check_block(block: object, subject: str) -> None:
    if type(block) is not bytes:
        raise TypeError(
            f"{subject} must be bytes, not {type(block).__name__}: {block!r:.60} "
            "(PEP 3333)"
        )
