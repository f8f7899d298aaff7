"""A password hasher that computes in a thread.

It knows Django's hasher and `offload`. It must never change the stored format.
"""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from txgreenwsgi import offload


class OffloadedHasher(PBKDF2PasswordHasher):
    """Django's default hasher, computed in a thread while the request waits.

    OpenSSL releases the GIL meanwhile, so other requests are served.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """Return the hash of a password as stored. May park."""
        encoded: str = offload(super().encode, password, salt, iterations)
        return encoded
