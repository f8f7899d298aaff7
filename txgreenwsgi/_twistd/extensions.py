"""The loaded extension modules and libraries that open connections in C.

It reads the symbol tables of ELF and Mach-O files. It must never load a file.
"""

from __future__ import annotations

import mmap
import os
import struct
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["connecting_packages", "imported_symbols"]

# A file that opens connections imports one of these from the C library. Programs in Go
# use system calls, but resolve names with the C library.
_CONNECTING = frozenset((b"connect", b"getaddrinfo"))

# Sections of an ELF file (System V ABI, chapter 4).
_DYNAMIC, _DYNSYM = 6, 11
_NEEDED = 1


def connecting_packages() -> dict[str, str]:
    """Return the packages outside the standard library that connect in C.

    A package counts if one of its loaded extension modules or libraries, or a library
    that one is linked to, imports a function that connects. Never parks.

    Returns:
        The path of such a file, by the name of the package.
    """
    loaded = _loaded_files()
    libraries = {os.path.basename(path): path for path in loaded}
    found: dict[str, str] = {}
    known: dict[str, bool] = {}
    for path, package in _candidates(loaded):
        if package not in found and _connects(path, libraries, known):
            found[package] = path
    return found


def _candidates(loaded: list[str]) -> Iterator[tuple[str, str]]:
    """Yield the path and the package of each loaded extension module and library."""
    suffixes = tuple(EXTENSION_SUFFIXES)
    for name, module in list(sys.modules.items()):
        path = getattr(module, "__dict__", {}).get("__file__")
        if isinstance(path, str) and path.endswith(suffixes):
            top = name.partition(".")[0]
            if top not in sys.stdlib_module_names:
                yield path, top
    # Libraries that ctypes has loaded.
    roots = sorted(
        (root for root in sys.path if root.endswith("-packages")), reverse=True
    )
    for path in loaded:
        for root in roots:
            if path.startswith(root + os.sep) and not path.endswith(suffixes):
                top = path[len(root) + 1 :].partition(os.sep)[0].partition(".")[0]
                # A directory NAME.libs belongs to extension modules linked to it.
                if f"{top}.libs{os.sep}" not in path:
                    yield path, top
                break


def _loaded_files() -> list[str]:
    """Return the shared libraries in this process; empty if the system has no /proc."""
    try:
        with open(
            "/proc/self/maps", encoding="utf-8", errors="surrogateescape"
        ) as maps:
            lines = maps.read().splitlines()
    except OSError:
        return []
    paths = {line.partition("/")[1] + line.partition("/")[2] for line in lines}
    return sorted(path for path in paths if ".so" in os.path.basename(path))


def _connects(path: str, libraries: dict[str, str], known: dict[str, bool]) -> bool:
    """Return whether a file, or a library that it is linked to, opens connections."""
    if path in known:
        return known[path]
    known[path] = False
    symbols, needed = imported_symbols(path)
    known[path] = not _CONNECTING.isdisjoint(symbols) or any(
        _connects(libraries[name], libraries, known)
        for name in needed
        if name in libraries and not name.startswith(_GENERAL)
    )
    return known[path]


# Libraries that can open connections, but rarely do so for those that link to them.
_GENERAL = (
    *("libc.", "libpython", "libpthread", "libresolv", "ld-linux"),
    *("libcrypto", "libssl", "libgomp", "libopenblas", "libxml2"),
)


def imported_symbols(path: str) -> tuple[set[bytes], set[str]]:
    """Return the symbols that a file imports, and the libraries that it needs.

    Args:
        path: an ELF file. Of a Mach-O file, only functions that connect are returned.
            Any other file has no symbols.
    """
    try:
        with (
            open(path, "rb") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
        ):
            if data[:4] == b"\x7fELF":
                return _elf_symbols(data)
            if data[:4] in _MACH_O:
                found = {
                    name for name in _CONNECTING if data.find(b"\0_%b\0" % name) >= 0
                }
                return found, set()
    except (OSError, ValueError, struct.error, IndexError):
        pass  # unreadable, empty or damaged
    return set(), set()


_MACH_O = (b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")


def _elf_symbols(data: mmap.mmap) -> tuple[set[bytes], set[str]]:
    order = "<" if data[5] == 1 else ">"
    is_64 = data[4] == 2
    # e_shoff; e_shentsize and e_shnum.
    (table,) = struct.unpack_from(
        order + ("Q" if is_64 else "I"), data, 40 if is_64 else 32
    )
    entry, count = struct.unpack_from(order + "HH", data, 58 if is_64 else 46)
    section = struct.Struct(order + ("IIQQQQIIQQ" if is_64 else "IIIIIIIIII"))
    sections = [section.unpack_from(data, table + entry * n) for n in range(count)]
    symbols: set[bytes] = set()
    needed: set[str] = set()
    for _, kind, _, _, offset, size, link, _, _, _ in sections:
        if kind not in (_DYNAMIC, _DYNSYM):
            continue
        strings = sections[link][4]

        def text(index: int, strings: int = strings) -> bytes:
            start = strings + index
            return data[start : data.find(b"\0", start)]

        if kind == _DYNSYM:
            # st_name and st_shndx, which is 0 for an imported symbol.
            layout = struct.Struct(order + ("IBBH16x" if is_64 else "I8xBBH"))
            for at in range(offset, offset + size, layout.size):
                name, _, _, defined = layout.unpack_from(data, at)
                if name and not defined:
                    symbols.add(text(name))
        else:
            layout = struct.Struct(order + ("qQ" if is_64 else "iI"))
            for at in range(offset, offset + size, layout.size):
                tag, value = layout.unpack_from(data, at)
                if tag == _NEEDED:
                    needed.add(text(value).decode("utf-8", "replace"))
    return symbols, needed
