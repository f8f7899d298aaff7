"""Tests of stacks: frames, dumps, and the line to report."""

from __future__ import annotations

import json
import os
import sys
from threading import Event, Thread, get_ident
from typing import TYPE_CHECKING

from twisted.internet.epollreactor import EPollReactor
from twisted.trial.unittest import SynchronousTestCase

import txgreenwsgi
from txgreenwsgi.monitoring.stacks import (
    CodeLine,
    application_line,
    excerpt,
    in_debugger,
    is_event_wait,
    kind_of,
    stack_of_thread,
)

if TYPE_CHECKING:
    from txgreenwsgi.monitoring.stacks import Stack

STDLIB = json.__file__
INSTALLED = "/srv/venv/lib/python3.11/site-packages/{}"
OWN = os.path.join(os.path.dirname(txgreenwsgi.__file__), "_wsgi", "gateway.py")
DEMO = os.path.join(os.path.dirname(txgreenwsgi.__file__), "demo", "page.py")
APP = "/srv/shop/views.py"


def stack(*filenames: str) -> Stack:
    """Return a stack of the given files, the innermost first."""
    return tuple(
        CodeLine(filename, number, "f") for number, filename in enumerate(filenames, 1)
    )


class ApplicationLineTests(SynchronousTestCase):
    """`application_line`."""

    def reported(self, *filenames: str) -> str:
        """Return the file of the reported line."""
        return application_line(stack(*filenames)).filename

    def test_application(self) -> None:
        """The innermost line of the application is reported."""
        library = INSTALLED.format("flask/app.py")
        self.assertEqual(
            application_line(stack(STDLIB, library, APP, APP, library, OWN)),
            CodeLine(APP, 3, "f"),
        )

    def test_installed_application(self) -> None:
        """Without one, the innermost line of an installed library is reported."""
        radicale = INSTALLED.format("radicale/app.py")
        twisted = INSTALLED.format("twisted/internet/base.py")
        self.assertEqual(self.reported(STDLIB, radicale, OWN, twisted), radicale)

    def test_server(self) -> None:
        """Without one, the innermost line is reported."""
        self.assertEqual(self.reported(STDLIB, OWN), STDLIB)
        twisted = INSTALLED.format("twisted/internet/base.py")
        self.assertEqual(self.reported(OWN, twisted), OWN)

    def test_demonstration(self) -> None:
        """The demonstration is an application."""
        self.assertEqual(self.reported(STDLIB, DEMO, OWN), DEMO)

    def test_generated_code(self) -> None:
        """Templates and code without a file belong to the application."""
        self.assertEqual(self.reported(STDLIB, "<template>", OWN), "<template>")
        self.assertEqual(self.reported("<frozen importlib._bootstrap>", APP), APP)

    def test_excerpt(self) -> None:
        """An excerpt has the innermost lines, and in any case the reported one."""
        lines = stack(*"abcdef")
        self.assertEqual(
            [line.filename for line in excerpt(lines, lines[1], 3)], ["c", "b", "a"]
        )
        self.assertEqual(
            [line.filename for line in excerpt(lines, lines[4], 3)], ["e", "d", "c"]
        )
        self.assertEqual(len(excerpt(lines, lines[0], 10)), 6)


class FrameTests(SynchronousTestCase):
    """`stack_of_thread`."""

    def test_frames(self) -> None:
        """The stack has the file, the line and the function of each frame."""
        frame = sys._getframe()
        _own, *found = stack_of_thread(get_ident())
        line = frame.f_code.co_firstlineno + 3
        self.assertEqual(found[0], CodeLine(__file__, line, "test_frames"))
        self.assertGreater(len(found), 5)

    def test_no_thread(self) -> None:
        """The stack of a thread that has ended is empty."""
        self.assertEqual(stack_of_thread(-1), ())

    def test_atomic(self) -> None:
        """The thread cannot go on while its frames are read, and none is kept."""
        stop = Event()
        depths = set()

        def deep(depth: int) -> None:
            if depth:
                deep(depth - 1)

        def run() -> None:
            while not stop.is_set():
                deep(50)

        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        thread = Thread(target=run)
        thread.start()
        try:
            for _ in range(2000):
                found = stack_of_thread(thread.ident or 0)
                depths.add(len(found))
                functions = [line.function for line in found]
                middle = [name for name in functions if name in ("deep", "run")]
                self.assertEqual(sorted(middle), middle)
        finally:
            stop.set()
            thread.join()
        self.assertLess(max(depths), 60)

    def test_recursion(self) -> None:
        """A deep stack is cut off."""

        def deep(depth: int) -> int:
            return deep(depth - 1) if depth else len(stack_of_thread(get_ident()))

        self.assertEqual(deep(200), 100)


class KindTests(SynchronousTestCase):
    """The kinds of blocks that a stack shows."""

    def test_import(self) -> None:
        """An import is named, also while the module itself runs."""
        machinery = CodeLine("<frozen importlib._bootstrap>", 1, "_find_and_load")
        view = CodeLine(APP, 5, "view")
        module = CodeLine("/srv/shop/pdf.py", 3, "<module>")
        self.assertEqual(kind_of((machinery, view)), "import")
        self.assertEqual(kind_of((module, machinery, view)), "import")

    def test_function_of_an_imported_module(self) -> None:
        """A function called by a module at import is the cause, not the import."""
        machinery = CodeLine("<frozen importlib._bootstrap>", 1, "_find_and_load")
        function = CodeLine("/srv/shop/pdf.py", 3, "load_fonts")
        module = CodeLine("/srv/shop/pdf.py", 9, "<module>")
        self.assertEqual(kind_of((function, module, machinery)), "")

    def test_lookup(self) -> None:
        """A DNS lookup is named."""
        lookup = CodeLine(sys.modules["socket"].__file__ or "", 962, "getaddrinfo")
        self.assertEqual(kind_of((lookup, CodeLine(APP, 5, "view"))), "DNS lookup")

    def test_other(self) -> None:
        """Other code has no kind."""
        self.assertEqual(kind_of(stack(STDLIB, APP)), "")
        self.assertEqual(kind_of(()), "")

    def test_debugger(self) -> None:
        """A stack in which a debugger waits is recognized."""
        bdb = os.path.join(os.path.dirname(os.__file__), "bdb.py")
        self.assertTrue(in_debugger(stack(STDLIB, bdb, APP)))
        self.assertFalse(in_debugger(stack(STDLIB, "/srv/shop/pdb.py")))

    def test_event_wait(self) -> None:
        """The function in which a reactor waits is recognized."""
        self.assertTrue(is_event_wait(EPollReactor.doPoll.__code__))
        self.assertFalse(is_event_wait(stack.__code__))
