"""Passwords, hashed where that holds up nobody.

It knows Django's hasher and `offload`. It must never change what is stored.
"""

from __future__ import annotations

from django.contrib.auth.hashers import PBKDF2PasswordHasher

from txgreenwsgi import offload


class OffloadedHasher(PBKDF2PasswordHasher):
    """Django's own default, computed in a thread while the request waits.

    OpenSSL lets go of the interpreter meanwhile, so the others are served.
    """

    def encode(self, password: str, salt: str, iterations: int | None = None) -> str:
        """The hash of a password, as it is stored. May park."""
        encoded: str = offload(super().encode, password, salt, iterations)
        return encoded
