"""The second opinion: llhttp, the parser of Node.js, through httptools.

The only file that imports httptools. Must never decide what a head means: it says
whether a parser that many others run would take these bytes for a head at all.
"""

from __future__ import annotations

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser

from .head import Malformed

__all__ = ["judge_head"]


class _Verdict:
    """What llhttp calls. No callbacks for fields: it would make objects of them."""

    __slots__ = ("complete",)

    def __init__(self) -> None:
        self.complete = False

    def on_headers_complete(self) -> None:
        self.complete = True


def judge_head(head: bytes) -> None:
    """Refuse a head that llhttp refuses.

    Args:
        head: One whole head, from the method to the empty line.

    Raises:
        Malformed: 400.
    """
    verdict = _Verdict()
    # A new one each time: nothing that one client sent can bear on another's head,
    # and none of its states after a head (body, upgrade, close) concerns us.
    parser = HttpRequestParser(verdict)
    try:
        parser.feed_data(head)
    except HttpParserUpgrade:
        pass  # Its way to say that Upgrade is there, once the head is complete.
    except HttpParserError as error:
        raise Malformed(400, f"the head is malformed: {error}") from None
    if not verdict.complete:
        raise Malformed(400, "the head is malformed: its end is not where it seems")
