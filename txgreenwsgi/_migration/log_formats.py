"""gunicorn's format of the access log, in the directives of this server.

It knows both syntaxes. It must never know a record.
"""

from __future__ import annotations

import re
from typing import Final

__all__ = ["DEFAULT_FORMAT", "translated_format"]

#: gunicorn's default.
DEFAULT_FORMAT: Final = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'

_ATOMS: Final = {
    **{name: f"%{name}" for name in "hlutrmUHsbBTDML"},
    "q": "%{QUERY_STRING}e",
    "f": "%{Referer}i",
    "a": "%{User-Agent}i",
    "p": "<%P>",
}
_ATOM: Final = re.compile(
    r"%(?:%|\((?P<name>[^)]*)\)[-#0 +]*[0-9]*(?:\.[0-9]+)?[diouxXeEfFgGcrsa])"
)
_NAMED: Final = re.compile(r"\{([^}]+)\}[ioe]\Z")


def translated_format(form: str) -> str:
    """Return a format with directives.

    gunicorn writes "-" for an unknown name, and so does the result.
    """

    def directive(match: re.Match[str]) -> str:
        name = match["name"]
        if name is None:
            return "%%"
        if _NAMED.match(name):
            return f"%{name}"
        return _ATOMS.get(name, "-")

    return _ATOM.sub(directive, form.replace("\\", r"\\"))
