"""Whether CPython's own tests are part of the Python installation.

Debian has them in a package of its own, libpython3-testsuite. Without it, its
`test` package is a stub with `test.support` alone.
"""

from __future__ import annotations

import sysconfig
from pathlib import Path

__all__ = ["has_tests"]


def has_tests(module: str) -> bool:
    """Return whether the standard library has the test module or package `module`.

    It looks for the file. An import may find another package of the name `test`,
    such as Twisted's in a worker process of `trial -j`.

    Args:
        module: dotted name below the library's directory: "test.test_select".
    """
    path = Path(sysconfig.get_path("stdlib"), *module.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()
