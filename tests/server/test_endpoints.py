"""Endpoint strings: the parsed ones, and the message for each mistake."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server import endpoints
from txgreenwsgi._server.endpoints import check_endpoint, make_endpoint
from txgreenwsgi._server.errors import EndpointError, ListenError


class EndpointTests(SynchronousTestCase):
    """Endpoint strings."""

    def refusal(self, text: str) -> str:
        """Return the message for a wrong string. Both functions refuse it."""
        error = self.assertRaises(EndpointError, check_endpoint, text)
        self.assertEqual(
            str(self.assertRaises(EndpointError, make_endpoint, object(), text)),
            str(error),
        )
        self.assertIsInstance(error, ValueError)
        self.assertEqual(str(error), f"listen={text!r} {error.problem}: {error.remedy}")
        return f"{error.problem}: {error.remedy}"

    def test_backlog(self) -> None:
        """The backlog is 1024 unless the string sets another one."""
        reactor = MemoryReactorClock()
        for text in ("tcp:1", "tcp:2:backlog=5", "haproxy:tcp:3"):
            make_endpoint(reactor, text).listen(Factory())
        self.assertEqual([each[2] for each in reactor.tcpServers], [1024, 5, 50])

    def test_checked(self) -> None:
        """A valid string passes the check and makes an endpoint."""
        for text in ("tcp:0", "unix:/run/app.sock:mode=660", "haproxy:tcp:8080"):
            check_endpoint(text)
            endpoint = make_endpoint(MemoryReactorClock(), text)
            self.assertTrue(IStreamServerEndpoint.providedBy(endpoint))

    def test_addresses(self) -> None:
        """For an address as other servers take it, the message gives the endpoint."""
        for text, endpoint in {
            "8080": "tcp:8080",
            ":8080": "tcp:8080",
            "127.0.0.1:8080": "tcp:8080:interface=127.0.0.1",
            "localhost:8080": "tcp:8080:interface=127.0.0.1",
            "[::1]:8080": "tcp6:8080:interface=\\:\\:1",
        }.items():
            self.assertEqual(
                self.refusal(text), f"is not an endpoint string: give {endpoint}"
            )
            check_endpoint(endpoint)

    def test_not_endpoints(self) -> None:
        """Any other string is refused with examples."""
        for text in ("", "tcp", "tcp:x", "nope:1", "tcp:80:x=y", "unix", "tcp:80\\"):
            message = self.refusal(text)
            self.assertEqual(message.index("is not a valid endpoint string ("), 0)
            self.assertIn("give one such as tcp:8080, tcp:8080:interface=", message)

    def test_ipv6_only(self) -> None:
        """`v6only` is an argument of IPv6 endpoints, for Twisted's parser too."""
        for text in (
            "tcp6:0:v6only=0",
            "tcp6:v6only=1:port=0",
            "tcp:0:interface=\\:\\::v6only=0",
            "haproxy:tcp6:0:v6only=0",
        ):
            check_endpoint(text)
        for text in ("tcp6:0:v6only=", "tcp6:0:v6only=no", "tcp6:0:v6only=0:v6only=0"):
            self.assertEqual(
                self.refusal(text),
                "has no valid v6only: give v6only=0 to accept IPv4 too, or v6only=1",
            )
        self.assertEqual(
            self.refusal("tcp:80:v6only=0"),
            "has v6only but no IPv6 address: remove it, or give tcp6:8080",
        )

    def test_port_out_of_range(self) -> None:
        """An impossible port number is refused before the server starts."""
        for text in ("tcp:65536", "tcp6:99999:interface=x", "ssl:port=70000"):
            self.assertEqual(
                self.refusal(text),
                "has no valid port number: give one from 0 to 65535",
            )

    def test_socket_that_systemd_has_not_opened(self) -> None:
        """A socket that systemd has not opened is refused with the remedy."""
        message = self.refusal("systemd:domain=INET:index=99")
        self.assertIn("a socket that systemd has not opened for this process", message)
        self.assertIn(": start the process by its .socket unit, or give", message)

    def test_unreadable_file(self) -> None:
        """A missing key file is refused, unless paths may change before the start."""
        text = f"ssl:443:privateKey={self.mktemp()}"
        message = self.refusal(text)
        self.assertIn("needs a file that cannot be read ([Errno 2]", message)
        self.assertIn(": give the path of a readable file", message)
        check_endpoint(text, paths_are_final=False)
        self.assertRaises(EndpointError, check_endpoint, "tcp:x", paths_are_final=False)

    def test_unusable_key(self) -> None:
        """A file that is not a key is refused with the remedy."""
        path = Path(self.mktemp())
        path.write_text("not a key\n")
        message = self.refusal(f"ssl:443:privateKey={path}")
        self.assertIn("has a key or a certificate that cannot be used (", message)
        self.assertIn(": give a private key and its certificate, in PEM", message)

    def test_missing_package(self) -> None:
        """For a missing package, the message gives the command that installs it."""

        def not_installed(_reactor: object, _text: str) -> None:
            raise ImportError("No module named 'OpenSSL'")

        self.patch(endpoints, "serverFromString", not_installed)
        self.assertEqual(
            self.refusal("ssl:443"),
            "needs a package that is not installed (No module named 'OpenSSL'): run "
            "pip install 'txgreenwsgi[tls]' for TLS",
        )


class ListenErrorTests(SynchronousTestCase):
    """`ListenError`."""

    def message(self, number: int) -> str:
        """Return the message for an error of the operating system."""
        error = OSError(number, os.strerror(number))
        return str(ListenError("tcp:80", CannotListenError("", 80, error)))

    def test_remedies(self) -> None:
        """The message gives the endpoint, the error and the remedy."""
        self.assertEqual(
            self.message(errno.EADDRINUSE),
            f"cannot listen on 'tcp:80' ([Errno {errno.EADDRINUSE}] "
            f"{os.strerror(errno.EADDRINUSE)}): stop the process that uses this "
            "address, or give another endpoint",
        )
        for number, remedy in [
            (errno.EEXIST, "remove the file, or give another path"),
            (errno.EADDRNOTAVAIL, "no network interface of this machine has this"),
            (errno.EACCES, "this user may not open a port below 1024"),
            (errno.EIO, "give another endpoint"),
        ]:
            self.assertIn(f"): {remedy}", self.message(number))

    def test_endpoint_object(self) -> None:
        """An endpoint object is named by its address."""
        in_use = OSError(errno.EADDRINUSE, "in use")
        for interface, port, name in [("", 80, "any:80"), ("::1", 80, "::1:80")]:
            error = ListenError("", CannotListenError(interface, port, in_use))
            self.assertIn(f"cannot listen on {name} (", str(error))

    def test_directory_of_a_unix_socket(self) -> None:
        """For a UNIX socket in a missing directory, the message says so."""
        missing = FileNotFoundError(errno.ENOENT, "Missing", "7", None, "/no/s.lock")
        error = ListenError("unix:/no/s", missing)
        self.assertEqual(
            str(error),
            f"cannot listen on 'unix:/no/s' ([Errno {errno.ENOENT}] Missing: '7' -> "
            "'/no/s.lock'): give a path in an existing directory",
        )

    def test_locked_unix_socket(self) -> None:
        """A UNIX socket locked by another process has no error number."""
        locked = CannotListenError(None, "/run/s", "Cannot acquire lock")
        self.assertIn(
            "(Cannot acquire lock): stop the process that uses this address",
            str(ListenError("unix:/run/s", locked)),
        )

    def test_is_twisteds(self) -> None:
        """Programs that catch Twisted's error find its attributes."""
        in_use = OSError(errno.EADDRINUSE, "in use")
        error = ListenError("tcp:80", CannotListenError("::1", 80, in_use))
        self.assertIsInstance(error, CannotListenError)
        self.assertEqual((error.interface, error.port), ("::1", 80))
        self.assertIs(error.socketError, in_use)
