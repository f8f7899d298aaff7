"""Heavy calls of well-known modules, run in threads while the task waits.

The calls release the GIL while they compute or write to the disk, so a thread lets the
other requests run:

- `hashlib.pbkdf2_hmac` and `scrypt`, `bcrypt`, `argon2`
- `zlib`, `gzip`, `bz2`, `lzma` and the modules that use them
- `os.fsync`, `fdatasync` and `sync`
- Pillow
- `sqlite3`, replaced by `txgreenwsgi.green.sqlite3`

Calls with little work are direct, as are those outside tasks. It knows these modules.
It must never know what they are used for.
"""

from __future__ import annotations

import hashlib
import importlib
import os
from functools import wraps
from typing import TYPE_CHECKING, Any, Final

from . import _pillow
from ._heavy_calls import run_heavy, run_heavy_on_shared
from .drivers import watch_imports

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

__all__ = ["LIBRARIES", "replacements", "watch_libraries"]

#: Iterations of PBKDF2 that take about 0.4 ms.
PBKDF2_ITERATIONS: Final = 2000
#: The product n * r * p of scrypt that takes about 0.5 ms.
SCRYPT_COST: Final = 2048


def _offload_pbkdf2(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def pbkdf2_hmac(
        hash_name: object,
        password: object,
        salt: object,
        iterations: object,
        dklen: object = None,
    ) -> Any:
        args = (hash_name, password, salt, iterations, dklen)
        cost = iterations if isinstance(iterations, int) else 0
        if isinstance(dklen, int) and dklen > 0:
            cost *= 1 + dklen // 64  # one pass for each block of the hash
        if cost < PBKDF2_ITERATIONS:
            return original(*args)
        return run_heavy(original, *args)

    return pbkdf2_hmac


def _offload_scrypt(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def scrypt(*args: Any, **kwargs: Any) -> Any:
        cost = 1
        for name in ("n", "r", "p"):
            factor = kwargs.get(name)
            cost *= factor if isinstance(factor, int) else 0
        if cost < SCRYPT_COST:
            return original(*args, **kwargs)
        return run_heavy(original, *args, **kwargs)

    return scrypt


def _always(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `original` in a thread; for functions without side effects."""

    @wraps(original)
    def heavy(*args: Any, **kwargs: Any) -> Any:
        return run_heavy(original, *args, **kwargs)

    return heavy


def _always_to_end(original: Callable[..., Any]) -> Callable[..., Any]:
    """Return `original` in a thread, where an interrupted task waits for its end."""

    @wraps(original)
    def heavy(*args: Any, **kwargs: Any) -> Any:
        return run_heavy_on_shared(original, *args, **kwargs)

    return heavy


_WRAPPERS: Final = (
    ("hashlib", "pbkdf2_hmac", _offload_pbkdf2),
    ("hashlib", "scrypt", _offload_scrypt),
    ("os", "fsync", _always_to_end),
    ("os", "fdatasync", _always_to_end),
    ("os", "sync", _always_to_end),
)

# Modules that need optional parts of Python.
_OPTIONAL: Final = ("_compressors", "sqlite3")


def replacements() -> dict[str, dict[str, Any]]:
    """Return the replacements in the standard library, by module and name.

    Imports the modules. Never parks.
    """
    modules: dict[str, Any] = {"hashlib": hashlib, "os": os}
    found: dict[str, dict[str, Any]] = {}
    for module, name, wrap in _WRAPPERS:
        original = getattr(modules[module], name, None)
        if original is not None:
            found.setdefault(module, {})[name] = wrap(original)
    for name in _OPTIONAL:
        try:
            green: Any = importlib.import_module(f"{__package__}.{name}")
        except ImportError:
            continue
        if name == "sqlite3":
            found["sqlite3"] = found["sqlite3.dbapi2"] = green.REPLACED
        else:
            found.update(green.REPLACED)
    return found


def _offload_functions(*names: str) -> Callable[[ModuleType], None]:
    def offload_in(module: ModuleType) -> None:
        for name in names:
            original = getattr(module, name, None)
            if original is not None:
                setattr(module, name, _always(original))

    return offload_in


#: The functions that make a library's heavy calls run in threads, by module name.
LIBRARIES: dict[str, Callable[[ModuleType], None]] = {
    "PIL.Image": _pillow.offload_images,
    "PIL.ImageChops": _pillow.offload_channel_operations,
    "PIL.ImageFile": _pillow.offload_files,
    "argon2.low_level": _offload_functions(
        "hash_secret", "hash_secret_raw", "verify_secret"
    ),
    "bcrypt": _offload_functions("checkpw", "hashpw", "kdf"),
}


def watch_libraries() -> None:
    """Off-load the libraries that are imported now, and others at their import."""
    watch_imports(LIBRARIES)
