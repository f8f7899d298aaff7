"""Compile the fast path in place: `python -m tools.build_native`.

An editable installation does it once. Run this after a change of `_lanes.pyx`: a
module that was compiled from another source is not used. Cython, setuptools and
greenlet must be installed: `pip install -e ".[test]"`.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.native_extension import (
    CompileFailed,
    compile_module,
    install_in_place,
    remove_in_place,
    temporary_folder,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parents[1]

_DESCRIBE: Final = (
    "import sys; from txgreenwsgi import _native; print(_native.description()); "
    "sys.exit(not _native.ACTIVE)"
)


def main(arguments: Sequence[str]) -> int:
    """Compile, remove or describe the module, and return the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.build_native",
        description="Compile the fast path in place, for this interpreter.",
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--remove", action="store_true", help="remove the compiled module"
    )
    choice.add_argument(
        "--check",
        action="store_true",
        help="only print whether the module is in use; status 1 if it is not",
    )
    choice.add_argument(
        "--sanitize",
        action="store_true",
        help="compile with AddressSanitizer; see tools/sanitized_tests.py",
    )
    options = parser.parse_args(arguments)
    if options.remove:
        print("removed" if remove_in_place(ROOT) else "there was no compiled module")
        return 0
    if not options.check:
        try:
            with temporary_folder() as folder:
                built = compile_module(ROOT, folder, sanitize=options.sanitize)
                print(install_in_place(built, ROOT).relative_to(ROOT))
        except CompileFailed as error:
            print(f"build_native: {error}", file=sys.stderr)
            return 1
        if options.sanitize:
            return 0  # it cannot be loaded without the run-time library
    return subprocess.run(
        [sys.executable, "-c", _DESCRIBE], cwd=ROOT, check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
