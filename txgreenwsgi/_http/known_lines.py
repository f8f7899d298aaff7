"""Heads, read a line at a time from what has been read before.

Clients send the same lines again and again: a browser's User-Agent, its Accept, the
path of a popular page. Each line that was once part of a good head is kept with its
meaning, so that most heads cost one lookup a line. Knows nothing of where a head came
from; must never keep a secret, nor anything without a bound.

A head with a line that is not known goes to llhttp as a whole, and only the lines of
a head that passed are learned. What is never learned does not count: a Cookie, or the
query of a known path, that differs in each request has no bearing on framing. What the
lines mean *together* (two Host fields, Transfer-Encoding with Content-Length ...) is
worked out anew for each head.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from .fields import Variable, join_fields, read_field, read_value, request_head
from .head import Malformed
from .llhttp import judge_head
from .target import RequestLine, read_request_line, with_other_query

if TYPE_CHECKING:
    from .head import RequestHead

__all__ = ["KnownLines", "KnownLinesStatistics"]

_T = TypeVar("_T")

# A browser sends some 12 lines, and they differ little from client to client.
_LINES = 512

# Two generations of both kinds of lines: about 1 MB at the very most.
_LINE_LENGTH = 256

# Not kept: nothing that lets a person in should outlive the request in memory. They
# are as good as unique anyway.
_SECRET = frozenset({"HTTP_AUTHORIZATION", "HTTP_COOKIE", "HTTP_PROXY_AUTHORIZATION"})


# As clients write it; other spellings are read the general way.
_COOKIE = frozenset({b"Cookie: ", b"cookie: "})


class _Recent(dict[bytes, _T], Generic[_T]):
    """Lines and their meaning: those learned last, and those used since.

    In two generations. When the younger is full it becomes the older, and what was
    the older is forgotten. A line found in the older moves to the younger. So lines
    that come all the time stay, whatever passes through: queries, identifiers, noise.

    Looking up a line that is not known reads it.

    Args:
        limit: How many lines a generation holds.
    """

    __slots__ = ("_limit", "_older", "unproven")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._older: dict[bytes, _T] = {}
        self.unproven: list[tuple[bytes, _T]] = []
        """The lines that were read since this was last emptied."""

    def read(self, line: bytes) -> _T:
        """Return what a new line means, and add it to `unproven`."""
        raise NotImplementedError

    def __missing__(self, line: bytes) -> _T:
        meaning = self._older.pop(line, None)
        if meaning is None:
            return self.read(line)
        self._keep(line, meaning)
        return meaning

    def learn(self) -> None:
        """Keep what was `unproven`."""
        for line, meaning in self.unproven:
            if len(line) <= _LINE_LENGTH:
                self._keep(line, meaning)
        self.unproven.clear()

    def forget_unproven(self) -> None:
        """What was read since has proved nothing."""
        self.unproven.clear()

    def kept(self) -> int:
        return len(self) + len(self._older)

    def _keep(self, line: bytes, meaning: _T) -> None:
        if len(self) >= self._limit:
            self._older = dict(self)
            self.clear()
        self[line] = meaning


class _Paths(_Recent[RequestLine | None]):
    """Request lines up to a question mark, each with one that began so."""

    __slots__ = ()

    def read(self, line: bytes) -> None:
        return None


class _RequestLines(_Recent[RequestLine]):
    __slots__ = ("_paths",)

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._paths = _Paths(limit)

    def read(self, line: bytes) -> RequestLine:
        beginning, mark, _ = line.partition(b"?")
        if mark:
            # A query differs from request to request, and like a Cookie it has no
            # bearing on anything.
            known = self._paths[beginning]
            if known is not None:
                meaning = with_other_query(known, line)
                if meaning is not None:
                    return meaning
        meaning = read_request_line(line)
        self.unproven.append((line, meaning))
        if mark and meaning.target.startswith(b"/"):
            self._paths.unproven.append((beginning, meaning))
        return meaning

    def learn(self) -> None:
        super().learn()
        self._paths.learn()

    def forget_unproven(self) -> None:
        super().forget_unproven()
        self._paths.forget_unproven()


class _FieldLines(_Recent[Variable]):
    __slots__ = ()

    def __missing__(self, line: bytes) -> Variable:
        # Nearly every head has a Cookie, nearly every one another.
        if line[:8] in _COOKIE:
            value = read_value(line, 8)
            if value is not None:
                return "HTTP_COOKIE", value
        return super().__missing__(line)

    def read(self, line: bytes) -> Variable:
        variable = read_field(line)
        if variable[0] not in _SECRET:
            self.unproven.append((line, variable))
        return variable


@dataclass(frozen=True, slots=True)
class KnownLinesStatistics:
    """How much is known.

    Attributes:
        request_lines: How many request lines are kept now.
        field_lines: How many field lines are kept now.
        judged_heads: How many heads had to go to llhttp so far.
    """

    request_lines: int
    field_lines: int
    judged_heads: int


class KnownLines:
    """Reads heads, and learns their lines.

    One for all connections of a process is best: what a line means does not depend
    on who sent it. Not for several threads.

    Args:
        limit: How many lines a generation holds, of request lines and of field lines
            each. There are two generations.
    """

    __slots__ = ("_fields", "_judged_heads", "_request_lines")

    def __init__(self, limit: int = _LINES) -> None:
        self._request_lines = _RequestLines(limit)
        self._fields = _FieldLines(limit)
        self._judged_heads = 0

    def statistics(self) -> KnownLinesStatistics:
        """Return how many lines are kept, and how many heads were not known."""
        return KnownLinesStatistics(
            self._request_lines.kept(), self._fields.kept(), self._judged_heads
        )

    def read_head(
        self, head: bytes, fields_limit: int, target_limit: int
    ) -> RequestHead:
        """Return what a head says.

        Args:
            head: A whole head without the empty line at its end.
            fields_limit: How many field lines it may have.
            target_limit: How many bytes its target may have.

        Raises:
            Malformed: It cannot be answered. Where `check_request_line` finds fault
                with the head too, its verdict is the one to give.
        """
        request_lines, fields = self._request_lines, self._fields
        if request_lines.unproven or fields.unproven:
            # What a head that was refused has left there proves nothing.
            request_lines.forget_unproven()
            fields.forget_unproven()

        lines = head.split(b"\r\n")
        line = request_lines[lines[0]]
        if len(line.target) > target_limit:
            raise Malformed(414, f"the target is longer than {target_limit} bytes")
        del lines[0]
        if len(lines) > fields_limit:
            raise Malformed(431, f"more than {fields_limit} fields")
        variables = dict(map(fields.__getitem__, lines))
        if len(variables) != len(lines) or "" in variables:
            variables = join_fields(map(fields.__getitem__, lines))
        request = request_head(line, variables)

        if request_lines.unproven or fields.unproven:
            self._judged_heads += 1
            judge_head(head + b"\r\n\r\n")
            request_lines.learn()
            fields.learn()
        return request
