"""klaus, a Git web viewer that serves repositories, driven by `git`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .client import (
    check,
    check_at_once,
    check_pages,
    data_folder,
    fetch,
    main,
    run,
)

if TYPE_CHECKING:
    from pathlib import Path


def _git(*arguments: str, folder: str = "") -> str:
    settings = ["user.name=tester", "user.email=t@localhost", "init.defaultBranch=main"]
    options = [word for setting in settings for word in ("-c", setting)]
    return run(
        ["git", *options, *arguments],
        data_folder() / folder,
        GIT_CONFIG_NOSYSTEM="1",
        HOME=str(data_folder()),
    )


def _commit(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    _git("add", ".", folder=path.parent.name)
    _git("commit", "-m", f"change {path.name}", folder=path.parent.name)


def prepare() -> None:
    """Create a repository with one commit."""
    _git("init", "seed")
    _commit(data_folder() / "seed" / "readme.md", b"# Title\n\nfirst\n")
    _git("clone", "--bare", "seed", "repository.git")


def make_app() -> Any:
    """Return klaus with pushing allowed to anyone."""
    from klaus import make_app as make_klaus

    return make_klaus(
        [str(data_folder() / "repository.git")],
        "repositories",
        use_smarthttp=True,
        unauthenticated_push=True,
    )


def drive(url: str) -> None:
    """Clone, push and browse."""
    remote = f"{url}/repository"
    if fetch(f"{remote}.git/info/refs?service=git-upload-pack").status == 200:
        remote += ".git"
    _git("clone", remote, "one")
    one = data_folder() / "one"
    check("git clone", (one / "readme.md").exists())
    _commit(one / "small.txt", b"second\n")
    _git("push", "origin", "HEAD", folder="one")
    check("git push", b"small" in fetch(f"{remote}/tree/main/").body)
    # Above http.postBuffer, 1 MiB, git sends the pack in chunks.
    large = os.urandom(8_000_000)
    _commit(one / "large.bin", large)
    _git("push", "origin", "HEAD", folder="one")
    _git("clone", remote, "two")
    two = data_folder() / "two" / "large.bin"
    check("git push of 8 MB in chunks", two.read_bytes() == large)
    _commit(data_folder() / "two" / "small.txt", b"third\n")
    _git("push", "origin", "HEAD", folder="two")
    _git("pull", folder="one")
    check("git pull", (one / "small.txt").read_bytes() == b"third\n")
    pages = {
        "/tree/main/": b"small.txt",
        "/blob/main/small.txt": b"third",
        "/raw/main/small.txt": b"third",
        "/commit/main/": b"small.txt",
        "/blame/main/small.txt": b"third",
        "/tarball/main/": b"\x1f\x8b",
    }
    check_pages(remote, pages)
    raw = fetch(f"{remote}/raw/main/large.bin")
    check("raw file of 8 MB", raw.body == large)

    def clone(number: int) -> bool:
        _git("clone", "--quiet", remote, f"clone{number}")
        return bool((data_folder() / f"clone{number}" / "large.bin").exists())

    check_at_once(clone, f"{remote}/tree/main/")


if __name__ == "__main__":
    main(prepare, drive)
