"""An application for the tests of `tools.applications`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tools.applications.client import at_once, check, data_folder, fetch, main

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


def prepare() -> None:
    """Write the text that is served."""
    (data_folder() / "text").write_text("text")


def make_app() -> WSGIApplication:
    """Return an application that serves a text; /fail raises."""
    text = (data_folder() / "text").read_bytes()

    def app(environ: WSGIEnvironment, start: StartResponse) -> list[bytes]:
        if environ["PATH_INFO"] == "/fail":
            raise RuntimeError("asked to fail")
        start("200 OK", [("Content-Type", "text/plain")])
        return [text]

    return app


def drive(url: str) -> None:
    """Fetch the text."""
    check("one", fetch(url).text == "text")
    check("many", set(at_once(lambda _: fetch(url).status)) == {200})
    failed = fetch(f"{url}/fail")
    check("failure", failed.status == 500, failed)


if __name__ == "__main__":
    main(prepare, drive)
