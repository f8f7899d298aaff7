"""The application of the worker tests: it tells its process, and can misbehave."""

from __future__ import annotations

import os
import re
import signal
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


_kept: list[bytes] = []


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with the process id; the path selects what happens before.

    "/sleep/SECONDS" waits, "/exit" and "/kill" end the process, "/busy/SECONDS" holds
    the reactor up, "/calls/SECONDS" does so by calls of functions, "/hang" in C with
    the interpreter lock, for ever, "/keep" keeps 50 MB of memory, "/print" prints.
    """
    _, action, *arguments = environ["PATH_INFO"].split("/")
    if action == "sleep":
        environ["txgreenwsgi.sleep"](float(arguments[0]))
    elif action == "exit":
        os._exit(3)
    elif action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif action == "busy":
        end = time.monotonic() + float(arguments[0])
        while time.monotonic() < end:
            pass
    elif action == "calls":
        end = time.monotonic() + float(arguments[0])
        while time.monotonic() < end:
            sorted(range(20), key=lambda number: -number)
            type("Made", (), {})
    elif action == "hang":
        re.match(r"(a+)+$", "a" * 100 + "b")
    elif action == "keep":
        _kept.append(b"x" * 50_000_000)
    elif action == "print":
        print("printed by the application")
    elif action == "environ":
        start_response("200 OK", [("Content-Type", "text/plain")])
        names = ("wsgi.multiprocess", "wsgi.url_scheme", "SERVER_PORT")
        return [f"{name}={environ[name]}\n".encode() for name in names]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % os.getpid()]
