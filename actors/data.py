"""A participant's outgoing data: permission, stamp, and on to the room in the order it came."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import proxy

from actors.messages.room import OutboundData, PublishData
from lkactor.room.data import DataStamper

if TYPE_CHECKING:
    from actors.participant import ParticipantActor


class DataDesk:
    """The part of a participant actor that handles data packets."""

    def __init__(self, participant: ParticipantActor) -> None:
        self._participant: ParticipantActor = proxy(participant)
        self._stamper: DataStamper | None = None

    @property
    def last_sequence(self) -> int:
        return self._stamper.last_sequence if self._stamper is not None else 0

    def publish(self, messages: tuple[tuple[bool, bytes], ...]) -> None:
        """All messages of one burst go to the room as one message."""
        participant = self._participant
        permission = participant.model.permission
        if self._stamper is None:
            self._stamper = DataStamper(sid=participant.sid, identity=participant.identity)
        if not permission.can_publish_data:
            self._stamper.counters.count("data.not_permitted", len(messages))
            participant.log("data.not_permitted")
            return
        stamped = []
        for reliable, payload in messages:
            data = self._stamper.stamp(payload, reliable=reliable, hidden=permission.hidden, agent=permission.agent)
            if data is not None:
                stamped.append(OutboundData(data.reliable, data.payload, data.destinations, data.destination_sids))
        if stamped:
            participant.room.tell(PublishData(participant.sid, tuple(stamped)))
