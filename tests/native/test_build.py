"""The build hook: kinds of wheels, editable installations, and failures of a build.

The builds are of a small project with the same hook and a module of a few lines.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.folders import short_folder
from tools.native_extension import (
    BuildModeError,
    compiler,
    file_name,
    mode,
    source_hash,
)
from txgreenwsgi import _native

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parents[2]
COPIED = (
    *("LICENSE", "README.md", "hatch_build.py", "pyproject.toml", "tools/__init__.py"),
    *("tools/native_extension.py", "txgreenwsgi/__init__.py", ".gitignore"),
    "twisted/plugins/txgreenwsgi_plugin.py",
)
MODULE = """\
# cython: language_level=3
cdef extern from *:
    const char* TXGREENWSGI_SOURCE_HASH
cdef extern from "greenlet/greenlet.h":
    pass
SOURCE_HASH = TXGREENWSGI_SOURCE_HASH.decode()
"""
BUILD = """\
import sys, hatchling.build as backend
for name in {missing!r}:
    sys.modules[name] = None
print(getattr(backend, sys.argv[1])(*sys.argv[2:]))
"""
EDITABLE = """\
import sys
sys.path.insert(0, ".")
import hatch_build
hook = hatch_build.NativeBuildHook(".", {}, None, None, "", "wheel")
hook.initialize("editable", {})
"""
COMPILER = compiler()
HAS_COMPILER = shutil.which(COMPILER) is not None


class BuildTestCase(SynchronousTestCase):
    """A test with a project that has the hook."""

    def setUp(self) -> None:
        """Create the project."""
        self.folder = short_folder(self)
        self.root = self.folder / "project"
        for name in COPIED:
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, self.root / name)
        self.package = self.root / "txgreenwsgi" / "_native"
        self.package.mkdir()
        (self.package / "__init__.py").touch()
        (self.package / "_lanes.pyx").write_text(MODULE)

    def run_python(
        self, program: str, *words: str, environ: Mapping[str, str]
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in the project, without the variables of this process."""
        names = ("CC", "CFLAGS", "PYTHONPATH", "TXGREENWSGI_BUILD")
        inherited = {key: os.environ[key] for key in os.environ if key not in names}
        return subprocess.run(
            [sys.executable, "-c", program, *words],
            cwd=self.root,
            # Optimization takes most of the time.
            env={**inherited, "CFLAGS": "-O0", **environ},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def backend(
        self, hook: str, *words: str, missing: tuple[str, ...] = (), **environ: str
    ) -> subprocess.CompletedProcess[str]:
        """Call a hook of PEP 517 as pip does, without modules that are `missing`."""
        program = BUILD.format(missing=missing)
        return self.run_python(program, hook, *words, environ=environ)

    def wheel(
        self, *, missing: tuple[str, ...] = (), **environ: str
    ) -> tuple[Path, str]:
        """Build a wheel, and return it with all warnings."""
        done = self.backend("build_wheel", str(self.folder), missing=missing, **environ)
        self.assertEqual(done.returncode, 0, done.stderr)
        output = done.stdout + done.stderr
        warnings = [line for line in output.splitlines() if "warning" in line.lower()]
        path = self.folder / done.stdout.split()[-1]
        return path, "\n".join(warnings)

    def names(self, wheel: Path) -> list[str]:
        """Return the names of the files in a wheel."""
        with zipfile.ZipFile(wheel) as archive:
            return archive.namelist()

    def assert_pure(self, wheel: Path) -> None:
        """Assert that a wheel is for all platforms, and without a module."""
        self.assertTrue(wheel.name.endswith("-py3-none-any.whl"), wheel.name)
        self.assertEqual([name for name in self.names(wheel) if ".so" in name], [])

    def built(self) -> list[str]:
        """Return the files in the project that a build has added."""
        return sorted(
            str(path.relative_to(self.root))
            for path in self.root.rglob("*")
            if path.suffix in (".c", ".so", ".o") or path.name == "build"
        )


class WithoutCompilerTests(BuildTestCase):
    """Builds that do not compile, or fail."""

    def test_pure(self) -> None:
        """A pure build needs only the backend; its wheel is for all platforms."""
        done = self.backend("get_requires_for_build_wheel", TXGREENWSGI_BUILD="pure")
        self.assertEqual(done.stdout, "[]\n", done.stderr)
        missing = ("Cython", "setuptools", "greenlet")
        wheel, warnings = self.wheel(TXGREENWSGI_BUILD="pure", missing=missing)
        self.assert_pure(wheel)
        self.assertEqual(warnings, "")

    def test_requirements(self) -> None:
        """Other builds require Cython, greenlet and setuptools."""
        for choice in ("auto", "native", ""):
            done = self.backend(
                "get_requires_for_build_wheel", TXGREENWSGI_BUILD=choice
            )
            for name in ("Cython", "greenlet", "setuptools"):
                self.assertIn(f"'{name} >= ", done.stdout, done.stderr)

    #: Incomplete machines: missing modules, variables, and a part of the reason.
    LACKING: ClassVar[dict[str, tuple[tuple[str, ...], dict[str, str], str]]] = {
        "Cython": (("Cython",), {}, "Cython cannot be imported: pip install Cython"),
        "two distributions": (
            ("Cython", "setuptools"),
            {},
            "Cython and setuptools cannot be imported: pip install Cython setuptools",
        ),
        "a compiler on the PATH": (
            (),
            {"CC": "no-such-compiler -O2"},
            "the C compiler 'no-such-compiler' is not on the PATH: install it",
        ),
        "a compiler that works": ((), {"CC": "false"}, "the C compiler failed ("),
    }

    def test_auto(self) -> None:
        """An automatic build without a compiler is pure, with one warning and why."""
        for lacking, (missing, environ, reason) in self.LACKING.items():
            wheel, warnings = self.wheel(missing=missing, **environ)
            self.assert_pure(wheel)
            self.assertEqual(warnings.count("\n"), 0, (lacking, warnings))
            self.assertTrue(
                warnings.startswith(
                    "warning: txgreenwsgi is built without its compiled fast path: "
                    + reason
                ),
                (lacking, warnings),
            )
            self.assertEqual(self.built(), [])

    def test_native(self) -> None:
        """A native build without a compiler fails, with the reason and the remedies."""
        for lacking, (missing, environ, reason) in self.LACKING.items():
            done = self.backend(
                *("build_wheel", str(self.folder)),
                missing=missing,
                TXGREENWSGI_BUILD="native",
                **environ,
            )
            self.assertEqual(done.returncode, 1, lacking)
            self.assertIn(f"txgreenwsgi cannot be compiled: {reason}", done.stderr)
            self.assertIn("TXGREENWSGI_BUILD=pure builds it without", done.stderr)
            self.assertNotIn("Traceback", done.stderr)

    def test_bad_mode(self) -> None:
        """Another value of the variable is an error that names it."""
        for text in ("1", "nativ", "pure auto"):
            error = self.assertRaises(BuildModeError, mode, {"TXGREENWSGI_BUILD": text})
            self.assertIn(f"TXGREENWSGI_BUILD {text!r} is not a kind", str(error))
        for hook in ("get_requires_for_build_wheel", "build_wheel"):
            words = () if hook.startswith("get") else (str(self.folder),)
            done = self.backend(hook, *words, TXGREENWSGI_BUILD="nativ")
            self.assertEqual(done.returncode, 1)
            self.assertEqual(done.stderr.count("\n"), 1, done.stderr)
            self.assertIn("give auto (compile if possible), native", done.stderr)

    def test_modes(self) -> None:
        """Case and white space do not matter, and an empty variable is the default."""
        for text, found in ((" Native ", "native"), ("", "auto"), ("PURE", "pure")):
            self.assertEqual(mode({"TXGREENWSGI_BUILD": text}), found)
        self.assertEqual(mode({}), "auto")


class StaleTests(BuildTestCase):
    """The choice of `txgreenwsgi._native` between the module and pure Python."""

    def described(self, source: str, **environ: str) -> str:
        """Return the description with a module that was built from `source`."""
        for name in ("__init__.py", "_pure.py"):
            shutil.copy(ROOT / "txgreenwsgi" / "_native" / name, self.package)
        (self.root / "txgreenwsgi" / "__init__.py").write_text("")
        interface = f"INTERFACE = {_native.INTERFACE}"
        module = [interface, f"SOURCE_HASH = {source!r}", "def counts(): return {}"]
        if source != "missing":
            (self.package / "_lanes.py").write_text("\n".join(module))
        program = "from txgreenwsgi import _native; print(_native.description())"
        done = self.run_python(program, environ={"TXGREENWSGI_PURE": "", **environ})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_same_source(self) -> None:
        """A module that was compiled from the installed source is used."""
        self.assertEqual(self.described(source_hash(self.root)), "compiled")

    def test_unknown_source(self) -> None:
        """A module without a hash, and one without its source, are used."""
        self.assertEqual(self.described(""), "compiled")
        (self.package / "_lanes.pyx").unlink()
        self.assertEqual(self.described("0123456789abcdef"), "compiled")

    def test_changed_source(self) -> None:
        """A module that was compiled from another source is not used."""
        before = source_hash(self.root)
        (self.package / "_lanes.pyx").write_text(MODULE + "# changed\n")
        self.assertEqual(
            self.described(before),
            "pure Python (built from another _lanes.pyx: python -m tools.build_native)",
        )

    def test_forced(self) -> None:
        """TXGREENWSGI_PURE switches the module off; 0 and nothing do not."""
        source = source_hash(self.root)
        for text, found in (
            ("1", "pure Python (TXGREENWSGI_PURE=1)"),
            ("0", "compiled"),
            ("", "compiled"),
        ):
            self.assertEqual(self.described(source, TXGREENWSGI_PURE=text), found)

    def test_missing(self) -> None:
        """Without a module, the server is in pure Python."""
        self.assertEqual(self.described("missing"), "pure Python (not built)")


class CompiledTests(BuildTestCase):
    """Builds that compile."""

    if not HAS_COMPILER:
        skip = f"the C compiler {COMPILER} is not installed: apt install gcc libc6-dev"

    def test_native(self) -> None:
        """The wheel has the module, and the tags of this interpreter and platform."""
        wheel, warnings = self.wheel(TXGREENWSGI_BUILD="native")
        self.assertEqual(warnings, "")
        python = "cp{}{}".format(*sys.version_info[:2])
        name, _, platform = wheel.stem.rpartition("-")
        self.assertTrue(name.endswith(f"-{python}-{python}"), wheel.name)
        expected = sysconfig.get_platform().replace("-", "_").replace(".", "_")
        if sys.platform != "darwin":
            self.assertEqual(platform, expected)
        module = f"txgreenwsgi/_native/{file_name()}"
        self.assertIn(module, self.names(wheel))
        self.assertIn("txgreenwsgi/_native/_lanes.pyx", self.names(wheel))
        with zipfile.ZipFile(wheel) as archive:
            (info,) = [name for name in archive.namelist() if name.endswith("/WHEEL")]
            self.assertIn("Root-Is-Purelib: false", archive.read(info).decode())
            archive.extract(module, self.folder)
        self.assertEqual(self.built(), [], "files left in the project")
        self.assertEqual(self.hash_of(self.folder), source_hash(self.root))

    def hash_of(self, folder: Path) -> str:
        """Return the hash in a module of this folder."""
        program = (
            "import sys; sys.path[:0] = sys.argv[1:]; import _lanes as it; "
            "print(it.SOURCE_HASH)"
        )
        place = folder / "txgreenwsgi" / "_native"
        done = self.run_python(program, str(place), environ={})
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout.strip()

    def test_auto(self) -> None:
        """An automatic build compiles, and says nothing."""
        wheel, warnings = self.wheel()
        self.assertIn(f"txgreenwsgi/_native/{file_name()}", self.names(wheel))
        self.assertEqual(warnings, "")

    def test_broken_source(self) -> None:
        """A source that Cython refuses ends a native build with its messages."""
        (self.package / "_lanes.pyx").write_text("cdef int x = y.z(")
        done = self.backend("build_wheel", str(self.folder), TXGREENWSGI_BUILD="native")
        self.assertEqual(done.returncode, 1)
        self.assertIn(
            "Cython does not accept txgreenwsgi/_native/_lanes.pyx", done.stderr
        )
        self.assertNotIn("Traceback", done.stderr)

    def test_editable(self) -> None:
        """An editable installation has the module in place; a pure one removes it."""
        done = self.run_python(EDITABLE, environ={})
        self.assertEqual(done.returncode, 0, done.stderr)
        name = str(Path("txgreenwsgi", "_native", file_name()))
        self.assertEqual(self.built(), [name])
        self.assertEqual(self.hash_of(self.root), source_hash(self.root))
        # Without a compiler, what is there stays; its hash tells whether it fits.
        done = self.run_python(EDITABLE, environ={"CC": "false"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.built(), [name])
        done = self.run_python(EDITABLE, environ={"TXGREENWSGI_BUILD": "pure"})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(self.built(), [])

    def test_no_module_in_other_files(self) -> None:
        """A module in place is in no wheel that is pure, and in no sdist."""
        done = self.run_python(EDITABLE, environ={})
        self.assertEqual(done.returncode, 0, done.stderr)
        wheel, _ = self.wheel(TXGREENWSGI_BUILD="pure")
        self.assert_pure(wheel)
