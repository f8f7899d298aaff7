"""The source distribution and the wheel, as the build backend writes them."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

import txgreenwsgi
from tests.folders import short_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).resolve().parent.parent
#: The directories of the project in a checkout.
DIRECTORIES = (
    *(".ci", "benchmarks", "docs", "examples", "tests", "tools"),
    *("twisted", "txgreenwsgi"),
)
#: Files that a run of the tests, of a tool or of twistd leaves.
LEFT = {"__pycache__", "_build", "dropin.cache", "twistd.log", "twistd.pid"}


def build(target: str, root: Path, folder: Path, mode: str = "pure") -> Path:
    """Build "sdist" or "wheel" from `root`, without a network, and return the file."""
    # The hooks of PEP 517: pip and `build` call them in the same way.
    done = subprocess.run(
        [
            *(sys.executable, "-c"),
            "import sys, hatchling.build as backend; "
            "print(getattr(backend, 'build_' + sys.argv[1])(sys.argv[2]))",
            *(target, str(folder)),
        ],
        cwd=root,
        env={**os.environ, "TXGREENWSGI_BUILD": mode},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if done.returncode:
        raise AssertionError(done.stderr)
    return folder / done.stdout.split()[-1]


def project_files(names: Iterable[str]) -> set[str]:
    """Return the names of files that belong to the project's directories."""
    return {
        name
        for name in names
        if name.split("/")[0] in DIRECTORIES
        and not any(
            part in LEFT or part.startswith("_trial_temp") or part.endswith(".so")
            for part in name.split("/")
        )
    }


class DistributionTests(SynchronousTestCase):
    """A source distribution of this checkout, and a wheel built from it."""

    def setUp(self) -> None:
        """Build the source distribution and unpack it."""
        self.folder = short_folder(self)
        self.sdist = build("sdist", ROOT, self.folder)
        with tarfile.open(self.sdist) as archive:
            self.files = {
                member.name.partition("/")[2]: member for member in archive.getmembers()
            }
            if sys.version_info >= (3, 12):
                archive.extractall(self.folder, filter="data")
            else:
                archive.extractall(self.folder)
        self.source = self.folder / self.sdist.name.removesuffix(".tar.gz")

    def test_source_is_complete(self) -> None:
        """It contains all that the tests, the documentation and the checks need."""
        found = project_files(
            str(Path(folder, name).relative_to(ROOT))
            for directory in DIRECTORIES
            for folder, _, names in os.walk(ROOT / directory)
            for name in names
        )
        self.assertEqual(project_files(self.files), found)
        self.assertTrue(self.files[".ci/run"].mode & 0o100, "not executable")
        others = {name for name in self.files if "/" not in name}
        self.assertEqual(
            others,
            {
                *("ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE"),
                *("PKG-INFO", "README.md", "SECURITY.md", "pyproject.toml"),
                *(".gitignore", "hatch_build.py"),
            },
        )
        # The module's source, but not the C code that Cython makes of it.
        self.assertIn("txgreenwsgi/_native/_lanes.pyx", self.files)
        self.assertEqual(
            {name for name in self.files if name.endswith((".c", ".so"))}, set()
        )

    def test_wheel(self) -> None:
        """A pure wheel built from it has the package, the plugin and the metadata."""
        wheel = build("wheel", self.source, self.folder)
        self.assertTrue(wheel.name.endswith("-py3-none-any.whl"), wheel.name)
        with zipfile.ZipFile(wheel) as archive:
            names = set(archive.namelist())
            info = f"txgreenwsgi-{txgreenwsgi.__version__}.dist-info"
            metadata = Parser().parsestr(archive.read(f"{info}/METADATA").decode())
        self.assertEqual(
            {name for name in names if not name.startswith(f"{info}/")},
            {
                name
                for name in project_files(self.files)
                if name.startswith(("txgreenwsgi/", "twisted/"))
            },
        )
        self.assertIn("txgreenwsgi/py.typed", names)
        self.assertIn("twisted/plugins/txgreenwsgi_plugin.py", names)
        self.assertEqual(metadata["Version"], txgreenwsgi.__version__)
        self.assertEqual(metadata["License-Expression"], "MIT")
        self.assertEqual(metadata["Description-Content-Type"], "text/markdown")
        self.assertEqual(
            metadata.get_payload(), (ROOT / "README.md").read_text(encoding="utf-8")
        )
