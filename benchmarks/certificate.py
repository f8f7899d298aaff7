"""A self-signed certificate for servers with TLS.

This file must never know which server uses it.
"""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

from .process import CannotMeasure

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["make_certificate"]


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Return a self-signed certificate in `directory` and its key; make it once.

    Raises:
        CannotMeasure: openssl is not installed or failed.
    """
    certificate, key = directory / "certificate.pem", directory / "key.pem"
    if not certificate.exists():
        words = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
        words += " -days 2 -subj /CN=localhost"
        try:
            subprocess.run(
                ["openssl", *words.split(), "-keyout", key, "-out", certificate],
                check=True,
                capture_output=True,
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise CannotMeasure(
                f"openssl is needed to make a certificate, and failed ({error})"
            ) from error
    return certificate, key
