"""Keys and certificates for servers and clients under test, new in each process."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from OpenSSL.crypto import X509, PKey
from twisted.internet.ssl import CertificateOptions

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from cryptography.hazmat.primitives.asymmetric.types import (
        CertificateIssuerPrivateKeyTypes,
        PrivateKeyTypes,
    )

__all__ = ["TLS_OPTIONS", "Authority", "Issued"]

DAY = datetime.timedelta(days=1)

_CA_USAGE = x509.KeyUsage(
    key_cert_sign=True,
    crl_sign=True,
    digital_signature=False,
    content_commitment=False,
    key_encipherment=False,
    data_encipherment=False,
    key_agreement=False,
    encipher_only=False,
    decipher_only=False,
)


@dataclass(frozen=True)
class Issued:
    """A certificate with its key.

    Attributes:
        certificate: the certificate.
        key: its private key.
        issuers: the certificates between it and the root, in order.
    """

    certificate: x509.Certificate
    key: PrivateKeyTypes
    issuers: tuple[x509.Certificate, ...] = ()

    @cached_property
    def cert_pem(self) -> bytes:
        """The certificate alone."""
        return self.certificate.public_bytes(Encoding.PEM)

    @cached_property
    def chain_pem(self) -> bytes:
        """The certificate and its issuers."""
        chain = [each.public_bytes(Encoding.PEM) for each in self.issuers]
        return b"".join([self.cert_pem, *chain])

    @cached_property
    def key_pem(self) -> bytes:
        """The private key."""
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @cached_property
    def encrypted_key_pem(self) -> bytes:
        """The private key, encrypted with a passphrase."""
        return self.key.private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )

    def write(self, directory: Path, name: str = "site") -> tuple[str, str]:
        """Write chain and key to files; return their paths."""
        cert, key = directory / f"{name}.crt", directory / f"{name}.key"
        cert.write_bytes(self.chain_pem)
        key.write_bytes(self.key_pem)
        return str(cert), str(key)


class Authority:
    """A root authority, or an intermediate one.

    Args:
        name: its common name.
        parent: the issuer; None for a root.
    """

    certificate: x509.Certificate

    def __init__(self, name: str = "Test CA", parent: Authority | None = None) -> None:
        self._key: CertificateIssuerPrivateKeyTypes
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._parent = parent
        subject = _name([(x509.NameOID.COMMON_NAME, name)])
        issuer = subject if parent is None else parent.certificate.subject
        builder = _builder(subject, DAY, 30 * DAY).public_key(self._key.public_key())
        builder = builder.issuer_name(issuer).add_extension(
            x509.BasicConstraints(ca=True, path_length=None), critical=True
        )
        builder = builder.add_extension(_CA_USAGE, critical=True)
        # Python 3.13 verifies as strictly as RFC 5280 demands.
        own = x509.SubjectKeyIdentifier.from_public_key(self._key.public_key())
        builder = builder.add_extension(own, critical=False)
        builder = builder.add_extension((parent or self)._identifier, critical=False)
        self.certificate = builder.sign((parent or self)._key, SHA256())

    @property
    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        public = self._key.public_key()
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(public)

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(Encoding.PEM)

    @property
    def issuers(self) -> tuple[x509.Certificate, ...]:
        """The certificates between what it issues and the root."""
        if self._parent is None:
            return ()
        return (self.certificate, *self._parent.issuers)

    def issue(
        self,
        *names: str,
        subject: Sequence[tuple[x509.ObjectIdentifier, str]] = (),
        emails: Sequence[str] = (),
        age: datetime.timedelta = DAY,
        lifetime: datetime.timedelta = 20 * DAY,
        key: CertificateIssuerPrivateKeyTypes | None = None,
        serial: int | None = None,
    ) -> Issued:
        """Return a new certificate with its key.

        Args:
            names: DNS names.
            subject: the subject; the common name "test" by default.
            emails: mail addresses among the alternative names.
            age: time since the begin of its validity.
            lifetime: time from now to its end; negative if it has expired.
            key: the private key; a new one by default.
            serial: the serial number; a random one by default.
        """
        key = key or ec.generate_private_key(ec.SECP256R1())
        name = _name(subject or [(x509.NameOID.COMMON_NAME, "test")])
        builder = _builder(name, age, lifetime, serial).public_key(key.public_key())
        builder = builder.issuer_name(self.certificate.subject)
        builder = builder.add_extension(self._identifier, critical=False)
        alternatives: list[x509.GeneralName] = [x509.DNSName(name) for name in names]
        alternatives += [x509.RFC822Name(email) for email in emails]
        if alternatives:
            builder = builder.add_extension(
                x509.SubjectAlternativeName(alternatives), critical=False
            )
        return Issued(builder.sign(self._key, SHA256()), key, self.issuers)


def _name(parts: Sequence[tuple[x509.ObjectIdentifier, str]]) -> x509.Name:
    return x509.Name([x509.NameAttribute(*part) for part in parts])


def _builder(
    subject: x509.Name,
    age: datetime.timedelta,
    lifetime: datetime.timedelta,
    serial: int | None = None,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.timezone.utc)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .serial_number(serial or x509.random_serial_number())
        .not_valid_before(min(now, now + lifetime) - age)
        .not_valid_after(now + lifetime)
    )


def _tls_options() -> CertificateOptions:
    """Return a key and a certificate."""
    issued = Authority().issue("test", lifetime=datetime.timedelta(hours=1))
    return CertificateOptions(
        privateKey=PKey.from_cryptography_key(issued.key),  # type: ignore[arg-type]
        certificate=X509.from_cryptography(issued.certificate),
    )


#: The key and certificate of all servers under test.
TLS_OPTIONS = _tls_options()
