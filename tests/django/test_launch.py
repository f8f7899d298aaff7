"""The launcher of `manage.py`: the wait for a change after an error."""

from __future__ import annotations

import io
import os
import sys
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi.django import launch


class _Editor(io.StringIO):
    """A terminal whose user saves a file as soon as something is printed."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def write(self, text: str) -> int:
        """Print the text, and save the file."""
        os.utime(self._path, (1, 1))
        return super().write(text)


class WaitTests(SynchronousTestCase):
    """`wait_for_change`."""

    def test_change_at_the_message(self) -> None:
        """A file that is saved right after the message ends the wait."""
        path = Path(self.mktemp())
        path.write_text("this is no Python")
        terminal = _Editor(path)

        def sleep(_seconds: float) -> None:
            raise AssertionError("the change was missed")

        self.patch(sys, "stderr", terminal)
        self.patch(time, "sleep", sleep)
        launch.wait_for_change(SyntaxError("invalid", (str(path), 1, 1, "", 1, 1)))
        self.assertEqual(terminal.getvalue(), "Waiting for a file to change.\n")
