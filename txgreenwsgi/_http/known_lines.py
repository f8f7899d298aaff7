"""Cache of header lines, so that most heads are parsed by lookups.

Clients send the same lines again and again: a browser's User-Agent, its Accept, the
path of a popular page. Each line of an accepted head is cached with its parsed value,
so that most heads cost one lookup per line. Must never know the source of a head,
store a secret, or grow without a bound.

If any line of a head is not cached, the whole head is validated by llhttp, and its
lines are cached only if the head is accepted. Two kinds of lines are exempt, because
they differ in each request and do not affect framing: a Cookie, and a known path with
another query. The rules for combinations of lines (two Host fields, Transfer-Encoding
with Content-Length ...) are applied to every head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from .fields import Variable, join_fields, read_field, read_value, request_head
from .head import Malformed
from .llhttp import validate_head
from .target import RequestLine, read_request_line, with_other_query

if TYPE_CHECKING:
    from .head import RequestHead

__all__ = ["KnownLines", "KnownLinesStatistics"]

_T = TypeVar("_T")

# A browser sends about 12 lines, which differ little from client to client.
_LINES = 512

# Longer lines are not cached. With two generations of request and field lines, this
# bounds the cache to about 1 MB.
_LINE_LENGTH = 256

# Never cached: credentials must not outlive the request in memory. Nearly all of
# them are unique, so caching them would gain nothing.
_SECRET = frozenset({"HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_PROXY_AUTHORIZATION"})

# The usual spellings; others take the general path.
_COOKIE = frozenset({b"Cookie: ", b"cookie: "})


class _LineCache(dict[bytes, _T], Generic[_T]):
    """Cache from lines to their parsed values, with two generations.

    When the younger generation is full it becomes the older one, and the previous
    older one is dropped. A hit in the older generation moves the line to the younger.
    So lines in constant use stay, however many one-off lines (queries, identifiers,
    noise) pass through.

    A lookup of an unknown line parses it. The result stays in `pending` until the
    whole head has been accepted.

    Args:
        limit: Maximum number of lines in a generation.

    Attributes:
        pending: Lines parsed since the last commit or discard, with their values.
    """

    __slots__ = ("_limit", "_older", "pending")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._older: dict[bytes, _T] = {}
        self.pending: list[tuple[bytes, _T]] = []

    def parse(self, line: bytes) -> _T:
        """Return the value of an unknown line, and add it to `pending`."""
        raise NotImplementedError

    def __missing__(self, line: bytes) -> _T:
        value = self._older.pop(line, None)
        if value is None:
            return self.parse(line)
        self._store(line, value)
        return value

    def commit_pending(self) -> None:
        """Cache the lines in `pending`: their head has been accepted."""
        for line, value in self.pending:
            if len(line) <= _LINE_LENGTH:
                self._store(line, value)
        self.pending.clear()

    def discard_pending(self) -> None:
        """Drop the lines in `pending`: their head was refused."""
        self.pending.clear()

    def size(self) -> int:
        """Return the number of lines in both generations."""
        return len(self) + len(self._older)

    def _store(self, line: bytes, value: _T) -> None:
        if len(self) >= self._limit:
            self._older = dict(self)
            self.clear()
        self[line] = value


class _Paths(_LineCache[RequestLine | None]):
    """Request lines up to the question mark, each with one parsed example."""

    __slots__ = ()

    def parse(self, line: bytes) -> None:
        return None


class _RequestLines(_LineCache[RequestLine]):
    __slots__ = ("_paths",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._paths = _Paths(limit)

    def parse(self, line: bytes) -> RequestLine:
        beginning, mark, _ = line.partition(b"?")
        if mark:
            # The query differs from request to request and, like a Cookie, does not
            # affect framing: a new one needs no validation by llhttp.
            known = self._paths[beginning]
            if known is not None:
                value = with_other_query(known, line)
                if value is not None:
                    return value
        value = read_request_line(line)
        self.pending.append((line, value))
        if mark and value.target.startswith(b"/"):
            self._paths.pending.append((beginning, value))
        return value

    def commit_pending(self) -> None:
        super().commit_pending()
        self._paths.commit_pending()

    def discard_pending(self) -> None:
        super().discard_pending()
        self._paths.discard_pending()


class _FieldLines(_LineCache[Variable]):
    __slots__ = ()

    def __missing__(self, line: bytes) -> Variable:
        # Nearly every head has a Cookie, and nearly every Cookie is different.
        if line[:8] in _COOKIE:
            value = read_value(line, 8)
            if value is not None:
                return "HTTP_COOKIE", value
        return super().__missing__(line)

    def parse(self, line: bytes) -> Variable:
        variable = read_field(line)
        if variable[0] not in _SECRET:
            self.pending.append((line, variable))
        return variable


@dataclass(frozen=True, slots=True)
class KnownLinesStatistics:
    """Size of the cache, and number of heads with cache misses.

    Attributes:
        request_lines: Number of request lines in the cache.
        field_lines: Number of field lines in the cache.
        validated_heads: Number of heads that llhttp has validated so far.
    """

    request_lines: int
    field_lines: int
    validated_heads: int


class KnownLines:
    """Parser of heads with a cache of known lines.

    Share one among all connections of a process: the meaning of a line does not
    depend on its sender. Not thread-safe.

    Args:
        limit: Maximum number of lines in a generation, for request lines and for
            field lines each. There are two generations.
    """

    __slots__ = ("_fields", "_request_lines", "_validated_heads")

    def __init__(self, limit: int = _LINES) -> None:
        self._request_lines = _RequestLines(limit)
        self._fields = _FieldLines(limit)
        self._validated_heads = 0

    def statistics(self) -> KnownLinesStatistics:
        """Return the numbers of cached lines and of validated heads."""
        return KnownLinesStatistics(
            request_lines=self._request_lines.size(),
            field_lines=self._fields.size(),
            validated_heads=self._validated_heads,
        )

    def read_head(
        self, head: bytes, fields_limit: int, target_limit: int
    ) -> RequestHead:
        """Parse a head.

        Args:
            head: A whole head, without the empty line at its end.
            fields_limit: Maximum number of field lines.
            target_limit: Maximum length of the target, in bytes.

        Raises:
            Malformed: The head cannot be served. If `check_request_line` raises for
                the same head, its status takes precedence.
        """
        request_lines, fields = self._request_lines, self._fields
        if request_lines.pending or fields.pending:
            # Left over from a rejected head.
            request_lines.discard_pending()
            fields.discard_pending()

        lines = head.split(b"\r\n")
        line = request_lines[lines[0]]
        if len(line.target) > target_limit:
            raise Malformed(414, f"the target is longer than {target_limit} bytes")
        del lines[0]
        if len(lines) > fields_limit:
            raise Malformed(431, f"more than {fields_limit} fields")
        variables = dict(map(fields.__getitem__, lines))
        if len(variables) != len(lines) or "" in variables:
            # Repeated or dropped fields.
            variables = join_fields(map(fields.__getitem__, lines))
        request = request_head(line, variables)

        if request_lines.pending or fields.pending:
            self._validated_heads += 1
            validate_head(head + b"\r\n\r\n")
            request_lines.commit_pending()
            fields.commit_pending()
        return request
