"""Mercurial's web server, hgweb, driven by `hg`."""

from __future__ import annotations

import os
from typing import Any

from .client import (
    check,
    check_at_once,
    check_pages,
    data_folder,
    fetch,
    main,
    program,
    run,
)

CONFIG = """[web]
push_ssl = false
allow_push = *
allow-archive = zip
[paths]
/ = {folder}/served/*
"""


def _hg(*arguments: str, folder: str = "") -> str:
    command = [program("hg"), *arguments, "--config", "ui.username=tester"]
    return run(command, data_folder() / folder, HGRCPATH="", HGPLAIN="1")


def prepare() -> None:
    """Create a repository and the configuration of hgweb."""
    folder = data_folder()
    (folder / "served").mkdir()
    (folder / "hgweb.config").write_text(CONFIG.format(folder=folder))
    _hg("init", "served/repository")


def make_app() -> Any:
    """Return hgweb for all repositories of a folder."""
    from mercurial.hgweb import hgweb

    return hgweb(os.fsencode(data_folder() / "hgweb.config"))


def drive(url: str) -> None:
    """Clone, push, pull and browse."""
    url += "/repository"
    _hg("clone", url, "one")
    first = data_folder() / "one" / "small.txt"
    first.write_text("first\n")
    large = data_folder() / "one" / "large.bin"
    large.write_bytes(os.urandom(20_000_000))
    _hg("commit", "-A", "-m", "two files", folder="one")
    check("hg push: 20 MB", "added 1 changesets" in _hg("push", folder="one"))
    _hg("clone", url, "two")
    copy = data_folder() / "two" / "large.bin"
    check("hg clone: 20 MB", copy.read_bytes() == large.read_bytes())
    (data_folder() / "two" / "small.txt").write_text("second\n")
    _hg("commit", "-m", "change", folder="two")
    _hg("push", folder="two")
    _hg("pull", "--update", folder="one")
    check("hg pull", first.read_text() == "second\n")
    _hg("bookmark", "mark", folder="one")
    # A push of a bookmark without changesets has status 1.
    changed = data_folder() / "one" / "small.txt"
    changed.write_text("third\n")
    _hg("commit", "-m", "third", folder="one")
    _hg("push", "--bookmark", "mark", folder="one")
    check("hg push --bookmark", "mark" in _hg("bookmarks", folder="served/repository"))
    pages = {
        "": b"third",
        "/file/tip/small.txt": b"third",
        "/rev/tip": b"small.txt",
        "/graph": b"third",
        "/archive/tip.zip": b"PK",
    }
    check_pages(url, pages)
    check("a wrong page is 404", fetch(f"{url}/file/tip/none").status == 404)

    def clone(number: int) -> bool:
        _hg("clone", "--pull", url, f"clone{number}")
        return bool((data_folder() / f"clone{number}" / "small.txt").exists())

    check_at_once(clone, f"{url}/rev/tip")


if __name__ == "__main__":
    main(prepare, drive)
