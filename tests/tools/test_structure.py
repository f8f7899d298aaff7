"""The structure check: each rule on small projects, and `Any` in the real one."""

from __future__ import annotations

import textwrap

from twisted.trial.unittest import SynchronousTestCase

from tools.check_structure import (
    MOST_ANY,
    Project,
    SourceFile,
    any_per_thousand_lines,
    report,
)


def project(foreign: dict[str, str] | None = None, /, **files: str) -> Project:
    """Return a project whose paths are written with `__` for a slash.

    `init` as a last part means `__init__.py`.
    """
    parsed = []
    for name, text in files.items():
        path = name.replace("__", "/").removesuffix("init")
        path = f"{path}__init__.py" if path.endswith("/") else f"{path}.py"
        parsed.append(SourceFile.parse(path, textwrap.dedent(text)))
    return Project(parsed, {} if foreign is None else foreign)


class Case(SynchronousTestCase):
    """A test with a shorthand for violations."""

    def found(self, checked: Project) -> list[str]:
        """Return the violations as text."""
        return [str(each) for each in checked.violations()]


class CycleTests(Case):
    """Rule "cycle"."""

    def test_no_cycle(self) -> None:
        """A file may import others that do not import it."""
        checked = project(
            txgreenwsgi__a="from txgreenwsgi import b, c\n",
            txgreenwsgi__b="import txgreenwsgi.c\n",
            txgreenwsgi__c="",
            txgreenwsgi__init="from txgreenwsgi.a import x\n",
        )
        self.assertEqual(self.found(checked), [])

    def test_type_checking(self) -> None:
        """An import under TYPE_CHECKING closes a cycle."""
        checked = project(
            txgreenwsgi__room__a="from txgreenwsgi.room.b import B\n",
            txgreenwsgi__room__b="""\
                from typing import TYPE_CHECKING
                if TYPE_CHECKING:
                    from .a import A
            """,
        )
        self.assertEqual(
            self.found(checked),
            [
                "txgreenwsgi/room/a.py:1: cycle: imports txgreenwsgi.room.b, which "
                "imports this file again: a cycle of 2 files",
                "txgreenwsgi/room/b.py:3: cycle: imports txgreenwsgi.room.a, which "
                "imports this file again: a cycle of 2 files",
            ],
        )

    def test_late(self) -> None:
        """An import inside a function closes a cycle, also a long one."""
        checked = project(
            txgreenwsgi__a="def f():\n    from txgreenwsgi.b import g\n",
            txgreenwsgi__b="import txgreenwsgi.c\n",
            txgreenwsgi__c="from . import a\n",
        )
        found = self.found(checked)
        self.assertEqual(len(found), 3)
        self.assertIn("a cycle of 3 files", found[0])

    def test_package(self) -> None:
        """A package that imports its modules is in a cycle if they import it."""
        files = {"txgreenwsgi__room__init": "from txgreenwsgi.room.a import x\n"}
        relative = project(**files, txgreenwsgi__room__a="from . import b\n")
        self.assertEqual(len(self.found(relative)), 2)
        below = project(
            **files, txgreenwsgi__room__a="from . import b\n", txgreenwsgi__room__b=""
        )
        self.assertEqual(self.found(below), [])


class PrivateImportTests(Case):
    """Rule "private-import"."""

    def test_rooms_are_open(self) -> None:
        """A module of another room may be imported, whatever the room is called."""
        checked = project(
            txgreenwsgi___low__tasks="",
            txgreenwsgi__high="from txgreenwsgi._low.tasks import Task\n",
            tests__test_it="from txgreenwsgi._low import tasks\n",
        )
        self.assertEqual(self.found(checked), [])

    def test_modules(self) -> None:
        """An underscore module is closed to other rooms, and open to its own."""
        checked = project(
            txgreenwsgi__green___place="",
            txgreenwsgi__green__os="from . import _place\n",
            txgreenwsgi__pools="from txgreenwsgi.green import _place\n",
            tests__test_it="import txgreenwsgi.green._place\n",
        )
        self.assertEqual(
            self.found(checked),
            [
                "tests/test_it.py:1: private-import: _place is private to "
                "txgreenwsgi.green",
                "txgreenwsgi/pools.py:1: private-import: _place is private to "
                "txgreenwsgi.green",
            ],
        )

    def test_names(self) -> None:
        """An underscore name is closed to other rooms, also in a function."""
        checked = project(
            txgreenwsgi__a="_x = 1\n",
            txgreenwsgi__b="def f():\n    from txgreenwsgi.a import _x\n",
            txgreenwsgi__c="from txgreenwsgi.a import __all__\n",
        )
        self.assertEqual(
            self.found(checked),
            ["txgreenwsgi/b.py:2: private-import: _x is private to txgreenwsgi.a"],
        )


class PrivateAttributeTests(Case):
    """Rule "private-attribute"."""

    DEFINES = """\
        _LIMIT = 1
        class Task:
            __slots__ = ("_slot",)
            _of_class: int
            def __init__(self):
                self._own = 1
            def _method(self): ...
    """

    def test_own_room(self) -> None:
        """Files of one room may use each other's names."""
        checked = project(
            txgreenwsgi__room__a=self.DEFINES,
            txgreenwsgi__room__b="x._own, x._slot, x._method, x._of_class, x._LIMIT\n",
        )
        self.assertEqual(self.found(checked), [])

    def test_other_rooms(self) -> None:
        """All kinds of names that a room defines are closed to others."""
        uses = "x._own\nx._slot\nx._method\nx._of_class\nx._LIMIT\nself._own = 2\n"
        checked = project(
            txgreenwsgi__a=self.DEFINES,
            txgreenwsgi__b=uses.replace("self._own = 2\n", ""),
            tests__test_it=uses.replace("self._own = 2\n", ""),
        )
        found = self.found(checked)
        self.assertEqual(len(found), 10)
        self.assertEqual(
            found[0],
            "tests/test_it.py:1: private-attribute: x._own is private to txgreenwsgi.a",
        )

    def test_by_string(self) -> None:
        """A name given as a string to getattr and its like is used too."""
        checked = project(
            txgreenwsgi__a=self.DEFINES,
            txgreenwsgi__b="""\
                getattr(x, "_own")
                setattr(x, "_own", 1)
                self.patch(a, "_LIMIT", 2)
                getattr(x, "public")
                print("_own", "_own")
            """,
        )
        lines = [line.split(":")[1] for line in self.found(checked)]
        self.assertEqual(lines, ["1", "2", "3"])

    def test_same_spelling(self) -> None:
        """A name that the own room defines too is taken for its own."""
        checked = project(
            txgreenwsgi__a=self.DEFINES,
            txgreenwsgi__b__c="class C:\n    _own = 1\n",
            txgreenwsgi__b__d="x._own\n",
        )
        self.assertEqual(self.found(checked), [])

    def test_same_spelling_in_tests(self) -> None:
        """In tests, another test file that defines the name excuses `self` only."""
        checked = project(
            txgreenwsgi__a=self.DEFINES,
            tests__helpers="class Base:\n    _own = 1\n",
            tests__test_it="self._own\nx._own\n",
            tests__test_own="class C:\n    _own = 1\nx._own\n",
        )
        self.assertEqual(
            self.found(checked),
            [
                "tests/test_it.py:2: private-attribute: x._own is private to "
                "txgreenwsgi.a"
            ],
        )

    def test_foreign(self) -> None:
        """Names of other projects need a reason; a dotted one is for one object."""
        uses = "sys._getframe()\nchannel._conn\nother._conn\nx.__dict__\nx._\n"
        checked = project(
            {"_getframe": "documented", "channel._conn": "no other way"},
            txgreenwsgi__a=uses,
        )
        self.assertEqual(
            self.found(checked),
            [
                "txgreenwsgi/a.py:3: private-attribute: other._conn is private to "
                "another project"
            ],
        )

    def test_foreign_name_that_is_ours(self) -> None:
        """An undotted reason does not open a name that a room defines."""
        checked = project(
            {"_own": "of another project"},
            txgreenwsgi__a=self.DEFINES,
            txgreenwsgi__b="x._own\n",
        )
        self.assertEqual(len(self.found(checked)), 1)


class ReportTests(Case):
    """What is printed."""

    def test_paths(self) -> None:
        """Paths choose the violations; each folder has a count."""
        checked = project(
            txgreenwsgi__a="_x = 1\n",
            txgreenwsgi__b="from txgreenwsgi.a import _x\n",
            tests__http__test_it="from txgreenwsgi.a import _x\n",
        )
        self.assertEqual(
            report(checked, ["tests/http/"]),
            [
                "tests/http/test_it.py:1: private-import: _x is private to "
                "txgreenwsgi.a",
                "tests/http: 1 x private-import",
            ],
        )
        self.assertEqual(len(report(checked, [])), 4)
        self.assertEqual(report(checked, ["tests/htt"]), [])

    def test_any(self) -> None:
        """Uses of `Any` are counted, its imports are not."""
        text = "from typing import Any\nimport typing\nx: Any\ny: typing.Any\n"
        checked = project(txgreenwsgi__a=text + "\n" * 36, tests__b="x: Any\n")
        self.assertEqual(
            any_per_thousand_lines(checked.files),
            {"txgreenwsgi.a": 50.0, "all": 50.0},
        )
        [line, room] = [line for line in report(checked, []) if "50.0" in line]
        self.assertIn("must be fewer than 25", line)
        self.assertEqual(room, "  50.0 txgreenwsgi.a")


class ThisProjectTests(Case):
    """The package itself."""

    def test_any(self) -> None:
        """Fewer than 25 uses of `Any` in each thousand lines."""
        densities = any_per_thousand_lines(Project.read().files)
        self.assertLess(densities["all"], MOST_ANY, densities)
