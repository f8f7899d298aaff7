"""The optional package of HTTP/2.

It knows the name of a package. It must never know its use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txgreenwsgi.settings import SettingError

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["check_http2", "unused_http2"]


def check_http2(value: str) -> None:
    """Validate the setting `http2` if it is not "off".

    Raises:
        SettingError: the library is not installed.
    """
    if value == "off":
        return
    try:
        import h2  # noqa: F401
    except ImportError as error:
        raise SettingError(
            f"http2={value!r}",
            f"needs a package that is not installed ({error})",
            "run pip install 'txgreenwsgi[http2]' for HTTP/2",
        ) from error


def unused_http2(value: str, listen: Iterable[str]) -> tuple[str, ...]:
    """Return a warning if the setting `http2` has no effect.

    Args:
        value: the setting.
        listen: the endpoint strings.
    """
    if value != "tls" or any(
        text.startswith(("https:", "ssl:", "tls:")) for text in listen
    ):
        return ()
    return ("http2 tls is used by no endpoint: give --http2 h2c for plain connections",)
