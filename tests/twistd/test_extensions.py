"""Extension modules and libraries that open connections in C."""

from __future__ import annotations

import importlib
import struct
import sys
from pathlib import Path
from types import ModuleType

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._twistd.extensions import connecting_packages, imported_symbols


def path_of(name: str) -> str:
    """Return the path of an extension module."""
    path = importlib.import_module(name).__file__
    assert path is not None
    return path


class SymbolTests(SynchronousTestCase):
    """The symbol tables of files."""

    def write(self, data: bytes) -> str:
        """Write a file and return its path."""
        path = Path(self.mktemp())
        path.write_bytes(data)
        return str(path)

    def test_extension_modules(self) -> None:
        """Uvloop imports `connect`, greenlet does not; psycopg2 needs libpq."""
        symbols, needed = imported_symbols(path_of("uvloop.loop"))
        self.assertIn(b"connect", symbols)
        self.assertNotIn(b"PyInit_loop", symbols)  # it is defined there
        self.assertTrue(any(name.startswith("libc.") for name in needed), needed)
        self.assertNotIn(b"connect", imported_symbols(path_of("greenlet._greenlet"))[0])
        symbols, needed = imported_symbols(path_of("psycopg2._psycopg"))
        self.assertNotIn(b"connect", symbols)
        self.assertTrue(any(name.startswith("libpq") for name in needed), needed)

    def test_formats(self) -> None:
        """32-bit and big-endian ELF files and Mach-O files are read too."""
        for order, code in (("<", 1), (">", 2)):
            strings = b"\0connect\0own\0libx.so\0"
            symbols = b"".join(
                struct.pack(f"{order}I8xBBH", name, 0, 0, section)
                for name, section in ((0, 0), (1, 0), (9, 1))
            )
            dynamic = struct.pack(f"{order}iIiI", 1, 13, 0, 0)
            at = 52
            table = b""
            for kind, data in ((3, strings), (11, symbols), (6, dynamic)):
                table += struct.pack(
                    f"{order}10I", 0, kind, 0, 0, at, len(data), 0, 0, 0, 0
                )
                at += len(data)
            head = b"\x7fELF" + bytes((1, code)) + bytes(26)
            head += struct.pack(f"{order}I", at) + bytes(10)
            head += struct.pack(f"{order}HHH", 40, 3, 0)
            path = self.write(head + strings + symbols + dynamic + table)
            self.assertEqual(imported_symbols(path), ({b"connect"}, {"libx.so"}))
        path = self.write(b"\xcf\xfa\xed\xfe" + bytes(9) + b"\0_connect\0_own\0")
        self.assertEqual(imported_symbols(path), ({b"connect"}, set()))
        path = self.write(b"\xcf\xfa\xed\xfe" + bytes(9) + b"\0_disconnect\0")
        self.assertEqual(imported_symbols(path), (set(), set()))

    def test_other_files(self) -> None:
        """Damaged, empty, missing and other files have no symbols."""
        whole = Path(path_of("greenlet._greenlet")).read_bytes()
        for data in (b"", b"\x7fELF", whole[:64], whole[: len(whole) // 2], b"text"):
            imported_symbols(self.write(data))
        self.assertEqual(imported_symbols(self.write(b"")), (set(), set()))
        self.assertEqual(imported_symbols("/nonexistent"), (set(), set()))


class PackageTests(SynchronousTestCase):
    """The packages that are loaded."""

    def test_packages(self) -> None:
        """A package is found by its modules, and by the libraries they need."""
        for name in ("uvloop.loop", "psycopg2._psycopg", "greenlet._greenlet"):
            importlib.import_module(name)
        found = connecting_packages()
        self.assertTrue(found["uvloop"].endswith(".so"))
        self.assertIn("psycopg2", found)
        self.assertNotIn("greenlet", found)
        self.assertFalse(set(found) & sys.stdlib_module_names)

    def test_by_name(self) -> None:
        """An extension module counts for the package that imports it."""
        module = ModuleType("shop.driver")
        module.__file__ = path_of("uvloop.loop")
        sys.modules["shop.driver"] = module
        self.addCleanup(sys.modules.pop, "shop.driver")
        self.assertEqual(connecting_packages()["shop"], module.__file__)
