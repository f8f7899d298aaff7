"""Trusted proxies, on every transport."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .harness import Cases, on_every_transport

if TYPE_CHECKING:
    from collections.abc import Iterable

    from txgreenwsgi.monitoring import ExchangeRecord

    from .harness import Environ, Start

FIELDS = [
    ("X-Forwarded-For", "6.6.6.6, 192.0.2.1"),
    ("X-Forwarded-Proto", "https"),
    ("X-Forwarded-Host", "shop.test"),
]


def hello(environ: Environ, start: Start) -> Iterable[bytes]:
    """Answer with one block."""
    start("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


class ProxyCases(Cases):
    """`trusted_proxy`."""

    def environ(
        self, headers: Iterable[tuple[str, str]] = FIELDS, **settings: Any
    ) -> tuple[Environ, list[ExchangeRecord]]:
        """Return the environ of one request, and the records."""
        records: list[ExchangeRecord] = []
        server = self.serve(hello, observers=[records.append], **settings)
        self.assert_complete(server.begin(headers=headers), b"hello")
        return server.app.environs[0], records

    def test_default(self) -> None:
        """By default the fields are passed on, and change nothing else."""
        plain, _ = self.environ([])
        environ, _ = self.environ()
        self.assertEqual(environ["HTTP_X_FORWARDED_FOR"], "6.6.6.6, 192.0.2.1")
        for name in ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST"):
            self.assertEqual(environ[name], plain[name])

    def test_trusted(self) -> None:
        """A trusted proxy sets address, scheme and host, also in the record."""
        environ, [record] = self.environ(
            trusted_proxy="*",
            trusted_proxy_headers="x-forwarded-for,x-forwarded-proto,x-forwarded-host",
        )
        self.assertEqual(environ["REMOTE_ADDR"], "192.0.2.1")
        self.assertEqual(environ["REMOTE_PORT"], "")
        self.assertEqual(environ["wsgi.url_scheme"], "https")
        self.assertEqual(environ["HTTP_HOST"], "shop.test")
        self.assertEqual(environ["SERVER_NAME"], "shop.test")
        self.assertEqual(environ["SERVER_PORT"], "443")
        self.assertEqual(environ["HTTP_X_FORWARDED_FOR"], "192.0.2.1")
        self.assertEqual((record.remote_addr, record.remote_port), ("192.0.2.1", ""))

    def test_untrusted(self) -> None:
        """From another peer the fields are removed."""
        plain, _ = self.environ([])
        environ, _ = self.environ(trusted_proxy="203.0.113.1")
        self.assertEqual(
            [name for name in environ if name.startswith("HTTP_X_FORWARDED")], []
        )
        for name in ("REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST"):
            self.assertEqual(environ[name], plain[name])

    def test_forwarded(self) -> None:
        """The field of RFC 7239."""
        environ, _ = self.environ(
            [("Forwarded", "for=6.6.6.6"), ("Forwarded", "for=192.0.2.1;proto=https")],
            trusted_proxy="*",
            trusted_proxy_headers="forwarded",
        )
        self.assertEqual(environ["REMOTE_ADDR"], "192.0.2.1")
        self.assertEqual(environ["wsgi.url_scheme"], "https")

    def test_malformed(self) -> None:
        """A malformed field of a trusted proxy gets 400."""
        server = self.serve(hello, trusted_proxy="*")
        reply = server.begin(headers=[("X-Forwarded-For", "nonsense")])
        self.assertEqual(reply.status, 400)
        self.assertEqual(server.app.environs, [])

    def test_next_request(self) -> None:
        """Each request of a connection has its own client."""
        server = self.serve(hello, trusted_proxy="*")
        reply = None
        for address in ("192.0.2.1", "192.0.2.2"):
            fields = [("X-Forwarded-For", address)]
            reply = server.begin(headers=fields, on=reply)
        self.assertEqual(
            [each["REMOTE_ADDR"] for each in server.app.environs],
            ["192.0.2.1", "192.0.2.2"],
        )


globals().update(on_every_transport(ProxyCases))
