"""Handshakes in memory: selection by name, client certificates, versions, sessions."""

from __future__ import annotations

import gc
import ssl
from typing import Any
from weakref import ref

from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL
from OpenSSL.crypto import X509
from twisted.internet.task import Clock

from tests.certificate import DAY, Authority
from tests.server.logged import Logged
from txgreenwsgi._tls import listener as module
from txgreenwsgi._tls.errors import TLSError
from txgreenwsgi._tls.listener import LOG_SECONDS, TICKET_KEY_SECONDS, TLSListener
from txgreenwsgi._tls.options import TLSOptions

from .handshakes import client_context, listener, shake
from .test_certificates import CA, INTERMEDIATE, FilesTestCase

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


class ListenerTestCase(FilesTestCase):
    """A case with one certificate for shop.test."""

    def setUp(self) -> None:
        """Write the files."""
        super().setUp()
        self.cert, self.key = INTERMEDIATE.issue("shop.test").write(self.directory)
        self.clock = Clock()

    def listener(self, **options: Any) -> TLSListener:
        """Return a listener with that certificate."""
        if "dir" not in options:
            options = {"cert": self.cert, "key": self.key, **options}
        return listener(self.clock, **options)

    def refusal(self, **options: Any) -> str:
        """Return the message for options that OpenSSL refuses."""
        return str(self.assertRaises(TLSError, self.listener, **options))


class NameTests(ListenerTestCase):
    """The certificate for a server name."""

    def test_chain(self) -> None:
        """A client that knows the root only verifies the certificate."""
        found = shake(self.listener(), "shop.test", client_context(CA))
        self.assertEqual(found.names, ["shop.test"])

    def test_names(self) -> None:
        """The server name selects the certificate; others get the default."""
        INTERMEDIATE.issue("a.test", "*.a.test").write(self.directory, "0")
        tls = self.listener(dir=str(self.directory))
        context = client_context(CA)
        for name, expected in {
            "shop.test": "shop.test",
            "a.test": "a.test",
            "X.A.test": "a.test",
            "x.y.a.test": "a.test",
            "other.test": "a.test",
            None: "a.test",
        }.items():
            self.assertEqual(shake(tls, name, context).names[0], expected, name)

    def test_unknown_names_are_logged(self) -> None:
        """An unknown name is logged, once a minute, with the number of the others."""
        logged = Logged(self)
        tls = self.listener()
        for number in range(5):
            shake(tls, f"n{number}.test")
        shake(tls, "shop.test")
        shake(tls)
        [line] = logged.lines()
        self.assertIn("no certificate for the server name 'n0.test'", line)
        self.assertIn("using that of shop.test", line)
        self.clock.advance(LOG_SECONDS)
        shake(tls, "last.test")
        self.assertIn("(4 more before)", logged.lines()[0])

    def test_protocols(self) -> None:
        """ALPN selects http/1.1; a client that offers others gets no protocol."""
        for offered, expected in (
            (["h2", "http/1.1"], "http/1.1"),
            (["h2"], None),
            ([], None),
        ):
            context = client_context()
            if offered:
                context.set_alpn_protocols(offered)
            found = shake(self.listener(), "shop.test", context)
            self.assertEqual(found.client.selected_alpn_protocol(), expected)


class PolicyTests(ListenerTestCase):
    """Versions and ciphers."""

    def test_versions(self) -> None:
        """TLS 1.2 is accepted unless the minimum is 1.3; 1.1 is not."""
        tls = self.listener()
        self.assertEqual(shake(tls).client.version(), "TLSv1.3")
        context = client_context(version=V12)
        self.assertEqual(shake(tls, context=context).client.version(), "TLSv1.2")
        self.assertRaises(SSL.Error, shake, self.listener(min="1.3"), context=context)
        old = client_context()
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        self.assertRaises((SSL.Error, ssl.SSLError), shake, tls, context=old)

    def test_ciphers(self) -> None:
        """Names are those of TLS 1.2, or of TLS 1.3 if they begin with TLS_."""
        tls = self.listener(
            ciphers="ECDHE-ECDSA-AES256-GCM-SHA384:TLS_CHACHA20_POLY1305_SHA256"
        )
        for version, expected in (
            (V12, "ECDHE-ECDSA-AES256-GCM-SHA384"),
            (V13, "TLS_CHACHA20_POLY1305_SHA256"),
        ):
            found = shake(tls, context=client_context(version=version)).client
            self.assertEqual((found.cipher() or ("",))[0], expected)

    def test_default_ciphers(self) -> None:
        """By default, ciphers of TLS 1.2 have forward secrecy and AEAD."""
        context = client_context(version=V12)
        context.set_ciphers("ECDHE-ECDSA-AES128-SHA")
        self.assertRaises(SSL.Error, shake, self.listener(), context=context)

    def test_refusals(self) -> None:
        """What OpenSSL does not accept is refused, with its reason."""
        text = self.refusal(ciphers="NONSENSE")
        self.assertIn("--tls-ciphers 'NONSENSE' is not a list of ciphers", text)
        self.assertIn("no cipher match", text)
        self.assertIn("is not a list", self.refusal(ciphers="TLS_NONSENSE"))
        self.assertIn("is not a list", self.refusal(ciphers="ü"))

    def test_weak_key(self) -> None:
        """A key that is too short is refused."""
        weak = rsa.generate_private_key(65537, 1024)
        cert, key = CA.issue("a.test", key=weak).write(self.directory, "weak")
        text = self.refusal(cert=cert, key=key)
        self.assertIn(f"the certificate in {cert} is not accepted by OpenSSL", text)

    def test_weak_key_beside_others(self) -> None:
        """In a directory, it is left out with a warning."""
        weak = rsa.generate_private_key(65537, 1024)
        CA.issue("a.test", key=weak).write(self.directory, "0")
        found = self.listener(dir=str(self.directory)).loaded
        assert found is not None
        self.assertEqual(list(found.certificates.by_name), ["shop.test"])
        self.assertIn("is not accepted by OpenSSL", found.certificates.warnings[-1])


class ClientTests(ListenerTestCase):
    """Client certificates."""

    def setUp(self) -> None:
        """Write the files of a client and of its authority."""
        super().setUp()
        self.clients = Authority("Clients")
        self.client = self.clients.issue("ann.test").write(self.directory, "client")
        self.ca = self.write("ca.pem", self.clients.pem)

    def test_required(self) -> None:
        """Without a certificate, or with that of another authority, there is no TLS."""
        tls = self.listener(client_ca=self.ca)
        for version in (V12, V13):
            mine = client_context(None, self.client, version)
            self.assertIsNotNone(shake(tls, context=mine).server.get_peer_certificate())
            none = client_context(version=version)
            error = self.assertRaises(SSL.Error, shake, tls, context=none)
            self.assertIn("peer did not return a certificate", str(error))
            other = CA.issue("eve.test").write(self.directory, "eve")
            context = client_context(None, other, version)
            self.assertRaises(SSL.Error, shake, tls, context=context)

    def test_optional(self) -> None:
        """A certificate may be missing, but not be invalid."""
        tls = self.listener(client_ca=self.ca, client="optional")
        mine = client_context(None, self.client)
        self.assertIsNotNone(shake(tls, context=mine).server.get_peer_certificate())
        self.assertIsNone(shake(tls).server.get_peer_certificate())
        old = self.clients.issue("ann.test", lifetime=-DAY).write(self.directory, "old")
        logged = Logged(self)
        context = client_context(None, old)
        self.assertRaises(SSL.Error, shake, tls, context=context)
        [line] = logged.lines()
        self.assertIn(
            "TLS refused: a test: the client certificate 'CN=test' is not valid: "
            "cert has expired",
            line,
        )

    def test_malformed(self) -> None:
        """A malformed certificate is refused without a traceback."""
        tls = self.listener(client_ca=self.ca)

        def malformed(certificate: object) -> None:
            raise ValueError("error parsing asn1 value")

        self.patch(X509, "to_cryptography", malformed)
        logged = Logged(self)
        eve = CA.issue("eve.test").write(self.directory, "eve")
        self.assertRaises(SSL.Error, shake, tls, context=client_context(None, eve))
        [line] = logged.lines()
        self.assertIn("the client certificate 'not readable' is not valid", line)

    def test_no_authority(self) -> None:
        """Without `--tls-client-ca`, no certificate is requested."""
        found = shake(self.listener(), context=client_context(None, self.client))
        self.assertIsNone(found.server.get_peer_certificate())

    def test_intermediate_authority(self) -> None:
        """An intermediate authority is trusted without its root."""
        below = Authority("Below", self.clients)
        path = self.write("below.pem", below.pem)
        tls = self.listener(client_ca=path)
        mine = below.issue("ann.test").write(self.directory, "below")
        shake(tls, context=client_context(None, mine))
        self.assertRaises(
            SSL.Error, shake, tls, context=client_context(None, self.client)
        )

    def test_authorities_are_named(self) -> None:
        """The client learns which authorities are accepted."""
        tls = self.listener(client_ca=self.ca)
        found = shake(tls, context=client_context(None, self.client)).server
        [name] = found.get_client_ca_list(as_cryptography=True)
        self.assertEqual(name.rfc4514_string(), "CN=Clients")


class SessionTests(ListenerTestCase):
    """Resumption of sessions, and session tickets."""

    def resumed(
        self,
        first: TLSListener,
        second: TLSListener,
        context: ssl.SSLContext,
        name: str = "shop.test",
    ) -> bool:
        """Return whether a session of one listener is resumed by another."""
        session = shake(first, name, context).client.session
        self.assertIsNotNone(session)
        return bool(shake(second, name, context, session).client.session_reused)

    def test_resumed(self) -> None:
        """A session is resumed on the next connection, in both versions of TLS."""
        tls = self.listener()
        for version in (V12, V13):
            self.assertTrue(self.resumed(tls, tls, client_context(version=version)))

    def test_after_a_renewal(self) -> None:
        """A session is resumed after the certificate was renewed."""
        tls = self.listener()
        context = client_context()
        session = shake(tls, "shop.test", context).client.session
        INTERMEDIATE.issue("shop.test").write(self.directory)
        tls.use(tls.load())
        self.assertTrue(shake(tls, "shop.test", context, session).client.session_reused)

    def test_other_listener(self) -> None:
        """A session of another listener is not resumed, but the handshake succeeds."""
        context = client_context()
        self.assertFalse(self.resumed(self.listener(), self.listener(), context))

    def test_new_keys(self) -> None:
        """The keys of tickets are replaced twice a day."""
        now = [1_000_000 * TICKET_KEY_SECONDS]
        self.patch(module, "time", lambda: now[0])
        tls = self.listener()
        context = client_context()
        session = shake(tls, "shop.test", context).client.session
        now[0] += TICKET_KEY_SECONDS - 1
        tls.renew_ticket_keys()
        self.assertTrue(shake(tls, "shop.test", context, session).client.session_reused)
        now[0] += 1
        tls.renew_ticket_keys()
        self.assertFalse(
            shake(tls, "shop.test", context, session).client.session_reused
        )

    def test_handshake_while_keys_change(self) -> None:
        """A connection keeps the context whose callbacks OpenSSL calls."""
        tls = self.listener()
        connection = tls.serverConnectionForTLS(None)  # type: ignore[arg-type]
        front = ref(connection.get_context())
        assert tls.loaded is not None
        connection.set_context(next(iter(tls.loaded.contexts.values())))
        self.patch(module, "time", lambda: 0)
        tls.renew_ticket_keys()
        gc.collect()
        self.assertIsNotNone(front())
        del connection

    def test_other_authorities(self) -> None:
        """A session is not resumed once other authorities verify clients."""
        clients = Authority("Clients")
        mine = clients.issue("ann.test").write(self.directory, "ann")
        path = self.write("ca.pem", clients.pem)
        tls = self.listener(client_ca=path, client="optional")
        context = client_context(None, mine)
        session = shake(tls, "shop.test", context).client.session
        self.assertTrue(shake(tls, "shop.test", context, session).client.session_reused)
        self.write("ca.pem", CA.pem)
        tls.use(tls.load())
        self.assertRaises(SSL.Error, shake, tls, "shop.test", context, session)

    def test_client_certificate_of_a_session(self) -> None:
        """The certificate of a client is that of its session."""
        clients = Authority("Clients")
        mine = clients.issue("ann.test", serial=77).write(self.directory, "ann")
        tls = self.listener(client_ca=self.write("ca.pem", clients.pem))
        for version in (V12, V13):
            context = client_context(None, mine, version)
            session = shake(tls, "shop.test", context).client.session
            found = shake(tls, "shop.test", context, session)
            self.assertTrue(found.client.session_reused)
            certificate = found.server.get_peer_certificate(as_cryptography=True)
            assert certificate is not None
            self.assertEqual(certificate.serial_number, 77)


class LoadTests(ListenerTestCase):
    """`load`: new certificates are tried before they are used."""

    def test_unchanged(self) -> None:
        """Contexts of certificates that have not changed are kept."""
        tls = self.listener()
        before = tls.loaded
        after = tls.load()
        assert before is not None
        self.assertEqual(before.contexts, after.contexts)
        self.assertIs(before.policy, after.policy)

    def test_tried(self) -> None:
        """A certificate that fails in a handshake is refused."""
        self.patch(module, "handshake_error", lambda context, name: f"no {name}")
        self.assertIn(
            f"the certificate in {self.cert} fails in a handshake (no shop.test): "
            "check its key",
            self.refusal(),
        )

    def test_signature(self) -> None:
        """The signature changes with each file, and with what a link leads to."""
        self.write("versions/1/cert.pem", b"1")
        self.write("versions/2/cert.pem", b"1")
        link = self.directory / "current"
        link.symlink_to("versions/1")
        cert = str(link / "cert.pem")
        tls = TLSListener(TLSOptions(cert=cert, dir=str(self.directory)), [], Clock())
        found = [tls.signature()]
        link.unlink()
        link.symlink_to("versions/2")
        found.append(tls.signature())
        self.write("new.key", b"1")
        found.append(tls.signature())
        (self.directory / "new.key").unlink()
        link.unlink()
        found.append(tls.signature())
        self.assertEqual(len(set(found)), 4)
        self.assertEqual(tls.signature(), tls.signature())

    def test_log(self) -> None:
        """Names, expiry and file of each certificate are logged, with warnings."""
        old = CA.issue("old.test", lifetime=-DAY)
        old.write(self.directory, "old")
        tls = self.listener(dir=str(self.directory))
        logged = Logged(self)
        tls.log_certificates("TLS certificate")
        first, second, *warnings = logged.lines()
        day = old.certificate.not_valid_after_utc
        self.assertEqual(
            first,
            f"TLS certificate: old.test, expires {day:%Y-%m-%d}, from "
            f"{self.directory}/old.crt (also for other names)",
        )
        self.assertIn("TLS certificate: shop.test, expires", second)
        self.assertIn("TLS: the certificate of old.test", warnings[0])
        tls.log_expiry()
        [line] = logged.lines()
        self.assertIn("has expired on", line)

    def test_log_of_many(self) -> None:
        """Of many certificates, the first ones are logged, and the number of others."""
        self.patch(module, "MAX_LOGGED", 2)
        for number in range(4):
            CA.issue(f"{number}.test").write(self.directory, str(number))
        tls = self.listener(dir=str(self.directory))
        logged = Logged(self)
        tls.log_certificates("TLS certificate")
        lines = [line for line in logged.lines() if "issuer" not in line]
        self.assertEqual(len(lines), 3)
        self.assertEqual(lines[-1], "TLS certificate: 3 more")
