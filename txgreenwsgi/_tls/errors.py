"""The error of TLS files and options.

It must never know how the message reaches the user.
"""

from __future__ import annotations

__all__ = ["TLSError"]


class TLSError(Exception):
    """A file or an option of TLS that cannot be used.

    Args:
        subject: the option with its value, and the file if it is another.
        problem: the reason, as a clause that continues the subject.
        remedy: the correction, as an imperative.

    Attributes:
        subject: as given.
        problem: as given.
        remedy: as given.
        unreadable: whether a file could not be read, so that a later attempt may
            succeed although the file has not changed.
    """

    def __init__(
        self, subject: str, problem: str, remedy: str, *, unreadable: bool = False
    ) -> None:
        super().__init__(f"{subject} {problem}: {remedy}")
        self.subject = subject
        self.problem = problem
        self.remedy = remedy
        self.unreadable = unreadable
