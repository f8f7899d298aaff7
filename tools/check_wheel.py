"""Check an installed txgreenwsgi: `python tools/check_wheel.py compiled|pure`.

It serves one request from a process of its own, with the fast path that is expected.
cibuildwheel runs it for each wheel, `.ci/run` for a compiled and a pure one. It must
never import from the checkout, and needs nothing but the wheel and its dependencies.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECONDS: Final = 30.0


def main(arguments: Sequence[str]) -> int:
    """Check the installation, and return the exit status."""
    if arguments not in (["compiled"], ["pure"]):
        print("check_wheel: give compiled or pure", file=sys.stderr)
        return 2
    # Not this file's directory, nor the checkout.
    sys.path[:] = sys.path[1:]
    from txgreenwsgi import _native

    description = _native.description()
    package = Path(_native.__file__).parent
    modules = [*package.glob("*.so"), *package.glob("*.pyd")]
    print(f"{package}: {description}")
    if _native.ACTIVE is not (arguments == ["compiled"]):
        print(f"check_wheel: expected {arguments[0]}", file=sys.stderr)
        return 1
    if not _native.ACTIVE and modules:
        print(f"check_wheel: {modules} are not in use", file=sys.stderr)
        return 1
    version = _output("greenwsgi", "--version")
    if description not in version:
        print(f"check_wheel: --version prints {version!r}", file=sys.stderr)
        return 1
    page = _served()
    print(f"{len(page)} bytes served")
    return 0 if b"<html" in page.lower() else 1


def _output(*words: str) -> str:
    command = [sys.executable, "-m", "twisted", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def _served() -> bytes:
    """Start a server of the demonstration, and return its page."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "txgreenwsgi"]
    command += [f"--listen=tcp:{port}:interface=127.0.0.1"]
    server = subprocess.Popen(command)
    try:
        end = time.monotonic() + _SECONDS
        while server.poll() is None and time.monotonic() < end:
            with contextlib.suppress(OSError):
                url = f"http://127.0.0.1:{port}/"
                with urllib.request.urlopen(url, timeout=_SECONDS) as response:
                    page: bytes = response.read()
                    return page
            time.sleep(0.1)
        return b""
    finally:
        server.terminate()
        server.wait(_SECONDS)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
