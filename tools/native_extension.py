"""Compile the fast path, the extension module `txgreenwsgi._native._lanes`.

The build hook (`hatch_build.py`) and `python -m tools.build_native` use it. It knows
Cython, the compiler and the headers. It must import only the standard library at its
top, because the hook asks it which distributions a build needs, and must never import
the package that it compiles.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import sysconfig
import tempfile
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "MODES",
    "PACKAGE",
    "REQUIREMENTS",
    "VARIABLE",
    "BuildModeError",
    "CompileFailed",
    "compile_module",
    "compiler",
    "file_name",
    "install_in_place",
    "mode",
    "remove_in_place",
    "source_hash",
    "temporary_folder",
]

#: The environment variable that decides whether a build compiles.
VARIABLE: Final = "TXGREENWSGI_BUILD"
#: The values of the variable; the first is the default.
MODES: Final = ("auto", "native", "pure")
#: The package of the extension module, relative to the root of a checkout.
PACKAGE: Final = Path("txgreenwsgi", "_native")
#: The distributions that compiling needs. greenlet contains a C header.
REQUIREMENTS: Final = ("Cython >= 3.1", "greenlet >= 3.1", "setuptools >= 75")

_NAME: Final = "_lanes"
_MACRO: Final = "TXGREENWSGI_SOURCE_HASH"
_SOURCES: Final = ("*.pyx", "*.pxd", "*.pxi")
# Debug information would make the wheel five times as large.
_FLAGS: Final = ("-g0", "-DNDEBUG")
# Without the checks of stack memory: a switch of greenlets copies the stack.
_SANITIZE: Final = ("-fsanitize=address", "-fno-omit-frame-pointer", "-O1", "-g")
_NO_STACK_CHECKS: Final = {
    "gcc": ("--param", "asan-stack=0"),
    "clang": ("-mllvm", "-asan-stack=0"),
}

_PROBE: Final = """\
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <greenlet/greenlet.h>
static struct PyModuleDef probe = {PyModuleDef_HEAD_INIT, "probe"};
PyMODINIT_FUNC PyInit_probe(void) {
    (void)_PyGreenlet_API;
    return PyModule_Create(&probe);
}
"""


class BuildModeError(Exception):
    """The value of TXGREENWSGI_BUILD is invalid; the message has the remedy."""


class CompileFailed(Exception):
    """The module cannot be compiled; the message gives the reason and the remedy."""


def mode(environ: Mapping[str, str] = os.environ) -> str:
    """Return "auto", "native" or "pure", as TXGREENWSGI_BUILD says.

    Raises:
        BuildModeError: the variable has another value.
    """
    text = environ.get(VARIABLE, "")
    found = text.strip().lower() or MODES[0]
    if found not in MODES:
        raise BuildModeError(
            f"{VARIABLE} {text!r} is not a kind of build: give auto (compile if "
            "possible), native (compile or fail) or pure (do not compile)"
        )
    return found


def source_hash(root: Path) -> str:
    """Return a hash of the module's source files, 16 hexadecimal digits.

    The module contains it, so that `txgreenwsgi._native` notices a module that was
    compiled from other source files.
    """
    digest = hashlib.sha256()
    found = (path for suffix in _SOURCES for path in (root / PACKAGE).glob(suffix))
    for path in sorted(found, key=lambda each: each.name):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def file_name() -> str:
    """Return the name of the module's file for this interpreter."""
    return _NAME + EXTENSION_SUFFIXES[0]


def compile_module(root: Path, folder: Path, *, sanitize: bool = False) -> Path:
    """Compile the module into `folder`, and return its file.

    Args:
        root: of the checkout or of the unpacked source distribution; not changed.
        folder: for all files that are written.
        sanitize: let AddressSanitizer check each access to memory.

    Raises:
        CompileFailed: something is missing, or the compiler failed.
    """
    _check_interpreter()
    include = _check_requirements()
    _check_compiler()
    probe = folder / "probe.c"
    probe.write_text(_PROBE)
    _build("probe", [str(probe)], folder, include, _FLAGS)

    from Cython.Build import cythonize
    from Cython.Compiler.Errors import CompileError
    from setuptools import Extension

    name = ".".join((*PACKAGE.parts, _NAME))
    source = root / PACKAGE / f"{_NAME}.pyx"
    try:
        # Cython writes the path of the source into the module: a relative one is
        # the same on each machine.
        with _chdir(root):
            (extension,) = cythonize(  # type: ignore[no-untyped-call]
                [Extension(name, [str(source.relative_to(root))])],
                build_dir=str(folder / "c"),
                force=True,
                quiet=True,
            )
    except CompileError as error:
        raise CompileFailed(
            f"Cython does not accept {source.relative_to(root)} ({error}): see its "
            "messages above"
        ) from error
    if sanitize:
        flags = (*_SANITIZE, *_no_stack_checks())
    else:
        flags = (*_optimization(), *_FLAGS)
    macros = [*extension.define_macros, (_MACRO, f'"{source_hash(root)}"')]
    with _chdir(root):
        return _build(name, extension.sources, folder, include, flags, macros)


def install_in_place(built: Path, root: Path) -> Path:
    """Move a compiled module to its place in a checkout, and return its new path."""
    target = root / PACKAGE / built.name
    # Never write into the file that a running server has mapped.
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    shutil.copy(built, partial)
    partial.replace(target)
    return target


def remove_in_place(root: Path) -> bool:
    """Remove this interpreter's module from a checkout; return whether it existed."""
    path = root / PACKAGE / file_name()
    existed = path.exists()
    path.unlink(missing_ok=True)
    return existed


def _check_interpreter() -> None:
    name = sys.implementation.name
    if name != "cpython":
        raise CompileFailed(f"{name} cannot load the module: use CPython")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        raise CompileFailed(
            "free-threaded builds of Python are not supported: use an ordinary build"
        )


def _check_requirements() -> list[str]:
    """Return the folders of headers.

    Raises:
        CompileFailed: a distribution or a header is missing.
    """
    missing = [
        name for name in ("Cython", "greenlet", "setuptools") if find_spec(name) is None
    ]
    if missing:
        raise CompileFailed(
            f"{' and '.join(missing)} cannot be imported: pip install "
            f"{' '.join(missing)}"
        )
    greenlet = find_spec("greenlet")
    assert greenlet is not None
    assert greenlet.origin is not None
    include = Path(greenlet.origin).parent.parent
    if not (include / "greenlet" / "greenlet.h").exists():
        raise CompileFailed(
            f"greenlet in {include} has no greenlet.h: install greenlet's wheel, or "
            "the package of its headers (python3-greenlet-dev on Debian)"
        )
    folders = {sysconfig.get_path("include"), sysconfig.get_path("platinclude")}
    if not any(Path(each, "Python.h").exists() for each in folders):
        raise CompileFailed(
            f"Python.h is not in {' or '.join(sorted(folders))}: install Python's "
            "headers (python3-dev on Debian)"
        )
    return [str(include)]


def compiler() -> str:
    """Return the C compiler that `compile_module` runs."""
    configured = os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc"
    return str(configured).split()[0]


def _check_compiler() -> None:
    name = compiler()
    if shutil.which(name) is None:
        raise CompileFailed(
            f"the C compiler {name!r} is not on the PATH: install it (gcc and "
            "libc6-dev on Debian), or name another one in CC"
        )


def _optimization() -> Sequence[str]:
    """Return -O3, unless CFLAGS, which replaces the flags of Python, has another."""
    given = os.environ.get("CFLAGS", "").split()
    return () if any(each.startswith("-O") for each in given) else ("-O3",)


def _no_stack_checks() -> Sequence[str]:
    return _NO_STACK_CHECKS["clang" if "clang" in compiler() else "gcc"]


def _build(
    name: str,
    sources: Sequence[str],
    folder: Path,
    include: Sequence[str],
    flags: Sequence[str],
    macros: Sequence[tuple[str, str | None]] = (),
) -> Path:
    """Compile and link one extension module, and return its file."""
    from setuptools import Distribution, Extension
    from setuptools.errors import BaseError, CCompilerError

    extension = Extension(
        name,
        list(sources),
        include_dirs=list(include),
        define_macros=list(macros),
        extra_compile_args=list(flags),
        extra_link_args=[each for each in flags if each.startswith("-fsanitize")],
    )
    command = Distribution({"ext_modules": [extension]}).get_command_obj("build_ext")
    command.build_lib = str(folder / "lib")
    command.build_temp = str(folder / "objects")
    command.force = True
    try:
        command.ensure_finalized()
        command.run()
    except (BaseError, CCompilerError, OSError) as error:
        raise CompileFailed(
            f"the C compiler failed ({error}): see its messages above, install a "
            "working compiler (gcc and libc6-dev on Debian), or name another one in CC"
        ) from error
    return Path(command.get_ext_fullpath(name))


@contextlib.contextmanager
def _chdir(folder: Path) -> Iterator[None]:
    # contextlib.chdir is new in Python 3.11.
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Create a folder for `compile_module`; it is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="txgreenwsgi-build-") as folder:
        yield Path(folder)
