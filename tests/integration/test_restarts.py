"""Restarts of server processes under load: every request is answered.

More restarts are made by, for instance, `TXGREENWSGI_RESTARTS=100`.
"""

from __future__ import annotations

import os
import socket
import tempfile
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from twisted.trial.unittest import SynchronousTestCase

from .processes import LOOPBACK, ServerProcess, free_ports, start
from .restart_clients import RestartClients
from .services import HAProxy
from .test_endpoints import write_certificate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .restart_clients import Outcome

#: Number of restarts in each test.
RESTARTS = int(os.environ.get("TXGREENWSGI_RESTARTS", "4"))

APP = "--app=tests.integration.restart_app:app"


class UnderLoad(SynchronousTestCase):
    """Clients of servers that restart.

    Attributes:
        least_answered: more requests than these are answered in a test under load.
        variable: in the environment of a run that measures.
    """

    least_answered = 20 * RESTARTS
    variable = "TXGREENWSGI_RESTARTS"

    def assert_answered(self, clients: RestartClients, log: str = "") -> Outcome:
        """Fail unless every request was answered, and there was load all the time."""
        outcome = clients.finish(self.least_answered + 1)
        self.assertEqual(outcome.failures, [], f"answered: {outcome.answered}\n{log}")
        self.assertGreater(outcome.answered, self.least_answered)
        # trial shows it with -e only.
        if self.variable in os.environ:
            print(f"{self.id()}: {outcome.answered} answered, 0 failed")
        return outcome


class RestartTests(UnderLoad):
    """Servers that `twistd` runs."""

    def test_shared_socket(self) -> None:
        """A new process on the same listening socket replaces the old one."""
        listening = socket.create_server((LOOPBACK, 0), backlog=1024)
        self.addCleanup(listening.close)
        number = listening.fileno()

        def begin() -> ServerProcess:
            return start(
                self,
                *("greenwsgi", APP, f"--listen=fd:{number}"),
                pass_fds=(number,),
            )

        server = begin()
        clients = RestartClients(self, [listening.getsockname()[1]])
        for _ in range(RESTARTS):
            successor = begin()
            server.ask_to_stop()
            server.wait_ended()
            server = successor
        self.assert_answered(clients)

    def restart_in_turn(
        self, endpoints: Sequence[str], wait: Callable[[], object] = lambda: None
    ) -> Callable[[], None]:
        """Start a server for each endpoint; return a function that restarts them.

        Args:
            endpoints: endpoint strings.
            wait: waits after each start.
        """

        def begin(endpoint: str) -> ServerProcess:
            return start(self, "greenwsgi", APP, f"--listen={endpoint}")

        servers = [begin(endpoint) for endpoint in endpoints]

        def restart() -> None:
            for number in range(RESTARTS):
                place = number % len(servers)
                servers[place].ask_to_stop()
                servers[place].wait_ended()
                servers[place] = begin(endpoints[place])
                wait()

        return restart

    def test_two_ports(self) -> None:
        """Two processes restart in turn; clients use the one that listens."""
        ports = free_ports(2)
        endpoints = [f"tcp:{port}:interface={LOOPBACK}" for port in ports]
        restart = self.restart_in_turn(endpoints)
        clients = RestartClients(self, ports, closing=0)
        restart()
        self.assert_answered(clients)

    def test_tls(self) -> None:
        """The same over TLS."""
        folder = tempfile.TemporaryDirectory(prefix="restarts-")
        self.addCleanup(folder.cleanup)
        certificate, key = write_certificate(Path(folder.name))
        ports = free_ports(2)
        endpoints = [
            f"ssl:{port}:interface={LOOPBACK}:certKey={certificate}:privateKey={key}"
            for port in ports
        ]
        restart = self.restart_in_turn(endpoints)
        clients = RestartClients(self, ports, closing=0, tls=True)
        restart()
        self.assert_answered(clients)

    def test_haproxy(self) -> None:
        """Two processes behind HAProxy, which retries no request."""
        ports = free_ports(2)
        proxy = HAProxy(ports)
        with proxy:
            endpoints = [f"tcp:{port}:interface={LOOPBACK}" for port in ports]
            restart = self.restart_in_turn(endpoints, partial(proxy.wait_up, 2))
            proxy.wait_up(2)
            clients = RestartClients(self, [proxy.port])
            restart()
            self.assert_answered(clients)
