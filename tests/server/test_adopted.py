"""Endpoint strings of inherited descriptors. No socket is served here."""

from __future__ import annotations

import os
import socket
from typing import Any

from twisted.internet.endpoints import AdoptedStreamServerEndpoint, TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._server import adopted
from txgreenwsgi._server.adopted import (
    AdoptedEndpoint,
    Inherited,
    adopted_endpoint,
    as_it_is,
    inherited_from,
)
from txgreenwsgi._server.endpoints import check_endpoint, make_endpoint
from txgreenwsgi._server.errors import EndpointError


class InheritedTests(SynchronousTestCase):
    """`inherited_from`: the protocol of sd_listen_fds(3)."""

    def names(self, pid: int = 7, **environ: str) -> list[tuple[int, str]]:
        """Return numbers and names for LISTEN_ variables of process 7."""
        listen = {f"LISTEN_{name}": value for name, value in environ.items()}
        return [(each.fd, each.name) for each in inherited_from(listen, pid)]

    def test_names(self) -> None:
        """Descriptors begin at 3, with the names in order."""
        self.assertEqual(
            self.names(PID="7", FDS="2", FDNAMES="web:api"), [(3, "web"), (4, "api")]
        )

    def test_names_are_optional(self) -> None:
        """Without LISTEN_FDNAMES, or with another number of names, all are unknown."""
        unknown = [(3, "unknown"), (4, "unknown")]
        self.assertEqual(self.names(PID="7", FDS="2"), unknown)
        self.assertEqual(self.names(PID="7", FDS="2", FDNAMES=""), unknown)
        self.assertEqual(self.names(PID="7", FDS="2", FDNAMES="web"), unknown)

    def test_none(self) -> None:
        """Descriptors of another process, or no number of them, are none."""
        self.assertEqual(self.names(), [])
        self.assertEqual(self.names(PID="8", FDS="2", FDNAMES="web:api"), [])
        self.assertEqual(self.names(PID="7", FDS="-1"), [])
        self.assertEqual(self.names(PID="7", FDS="x"), [])
        self.assertEqual(self.names(PID="7", FDS="0"), [])


class AdoptedTests(SynchronousTestCase):
    """The endpoints of `systemd:` and `fd:`."""

    def setUp(self) -> None:
        """Open a listening socket of each family."""
        self.inet = self.listening(socket.AF_INET, ("127.0.0.1", 0))
        self.unix = self.listening(socket.AF_UNIX, f"\0green-{os.getpid()}-adopted")
        self.inherited = [
            Inherited(self.inet.fileno(), "web"),
            Inherited(self.unix.fileno(), "api"),
            Inherited(self.unix.fileno(), "api"),
        ]
        self.patch(adopted, "INHERITED", self.inherited)

    def listening(self, family: int, address: Any) -> socket.socket:
        """Return a socket that listens until the end of the test."""
        made = socket.socket(family)
        self.addCleanup(made.close)
        made.bind(address)
        made.listen(1)
        return made

    def refusal(self, text: str) -> str:
        """Return problem and remedy of the error for a wrong string."""
        error = self.assertRaises(EndpointError, check_endpoint, text)
        return f"{error.problem}: {error.remedy}"

    def test_endpoints(self) -> None:
        """The descriptor is found, and its family is that of the socket."""
        for text, sock in {
            f"fd:{self.inet.fileno()}": self.inet,
            f"fd:{self.unix.fileno()}": self.unix,
            f"fd:fileno={self.unix.fileno()}": self.unix,
            "systemd:domain=INET:index=0": self.inet,
            "systemd:INET:0": self.inet,
            "systemd:index=1": self.unix,
            "systemd:name=web": self.inet,
            "systemd:domain=INET:name=web": self.inet,
        }.items():
            endpoint = make_endpoint(object(), text)
            assert isinstance(endpoint, AdoptedEndpoint)
            self.assertEqual(
                (endpoint.fd, endpoint.family), (sock.fileno(), sock.family)
            )
        self.assertIsNone(adopted_endpoint(object(), "tcp:80"))

    def test_not_opened(self) -> None:
        """A socket that systemd has not opened is refused with the names it has."""
        for text in ("systemd:domain=INET:index=3", "systemd:name=x"):
            self.assertEqual(
                self.refusal(text),
                "names a socket that systemd has not opened for this process (opened: "
                "web, api, api): start the process by its .socket unit, or give an "
                "endpoint such as tcp:8080",
            )
        self.inherited.clear()
        self.assertIn("(opened: none)", self.refusal("systemd:index=0"))

    def test_wrong_strings(self) -> None:
        """A string that names no socket is refused with examples."""
        for text in (
            "systemd:",
            "systemd",
            "systemd:domain=INET",
            "systemd:index=0:name=web",
            "systemd:index=x",
            "systemd:index=-1",
            "systemd:index=0:mode=600",
            "systemd:INET:0:1",
        ):
            self.assertIn(
                "): give one such as systemd:index=0 or systemd:name=web",
                self.refusal(text),
            )
        for text in ("fd:", "fd:x", "fd:-1", "fd:3:4", "fd"):
            self.assertEqual(
                self.refusal(text), "is not the number of a descriptor: give fd:3"
            )
        self.assertIn("give fd:17", self.refusal("fd://17"))

    def test_ambiguous_name(self) -> None:
        """A name of several sockets is refused."""
        self.assertEqual(
            self.refusal("systemd:name=api"),
            "names 2 sockets: give one --listen for each index",
        )

    def test_other_domain(self) -> None:
        """A domain that is not the socket's is refused."""
        for domain in ("UNIX", "INET6", "NONE"):
            self.assertEqual(
                self.refusal(f"systemd:domain={domain}:index=0"),
                "is a socket of another domain (INET): give domain=INET, or leave the "
                "domain out",
            )

    def test_not_a_listening_socket(self) -> None:
        """Files, closed descriptors and other sockets are refused, and stay open."""
        plain = socket.socket()
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        for sock in (plain, datagrams):
            self.addCleanup(sock.close)
            self.assertIn(
                "is a socket that does not listen for stream connections: call listen",
                self.refusal(f"fd:{sock.fileno()}"),
            )
            os.fstat(sock.fileno())
        reading, writing = os.pipe()
        self.addCleanup(os.close, writing)
        self.assertIn("is not an open socket (", self.refusal(f"fd:{reading}"))
        os.close(reading)
        self.assertIn("is not an open socket (", self.refusal(f"fd:{reading}"))

    def test_adopted_once(self) -> None:
        """A second adoption of the number fails with the error of the string."""
        fd = os.dup(self.inet.fileno())
        endpoint = make_endpoint(MemoryReactorClock(), f"fd:{fd}")
        self.successResultOf(endpoint.listen(Factory()))
        self.failureResultOf(endpoint.listen(Factory()), EndpointError)

    def test_endpoint_objects(self) -> None:
        """Twisted's endpoint of an adopted socket becomes one that leaves it alone."""
        theirs = AdoptedStreamServerEndpoint(object(), 5, socket.AF_UNIX)
        ours = as_it_is(theirs)
        assert isinstance(ours, AdoptedEndpoint)
        self.assertEqual((ours.fd, ours.family), (5, socket.AF_UNIX))
        other = TCP4ServerEndpoint(object(), 0)
        self.assertIs(as_it_is(other), other)
