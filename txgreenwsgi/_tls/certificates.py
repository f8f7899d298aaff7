"""The certificates of a listener: which file has which key, which name gets which.

Names come from the certificates, not from the names of files. It knows files and
X.509 certificates. It must never know a connection.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from .errors import TLSError
from .files import ENDINGS, pem_paths
from .pem import public_bytes, read_pem

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .options import TLSOptions
    from .pem import PEMFile, PrivateKey

__all__ = ["Certificates", "KeyedCertificate", "load_certificates"]

#: Fraction of the lifetime of a certificate that is left when a warning begins.
#: Clients of ACME renew when a third is left.
_WARN_FRACTION: Final = 1 / 6


@dataclass(frozen=True, eq=False)
class KeyedCertificate:
    """A certificate with its private key.

    Attributes:
        leaf: the certificate.
        chain: the certificates of its issuers, in order.
        key: its private key.
        path: the file of the certificate.
        names: its DNS names in lower case, wildcards included.
        identity: a digest of certificate, chain and key.
    """

    leaf: x509.Certificate
    chain: tuple[x509.Certificate, ...]
    key: PrivateKey = field(repr=False)
    path: str
    names: tuple[str, ...]
    identity: bytes = field(repr=False)

    @property
    def described(self) -> str:
        """The names for log lines."""
        shown = ", ".join(self.names[:5]) or self.leaf.subject.rfc4514_string()
        return shown + (f" and {len(self.names) - 5} more" if self.names[5:] else "")

    @property
    def expires(self) -> datetime:
        """The end of its validity."""
        return self.leaf.not_valid_after_utc

    def is_valid(self, now: datetime) -> bool:
        """Return whether it is valid at a time."""
        return self.leaf.not_valid_before_utc <= now <= self.expires

    def expiry_warning(self, now: datetime) -> str:
        """Return a warning if it has expired or is about to; "" otherwise."""
        begins = self.leaf.not_valid_before_utc
        place = f"the certificate of {self.described} in {self.path}"
        if now > self.expires:
            return f"{place} has expired on {_day(self.expires)}: renew it"
        if now < begins:
            return (
                f"{place} is not valid before {begins:%Y-%m-%d %H:%M} UTC: check the "
                "clock"
            )
        if self.expires - now < (self.expires - begins) * _WARN_FRACTION:
            return f"{place} expires on {_day(self.expires)}: renew it"
        return ""


@dataclass(frozen=True)
class Certificates:
    """The certificates of a listener.

    Attributes:
        default: the certificate for clients that send no name or an unknown one.
        by_name: certificates by DNS name in lower case, wildcards included.
        default_is_named: whether the operator has named the default certificate.
        authorities: the certificates that client certificates are verified with.
        warnings: findings about the files that do not prevent their use.
    """

    default: KeyedCertificate
    by_name: Mapping[str, KeyedCertificate]
    default_is_named: bool
    authorities: tuple[x509.Certificate, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def all(self) -> list[KeyedCertificate]:
        """Every certificate once, the default first."""
        return list(dict.fromkeys([self.default, *self.by_name.values()]))

    def for_name(self, name: str) -> KeyedCertificate | None:
        """Return the certificate for a server name; None if there is none.

        A wildcard stands for one label (RFC 6125 section 6.4.3).
        """
        name = name.lower().rstrip(".")
        _, _, parent = name.partition(".")
        return self.by_name.get(name) or self.by_name.get(f"*.{parent}")

    def without(self, failed: Mapping[KeyedCertificate, TLSError]) -> Certificates:
        """Return these certificates without those that OpenSSL does not accept.

        Args:
            failed: the certificates, with their errors.

        Raises:
            TLSError: the certificate that the operator has named is one of them, or
                none is left.
        """
        if not failed:
            return self
        by_name = {
            name: each for name, each in self.by_name.items() if each not in failed
        }
        default = self.default
        if default in failed:
            if self.default_is_named or not by_name:
                raise failed[default]
            default = min(by_name.values(), key=lambda each: each.path)
        warnings = (*self.warnings, *map(str, failed.values()))
        return replace(self, default=default, by_name=by_name, warnings=warnings)

    def keeping(self, old: Certificates, now: datetime) -> Certificates:
        """Return these certificates, with old ones in place of worse new ones.

        An old certificate is kept if its file is still there but of no use any more,
        or if the new one is not valid and the old one is.

        Args:
            old: the certificates in use.
            now: the time.
        """
        used = {each.path for each in self.all}
        by_name = dict(self.by_name)
        warnings = [*self.warnings]
        for name, certificate in old.by_name.items():
            new = by_name.get(name)
            if new is None:
                keep = certificate.path not in used and os.path.exists(certificate.path)
            else:
                keep = certificate.is_valid(now) and not new.is_valid(now)
            if keep:
                by_name[name] = certificate
                warnings.append(
                    f"keeping the old certificate of {name}: {certificate.path} has no "
                    "valid new one with its private key"
                )
        default = self.default
        if old.default.is_valid(now) and not default.is_valid(now):
            default = old.default
            warnings.append(
                f"keeping the old certificate of {default.described}: the new one in "
                f"{self.default.path} is not valid"
            )
        return replace(self, default=default, by_name=by_name, warnings=tuple(warnings))


def load_certificates(
    options: TLSOptions,
    now: datetime | None = None,
    copies: Mapping[str, bytes] | None = None,
) -> Certificates:
    """Read the certificates of a listener. Blocks while it reads files.

    Args:
        options: the options, already checked; they name a certificate.
        now: the time; None for the current one.
        copies: contents by absolute path, for files that this user may not read.

    Raises:
        TLSError: a file cannot be used.
    """
    now = now or datetime.now(timezone.utc)
    copies = copies or {}
    warnings: list[str] = []
    by_name: dict[str, KeyedCertificate] = {}
    first = None
    if options.dir:
        found = _from_directory(options, warnings, copies)
        by_name = _by_name(found, now)
        first = min(set(by_name.values()), key=lambda each: each.path)
    default = first
    if options.cert:
        default = _from_files(options, copies)
        for name in default.names:
            # The certificate that the operator has named wins, unless it is invalid.
            other = by_name.get(name)
            if other is None or default.is_valid(now) or not other.is_valid(now):
                by_name[name] = default
    assert default is not None, "the options name no certificate"
    authorities = _authorities(options, copies) if options.client_ca else ()
    for each in dict.fromkeys([default, *by_name.values()]):
        warnings += filter(None, [each.expiry_warning(now), _chain_warning(each)])
    return Certificates(
        default=default,
        by_name=by_name,
        default_is_named=bool(options.cert),
        authorities=authorities,
        warnings=tuple(warnings),
    )


def _from_files(options: TLSOptions, copies: Mapping[str, bytes]) -> KeyedCertificate:
    """Return the certificate of the options `cert` and `key`."""
    label = options.label("cert")
    file = read_pem(options.cert, label, copies)
    if not file.certificates:
        is_key = bool(file.keys)
        raise TLSError(
            label,
            "contains a private key but no certificate"
            if is_key
            else "contains no certificate in PEM format",
            "give the file with the certificate and its issuers, such as fullchain.pem",
        )
    key_label, key_file = label, file
    if options.key:
        key_label = options.label("key")
        key_file = read_pem(options.key, key_label, copies)
    if not key_file.keys:
        if options.key:
            raise TLSError(
                key_label,
                "contains no private key in PEM format",
                "give the private key of the certificate",
            )
        raise TLSError(
            label,
            "contains no private key",
            "give its file too (--tls-key, or key= of the endpoint)",
        )
    for certificate in file.certificates:
        for key in key_file.keys:
            if _public_of(certificate) == key.public:
                return _keyed(certificate, key, file.certificates, file.path)
    named = file.certificates[0].subject.rfc4514_string()
    raise TLSError(
        key_label,
        f"is not the private key of the certificate in {options.cert!r} ({named})",
        "give the key that the certificate was requested with",
    )


def _from_directory(
    options: TLSOptions, warnings: list[str], copies: Mapping[str, bytes]
) -> dict[bytes, KeyedCertificate]:
    """Return the certificates with keys of a directory, by their DER encoding."""
    label = options.label("dir")
    files: list[PEMFile] = []
    problem: TLSError | None = None
    for path in pem_paths(options.dir, label, warnings, copies):
        try:
            files.append(read_pem(path, path, copies))
        except TLSError as error:
            problem = problem or error
            warnings.append(f"{label}: {error}")
    keys = {key.public: key for file in files for key in file.keys}
    certificates = [one for file in files for one in file.certificates]
    found: dict[bytes, KeyedCertificate] = {}
    used: set[bytes] = set()
    for file in files:
        for certificate in file.certificates:
            public = _public_of(certificate)
            der = certificate.public_bytes(Encoding.DER)
            if public in keys and der not in found:
                used.add(public)
                found[der] = _keyed(certificate, keys[public], certificates, file.path)
    warnings += [
        f"{file.path} contains a private key without a certificate"
        for file in files
        if any(key.public not in used for key in file.keys)
    ]
    without = [each for each in found.values() if not each.names]
    warnings += [f"the certificate in {each.path} has no DNS name" for each in without]
    if len(found) == len(without):
        if problem is not None:
            raise TLSError(
                label,
                f"contains no certificate that can be used ({problem})",
                "put certificates and their private keys there, in PEM format",
                unreadable=problem.unreadable,
            )
        raise TLSError(
            label,
            "contains no certificate with its private key and a DNS name (files whose "
            f"names end in {', '.join(ENDINGS)})",
            "put certificates and their private keys there, in PEM format",
        )
    return {der: each for der, each in found.items() if each.names}


def _by_name(
    found: Mapping[bytes, KeyedCertificate], now: datetime
) -> dict[str, KeyedCertificate]:
    """Return the certificate for each name: a valid one, and the newest of these."""

    def rank(each: KeyedCertificate) -> tuple[bool, datetime, datetime]:
        return each.is_valid(now), each.leaf.not_valid_before_utc, each.expires

    by_name: dict[str, KeyedCertificate] = {}
    for each in found.values():
        for name in each.names:
            if name not in by_name or rank(each) > rank(by_name[name]):
                by_name[name] = each
    return by_name


def _authorities(
    options: TLSOptions, copies: Mapping[str, bytes]
) -> tuple[x509.Certificate, ...]:
    label = options.label("client_ca")
    file = read_pem(options.client_ca, label, copies)
    if file.has_revocations:
        raise TLSError(
            label,
            "contains a revocation list, which is not supported",
            "remove it, and compare SSL_CLIENT_M_SERIAL in the application",
        )
    if not file.certificates:
        raise TLSError(
            label,
            "contains no certificate in PEM format",
            "give the certificates of the authorities that issue client certificates",
        )
    return file.certificates


def _keyed(
    leaf: x509.Certificate,
    key: PrivateKey,
    others: Sequence[x509.Certificate],
    path: str,
) -> KeyedCertificate:
    chain = _chain(leaf, others)
    digest = hashlib.sha256()
    for certificate in (leaf, *chain):
        digest.update(certificate.public_bytes(Encoding.DER))
    digest.update(
        key.key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    )
    return KeyedCertificate(
        leaf=leaf,
        chain=chain,
        key=key,
        path=path,
        names=_names(leaf),
        identity=digest.digest(),
    )


def _chain(
    leaf: x509.Certificate, others: Iterable[x509.Certificate]
) -> tuple[x509.Certificate, ...]:
    """Return the issuers of a certificate, in order, as far as they are known."""
    chain: list[x509.Certificate] = []
    rest = list(others)
    current = leaf
    while current.issuer != current.subject:
        issuer = next((each for each in rest if _has_issued(each, current)), None)
        if issuer is None:
            break
        rest.remove(issuer)
        chain.append(issuer)
        current = issuer
    return tuple(chain)


def _has_issued(issuer: x509.Certificate, certificate: x509.Certificate) -> bool:
    if issuer.subject != certificate.issuer:
        return False
    try:
        certificate.verify_directly_issued_by(issuer)
    except (InvalidSignature, ValueError):
        return False
    except (TypeError, UnsupportedAlgorithm):
        pass  # an algorithm that cannot be verified here
    return True


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    """Return the DNS names; the common name if there is no subjectAltName."""
    try:
        extension = leaf.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
        names = extension.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        common = leaf.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        names = [str(each.value) for each in common]
    except ValueError:
        names = []  # an extension that cannot be parsed
    return tuple(dict.fromkeys(name.lower().rstrip(".") for name in names))


def _chain_warning(certificate: KeyedCertificate) -> str:
    """Return a warning if the issuer of a certificate is not served with it."""
    leaf = certificate.leaf
    if certificate.chain or leaf.issuer == leaf.subject:
        return ""
    return (
        f"{certificate.path} contains no certificate of its issuer "
        f"({leaf.issuer.rfc4514_string()}): unless that is a root which all clients "
        "know, give the file with the whole chain, such as fullchain.pem"
    )


def _public_of(certificate: x509.Certificate) -> bytes:
    """Return the public key; b"" if it is of an unknown kind."""
    try:
        return public_bytes(certificate)
    except (ValueError, UnsupportedAlgorithm):
        return b""


def _day(moment: datetime) -> str:
    if abs(moment - datetime.now(timezone.utc)) < timedelta(days=2):
        return f"{moment:%Y-%m-%d at %H:%M} UTC"
    return f"{moment:%Y-%m-%d}"
