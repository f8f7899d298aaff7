"""The environ variables of TLS, with the names and formats of mod_ssl."""

from __future__ import annotations

from datetime import datetime, timezone

from cryptography import x509
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.trial.unittest import SynchronousTestCase

from tests.certificate import Authority
from tests.server.logged import Logged
from txgreenwsgi._tls import variables
from txgreenwsgi._tls.variables import (
    MAX_ALTERNATIVE_NAMES,
    client_variables,
    connection_variables,
)

from .handshakes import client_context, listener, shake
from .test_certificates import CA, FilesTestCase


class ClientTests(SynchronousTestCase):
    """`client_variables`."""

    def test_names(self) -> None:
        """Names are as in RFC 2253, from the most specific part on."""
        issued = Authority('A "CA", Inc').issue(
            subject=[
                (NameOID.COUNTRY_NAME, "DE"),
                (NameOID.ORGANIZATION_NAME, "Shop, Inc."),
                (NameOID.ORGANIZATIONAL_UNIT_NAME, "first"),
                (NameOID.ORGANIZATIONAL_UNIT_NAME, "second"),
                (NameOID.COMMON_NAME, "Jörg\nEvil: 1"),
                (NameOID.EMAIL_ADDRESS, "j@shop.test"),
            ]
        )
        found = client_variables(issued.certificate)
        name = "Jörg\\0AEvil: 1".encode().decode("latin-1")
        self.assertEqual(
            found["SSL_CLIENT_S_DN"],
            f"emailAddress=j@shop.test,CN={name},OU=second,OU=first,"
            "O=Shop\\, Inc.,C=DE",
        )
        self.assertEqual(found["SSL_CLIENT_I_DN"], 'CN=A \\"CA\\"\\, Inc')
        self.assertEqual(found["SSL_CLIENT_I_DN_CN"], 'A "CA", Inc')
        self.assertEqual(found["SSL_CLIENT_S_DN_OU"], "first")
        self.assertEqual(found["SSL_CLIENT_S_DN_OU_1"], "second")
        self.assertEqual(found["SSL_CLIENT_S_DN_Email"], "j@shop.test")
        self.assertEqual(
            found["SSL_CLIENT_S_DN_CN"].encode("latin-1").decode(), "Jörg\nEvil: 1"
        )

    def test_serial(self) -> None:
        """Serial numbers are whole bytes in hexadecimal."""
        for serial, expected in ((1, "01"), (0xABC, "0ABC"), (0x1234, "1234")):
            found = client_variables(CA.issue(serial=serial).certificate)
            self.assertEqual(found["SSL_CLIENT_M_SERIAL"], expected)
            self.assertEqual(found["SSL_CLIENT_M_VERSION"], "3")

    def test_times(self) -> None:
        """Times are as OpenSSL prints them, with two columns for the day."""
        issued = CA.issue("a.test")
        begin = datetime(2026, 2, 3, 4, 5, 6, tzinfo=timezone.utc)
        end = datetime(2027, 12, 13, 14, 15, 16, tzinfo=timezone.utc)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(issued.certificate.subject)
            .issuer_name(issued.certificate.issuer)
            .public_key(issued.certificate.public_key())
            .serial_number(1)
            .not_valid_before(begin)
            .not_valid_after(end)
            .sign(issued.key, issued.certificate.signature_hash_algorithm)  # type: ignore[arg-type]
        )
        found = client_variables(certificate)
        self.assertEqual(found["SSL_CLIENT_V_START"], "Feb  3 04:05:06 2026 GMT")
        self.assertEqual(found["SSL_CLIENT_V_END"], "Dec 13 14:15:16 2027 GMT")

    def test_certificate(self) -> None:
        """The certificate is in PEM format."""
        issued = CA.issue("a.test")
        found = client_variables(issued.certificate)
        self.assertEqual(found["SSL_CLIENT_CERT"], issued.cert_pem.decode())
        self.assertEqual(found["SSL_CLIENT_A_SIG"], "ecdsa-with-SHA256")

    def test_alternative_names(self) -> None:
        """Alternative names are numbered, up to a limit."""
        names = [f"{number}.test" for number in range(MAX_ALTERNATIVE_NAMES + 5)]
        issued = CA.issue(*names, emails=["a@b.test"])
        found = client_variables(issued.certificate)
        self.assertEqual(found["SSL_CLIENT_SAN_DNS_1"], "1.test")
        self.assertEqual(found["SSL_CLIENT_SAN_Email_0"], "a@b.test")
        self.assertNotIn(f"SSL_CLIENT_SAN_DNS_{MAX_ALTERNATIVE_NAMES}", found)
        without = client_variables(CA.issue().certificate)
        self.assertFalse([name for name in without if "SAN" in name])


class ConnectionTests(FilesTestCase):
    """`connection_variables`."""

    def test_without_client_certificates(self) -> None:
        """Protocol, cipher and server name are set; there is no client."""
        cert, key = CA.issue("a.test").write(self.directory)
        found = connection_variables(shake(listener(cert=cert, key=key), "a.test")[1])
        self.assertEqual(
            found,
            {
                "HTTPS": "on",
                "SSL_PROTOCOL": "TLSv1.3",
                "SSL_CIPHER": "TLS_AES_256_GCM_SHA384",
                "SSL_TLS_SNI": "a.test",
                "SSL_CLIENT_VERIFY": "NONE",
            },
        )
        found = connection_variables(shake(listener(cert=cert, key=key))[1])
        self.assertNotIn("SSL_TLS_SNI", found)

    def test_client_certificates(self) -> None:
        """SSL_CLIENT_VERIFY says whether the client has a certificate."""
        cert, key = CA.issue("a.test").write(self.directory)
        path = self.write("ca.pem", CA.pem)
        tls = listener(cert=cert, key=key, client_ca=path, client="optional")
        found = connection_variables(shake(tls).server)
        self.assertEqual(found["SSL_CLIENT_VERIFY"], "NONE")
        self.assertNotIn("SSL_CLIENT_S_DN", found)
        mine = CA.issue("ann.test").write(self.directory, "ann")
        found = connection_variables(
            shake(tls, context=client_context(None, mine)).server
        )
        self.assertEqual(found["SSL_CLIENT_VERIFY"], "SUCCESS")
        self.assertEqual(found["SSL_CLIENT_S_DN"], "CN=test")

    def test_malformed(self) -> None:
        """A certificate that cannot be parsed does not count as verified."""
        cert, key = CA.issue("a.test").write(self.directory)
        tls = listener(cert=cert, key=key, client_ca=self.write("ca.pem", CA.pem))
        mine = CA.issue("ann.test").write(self.directory, "ann")
        server = shake(tls, context=client_context(None, mine)).server

        def malformed(certificate: object) -> dict[str, str]:
            raise ValueError("error parsing asn1 value")

        self.patch(variables, "client_variables", malformed)
        logged = Logged(self)
        found = connection_variables(server)
        self.assertTrue(found["SSL_CLIENT_VERIFY"].startswith("FAILED:"))
        self.assertNotIn("SSL_CLIENT_S_DN", found)
        self.assertIn("error parsing", logged.lines()[0])

    def test_other_context(self) -> None:
        """For a context of another program, nothing is said about the client."""
        context = SSL.Context(SSL.TLS_METHOD)
        found = connection_variables(SSL.Connection(context, None))
        self.assertNotIn("SSL_CLIENT_VERIFY", found)
        self.assertEqual(found["HTTPS"], "on")
