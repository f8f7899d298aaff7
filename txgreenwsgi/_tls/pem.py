"""Files with certificates and private keys in PEM format (RFC 7468).

It knows the format. It must never know which certificate is served.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from .errors import TLSError
from .files import read_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

__all__ = ["PEMFile", "PrivateKey", "public_bytes", "read_pem"]

_BLOCK: Final = re.compile(
    rb"-----BEGIN ([ -,.-~]+)-----.*?-----END \1-----", re.DOTALL
)
_BEGIN: Final = re.compile(rb"^-----BEGIN ", re.MULTILINE)
_CERTIFICATES: Final = ("CERTIFICATE", "X509 CERTIFICATE")


@dataclass(frozen=True)
class PrivateKey:
    """A private key.

    Attributes:
        key: the key.
        public: its public key, as `public_bytes` returns it.
    """

    key: PrivateKeyTypes = field(repr=False)
    public: bytes = field(repr=False)


@dataclass(frozen=True)
class PEMFile:
    """The contents of one file.

    Attributes:
        path: the path of the file.
        certificates: the certificates, in order.
        keys: the private keys, in order.
        has_revocations: whether the file contains a revocation list.
    """

    path: str
    certificates: tuple[x509.Certificate, ...]
    keys: tuple[PrivateKey, ...]
    has_revocations: bool


def read_pem(
    path: str, subject: str, copies: Mapping[str, bytes] | None = None
) -> PEMFile:
    """Read a file. Other kinds of PEM blocks (DH parameters, requests) are ignored.

    Args:
        path: the path of the file.
        subject: the option and the file, for messages.
        copies: as for `read_file`.

    Raises:
        TLSError: the file cannot be read, or contains an invalid certificate or key.
    """
    data = read_file(path, subject, copies or {})
    certificates: list[x509.Certificate] = []
    keys: list[PrivateKey] = []
    for block in _BLOCK.finditer(data):
        kind = block[1].decode("ascii")
        if kind in _CERTIFICATES:
            certificates.append(_certificate(block[0], subject))
        elif kind.endswith("PRIVATE KEY"):
            keys.append(_private_key(kind, block[0], subject))
    # Also behind whole blocks: a certificate would be served without its issuers.
    if _BEGIN.search(_BLOCK.sub(b"", data)):
        raise TLSError(
            subject, "is truncated: an END line is missing", "copy the whole file"
        )
    revocations = b"-----BEGIN X509 CRL-----" in data
    return PEMFile(path, tuple(certificates), tuple(keys), revocations)


def _certificate(block: bytes, subject: str) -> x509.Certificate:
    try:
        found = x509.load_pem_x509_certificate(block.replace(b" X509 CERT", b" CERT"))
        # They are parsed when they are read.
        _ = found.subject, found.issuer, found.not_valid_after_utc
        return found
    except ValueError as error:
        raise TLSError(
            subject,
            f"contains an invalid certificate ({_first_line(error)})",
            "give a certificate in PEM format",
        ) from error


def _private_key(kind: str, block: bytes, subject: str) -> PrivateKey:
    if kind.startswith("ENCRYPTED") or b"\nProc-Type: 4,ENCRYPTED" in block:
        raise TLSError(
            subject,
            "contains a private key that is encrypted with a passphrase",
            "decrypt it with: openssl pkey -in FILE -out NEW-FILE",
        )
    if kind.startswith("OPENSSH"):
        raise TLSError(
            subject,
            "contains a key of SSH",
            "give the private key that belongs to the certificate, in PEM format",
        )
    try:
        key = load_pem_private_key(block, None)
        return PrivateKey(key, public_bytes(key))
    except (ValueError, TypeError, UnsupportedAlgorithm, AttributeError) as error:
        raise TLSError(
            subject,
            f"contains an invalid private key ({_first_line(error)})",
            "give a private key in PEM format",
        ) from error


def public_bytes(owner: PrivateKeyTypes | x509.Certificate) -> bytes:
    """Return the public key of a private key or a certificate, in DER format.

    Raises:
        ValueError: the key is of an unknown kind.
        UnsupportedAlgorithm: likewise.
    """
    return owner.public_key().public_bytes(
        Encoding.DER, PublicFormat.SubjectPublicKeyInfo
    )


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].partition(". ")[0].strip() or "unknown format"
