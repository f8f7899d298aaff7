"""pypiserver, a package index, driven by twine and pip."""

from __future__ import annotations

import base64
import hashlib
import sys
import zipfile
from typing import TYPE_CHECKING, Any

from .client import at_once, check, data_folder, fetch, main, run

if TYPE_CHECKING:
    from pathlib import Path


def _write_wheel(version: str) -> Path:
    """Write a wheel of the project `greeting`."""
    info = f"greeting-{version}.dist-info"
    files = {
        "greeting.py": f"VERSION = {version!r}\n",
        f"{info}/METADATA": "Metadata-Version: 2.1\nName: greeting\n"
        f"Version: {version}\nSummary: A test\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\n"
        "Root-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = ""
    for name, text in files.items():
        digest = hashlib.sha256(text.encode()).digest()
        encoded = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        record += f"{name},sha256={encoded},{len(text)}\n"
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n"
    path = data_folder() / f"greeting-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
    return path


def prepare() -> None:
    """Create the folder of the packages."""
    (data_folder() / "packages").mkdir()


def make_app() -> Any:
    """Return the index. Anyone may upload."""
    import pypiserver

    return pypiserver.app(
        roots=[data_folder() / "packages"], password_file=".", authenticate=[]
    )


def drive(url: str) -> None:
    """Upload, download, install, list and remove packages."""

    def python(module: str, *arguments: str) -> str:
        return run([sys.executable, "-m", module, *arguments], data_folder())

    wheels = [_write_wheel(f"1.{number}") for number in range(3)]
    python(
        "twine",
        "upload",
        *("--repository-url", url, "-u", "a", "-p", "a", "--non-interactive"),
        *map(str, wheels),
    )
    stored = sorted((data_folder() / "packages").iterdir())
    same = [each.read_bytes() for each in stored] == [w.read_bytes() for w in wheels]
    check("twine upload", same, stored)
    index = ["--index-url", f"{url}/simple/", "--no-cache-dir"]
    python("pip", "install", *index, "--target", "installed", "greeting")
    installed = (data_folder() / "installed" / "greeting.py").read_text()
    check("pip install", installed == "VERSION = '1.2'\n", installed)
    python("pip", "download", *index, "--dest", "downloaded", "greeting==1.1")
    check("pip download", (data_folder() / "downloaded" / wheels[1].name).exists())
    search = python("pip", "index", "versions", *index, "greeting")
    check("pip index versions", "1.2, 1.1, 1.0" in search, search)
    page = fetch(f"{url}/simple/greeting/")
    check("simple index", page.text.count("<a ") == 3, page.text)

    def download(number: int) -> bool:
        wheel = wheels[number % 3]
        return fetch(f"{url}/packages/{wheel.name}").body == wheel.read_bytes()

    check("50 downloads at once", all(at_once(download)))


if __name__ == "__main__":
    main(prepare, drive)
