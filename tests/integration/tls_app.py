"""An application that shows the TLS variables of its environ."""

from __future__ import annotations

import json
from typing import Any


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Return the variables as JSON."""
    names = ("wsgi.url_scheme", "HTTPS", "SERVER_PORT", "REMOTE_ADDR")
    found = {
        name: value
        for name, value in environ.items()
        if name.startswith("SSL_") or name in names
    }
    body = json.dumps(found).encode()
    start_response(
        "200 OK",
        [("Content-Type", "application/json"), ("Content-Length", str(len(body)))],
    )
    return [body]
