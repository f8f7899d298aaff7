"""What a master passes on to its workers: a secret, and files that they may not read.

A master that is started as root reads certificates and keys before it changes its user.
It keeps them, with a secret for session tickets, in a file without a name, whose
descriptor its workers inherit. Neither the environment nor the arguments of a process
are a place for secrets: its children get copies, and other tools read them.

It knows files. It must never know certificates.
"""

from __future__ import annotations

import base64
import json
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from .errors import TLSError
from .files import pem_paths, read_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .options import TLSOptions

__all__ = ["SECRET_BYTES", "Stored", "adopt_stored", "store", "stored", "use"]

#: Size of the secret.
SECRET_BYTES: Final = 32


@dataclass(frozen=True)
class Stored:
    """The content of the descriptor.

    Attributes:
        secret: for session tickets; b"" without a master.
        files: contents by absolute path.
    """

    secret: bytes = field(default=b"", repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)


_adopted = [Stored()]


def stored() -> Stored:
    """Return what the master has passed on; nothing in a process without one."""
    return _adopted[0]


def adopt_stored(fd: int) -> None:
    """Read an inherited descriptor. It stays open.

    Raises:
        OSError: the descriptor is not open.
        ValueError: its content is invalid.
    """
    message = json.loads(os.pread(fd, os.fstat(fd).st_size, 0))
    files = {
        path: base64.b64decode(content) for path, content in message["files"].items()
    }
    use(Stored(bytes.fromhex(message["secret"]), files))


def use(content: Stored) -> None:
    """Replace what `stored` returns."""
    _adopted[0] = content


def store(listeners: Iterable[TLSOptions]) -> int:
    """Return a descriptor of a new secret, and of the files of listeners.

    The files are included if the process is root, whose workers may be started as
    another user. Those that cannot be read are left out: a worker reports them.

    Args:
        listeners: their options, with absolute paths.
    """
    files: dict[str, str] = {}
    if os.geteuid() == 0:
        for options in listeners:
            for path in _paths(options):
                with suppress(TLSError):
                    files[path] = base64.b64encode(read_file(path, path)).decode()
    message = {"secret": os.urandom(SECRET_BYTES).hex(), "files": files}
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("txgreenwsgi-tls")
    else:
        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
    with os.fdopen(fd, "wb", closefd=False) as writer:
        writer.write(json.dumps(message).encode("ascii"))
    return fd


def _paths(options: TLSOptions) -> list[str]:
    paths = options.files
    if options.dir:
        with suppress(TLSError):
            paths += pem_paths(options.dir, options.dir, [])
    return paths
