"""The optional fields of a record: references that an exchange keeps for them.

It knows the needs of observers. It must never know what they are used for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from txgreenwsgi._native import lanes

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from txgreenwsgi._http.writer import ResponseHead

__all__ = ["RecordDetails"]


@lanes.lent
class RecordDetails:
    """References of an exchange, if an observer needs optional fields.

    Attributes:
        environ: the environ, or the variables of the request's fields.
        head: the last response head that was sent.
    """

    __slots__ = ("environ", "head")

    def __init__(self, environ: Mapping[str, Any]) -> None:
        self.environ = environ
        self.head: ResponseHead | None = None

    def fields(self, needs: Container[str]) -> dict[str, Any]:
        """Return the needed fields of `ExchangeRecord` by name."""
        fields: dict[str, Any] = {}
        if "environ" in needs:
            fields["environ"] = self.environ
        if "response_headers" in needs and self.head is not None:
            fields["response_headers"] = self.head.sent()
        return fields
