"""Keys of session tickets that several processes share."""

from __future__ import annotations

import ctypes
from typing import Any

from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from txgreenwsgi._tls import tickets
from txgreenwsgi._tls.tickets import can_share_tickets, use_ticket_keys

from .handshakes import client_context, shake
from .test_certificates import CA, FilesTestCase


class KeyTests(SynchronousTestCase):
    """The keys that are derived from a secret."""

    def keys(self, secret: bytes, purpose: bytes) -> bytes:
        """Return the keys that OpenSSL gets."""
        given = []

        def control(address: int, command: int, size: int, data: Any) -> int:
            self.assertEqual(command, 59)
            self.assertNotEqual(address, 0)
            if data is None:
                return 80
            given.append(ctypes.string_at(data, size))
            return 1

        self.patch(tickets, "key_setter", lambda: control)
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertTrue(use_ticket_keys(context, secret, purpose))
        return given[0]

    def test_derived(self) -> None:
        """The keys depend on the secret and on the purpose, and on nothing else."""
        keys = self.keys(b"s" * 32, b"p")
        self.assertEqual(len(keys), 80)
        self.assertEqual(self.keys(b"s" * 32, b"p"), keys)
        self.assertEqual(
            len({keys, self.keys(b"t" * 32, b"p"), self.keys(b"s" * 32, b"q")}), 3
        )
        self.assertEqual(len({keys[:16], keys[16:48], keys[48:80]}), 3)

    def test_not_available(self) -> None:
        """Where OpenSSL's function is not exported, nothing is set."""
        self.patch(tickets, "key_setter", lambda: None)
        context = SSL.Context(SSL.TLS_METHOD)
        self.assertFalse(use_ticket_keys(context, b"s" * 32, b"p"))
        self.assertFalse(can_share_tickets())


class SharedTests(FilesTestCase):
    """Two listeners with one secret, as in two processes."""

    def test_shared(self) -> None:
        """Sessions are resumed by the other one if the keys can be set."""
        from twisted.internet.task import Clock

        from txgreenwsgi._tls.listener import TLSListener
        from txgreenwsgi._tls.options import TLSOptions

        cert, key = CA.issue("a.test").write(self.directory)
        made = []
        for secret in (b"s" * 32, b"s" * 32, b"t" * 32):
            tls = TLSListener(
                TLSOptions(cert=cert, key=key), [b"http/1.1"], Clock(), secret
            )
            tls.use(tls.load())
            made.append(tls)
        context = client_context()
        session = shake(made[0], "a.test", context).client.session
        reused = [
            shake(tls, "a.test", context, session).client.session_reused for tls in made
        ]
        self.assertEqual(reused, [True, can_share_tickets(), False])
