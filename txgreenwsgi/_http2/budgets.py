"""Limits on the rate of frames that cost work and bring nothing.

A budget is a token bucket: a burst is allowed, and then a rate. This file must never
know the frames, or read a clock.
"""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """A token bucket.

    Args:
        size: the number of tokens at the start, and the maximum.
        rate: tokens that are added in a second.
    """

    __slots__ = ("_at", "_rate", "_size", "tokens")

    def __init__(self, size: float, rate: float) -> None:
        self._size = size
        self._rate = rate
        self._at = 0.0
        self.tokens = size

    def take(self, now: float) -> bool:
        """Take a token; return False if there is none.

        Args:
            now: the time in seconds, by any clock that does not go back.
        """
        if now > self._at:
            tokens = self.tokens + (now - self._at) * self._rate
            self.tokens = min(tokens, max(self._size, self.tokens))
            self._at = now
        if self.tokens < 1:
            return False
        self.tokens -= 1
        return True

    def give(self, tokens: float, most: float) -> None:
        """Add tokens for useful work, up to `most` in the bucket."""
        if self.tokens < most:
            self.tokens = min(most, self.tokens + tokens)
