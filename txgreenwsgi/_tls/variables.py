"""The environ variables of a TLS connection, with the names of Apache's mod_ssl.

Values have mod_ssl's formats too: names as in RFC 2253, times as OpenSSL prints them,
serial numbers in hexadecimal.

It knows certificates. It must never know requests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID
from twisted.logger import Logger

from .contexts import Policy

if TYPE_CHECKING:
    from datetime import datetime

    from OpenSSL import SSL

__all__ = ["MAX_ALTERNATIVE_NAMES", "client_variables", "connection_variables"]

_log = Logger()

#: Maximum number of SSL_CLIENT_SAN_* variables of each kind.
MAX_ALTERNATIVE_NAMES: Final = 100

# Short names of OpenSSL where RFC 4514 has none.
_SHORT_NAMES: Final = {
    NameOID.EMAIL_ADDRESS: "emailAddress",
    NameOID.SERIAL_NUMBER: "serialNumber",
    NameOID.GIVEN_NAME: "GN",
    NameOID.SURNAME: "SN",
    NameOID.TITLE: "title",
    NameOID.GENERATION_QUALIFIER: "generationQualifier",
    NameOID.DN_QUALIFIER: "dnQualifier",
    NameOID.PSEUDONYM: "pseudonym",
    NameOID.BUSINESS_CATEGORY: "businessCategory",
    NameOID.POSTAL_CODE: "postalCode",
    NameOID.ORGANIZATION_IDENTIFIER: "organizationIdentifier",
    NameOID.INITIALS: "initials",
    NameOID.UNSTRUCTURED_NAME: "unstructuredName",
}

#: Parts of names that have variables of their own in mod_ssl.
_PARTS: Final = {
    "C": NameOID.COUNTRY_NAME,
    "ST": NameOID.STATE_OR_PROVINCE_NAME,
    "L": NameOID.LOCALITY_NAME,
    "O": NameOID.ORGANIZATION_NAME,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
    "CN": NameOID.COMMON_NAME,
    "T": NameOID.TITLE,
    "I": NameOID.INITIALS,
    "G": NameOID.GIVEN_NAME,
    "S": NameOID.SURNAME,
    "UID": NameOID.USER_ID,
    "Email": NameOID.EMAIL_ADDRESS,
}

_SIGNATURES: Final = {
    SignatureAlgorithmOID.RSA_WITH_SHA256: "sha256WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA384: "sha384WithRSAEncryption",
    SignatureAlgorithmOID.RSA_WITH_SHA512: "sha512WithRSAEncryption",
    SignatureAlgorithmOID.RSASSA_PSS: "rsassaPss",
    SignatureAlgorithmOID.ECDSA_WITH_SHA256: "ecdsa-with-SHA256",
    SignatureAlgorithmOID.ECDSA_WITH_SHA384: "ecdsa-with-SHA384",
    SignatureAlgorithmOID.ECDSA_WITH_SHA512: "ecdsa-with-SHA512",
    SignatureAlgorithmOID.ED25519: "ED25519",
    SignatureAlgorithmOID.ED448: "ED448",
}


def connection_variables(connection: SSL.Connection) -> dict[str, str]:
    """Return the variables of a connection whose handshake is complete.

    Those of the client certificate are present only if one of our own policies has
    verified it: another context may accept any certificate.
    """
    variables = {
        "HTTPS": "on",
        "SSL_PROTOCOL": connection.get_protocol_version_name(),
        "SSL_CIPHER": connection.get_cipher_name() or "",
    }
    name = connection.get_servername()
    if name:
        variables["SSL_TLS_SNI"] = name.decode("latin-1")
    policy = connection.get_context().get_app_data()
    if not isinstance(policy, Policy):
        return variables
    variables["SSL_CLIENT_VERIFY"] = "NONE"
    if policy.client_mode != "none":
        try:
            certificate: Any = connection.get_peer_certificate(as_cryptography=True)
            if certificate is not None:
                variables.update(client_variables(certificate))
                variables["SSL_CLIENT_VERIFY"] = "SUCCESS"
        except ValueError as error:
            # OpenSSL has verified it, but is more lenient.
            variables["SSL_CLIENT_VERIFY"] = "FAILED:certificate is malformed"
            _log.warn(
                "TLS: a client certificate that is valid is malformed: {error}",
                error=error,
            )
    return variables


def client_variables(certificate: x509.Certificate) -> dict[str, str]:
    """Return the variables of a client certificate that was verified."""
    variables = {
        "SSL_CLIENT_M_VERSION": str(certificate.version.value + 1),
        "SSL_CLIENT_M_SERIAL": _serial(certificate.serial_number),
        "SSL_CLIENT_V_START": _time(certificate.not_valid_before_utc),
        "SSL_CLIENT_V_END": _time(certificate.not_valid_after_utc),
        "SSL_CLIENT_S_DN": _distinguished_name(certificate.subject),
        "SSL_CLIENT_I_DN": _distinguished_name(certificate.issuer),
        "SSL_CLIENT_CERT": certificate.public_bytes(Encoding.PEM).decode("ascii"),
    }
    signature = certificate.signature_algorithm_oid
    variables["SSL_CLIENT_A_SIG"] = _SIGNATURES.get(signature, signature.dotted_string)
    _add_parts(variables, "SSL_CLIENT_S_DN_", certificate.subject)
    _add_parts(variables, "SSL_CLIENT_I_DN_", certificate.issuer)
    _add_alternative_names(variables, certificate)
    return variables


def _add_parts(variables: dict[str, str], prefix: str, name: x509.Name) -> None:
    """Add a variable for each part of a name; `_n` for the further ones of a kind."""
    for short, oid in _PARTS.items():
        for number, part in enumerate(name.get_attributes_for_oid(oid)):
            key = f"{prefix}{short}" + (f"_{number}" if number else "")
            variables[key] = _latin(part.value)


def _add_alternative_names(
    variables: dict[str, str], certificate: x509.Certificate
) -> None:
    try:
        names = certificate.extensions.get_extension_for_class(
            x509.SubjectAlternativeName
        ).value
    except (x509.ExtensionNotFound, ValueError):
        return  # none, or extensions that cannot be parsed
    kinds: tuple[tuple[str, list[str]], ...] = (
        ("Email", names.get_values_for_type(x509.RFC822Name)),
        ("DNS", names.get_values_for_type(x509.DNSName)),
    )
    for kind, values in kinds:
        for number, value in enumerate(values[:MAX_ALTERNATIVE_NAMES]):
            variables[f"SSL_CLIENT_SAN_{kind}_{number}"] = _latin(value)


def _distinguished_name(name: x509.Name) -> str:
    """Return a name as in RFC 2253, with control characters escaped (section 2.4)."""
    text = name.rfc4514_string(_SHORT_NAMES)
    return _latin(
        "".join(f"\\{ord(c):02X}" if ord(c) < 32 or ord(c) == 127 else c for c in text)
    )


def _latin(text: str | bytes) -> str:
    """Return a text as PEP 3333 demands it: its UTF-8 bytes as latin-1."""
    data = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
    return data.decode("latin-1")


def _serial(number: int) -> str:
    digits = f"{abs(number):X}"
    digits = "0" * (len(digits) % 2) + digits
    return f"-{digits}" if number < 0 else digits


_MONTHS: Final = "JanFebMarAprMayJunJulAugSepOctNovDec"


def _time(moment: datetime) -> str:
    """Return a time as OpenSSL prints it, whatever the locale: two columns of day."""
    month = _MONTHS[3 * moment.month - 3 : 3 * moment.month]
    return f"{month} {moment.day:2} {moment:%H:%M:%S} {moment.year} GMT"
