"""An application for the tests of health checks and notifications."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed.wsgi import StartResponse, WSGIEnvironment


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with the address of the client, or as the path says."""
    path = environ["PATH_INFO"]
    text = f"{environ['REMOTE_ADDR']} {environ['REMOTE_PORT']}"
    if path == "/scheme":
        text += f" {environ['wsgi.url_scheme']}"
    elif path == "/environ":
        code = "import os; print(sorted(n for n in os.environ if 'NOTIFY' in n))"
        text = subprocess.check_output([sys.executable, "-c", code], text=True)
    elif path == "/nap":
        os.write(2, b"napping\n")
        time.sleep(2)
    elif path == "/block":
        os.write(2, b"blocking\n")
        sum(range(10**12))  # in C, with the interpreter lock
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
