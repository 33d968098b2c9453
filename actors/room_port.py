"""A participant's way up: to its room, and to the rooms that its media is forwarded to."""

from __future__ import annotations

from actors.kernel import ActorDead, ActorRef, MailboxFull
from actors.messages.room import (
    ParticipantChanged,
    ParticipantLeft,
    PublishData,
    PublishDataTrackFrames,
    PublishTracks,
    RestrictSubscribers,
    RoomMessage,
    SpeakerLevel,
    WithdrawTracks,
)

FORWARDED = (
    ParticipantChanged,
    ParticipantLeft,
    PublishData,
    PublishDataTrackFrames,
    PublishTracks,
    RestrictSubscribers,
    SpeakerLevel,
    WithdrawTracks,
)
"""What a participant does, as opposed to what it asks of its own room."""
MAX_FORWARDS = 20


class RoomPort:
    """Tells the own room everything, the others what concerns them."""

    def __init__(self, room: ActorRef[RoomMessage]) -> None:
        self.own = room
        self._others: dict[str, ActorRef[RoomMessage]] = {}

    def tell(self, message: RoomMessage) -> None:
        """Raises ActorDead and MailboxFull for the own room. Another one that cannot follow loses the forward."""
        self.own.tell(message)
        if self._others and isinstance(message, FORWARDED):
            for name, room in list(self._others.items()):
                try:
                    room.tell(message)
                except (ActorDead, MailboxFull):
                    del self._others[name]

    def forward_to(self, name: str, room: ActorRef[RoomMessage]) -> bool:
        """False: too many already."""
        if name not in self._others and len(self._others) >= MAX_FORWARDS:
            return False
        self._others[name] = room
        return True
