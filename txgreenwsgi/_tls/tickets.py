"""Keys of session tickets that the processes of one host share.

A client resumes a session with a ticket that the server has encrypted. OpenSSL makes
a random key for each context. Processes that share a secret derive the same keys from
it, so that each of them accepts the tickets of the others.

pyOpenSSL has no function for the keys. They are set by OpenSSL's own function, where
the library that pyOpenSSL is linked to exports it. The wheels of `cryptography` contain
an OpenSSL that exports nothing: there, tickets are accepted by the process that has
issued them, and elsewhere the handshake is a full one.

It knows OpenSSL's interface. It must never know when keys change.
"""

from __future__ import annotations

import ctypes
import hashlib
import hmac
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.bindings import _rust
from OpenSSL._util import ffi

if TYPE_CHECKING:
    from collections.abc import Callable

    from OpenSSL import SSL

__all__ = [
    "can_share_tickets",
    "key_setter",
    "use_ticket_keys",
]

# SSL_CTRL_SET_TLSEXT_TICKET_KEYS of <openssl/ssl.h>.
_SET_TICKET_KEYS: Final = 59


def can_share_tickets() -> bool:
    """Return whether the ticket keys of pyOpenSSL's library can be set."""
    return key_setter() is not None


def use_ticket_keys(context: SSL.Context, secret: bytes, purpose: bytes) -> bool:
    """Derive the ticket keys of `context` from a secret. A no-op if they cannot be set.

    Args:
        context: a context that no connection uses yet.
        secret: shared by several processes.
        purpose: tickets are accepted only by contexts with the same purpose.

    Returns:
        Whether they were set.
    """
    set_keys = key_setter()
    if set_keys is None:
        return False
    address = _address_of(context)
    size = set_keys(address, _SET_TICKET_KEYS, 0, None)
    keys = b""
    counter = 0
    while len(keys) < size:
        # HKDF-Expand (RFC 5869 section 2.3).
        counter += 1
        block = keys[-32:] + purpose + bytes([counter])
        keys += hmac.new(secret, block, hashlib.sha256).digest()
    return set_keys(address, _SET_TICKET_KEYS, size, keys[:size]) == 1


def key_setter() -> Callable[..., int] | None:
    """Return SSL_CTX_ctrl of the library that pyOpenSSL uses; None without it.

    A search in the extension module finds the symbols of the libraries that it is
    linked to, and never those of another OpenSSL in this process.
    """
    try:
        function: Any = ctypes.CDLL(str(_rust.__file__)).SSL_CTX_ctrl
    except (OSError, AttributeError):
        return None
    function.restype = ctypes.c_long
    function.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_long, ctypes.c_void_p]
    found: Callable[..., int] = function
    return found


def _address_of(context: Any) -> int:
    return int(ffi.cast("uintptr_t", context._context))
