"""Run tests with a fast path that AddressSanitizer checks.

    python -m tools.sanitized_tests [TEST...]

Works on a copy of the checkout, for Linux and gcc or clang. The default tests are those
of the fast path and of the server. Every object has memory of its own
(PYTHONMALLOC=malloc), so that an access to a freed object ends the process with a
report; leaks are not searched for, because CPython frees nothing at its end.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tools.native_extension import (
    CompileFailed,
    compile_module,
    compiler,
    install_in_place,
    temporary_folder,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT: Final = Path(__file__).resolve().parents[1]
TESTS: Final = ("tests.native", "tests.server", "tests.http", "tests.serving")
FOLDERS: Final = (
    *(".ci", "benchmarks", "docs", "examples", "tests", "tools", "twisted"),
    "txgreenwsgi",
)
OPTIONS: Final = {
    "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0:abort_on_error=1",
    "PYTHONMALLOC": "malloc",
    "PYTHONFAULTHANDLER": "1",
}
_IGNORED: Final = shutil.ignore_patterns(
    "__pycache__", "*.so", "_trial_temp*", "_build"
)


def main(tests: Sequence[str]) -> int:
    """Compile, run the tests, and return trial's exit status."""
    libraries = _libraries()
    with temporary_folder() as folder:
        copy = folder / "checkout"
        copy_checkout(ROOT, copy)
        try:
            built = compile_module(copy, folder, sanitize=True)
        except CompileFailed as error:
            print(f"sanitized_tests: {error}", file=sys.stderr)
            return 1
        install_in_place(built, copy)
        environ = {**os.environ, **OPTIONS, "LD_PRELOAD": libraries}
        environ["PYTHONPATH"] = str(copy)
        environ.pop("TXGREENWSGI_PURE", None)
        check = (
            "from txgreenwsgi import _native; "
            "assert _native.ACTIVE, _native.description()"
        )
        for command in (["-c", check], ["-m", "twisted.trial", *(tests or TESTS)]):
            done = subprocess.run(
                [sys.executable, *command], cwd=copy, env=environ, check=False
            )
            if done.returncode:
                return done.returncode
    return 0


def _libraries() -> str:
    """Return the libraries that the interpreter must load before all others.

    AddressSanitizer looks for the function that throws exceptions of C++ when it is
    loaded, and greenlet throws some.
    """
    program = compiler()
    names = ("libasan.so", f"libclang_rt.asan-{os.uname().machine}.so")
    paths = []
    for name in (names["clang" in program], "libstdc++.so.6"):
        path = subprocess.run(
            [program, f"-print-file-name={name}"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        if not Path(path).is_absolute():
            raise SystemExit(
                f"sanitized_tests: {program} has no {name}: install it (on Debian "
                "libasan8, which comes with gcc, and libstdc++6)"
            )
        paths.append(path)
    return " ".join(paths)


def copy_checkout(root: Path, target: Path) -> None:
    """Copy what the tests need; without compiled modules and virtual environments."""
    target.mkdir()
    for name in FOLDERS:
        shutil.copytree(root / name, target / name, ignore=_IGNORED)
    for path in root.iterdir():
        if path.is_file() and path.name != ".git":
            shutil.copy2(path, target)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
