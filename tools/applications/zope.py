"""Zope, an application server with an object database, driven over HTTP and XML-RPC."""

from __future__ import annotations

import base64
import xmlrpc.client
from typing import Any
from urllib.parse import urlencode

from .client import at_once, check, data_folder, fetch, main, program, run

AUTHORIZATION = {"Authorization": "Basic " + base64.b64encode(b"admin:secret").decode()}


def prepare() -> None:
    """Create an instance."""
    folder = str(data_folder() / "instance")
    run([program("mkwsgiinstance"), "--dir", folder, "--user", "admin:secret"])
    with (data_folder() / "instance" / "etc" / "zope.conf").open("a") as file:
        file.write("\nenable-xmlrpc on\n")


def make_app() -> Any:
    """Return the application of the instance."""
    from Zope2.Startup.run import make_wsgi_app
    from ZPublisher.httpexceptions import HTTPExceptionHandler

    configuration = data_folder() / "instance" / "etc" / "zope.conf"
    # The pipeline of the instance's zope.ini.
    return HTTPExceptionHandler(make_wsgi_app({}, str(configuration)))


def drive(url: str) -> None:
    """Use the management pages, WebDAV and XML-RPC; change an object at once."""

    def post(path: str, **fields: str) -> int:
        body = urlencode(fields).encode()
        return fetch(url + path, "POST", body, AUTHORIZATION).status

    check("front page", fetch(url).status == 200)
    check("401 without a password", fetch(f"{url}/manage_main").status == 401)
    page = fetch(f"{url}/manage_main", headers=AUTHORIZATION)
    check("management page", page.status == 200 and b"Control_Panel" in page.body)
    folder = "/manage_addProduct/OFSP/manage_addFolder"
    check("add a folder", post(folder, id="folder", title="A folder") == 200)
    method = "/folder/manage_addProduct/OFSP/manage_addDTMLMethod"
    source = '<dtml-var expr="_.sum(_.range(5))">'
    check("add a DTML method", post(method, id="method", file=source) == 200)
    text = fetch(f"{url}/folder/method").text
    check("DTML", text.strip() == "10", text)
    large = b"0123456789" * 500_000
    headers = {**AUTHORIZATION, "Content-Type": "application/octet-stream"}
    sent = fetch(f"{url}/folder/file", "PUT", large, headers)
    check("PUT of 5 MB", sent.status == 201, sent)
    stored = fetch(f"{url}/folder/file")
    check("GET of 5 MB", stored.body == large)
    part = fetch(f"{url}/folder/file", headers={"Range": "bytes=10-19"})
    check("range", (part.status, part.body) == (206, b"0123456789"))
    depth = {**AUTHORIZATION, "Depth": "1"}
    listed = fetch(f"{url}/folder", "PROPFIND", None, depth)
    check("PROPFIND", listed.status == 207 and b"method" in listed.body, listed.text)

    class Transport(xmlrpc.client.Transport):
        def send_headers(self, connection: Any, headers: Any) -> None:
            super().send_headers(connection, [*headers, *AUTHORIZATION.items()])

    with xmlrpc.client.ServerProxy(f"{url}/folder", Transport()) as proxy:
        answer = str(proxy.method()).strip()
    check("XML-RPC", answer == "10", answer)

    def change(number: int) -> int:
        path = "/folder/manage_addProduct/OFSP/manage_addDTMLMethod"
        return post(path, id=f"method{number}", file=str(number) * 1000)

    statuses = at_once(change, 20)
    check("20 changes of a folder at once", set(statuses) == {200}, statuses)
    values = at_once(lambda n: fetch(f"{url}/folder/method{n}").text, 20)
    good = [values[n].strip() == str(n) * 1000 for n in range(20)]
    check("all changes are stored", all(good), values)
    pages = at_once(lambda _: fetch(f"{url}/folder/method").text.strip())
    check("50 pages at once", set(pages) == {"10"}, pages)


if __name__ == "__main__":
    main(prepare, drive)
