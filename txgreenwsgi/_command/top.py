"""`txgreenwsgi top`: the status of a server, again and again.

It knows keys and the order of questions. It must never know how lines are drawn.
"""

from __future__ import annotations

import json
import locale
import sys
import time
from typing import TYPE_CHECKING, Final

from txgreenwsgi._control.interface import ControlError
from txgreenwsgi._status.history import History
from txgreenwsgi._status.screen import Screen, is_usable
from txgreenwsgi._status.terminal import (
    ASCII_BARS,
    BARS,
    FAILURES,
    REQUESTS,
    Line,
    Selection,
    frame,
    requests_of,
    text,
)
from txgreenwsgi._status.units import clipped, printable

from .asking import Parser, question, report, seconds_of

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from txgreenwsgi._control.interface import (
        FailureInformation,
        SnapshotInformation,
    )

__all__ = ["main"]

#: The width of the text for a file or a pipe.
_WIDE: Final = 160

_HELP: Final = "q quit  j/k select  tab failures  enter stack"


def main(words: Sequence[str]) -> int:
    """Show the status until a key ends it, and return the exit status."""
    parser = Parser("top")
    parser.add_argument(
        "--once",
        action="store_true",
        help="print the status once, and exit; as if the output is not a terminal",
    )
    parser.add_argument(
        "--interval",
        type=seconds_of,
        default=1.0,
        metavar="SECONDS",
        help="time between two questions to the server [default: 1]",
    )
    given = parser.parse_args(words)
    try:
        if given.once or given.json or not is_usable():
            _print(given)
        else:
            _Top(given).run()
    except ControlError as error:
        return report(error, parser, given)
    except KeyboardInterrupt:
        return 0
    return 0


def _bars() -> str:
    """Return the characters of charts that the terminal can show."""
    encoding = sys.stdout.encoding or locale.getpreferredencoding(False)
    try:
        BARS.encode(encoding)
    except (LookupError, UnicodeEncodeError):
        return ASCII_BARS
    return BARS


def _print(given: argparse.Namespace) -> None:
    """Print the status of an interval once."""
    history = History()
    history.add(question(given, "snapshot"))
    time.sleep(given.interval)
    snapshot: SnapshotInformation = question(given, "snapshot")
    history.add(snapshot)
    if given.json:
        print(json.dumps({**snapshot, "rate": history.samples[-1].rate}, indent=2))
        return
    shown = text(frame(snapshot, history, _WIDE, bars=_bars()))
    encoding = sys.stdout.encoding or "ascii"
    print(shown.encode(encoding, "backslashreplace").decode(encoding))


class _Top:
    """The interactive display.

    Args:
        given: the command line.
    """

    def __init__(self, given: argparse.Namespace) -> None:
        self._given = given
        self._history = History()
        self._snapshot: SnapshotInformation | None = None
        self._selection = Selection()
        self._message = ""
        self._bars = _bars()

    def run(self) -> None:
        """Show the status until a key ends it.

        Raises:
            ControlError: the server does not answer at the start.
        """
        self._ask()
        due = time.monotonic() + self._given.interval
        with Screen() as screen:
            while True:
                self._draw(screen)
                try:
                    key = screen.key(due - time.monotonic())
                except EOFError:
                    return
                if key in ("q", "escape"):
                    return
                if key:
                    self._message = ""
                    self._press(screen, key)
                if time.monotonic() >= due:
                    due = time.monotonic() + self._given.interval
                    self._try_to_ask()

    def _ask(self) -> None:
        snapshot: SnapshotInformation = question(self._given, "snapshot")
        self._snapshot = snapshot
        self._history.add(snapshot)

    def _try_to_ask(self) -> None:
        try:
            self._ask()
        except ControlError as error:
            self._message = str(error)

    def _draw(self, screen: Screen) -> None:
        snapshot = self._snapshot
        assert snapshot is not None, "asked at the start"
        columns, rows = screen.size
        lines = frame(
            snapshot,
            self._history,
            columns,
            rows - 1,
            self._selection,
            bars=self._bars,
        )
        lines += [Line("")] * (rows - 1 - len(lines))
        keys = f"{_HELP}  c cancel" if snapshot["can_cancel"] else _HELP
        footer = printable(self._message) or keys
        lines.append(
            Line(clipped(footer, columns - 1), "bad" if self._message else "quiet")
        )
        screen.draw(lines)

    def _press(self, screen: Screen, key: str) -> None:
        table, index = self._selection
        count = len(self._rows())
        if key == "tab":
            table = FAILURES if table == REQUESTS else REQUESTS
            self._selection = Selection(table, 0)
        elif key == "down":
            self._selection = Selection(table, min(index + 1, max(count - 1, 0)))
        elif key == "up":
            self._selection = Selection(table, max(min(index, count) - 1, 0))
        elif key in ("enter", "c"):
            of = self._selected()
            if not of:
                self._message = f"no {table} to choose from"
                return
            try:
                if key == "enter":
                    self._show(screen, of)
                elif table == REQUESTS:
                    self._cancel(screen, of)
            except ControlError as error:
                self._message = str(error)

    def _rows(self) -> list[str]:
        snapshot = self._snapshot
        assert snapshot is not None, "asked at the start"
        if self._selection.table == FAILURES:
            return [failure["failure_id"] for failure in snapshot["failures"]]
        return [request["request_id"] for request in requests_of(snapshot)]

    def _selected(self) -> str:
        rows = self._rows()
        return rows[min(self._selection.row, len(rows) - 1)] if rows else ""

    def _show(self, screen: Screen, of: str) -> None:
        """Show a stack or a traceback until a key is pressed."""
        if self._selection.table == FAILURES:
            failure: FailureInformation = question(self._given, "failure", of=of)
            shown = failure["traceback"] or "there is no traceback"
        else:
            shown = question(self._given, "stacks", of=of)
        lines = shown.rstrip("\n").splitlines()
        begin = None
        while True:
            columns, rows = screen.size
            last = max(len(lines) - rows + 1, 0)
            # The innermost call is at the end.
            begin = last if begin is None else max(min(begin, last), 0)
            page = [
                Line(clipped(printable(line.replace("\t", "    ")), columns))
                for line in lines[begin : begin + rows - 1]
            ]
            page += [Line("")] * (rows - 1 - len(page))
            page.append(Line(clipped("j/k scroll  enter back", columns - 1), "quiet"))
            screen.draw(page)
            key = screen.key(3600)
            if key == "up":
                begin -= 1
            elif key == "down":
                begin += 1
            elif key:
                return

    def _cancel(self, screen: Screen, of: str) -> None:
        """Cancel a request, after a question."""
        columns, _ = screen.size
        prompt = f"cancel the request {of}? y/n"
        screen.draw([Line(clipped(prompt, columns), "bad")])
        if screen.key(3600) == "y":
            question(self._given, "cancel", of=of)
            self._message = f"cancelled {of}"
