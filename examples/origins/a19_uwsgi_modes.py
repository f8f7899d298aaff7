"""The two ways to wait in uWSGI, in one application written for uWSGI.

The asynchronous mode of uWSGI has both: an application registers the descriptors that
it waits for, and then either yields an empty string or, with greenlets, calls
`uwsgi.suspend()` at any call depth. `/yield` and `/suspend` do the same in both ways:
they wait for two descriptors at once, report the one that was ready, and sleep. The
two "devices" are pipes into which a thread writes after a delay.

Run it from the root of a checkout::

    twistd -n greenwsgi --app examples.origins.a19_uwsgi_modes:app --origin uwsgi
    curl http://localhost:8080/yield
    curl http://localhost:8080/suspend

It knows WSGI and the `uwsgi` module. It must never know another server.
"""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

import uwsgi  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class Device:
    """A descriptor that becomes readable after some seconds."""

    def __init__(self, seconds: float) -> None:
        self.fd, self._other_end = os.pipe()
        self._timer = threading.Timer(seconds, os.write, (self._other_end, b"!"))
        self._timer.start()

    def close(self) -> None:
        """Close it, readable or not."""
        self._timer.cancel()
        self._timer.join()
        os.close(self.fd)
        os.close(self._other_end)


def ready_device(environ: WSGIEnvironment, devices: list[Device]) -> str:
    """Return which of the devices was ready."""
    if environ["x-wsgiorg.fdevent.timeout"]:
        return "timed out"
    fds = [device.fd for device in devices]
    return f"device {fds.index(uwsgi.ready_fd())} was ready"


def by_yielding(environ: WSGIEnvironment, devices: list[Device]) -> Iterator[Any]:
    """Wait by yielding empty strings; yield the results last, as a list."""
    results = []
    for seconds in (5, 1):
        for device in devices:
            uwsgi.wait_fd_read(device.fd, seconds)
        yield b""
        results.append(ready_device(environ, devices))
        if "ready" in results[-1]:
            os.read(uwsgi.ready_fd(), 1)
    yield uwsgi.async_sleep(1)
    yield [*results, "slept"]


def by_suspending(environ: WSGIEnvironment, devices: list[Device]) -> list[str]:
    """Wait by calls; return the results. Parks."""
    results = []
    for seconds in (5, 1):
        for device in devices:
            uwsgi.wait_fd_read(device.fd, seconds)
        uwsgi.suspend()
        results.append(ready_device(environ, devices))
        if "ready" in results[-1]:
            os.read(uwsgi.ready_fd(), 1)
    uwsgi.async_sleep(1)
    uwsgi.suspend()
    return [*results, "slept"]


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Wait in one of the two ways, and send the results."""
    devices = [Device(60.0), Device(0.2)]
    try:
        if environ["PATH_INFO"] == "/suspend":
            results = by_suspending(environ, devices)
        else:
            results = []
            for block in by_yielding(environ, devices):
                if block:
                    results = block
                else:
                    yield block
    finally:
        for device in devices:
            device.close()
    start_response("200 OK", [("Content-Type", "text/plain")])
    yield "".join(f"{result}\n" for result in results).encode()
