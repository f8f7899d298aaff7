"""Functions for the clients: checks, simple requests, calls in many threads.

Runs in the environment of the application, with Python's standard library only.
"""

from __future__ import annotations

import os
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .commands import CommandFailed, output_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from email.message import Message

__all__ = [
    "AT_ONCE",
    "FOLDER_VARIABLE",
    "Reply",
    "at_once",
    "check",
    "check_at_once",
    "check_pages",
    "data_folder",
    "fetch",
    "main",
    "program",
    "run",
]

AT_ONCE = 50
TIMEOUT_SECONDS = 60.0
#: The environment variable with the folder for the data of the application.
FOLDER_VARIABLE = "APPLICATION_FOLDER"

_T = TypeVar("_T")


def data_folder() -> Path:
    """Return the folder for the data of the application."""
    return Path(os.environ[FOLDER_VARIABLE])


def check(what: str, condition: object, details: object = "") -> None:
    """Print the name of a check that holds.

    Raises:
        SystemExit: it does not hold.
    """
    if not condition:
        raise SystemExit(f"FAILED: {what}: {str(details)[-2000:]}")
    print(f"ok: {what}", flush=True)


@dataclass(frozen=True)
class Reply:
    """A response."""

    status: int
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        """The body, decoded as UTF-8."""
        return self.body.decode("utf-8", "replace")


def fetch(
    url: str,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Send one request on a new connection. Follows redirects; returns all statuses."""
    request = urllib.request.Request(url, body, dict(headers or {}), method=method)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
            return Reply(response.status, response.headers, response.read())
    except urllib.error.HTTPError as error:
        with error:
            return Reply(error.code, error.headers, error.read())


def at_once(function: Callable[[int], _T], count: int = AT_ONCE) -> list[_T]:
    """Return the results of `function(0)`, `function(1)`..., called in threads."""
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(function, range(count)))


def program(name: str) -> str:
    """Return the path of a program of the application's environment."""
    return str(Path(sys.executable).parent / name)


def run(command: Sequence[str], folder: Path | None = None, **environ: str) -> str:
    """Run a program that ends by itself; return its output.

    Raises:
        SystemExit: its status is not 0; the message has its output.
    """
    try:
        return output_of(command, folder, **environ)
    except CommandFailed as error:
        raise SystemExit(f"FAILED: {error}") from None


def check_pages(url: str, pages: Mapping[str, bytes]) -> None:
    """Check that each page below `url` has the expected bytes."""
    for page, expected in pages.items():
        reply = fetch(url + page)
        good = reply.status == 200 and expected in reply.body
        check(f"page {page or '/'}", good, (reply.status, reply.text[:500]))


def check_at_once(clone: Callable[[int], bool], page: str) -> None:
    """Check clones of a repository, and requests for a page, at the same time.

    Args:
        clone: makes the clone of a number; returns whether it is complete.
        page: the URL.
    """
    check("5 clones at once", all(at_once(clone, 5)))
    statuses = at_once(lambda _: fetch(page).status)
    check("50 pages at once", set(statuses) == {200}, statuses)


def main(prepare: Callable[[], object], drive: Callable[[str], object]) -> None:
    """Run `prepare` or `drive`, whichever the command line names."""
    what, *arguments = sys.argv[1:]
    if what == "prepare":
        prepare()
    else:
        began = time.monotonic()
        drive(*arguments)
        print(f"seconds: {time.monotonic() - began:.1f}")
