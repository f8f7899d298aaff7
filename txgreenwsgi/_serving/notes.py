"""A note of the running request, in memory that another process reads.

Writing a field costs about as much as setting an attribute, and the values need no
conversion. It must never know the memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from txgreenwsgi._native import lanes

if TYPE_CHECKING:
    from txgreenwsgi._http.head import RequestHead

__all__ = ["RequestNote", "note_request"]


class RequestNote(Protocol):
    """The note. Setting a text that is too long raises ValueError.

    Attributes:
        request_id: the identity of the request; "" for other tasks.
        method: the request method, or a description of a task.
        target: the request target.
        running: 1 while it runs, else 0.
    """

    request_id: str
    method: str
    target: bytes
    running: int


@lanes.lent
def note_request(note: RequestNote, request_id: str, head: RequestHead) -> None:
    """Write a request into a note; cut texts that are too long. Never raises."""
    note.running = 0
    note.request_id = request_id[:16]
    note.method = head.method[:8]
    note.target = head.target[:200]
    note.running = 1
