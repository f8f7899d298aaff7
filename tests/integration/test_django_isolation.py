"""Django's own database backend under the command: a transaction per request."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from twisted.trial.unittest import SynchronousTestCase

from .processes import LOOPBACK, start


class IsolationTests(SynchronousTestCase):
    """Twenty requests that wait in transactions at the same time."""

    def check(self, *options: str) -> None:
        """Serve, send the requests, and compare the answers."""
        server = start(
            self,
            "greenwsgi",
            "--app=tests.django.bank.wsgi:application",
            f"--listen=tcp:0:interface={LOOPBACK}",
            *options,
            environ={
                "BANK_ENGINE": "django.db.backends.sqlite3",
                "BANK_NAME": ":memory:",
            },
        )
        with ThreadPoolExecutor(20) as pool:
            found = list(pool.map(lambda _: server.fetch("/depth").body, range(20)))
        self.assertEqual([json.loads(each) for each in found], [[0, 1]] * 20)

    def test_patched(self) -> None:
        """With the default `--patch all`."""
        self.check()

    def test_unpatched(self) -> None:
        """With `--patch none`."""
        self.check("--patch=none")
