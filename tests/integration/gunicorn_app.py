"""Applications for gunicorn with our worker class."""

from __future__ import annotations

import os
import re
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with facts about the request; some paths wait or block first."""
    path = environ["PATH_INFO"]
    if path == "/sleep":
        time.sleep(0.5)
    elif path == "/spin":
        while True:
            time.monotonic()
    elif path == "/block-in-c":
        # Backtracks for years, and holds the interpreter's lock.
        re.match(r"(a+)+$", "a" * 60 + "b")
    elif path == "/fail":
        raise ValueError("the view fails")
    elif path == "/print":
        print("printed by the view")
        print("written to wsgi.errors", file=environ["wsgi.errors"])
    facts = {
        "pid": os.getpid(),
        "scheme": environ["wsgi.url_scheme"],
        "script_name": environ["SCRIPT_NAME"],
        "multiprocess": environ["wsgi.multiprocess"],
        "server": environ["SERVER_SOFTWARE"],
        "reactor": sys.modules["twisted.internet.reactor"].__class__.__name__,
        "variable": os.environ.get("GREEN_VARIABLE", ""),
    }
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Kind", "facts")])
    return [repr(facts).encode()]
