"""The TLS options of a listener, from the command and from its endpoint string.

It must import neither OpenSSL, which is optional, nor the reactor.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Final

from .errors import TLSError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CLIENT_MODES", "VERSIONS", "TLSOptions"]

#: Valid minimum versions of TLS.
VERSIONS: Final = ("1.2", "1.3")
CLIENT_MODES: Final = ("optional", "required")

_CERTIFICATES: Final = ("cert", "key", "dir")
_PATHS: Final = ("cert", "key", "dir", "client_ca")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TLSOptions:
    """The TLS options of one listener.

    Attributes:
        cert: path of the certificate chain, in PEM format; "" for none.
        key: path of its private key; "" if it is in the file of the certificate.
        dir: directory of further certificates and keys, selected by server name; ""
            for none.
        client_ca: path of the certificates of the authorities that issue client
            certificates; "" for no client certificates.
        client: one of `CLIENT_MODES`; "" for "required" with `client_ca`.
        min: one of `VERSIONS`.
        ciphers: names of ciphers in OpenSSL's syntax; "" for the default ones.
        own: the names of the options that the endpoint string has given.
    """

    cert: str = ""
    key: str = ""
    dir: str = ""
    client_ca: str = ""
    client: str = ""
    min: str = "1.2"
    ciphers: str = ""
    own: frozenset[str] = dataclasses.field(default=frozenset(), compare=False)

    @property
    def has_certificate(self) -> bool:
        """Whether a certificate is configured."""
        return bool(self.cert or self.dir)

    @property
    def files(self) -> list[str]:
        """The paths of single files."""
        return [path for path in (self.cert, self.key, self.client_ca) if path]

    @property
    def given(self) -> list[str]:
        """The names of the options that differ from their defaults."""
        return [
            field.name
            for field in dataclasses.fields(self)
            if field.name != "own" and getattr(self, field.name) != field.default
        ]

    def overridden_by(self, arguments: Mapping[str, str]) -> TLSOptions:
        """Return these options, overridden by arguments of an endpoint string.

        A certificate of the endpoint replaces all certificates of the command.

        Args:
            arguments: values by the names of the fields.
        """
        replaced: dict[str, str] = {}
        if any(name in arguments for name in _CERTIFICATES):
            replaced.update(dict.fromkeys(_CERTIFICATES, ""))
        replaced.update(arguments)
        return dataclasses.replace(self, **replaced, own=frozenset(arguments))

    def absolute(self) -> TLSOptions:
        """Return these options with absolute paths.

        The process may change its directory before it reads the files again.
        """
        return dataclasses.replace(
            self,
            **{
                name: os.path.abspath(getattr(self, name))
                for name in _PATHS
                if getattr(self, name)
            },
        )

    def label(self, name: str) -> str:
        """Return an option with its value, for messages."""
        value = getattr(self, name)
        if name in self.own:
            return f"{name.replace('_', '-')}={value!r}"
        return f"--tls-{name.replace('_', '-')} {value!r}"

    def check(self) -> None:
        """Check that the options are valid and fit together. Reads no file.

        Raises:
            TLSError: they do not.
        """
        if self.key and not self.cert:
            raise TLSError(
                self.label("key"),
                "has no certificate",
                "give the certificate too (--tls-cert, or cert= of the endpoint); keys "
                "of --tls-dir are found in the directory",
            )
        if self.min not in VERSIONS:
            raise TLSError(
                self.label("min"),
                "is not a minimum version of TLS",
                f"give {' or '.join(VERSIONS)}",
            )
        if self.client and self.client not in CLIENT_MODES:
            raise TLSError(
                self.label("client"),
                "is not a mode for client certificates",
                f"give {' or '.join(CLIENT_MODES)}",
            )
        if self.client and not self.client_ca:
            raise TLSError(
                self.label("client"),
                "has no authority to verify client certificates with",
                "give the file with its certificate (--tls-client-ca, or client-ca= "
                "of the endpoint)",
            )

    @property
    def client_mode(self) -> str:
        """The mode for client certificates: one of `CLIENT_MODES`, or "none"."""
        return (self.client or "required") if self.client_ca else "none"
