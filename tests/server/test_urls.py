"""Addresses as a person types them."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server.urls import url_of


class UrlTests(SynchronousTestCase):
    """`url_of`."""

    def test_ipv4(self) -> None:
        """All addresses are shown as the loopback address."""
        for host, port, url in [
            ("0.0.0.0", 8080, "http://127.0.0.1:8080/"),
            ("192.0.2.1", 8080, "http://192.0.2.1:8080/"),
            ("0.0.0.0", 80, "http://127.0.0.1/"),
            ("0.0.0.0", 443, "http://127.0.0.1:443/"),
        ]:
            self.assertEqual(url_of(IPv4Address("TCP", host, port), "tcp:0"), url)

    def test_ipv6(self) -> None:
        """IPv6 addresses are in brackets, with an escaped zone."""
        for host, url in [
            ("::", "http://[::1]:80808/"),
            ("2001:db8::1", "http://[2001:db8::1]:80808/"),
            ("fe80::1%eth0", "http://[fe80::1%25eth0]:80808/"),
        ]:
            self.assertEqual(url_of(IPv6Address("TCP", host, 80808)), url)

    def test_tls(self) -> None:
        """The endpoint string tells TLS."""
        address = IPv4Address("TCP", "0.0.0.0", 443)
        for endpoint in (
            "ssl:443:privateKey=key.pem",
            "tls:/etc/tls:port=443",
            "haproxy:ssl:443",
        ):
            self.assertEqual(url_of(address, endpoint), "https://127.0.0.1/")
        for endpoint in ("tcp:443", "haproxy:tcp:443", "systemd:name=tls", ""):
            self.assertEqual(url_of(address, endpoint), "http://127.0.0.1:443/")

    def test_unix(self) -> None:
        """A UNIX socket has its path, an abstract one with an at sign."""
        self.assertEqual(url_of(UNIXAddress("/run/a.sock")), "unix:/run/a.sock")
        self.assertEqual(url_of(UNIXAddress(b"\0name")), "unix:@name")
        self.assertEqual(url_of(UNIXAddress(None)), "unix:")
