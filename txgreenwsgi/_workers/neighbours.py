"""Neighbours: workers that accept for a slot whose own worker cannot.

It knows slots and sockets. It must never know why a worker cannot accept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .master_parts import Beats, Sockets
    from .slots import Slot, Worker

__all__ = ["Neighbours"]


class Neighbours:
    """The distribution of the sockets of one master.

    Args:
        sockets: the listening sockets.
        beats: the shared page.
    """

    def __init__(self, sockets: Sockets, beats: Beats) -> None:
        self._sockets = sockets
        self._beats = beats

    def adopt(self, worker: Worker, slot: Slot) -> None:
        """Let a worker accept for a slot."""
        own = worker.slot is slot
        indices, descriptors = self._sockets.descriptors(slot.index, shared=own)
        worker.accepts.add(slot.index)
        if indices:
            worker.send(
                {
                    "do": "adopt",
                    "slot": slot.index,
                    "listeners": indices,
                    "shared": self._sockets.shared(),
                },
                descriptors,
            )

    def update(self, slots: Sequence[Slot]) -> None:
        """Let neighbours accept for the slots whose worker cannot."""
        able = [
            slot.tenant
            for slot in slots
            if slot.tenant is not None and not slot.tenant.blocked
        ]
        self._beats.write_serving([worker.record for worker in able])
        for slot in slots:
            before = slot.neighbour
            wanted = before if before in able else None
            if slot.tenant in able or not able:
                wanted = None
            elif wanted is None:
                wanted = min(able, key=lambda each: (len(each.accepts), each.number))
            if wanted is before:
                continue
            slot.neighbour = wanted
            if wanted is not None:
                self.adopt(wanted, slot)
            if before is not None:
                before.accepts.discard(slot.index)
                if before.is_ready:
                    before.send({"do": "release", "slot": slot.index})
