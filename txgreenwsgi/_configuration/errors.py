"""The error of a configuration: the source, the value, the problem and the remedy."""

from __future__ import annotations

__all__ = ["ConfigurationError"]


class ConfigurationError(ValueError):
    """A file, an environment variable or an option is invalid. The message says why."""
