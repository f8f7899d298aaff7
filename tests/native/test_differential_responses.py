"""Response heads and bodies, compared in both modes.

Hypothesis generates what an application may return, right or wrong: statuses, fields
and blocks of every type, one block or many, with or without a Content-Length that is
correct. Both servers must send the same bytes and log the same errors.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from .app import encode
from .pair import Pair
from .test_differential_requests import CLOSE, RUNS

_STATUSES: tuple[Any, ...] = (
    *("200 OK",) * 8,
    *("200", "200 ", "204 No Content", "304 Not Modified", "404 Not Found", "500 X"),
    *("100 Continue", "101 Switching Protocols", "099 Low", "1000 X", "2xx", "", " "),
    *("200 \xe4", "200 OK\r\nX: 1", "200 \x00", "200 \u20ac", "600 Odd"),
    *({"bytes": "200 OK"}, {"text": "200 OK"}, 200, None, ["200 OK"]),
)
_NAMES: tuple[Any, ...] = (
    *("Content-Type",) * 4,
    *("content-type", "Content-Length", "content-length", "X-A", "x-a", "Set-Cookie"),
    *("Date", "date", "Server", "server", "Connection", "Transfer-Encoding"),
    *("Keep-Alive", "Upgrade", "Trailer", "TE", "Status", "Vary", "ETag", "Location"),
    *("", " ", "A B", "A:", "X\r\nY", "\xe4", "\u20ac", "X_Under"),
    *({"bytes": "X-A"}, {"text": "X-A"}, 5, None),
)
_VALUES: tuple[Any, ...] = (
    *("text/plain",) * 4,
    *("", " ", "a", " padded ", "tab\there", "5", "0", "14", "+5", "-1", "5 ", "5, 5"),
    *(
        "close",
        "keep-alive",
        "chunked",
        "identity",
        "gzip",
        "a\r\nX: 1",
        "a\nb",
        "\x00",
    ),
    *("\xe4", "\u20ac", "\x7f", "v" * 300, "99999999999999999999"),
    *({"bytes": "text/plain"}, {"text": "text/plain"}, 5, None, ["a"]),
)
_BLOCKS: tuple[Any, ...] = (
    *({"bytes": "hello"},) * 4,
    *({"bytes": ""}, {"bytes": "hello, world!\n"}, {"repeat": ["x", 70_000]}),
    *({"repeat": ["y", 1_000]}, {"array": "bytearray"}, {"octets": "octets"}),
    *("text", {"text": "text"}, None, 5),
)
_BY = (
    *("list",) * 6,
    *("tuple", "iterator", "generator", "sleeping", "failing", "write", "both"),
    *("closing", "late head", "file", "one", "failing first", "writing"),
    *("closing iterator",) * 3,
)


def _length(blocks: list[Any]) -> int:
    total = 0
    for block in blocks:
        match block:
            case {"repeat": [text, count]}:
                total += len(text) * count
            case {"bytes": text} | {"array": text} | {"octets": text} | str(text):
                total += len(text)
    return total


@st.composite
def responses(draw: st.DrawFn) -> dict[str, Any]:
    """Generate a response of the application, mostly a valid one."""
    odd = draw(st.integers(0, 3)) == 0
    names = _NAMES if odd else _NAMES[:24]
    values = _VALUES if odd else _VALUES[:8]
    fields: list[list[Any]] = draw(
        st.lists(
            st.tuples(st.sampled_from(names), st.sampled_from(values)).map(list),
            max_size=4,
        )
    )
    if not odd:
        fields = [
            field
            for field in fields
            if field[0] not in ("Content-Length", "content-length")
        ]
    blocks = draw(
        st.lists(st.sampled_from(_BLOCKS if odd else _BLOCKS[:8]), max_size=4)
        | st.lists(st.sampled_from(_BLOCKS[:8]), min_size=1, max_size=1)
    )
    length = draw(st.sampled_from((None, None, 0, 0, 0, 1, -1, 100)))
    if length is not None:
        fields.append(["Content-Length", str(max(0, _length(blocks) + length))])
    spec: dict[str, Any] = {
        "status": draw(st.sampled_from(_STATUSES if odd else _STATUSES[:14])),
        "fields": fields,
        "blocks": blocks,
        "by": draw(st.sampled_from(_BY)),
    }
    if odd:
        spec["fields_as"] = draw(
            st.sampled_from(("list", "tuple", "iterator", "lists"))
        )
        spec["again"] = draw(st.sampled_from(("", "", "", "plain", "exc_info")))
        spec["raise"] = draw(st.sampled_from(("", "", "", "before", "after")))
        spec["close_fails"] = draw(st.booleans())
        if draw(st.integers(0, 9)) == 0:
            fields.append(draw(st.sampled_from(([], ["a"], ["a", "b", "c"]))))
    return spec


class ResponseTests(SynchronousTestCase):
    """The same responses of an application, by both servers."""

    def run_with(self, *options: str, logged: bool = False) -> None:
        """Compare random responses, with these options of the servers."""
        pair = Pair(self, options, logged=logged)

        @RUNS
        @given(
            responses(),
            st.sampled_from(("GET", "GET", "GET", "HEAD", "POST")),
            st.sampled_from(("1.1", "1.1", "1.1", "1.0")),
            st.sampled_from(
                ("", "Connection: close\r\n", "Connection: keep-alive\r\n")
            ),
        )
        def run(spec: dict[str, Any], method: str, version: str, field: str) -> None:
            head = f"{method} /respond?{encode(spec)} HTTP/{version}\r\nHost: x\r\n"
            pair.check([f"{head}{field}\r\n".encode() + CLOSE])

        run()
        pair.finish()

    def test_default(self) -> None:
        """With the settings that the fast path is made for."""
        self.run_with()

    def test_strict(self) -> None:
        """With --strict, which checks the application."""
        self.run_with("--strict", logged=True)

    def test_settings(self) -> None:
        """With settings that change each head, environ or wait."""
        self.run_with(
            *("--server-header=", "--environ=shop.name=x", "--request-timeout=60"),
            "--on-disconnect=cancel",
            logged=True,
        )
