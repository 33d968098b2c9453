"""What changes a participant: its own wishes about itself, and what the API asks of it."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import proxy

import trio
from livekit.protocol import models, rtc

from actors.kernel import ActorRef
from actors.messages.participant import UpdateParticipant
from actors.messages.room import AdoptForwarded, ParticipantChanged, RoomMessage
from lkactor.room.participant import LimitExceeded
from lkactor.signal import responses

if TYPE_CHECKING:
    from actors.participant import ParticipantActor
    from actors.tokens import TokenDesk

METADATA_RESPONSE_DELAY = 0.02
"""The Rust SDK registers for the response after it has sent the request; sooner is missed (livekit-clients 4)."""
METADATA_RESPONSE_PROTOCOL = 15
"""Clients from here on hear of success, too."""
MOVE_PROTOCOL = 16

Reason = rtc.RequestResponse.Reason


class AdministrationDesk:
    """The part of a participant actor that changes who it is, what it may do and where it is."""

    def __init__(self, participant: ParticipantActor, tokens: TokenDesk) -> None:
        self._participant: ParticipantActor = proxy(participant)
        self._tokens = tokens

    def update_own(self, wanted: rtc.UpdateParticipantMetadata) -> None:
        """UpdateMetadata of the client itself."""
        participant = self._participant
        reason, text, changed = Reason.OK, "", False
        if not participant.model.permission.can_update_metadata:
            reason, text = Reason.NOT_ALLOWED, "does not have permission to update own metadata"
        else:
            try:
                changed = participant.model.update(wanted.name, wanted.metadata, wanted.attributes)
            except LimitExceeded as error:
                reason, text = Reason.LIMIT_EXCEEDED, str(error)
        if changed:
            self._tell_everyone()
        if reason != Reason.OK or participant.protocol >= METADATA_RESPONSE_PROTOCOL:
            response = responses.request_response(wanted.request_id, reason, text)
            response.request_response.update_metadata.CopyFrom(wanted)
            participant.context.start_soon(self._send_later, response)

    async def _send_later(self, response: rtc.SignalResponse) -> None:
        await trio.sleep(METADATA_RESPONSE_DELAY)
        self._participant.send(response)

    def update(self, update: UpdateParticipant) -> models.ParticipantInfo | LimitExceeded:
        """UpdateParticipant. A refusal is an answer, not a crash: the front turns it into invalid_argument."""
        participant = self._participant
        try:
            changed = participant.model.update(update.name, update.metadata, update.attributes)
        except LimitExceeded as error:
            return error
        if update.permission is not None:
            changed = participant.set_permission(update.permission) or changed
        return self._tell_everyone() if changed else participant.info()

    def _tell_everyone(self) -> models.ParticipantInfo:
        participant = self._participant
        info = participant.info()
        participant.send(responses.update([info]))
        participant.room.tell(ParticipantChanged(participant.sid, info))
        self._tokens.refresh()
        return info

    def forward_to(self, name: str, room: ActorRef[RoomMessage]) -> bool:
        """What this participant publishes is to be had in that room, too. False: it is forwarded too often."""
        participant = self._participant
        if participant.left or not participant.room.forward_to(name, room):
            return False
        participant.log("forwarded", name)
        room.tell(AdoptForwarded(participant.context.ref, participant.info(), participant.published()))
        return True

    def move_to(self, room: models.Room, others: tuple[models.ParticipantInfo, ...]) -> None:
        """The client takes the token, and its full reconnect takes it there: keys and numbers are of this session."""
        participant = self._participant
        participant.log("moved", room.name)
        token = self._tokens.issue(room.name)
        # The Rust SDK keeps only the token of a refresh.
        participant.send(rtc.SignalResponse(refresh_token=token))
        if participant.protocol >= MOVE_PROTOCOL:
            participant.send(responses.room_moved(room, token, participant.info(), others))
        participant.reconnect(models.DisconnectReason.MIGRATION)
