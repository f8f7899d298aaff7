"""The application of the soak test: all ways to respond, to wait and to fail."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse
    from twisted.internet.interfaces import IReactorFDSet, IReactorTime

    Environ = dict[str, Any]

#: Length of the response body in bytes, by path.
LENGTHS = {
    "/hello": 6,
    "/echo": 9,
    "/sleep": 6,
    "/tasks": 6,
    "/chunks": 1000,
    "/large": 200_000,
    "/file": 50_000,
    "/write": 20_000,
    "/early": 6,
}

#: Paths that fail before and after the response head.
FAILING = ("/error", "/error-late")

_LARGE = bytes(LENGTHS["/large"])
_PLAIN = [("Content-Type", "text/plain")]
_file = tempfile.NamedTemporaryFile(prefix="soak-")  # noqa: SIM115 - open until exit
_file.write(bytes(LENGTHS["/file"]))
_file.flush()


class SoakError(Exception):
    """The deliberate failure of the application."""


def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer by path; `/state` answers with counts of the process's objects."""
    path = environ["PATH_INFO"]
    match path:
        case "/echo":
            length = len(environ["wsgi.input"].read())
            start_response("200 OK", _PLAIN)
            return [b"%09d" % length]
        case "/sleep":
            environ["txgreenwsgi.sleep"](0.01)
        case "/tasks":
            _with_tasks(environ)
        case "/chunks":
            start_response("200 OK", _PLAIN)
            return _chunks()
        case "/large":
            start_response("200 OK", _PLAIN)
            return [_LARGE]
        case "/file":
            start_response("200 OK", _PLAIN)
            return environ["wsgi.file_wrapper"](open(_file.name, "rb"))  # type: ignore[no-any-return]
        case "/write":
            write = start_response("200 OK", _PLAIN)
            write(_LARGE[:10_000])
            write(_LARGE[:10_000])
            return []
        case "/error":
            raise SoakError(path)
        case "/error-late":
            start_response("200 OK", [*_PLAIN, ("Content-Length", "100000")])
            return _failing()
        case "/state":
            start_response("200 OK", [("Content-Type", "application/json")])
            return [json.dumps(_state(environ)).encode()]
    start_response("200 OK", _PLAIN)
    return [b"hello\n"]


def _with_tasks(environ: Environ) -> None:
    """Spawn two tasks; wait for one and cancel the other."""
    sleep = environ["txgreenwsgi.sleep"]
    waited = environ["txgreenwsgi.spawn"](sleep, 0.005)
    cancelled = environ["txgreenwsgi.spawn"](sleep, 60)
    with environ["txgreenwsgi.timeout"](30):
        waited.wait()
    cancelled.cancel()


def _chunks() -> Iterator[bytes]:
    for _ in range(10):
        yield bytes(100)


def _failing() -> Iterator[bytes]:
    yield bytes(1000)
    raise SoakError("/error-late")


def _state(environ: Environ) -> dict[str, int]:
    from twisted.internet import reactor

    descriptors = cast("IReactorFDSet", reactor)
    gc.collect()
    return {
        "tasks": len(environ["txgreenwsgi.current_task"]().hub.tasks),
        "requests": len(environ["txgreenwsgi.requests"]()),
        "timers": len(cast("IReactorTime", reactor).getDelayedCalls()),
        "readers": len(descriptors.getReaders()),
        "writers": len(descriptors.getWriters()),
        "files": len(os.listdir("/proc/self/fd")),
        "objects": len(gc.get_objects()),
    }
