"""The application of the abuse tests: short answers, a huge one, unread uploads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

GIGABYTE = 1024**3
_BLOCK = bytes(65536)


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer `/huge` with 1 GiB; `/deaf` sleeps and does not read its body."""
    path = environ["PATH_INFO"]
    if path == "/huge":
        start_response(
            "200 OK",
            [
                ("Content-Type", "application/octet-stream"),
                ("Content-Length", str(GIGABYTE)),
            ],
        )
        return _huge()
    if path == "/deaf":
        environ["txgreenwsgi.sleep"](60)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"short\n"]


def _huge() -> Iterator[bytes]:
    for _ in range(GIGABYTE // len(_BLOCK)):
        yield _BLOCK
