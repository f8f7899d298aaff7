"""A terminal that is drawn on and read key by key.

It knows the device and the sequences that all terminals understand. It must never know
what is drawn.
"""

from __future__ import annotations

import os
import select
import shutil
import sys
import termios
import tty
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from .terminal import Line

__all__ = ["Screen", "is_usable"]

_STYLES: Final = {
    "": "",
    "title": "\x1b[1m",
    "quiet": "\x1b[2m",
    "bad": "\x1b[1;31m",
    "selected": "\x1b[7m",
}
_KEYS: Final = {
    b"\x1b[A": "up",
    b"\x1bOA": "up",
    b"k": "up",
    b"\x1b[B": "down",
    b"\x1bOB": "down",
    b"j": "down",
    b"\x1b": "escape",
    b"\r": "enter",
    b"\n": "enter",
    b"\t": "tab",
}


def is_usable() -> bool:
    """Return whether the standard streams are a terminal that can be drawn on."""
    return (
        sys.stdin.isatty()
        and sys.stdout.isatty()
        and os.environ.get("TERM", "dumb") != "dumb"
    )


class Screen:
    """The terminal of this process, as a context manager that restores it."""

    def __init__(self) -> None:
        self._input = sys.stdin.fileno()
        self._saved = termios.tcgetattr(self._input)
        self._typed = b""

    def __enter__(self) -> Screen:
        tty.setcbreak(self._input)
        # The second screen, so that the first one is as before at the end; no cursor.
        self._write("\x1b[?1049h\x1b[?25l")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._write("\x1b[0m\x1b[?25h\x1b[?1049l")
        termios.tcsetattr(self._input, termios.TCSADRAIN, self._saved)

    @property
    def size(self) -> tuple[int, int]:
        """The columns and the rows."""
        columns, rows = shutil.get_terminal_size()
        return max(columns, 20), max(rows, 5)

    def draw(self, lines: Sequence[Line]) -> None:
        """Draw lines from the top."""
        _, rows = self.size
        shown = [
            f"{_STYLES[line.style]}{line.text}\x1b[0m\x1b[K" for line in lines[:rows]
        ]
        self._write("\x1b[H" + "\r\n".join(shown) + "\x1b[J")

    def key(self, seconds: float) -> str:
        """Return the next key: "up", "enter", a letter; "" if none is pressed in time.

        Raises:
            EOFError: the terminal is gone.
        """
        if not self._typed:
            ready, _, _ = select.select([self._input], [], [], max(seconds, 0.0))
            if not ready:
                return ""
            self._typed = os.read(self._input, 1024)
            if not self._typed:
                raise EOFError
        data = self._typed
        # The longest one first: an escape begins others.
        size = next((size for size in (3, 1) if data[:size] in _KEYS), 1)
        self._typed = data[size:]
        return _KEYS.get(data[:size]) or data[:1].decode("ascii", "replace")

    @staticmethod
    def _write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()
