"""Renewed certificates: when files are looked at, and what happens with new ones.

Files are read in a thread. It knows the clock and the log. It must never know OpenSSL.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet.defer import maybeDeferred
from twisted.internet.interfaces import IReactorThreads
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger

from .errors import TLSError
from .stored import stored

if TYPE_CHECKING:
    from collections.abc import Callable

    from twisted.internet.defer import Deferred
    from twisted.internet.interfaces import IDelayedCall, IReactorTime
    from twisted.python.failure import Failure

    from .listener import Loaded, TLSListener

__all__ = ["CHECK_SECONDS", "SETTLE_SECONDS", "Renewal"]

_log = Logger()

T = TypeVar("T")

#: Interval between two looks at the files.
CHECK_SECONDS: Final = 10.0
#: Time for which files must not change before they are read: several are replaced one
#: after the other.
SETTLE_SECONDS: Final = 1.0
#: Interval between two warnings about an expiry.
_EXPIRY_SECONDS: Final = 24 * 3600.0


class Renewal:
    """The renewal of the certificates of one listener.

    Call from the reactor greenlet; no method parks.

    Args:
        listener: its certificates are loaded next, or were loaded just before.
        reactor: the reactor; without threads, files are read in the caller's.
    """

    def __init__(self, listener: TLSListener, reactor: IReactorTime) -> None:
        self._listener = listener
        self._reactor = reactor
        self._user = _user()
        self._has_copies = bool(stored().files)
        self._seen = listener.signature()
        self._changed: tuple[object, ...] | None = None
        self._retry = False
        self._problem = ""
        self._call: IDelayedCall | None = None
        self._running = False
        self._looking = False
        self._asked = False
        self._next_warning = reactor.seconds() + _EXPIRY_SECONDS

    def start(self) -> None:
        """Look at the files every `CHECK_SECONDS`.

        If the process has changed its user since it has read the files, try at once
        whether it may still read them.
        """
        self._running = True
        if self._has_changed_user:
            self._look(self._read)
        else:
            self._schedule(CHECK_SECONDS)

    @property
    def _has_changed_user(self) -> bool:
        """Whether the files were read by another user, here or in the master."""
        return self._has_copies or self._user != _user()

    def stop(self) -> None:
        """Look no more."""
        self._running = False
        self._cancel()

    def read_again(self) -> None:
        """Read the files now, whether they have changed or not."""
        if self._running:
            self._asked = True
            self._cancel()
            self._look(self._read)

    def _cancel(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.cancel()

    def _schedule(self, seconds: float) -> None:
        if self._running and self._call is None:
            self._call = self._reactor.callLater(seconds, self._check)

    def _check(self) -> None:
        self._call = None
        self._listener.renew_ticket_keys()
        if self._reactor.seconds() >= self._next_warning:
            self._next_warning += _EXPIRY_SECONDS
            self._listener.log_expiry()
        self._look(self._read_if_changed)

    def _look(self, look: Callable[[], Loaded | float]) -> None:
        if self._looking:
            return  # `_looked` continues with what was asked meanwhile
        self._looking = True
        self._in_thread(look).addCallbacks(self._looked, self._failed)

    def _in_thread(self, function: Callable[[], T]) -> Deferred[T]:
        reactor = self._reactor
        if IReactorThreads.providedBy(reactor):
            return deferToThreadPool(reactor, reactor.getThreadPool(), function)
        return maybeDeferred(function)

    # In a thread.

    def _read_if_changed(self) -> Loaded | float:
        """Return new certificates, or the time until the next look in seconds."""
        signature = self._listener.signature()
        if signature == self._seen and not self._retry:
            return CHECK_SECONDS
        if signature not in (self._changed, self._seen):
            self._changed = signature
            return SETTLE_SECONDS
        return self._read()

    def _read(self) -> Loaded:
        # Before the files: a change in between is seen at the next look.
        self._seen = self._listener.signature()
        self._changed = None
        return self._listener.load()

    # In the reactor greenlet.

    def _looked(self, found: Loaded | float) -> None:
        self._looking = False
        if not self._running:
            return
        if isinstance(found, float):
            self._continue(found)
            return
        self._retry = False
        old = self._listener.loaded
        assert old is not None
        was_asked, self._asked = self._asked, False
        is_new = (
            old.contexts.keys() != found.contexts.keys()
            or old.policy is not found.policy
            or old.certificates.warnings != found.certificates.warnings
        )
        self._listener.use(found)
        if is_new:
            self._listener.log_certificates("TLS certificate renewed", old)
        elif was_asked:
            _log.info("TLS certificates are unchanged")
        elif self._problem:
            _log.info("TLS certificates can be read again, and are unchanged")
        self._problem = ""
        self._continue(CHECK_SECONDS)

    def _continue(self, seconds: float) -> None:
        if self._asked:
            self._look(self._read)
        else:
            self._schedule(seconds)

    def _failed(self, failure: Failure) -> None:
        self._looking = False
        if not self._running:
            return
        error = failure.value
        was_asked, self._asked = self._asked, False
        if not isinstance(error, TLSError):
            _log.failure("TLS certificates are not renewed", failure=failure)
        elif was_asked or str(error) != self._problem:
            self._log_problem(error)
        self._problem = str(error)
        self._retry = isinstance(error, TLSError) and error.unreadable
        self._schedule(CHECK_SECONDS)

    def _log_problem(self, error: TLSError) -> None:
        assert self._listener.loaded is not None
        expires = min(each.expires for each in self._listener.loaded.certificates.all)
        hint = ""
        if error.unreadable and self._has_changed_user:
            hint = (
                ". The process has changed its user since its start: restart it after "
                "each renewal, or let its user read the files"
            )
        _log.error(
            "TLS certificates are not renewed: {error}; the old ones stay in use, "
            "until {expires:%Y-%m-%d}{hint}",
            error=error,
            expires=expires,
            hint=hint,
        )


def _user() -> int:
    with suppress(AttributeError):
        return os.geteuid()
    return 0
