"""The demo page: markup, style and script, assembled once into one document.

It knows the files in this directory. It must never let the page load other
resources: the Content-Security-Policy allows the two inline parts by their hashes, and
requests only to the server of the page.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files


def _part(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _source(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"'sha256-{base64.b64encode(digest).decode('ascii')}'"


_STYLE = _part("page.css")
_SCRIPT = _part("page.js")

PAGE = (
    _part("page.html")
    .replace("{{ style }}", _STYLE)
    .replace("{{ script }}", _SCRIPT)
    .encode("utf-8")
)

POLICY = (
    f"default-src 'none'; style-src {_source(_STYLE)}; script-src {_source(_SCRIPT)}; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
