"""Addresses for the environ."""

from __future__ import annotations

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server.ends import host_and_port, server_name


class AddressTests(SynchronousTestCase):
    """`server_name` and `host_and_port`."""

    def test_server_name(self) -> None:
        """An IPv6 address is in brackets, without its zone."""
        for host, name in {
            "127.0.0.1": "127.0.0.1",
            "::1": "[::1]",
            "fe80::1%eth0": "[fe80::1]",
            "::ffff:192.0.2.1": "192.0.2.1",
            "localhost": "localhost",
            "": "",
        }.items():
            self.assertEqual(server_name(host), name)

    def test_clients(self) -> None:
        """A client by IPv4 has an IPv4 address on an IPv6 socket too."""
        for address, ends in (
            (IPv4Address("TCP", "192.0.2.1", 5), ("192.0.2.1", "5")),
            (IPv6Address("TCP", "2001:db8::1", 5), ("2001:db8::1", "5")),
            (IPv6Address("TCP", "fe80::1%eth0", 5), ("fe80::1%eth0", "5")),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 5), ("192.0.2.1", "5")),
            (UNIXAddress("/run/x"), ("", "")),
        ):
            self.assertEqual(host_and_port(address), ends)
