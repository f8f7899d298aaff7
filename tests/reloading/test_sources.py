"""The files that a process has loaded, and signatures of files."""

from __future__ import annotations

import json
import os
import py_compile
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from txgreenwsgi._reloading.compiled import remove_compiled
from txgreenwsgi._reloading.failure_page import FailurePage
from txgreenwsgi._reloading.sources import (
    error_files,
    module_files,
    module_patterns,
    template_patterns,
)
from txgreenwsgi._reloading.watching import changes, directories, scan


class SourceTests(SynchronousTestCase):
    """The lists of a worker."""

    def test_modules(self) -> None:
        """Modules of the application and of packages, not those of Python."""
        found = module_files()
        self.assertIn(os.path.abspath(__file__), found)
        self.assertIn(os.path.abspath(str(sys.modules["twisted"].__file__)), found)
        self.assertNotIn(json.__file__, found)

    def test_strange_modules(self) -> None:
        """Attributes of lazy modules are not touched."""

        class Lazy(ModuleType):
            def __getattr__(self, name: str) -> object:
                raise AssertionError(name)

        self.patch(sys, "modules", {**sys.modules, "lazy": Lazy("lazy"), "no": None})
        module_files()

    def test_errors(self) -> None:
        """The files of a traceback, of its causes, and that of a syntax error."""
        path = short_folder(self) / "broken.py"
        path.write_text("x = (")
        try:
            try:
                compile(path.read_text(), str(path), "exec")
            except SyntaxError as error:
                raise ValueError from error
        except ValueError as error:
            found = error_files(error)
        self.assertEqual(found, {str(path), os.path.abspath(__file__)})

    def test_missing_modules(self) -> None:
        """Patterns for modules beside the loaded ones, and on the search path."""
        folder = short_folder(self)
        (folder / "a[1]").mkdir()
        patterns = module_patterns([str(folder / "a[1]" / "app.py")])
        (folder / "a[1]" / "new.py").touch()
        (folder / "a[1]" / "new.txt").touch()
        found = scan([], [each for each in patterns if str(folder) in each])
        self.assertEqual(list(found), [str(folder / "a[1]" / "new.py")])
        self.assertFalse(any("site-packages" in pattern for pattern in patterns))

    def test_templates(self) -> None:
        """The templates of a Flask application."""
        folder = short_folder(self)
        (folder / "sub").mkdir()
        (folder / "sub" / "page.html").touch()
        loader = SimpleNamespace(searchpath=[str(folder)])
        patterns = template_patterns(SimpleNamespace(jinja_loader=loader))
        self.assertEqual(list(scan([], patterns)), [str(folder / "sub" / "page.html")])
        self.assertEqual(template_patterns(object()), set())


class WatchingTests(SynchronousTestCase):
    """`scan`, `changes` and `directories`."""

    def setUp(self) -> None:
        """Make a folder with files."""
        self.folder = short_folder(self)
        for name in ("a.py", "b.html", "sub/c.html", "node_modules/d.html"):
            path = self.folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(name)

    def scan(self, *patterns: str) -> set[str]:
        """Return the matching files, relative to the folder."""
        full = [str(self.folder / pattern) for pattern in patterns]
        found = scan([str(self.folder / "a.py"), str(self.folder / "none")], full)
        return {str(Path(path).relative_to(self.folder)) for path in found}

    def test_scan(self) -> None:
        """Existing paths and matching files; not those of tools."""
        self.assertEqual(self.scan(), {"a.py"})
        self.assertEqual(self.scan("*.html"), {"a.py", "b.html"})
        self.assertEqual(self.scan("**/*.html"), {"a.py", "b.html", "sub/c.html"})

    def test_temporary_files(self) -> None:
        """Files that editors write for themselves, and compiled ones, are not seen."""
        for name in ("x~", ".#x", "#x#", ".x.swp", "4913", "x.tmp", "x.pyc"):
            (self.folder / name).touch()
        self.assertEqual(self.scan("*", ".*"), {"a.py", "b.html"})

    def test_changes(self) -> None:
        """Changed, replaced, new and deleted files."""
        paths = [str(self.folder / name) for name in ("a.py", "b.html", "new")]
        before = scan(paths, [])
        self.assertEqual(changes(before, scan(paths, [])), set())
        replacement = self.folder / "other"
        replacement.write_text("a.py")
        status = os.stat(paths[0])
        os.utime(replacement, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(replacement, paths[0])
        os.unlink(paths[1])
        Path(paths[2]).touch()
        self.assertEqual(changes(before, scan(paths, [])), set(paths))

    def test_directories(self) -> None:
        """Directories of paths and patterns, without those of tools."""
        found = directories(
            [str(self.folder / "a.py"), "/no/such/file"],
            [str(self.folder / "**" / "*.html")],
        )
        self.assertEqual(found, {str(self.folder), str(self.folder / "sub")})

    def test_compiled(self) -> None:
        """The compiled module of a changed source is removed."""
        source = self.folder / "a.py"
        source.write_text("x = 1")
        compiled = Path(str(py_compile.compile(str(source))))
        remove_compiled([str(source), str(self.folder / "b.html"), "/no/x.py"])
        self.assertFalse(compiled.exists())
        self.assertTrue(source.exists())


class FailurePageTests(SynchronousTestCase):
    """`FailurePage`."""

    def answer(self, accept: str, method: str = "GET") -> tuple[str, str]:
        """Return the type and the text of a response."""
        seen: list[tuple[str, list[tuple[str, str]]]] = []
        environ = {"REQUEST_METHOD": method, "HTTP_ACCEPT": accept}
        body = b"".join(
            FailurePage("<b>'x' & \udc80</b>")(
                environ,
                lambda status, headers: seen.append((status, headers)),  # type: ignore[arg-type]
            )
        )
        ((status, headers),) = seen
        self.assertEqual(status, "500 Internal Server Error")
        fields = dict(headers)
        self.assertEqual(fields["Content-Length"], str(len(body)))
        return fields["Content-Type"], body.decode()

    def test_browser(self) -> None:
        """A browser gets a page, which escapes the traceback and loads itself again."""
        kind, text = self.answer("text/html,*/*")
        self.assertEqual(kind, "text/html; charset=utf-8")
        self.assertIn("&lt;b&gt;&#x27;x&#x27; &amp; \\udc80&lt;/b&gt;", text)
        self.assertIn("refresh", text)
        self.assertNotIn("refresh", self.answer("text/html", "POST")[1])

    def test_other_clients(self) -> None:
        """Others get plain text."""
        kind, text = self.answer("*/*")
        self.assertEqual(kind, "text/plain; charset=utf-8")
        self.assertIn("<b>'x' & ", text)
