"""WsgiDAV, a WebDAV server, driven by litmus, the test suite of WebDAV servers."""

from __future__ import annotations

import re
from typing import Any

from .client import at_once, check, data_folder, fetch, main, run


def prepare() -> None:
    """Create the folder that is shared."""
    (data_folder() / "shared").mkdir()
    (data_folder() / "litmus").mkdir()


def make_app() -> Any:
    """Return the application. Anyone may write."""
    from wsgidav.wsgidav_app import WsgiDAVApp

    return WsgiDAVApp(
        {
            "provider_mapping": {"/": str(data_folder() / "shared")},
            "simple_dc": {"user_mapping": {"*": True}},
            "lock_storage": True,
            "property_manager": True,
            "verbose": 1,
        }
    )


def drive(url: str) -> None:
    """Run litmus, then send and fetch files at once."""
    output = run(["litmus", "-k", f"{url}/"], data_folder() / "litmus")
    found = re.findall(r"of (\d+) tests run: (\d+) passed, (\d+) failed", output)
    tests, passed = (sum(int(each[n]) for each in found) for n in (0, 1))
    check(f"litmus: {passed} of {tests} tests", tests > 60 and tests == passed, output)

    def send(number: int) -> bool:
        body = b"%d\n" % number * 200_000
        path = f"{url}/file{number}"
        sent = fetch(path, "PUT", body)
        return sent.status in (201, 204) and fetch(path).body == body

    check("50 clients send and fetch files", all(at_once(send)))


if __name__ == "__main__":
    main(prepare, drive)
