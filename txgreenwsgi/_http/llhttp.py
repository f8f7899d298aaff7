"""Validation of request heads by llhttp, the parser of Node.js.

The only file that imports httptools. Must never decide what a head means: it only
checks whether a widely deployed parser accepts the bytes as a head.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from .head import Malformed

# llhttp refuses methods that are not in its table, some of which change the meaning of
# the head (CONNECT, PRI, those of RTSP). `read_request_line` has checked the method.
_METHOD = b"GET"

__all__ = ["validate_head"]


class _Callbacks:
    """Callbacks for llhttp. None for fields, which would create objects for each."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


def validate_head(head: bytes) -> None:
    """Raise `Malformed` if llhttp rejects the head.

    The method is not validated: llhttp reads GET in its place.

    Args:
        head: One whole head, from the method to the empty line, inclusive. Its request
            line must be valid.

    Raises:
        Malformed: 400.
    """
    callbacks = _Callbacks()
    head = _METHOD + head[head.find(b" ") :]
    # A new parser for each head: data from one client cannot affect another's head,
    # and the parser's state after a head (body, upgrade, close) is not needed.
    parser = HttpRequestParser(callbacks)
    try:
        parser.feed_data(head)
    except HttpParserUpgrade:
        pass  # httptools reports an Upgrade field this way, after the head.
    except HttpParserError as error:
        raise Malformed(400, f"malformed head: {error}") from None
    if not callbacks.complete:
        raise Malformed(400, "malformed head: llhttp finds no end of it")
