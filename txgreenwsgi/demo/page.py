"""The page itself, put together once: markup, style and script in one document.

It knows the files beside it. It must never let the page load anything else: the
Content-Security-Policy names the two inline parts by their hashes, and allows
nothing but requests to the server the page came from.
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
