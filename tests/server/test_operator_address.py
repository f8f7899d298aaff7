"""Addresses of listeners for operators."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server.errors import EndpointError
from txgreenwsgi._server.operator_address import is_local, operator_endpoint


class OperatorAddressTests(SynchronousTestCase):
    """`operator_endpoint` and `is_local`."""

    def test_endpoints(self) -> None:
        """An address may have the host in front of the port, or be Twisted's."""
        for text, endpoint in [
            ("tcp:127.0.0.1:9091", "tcp:9091:interface=127.0.0.1"),
            ("tcp:localhost:9091", "tcp:9091:interface=127.0.0.1"),
            ("tcp:[::1]:9091", r"tcp6:9091:interface=\:\:1"),
            ("tcp6:[::1]:9091", r"tcp6:9091:interface=\:\:1"),
            ("tcp:0.0.0.0:9091", "tcp:9091"),
            ("tcp:9091", "tcp:9091"),
            ("tcp:9091:interface=127.0.0.1", "tcp:9091:interface=127.0.0.1"),
            ("unix:/tmp/status.sock:mode=600", "unix:/tmp/status.sock:mode=600"),
        ]:
            self.assertEqual(operator_endpoint(text), endpoint)

    def test_errors(self) -> None:
        """TLS and wrong addresses are refused, with the address as given."""
        for text in (
            *("https:9091", "ssl:9091", "tls:9091", "tcp:127.0.0.1", "9091"),
            *("127.0.0.1:9091", "tcp:", "", "tcp:127.0.0.1:99999", "nothing:1"),
        ):
            error = self.assertRaises(EndpointError, operator_endpoint, text)
            self.assertTrue(error.problem, text)

    def test_local(self) -> None:
        """Loopback addresses and UNIX sockets are local."""
        for endpoint in (
            "tcp:9091:interface=127.0.0.1",
            "tcp:9091:interface=127.9.9.9:backlog=5",
            r"tcp6:9091:interface=\:\:1",
            "unix:/tmp/status.sock",
        ):
            self.assertTrue(is_local(endpoint), endpoint)
        for endpoint in (
            "tcp:9091",
            "tcp6:9091",
            "tcp:9091:interface=10.0.0.1",
            "tcp:9091:interface=",
            "tcp:9091:interface=example.com",
            "systemd:index=0",
            "fd:3",
            r"haproxy:tcp:9091:interface=127.0.0.1",
        ):
            self.assertFalse(is_local(endpoint), endpoint)
