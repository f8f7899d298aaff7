"""Source distributions of installed packages: pip fetches them, once per user.

Their own tests are in them, and not in the installed packages.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tarfile
import tempfile
from importlib.metadata import version
from pathlib import Path

__all__ = ["NoSource", "fetch_source"]

FETCH_SECONDS = 180.0


class NoSource(Exception):
    """A source distribution is not available; the message gives the reason."""


def fetch_source(project: str) -> Path:
    """Return the folder of the source of `project`, in the version installed here.

    It is kept in a folder for temporary files that belongs to this user alone. The
    source appears there complete, by a rename, so that runs at the same time do not
    disturb each other.

    Raises:
        NoSource: pip could not fetch it.
    """
    release = version(project)
    kept = _private_cache() / f"{project.lower()}-{release}"
    if not kept.is_dir():
        with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
            unpacked = _unpack(project, release, Path(folder))
            try:
                unpacked.rename(kept)
            except OSError:
                if not kept.is_dir():  # else another run was faster
                    raise
    return kept


def _private_cache() -> Path:
    user = os.getuid()
    folder = Path(tempfile.gettempdir(), f"txgreenwsgi-sources-{user}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != user:
        raise NoSource(f"{folder} belongs to another user: remove it or set TMPDIR")
    return folder


def _unpack(project: str, release: str, folder: Path) -> Path:
    try:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"),
                *("--no-binary", project, "--retries", "1"),
                f"{project}=={release}",
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoSource(f"pip took longer than {FETCH_SECONDS:g} seconds") from None
    archives = [*folder.glob("*.tar.gz")]
    if not archives:
        raise NoSource(f"pip has no source of {project}: {done.stderr.strip()[-500:]}")
    with tarfile.open(archives[0]) as archive:
        if sys.version_info >= (3, 12):
            archive.extractall(folder, filter="data")
        else:
            archive.extractall(folder)
    for tests in folder.glob("*/tests"):
        return tests.parent
    raise NoSource(f"{archives[0].name} contains no tests")
