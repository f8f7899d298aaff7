"""Django's cache and sessions in Redis, for many visitors at the same time."""

from __future__ import annotations

import importlib.util
import json
import socket
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SkipTest, SynchronousTestCase

from .processes import LOOPBACK, ServerProcess, start
from .services import Redis

VISITORS = 40
VISITS = 5
#: OPTIONS["max_connections"] of the cache, and the connection of this test.
MOST = 8 + 1


def redis(port: int, *words: str) -> str:
    """Return Redis' answer to an inline command."""
    with socket.create_connection((LOOPBACK, port), 10) as client:
        client.sendall(" ".join(words).encode() + b"\r\nQUIT\r\n")
        data = b""
        while block := client.recv(65536):
            data += block
    return data.decode()


class RedisTests(SynchronousTestCase):
    """A cache whose requests share connections."""

    def visit(self, server: ServerProcess, name: str) -> list[object]:
        """Send several requests with the same cookie; return the last answer."""
        headers: dict[str, str] = {}
        got: list[object] = []
        for _ in range(VISITS):
            answer = server.fetch(f"/visit?name={name}", headers=headers)
            self.assertEqual(answer.status, 200, server.log())
            got = json.loads(answer.body)
            headers["Cookie"] = (answer.headers["Set-Cookie"] or "").split(";")[0]
        return got

    def test_visitors(self) -> None:
        """Each visitor has a session; the number of connections is bounded."""
        if importlib.util.find_spec("redis") is None:
            raise SkipTest("redis is not installed")
        with Redis() as service:
            server = start(
                self,
                "greenwsgi",
                "--app=tests.django.bank.wsgi:application",
                f"--listen=tcp:0:interface={LOOPBACK}",
                environ={
                    "BANK_ENGINE": "txgreenwsgi.django.backends.sqlite3",
                    "BANK_NAME": ":memory:",
                    "BANK_REDIS": str(service.port),
                },
            )
            names = [f"visitor{number}" for number in range(VISITORS)]
            with ThreadPoolExecutor(VISITORS) as pool:
                found = list(pool.map(lambda name: self.visit(server, name), names))
            self.assertEqual(found, [[name, VISITS, VISITS] for name in names])
            clients = redis(service.port, "CLIENT", "LIST").count(" addr=")
            self.assertLessEqual(clients, MOST)
