"""CPython's own tests of `sqlite3`, run in a task on the green one.

    python -m txgreenwsgi.monkey sqlite3_own_tests.py

Not a test module: `test_sqlite3.py` runs it. It prints how many tests were run, and
the names of those that did not pass.
"""

from __future__ import annotations

import importlib
import io
import pkgutil
import sqlite3
import sqlite3.dbapi2
import sys
import unittest

from txgreenwsgi.green import sqlite3 as green


def main() -> None:
    """Run them all."""
    for module in (sqlite3, sqlite3.dbapi2):
        for name, value in green.REPLACED.items():
            if hasattr(module, name):
                setattr(module, name, value)
    package = importlib.import_module(
        "test.test_sqlite3" if sys.version_info >= (3, 11) else "sqlite3.test"
    )
    names = [
        f"{package.__name__}.{found.name}"
        for found in pkgutil.iter_modules(package.__path__)
        if found.name != "__main__"
    ]
    suite = unittest.defaultTestLoader.loadTestsFromNames(names)
    result = unittest.TextTestRunner(stream=io.StringIO()).run(suite)
    print(result.testsRun)
    for case, text in (*result.failures, *result.errors):
        print(case.id().rpartition(".")[2], repr(text.splitlines()[-1]))


if __name__ == "__main__":
    main()
