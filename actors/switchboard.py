"""A room's data: packets, data track frames and blobs find their recipients; who is behind holds everyone up.

One message per recipient and burst, whatever the burst holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import proxy

from livekit.protocol import models, rtc

from actors.kernel import ActorDead, MailboxFull
from actors.messages.participant import DataBlobFound, Disconnect
from actors.messages.room import DataTrackFrame, PublishData, WantDataBlob
from actors.messages.transport import PauseData, SendData, SendDataTrack
from lkactor.room.data_blobs import key_of
from lkactor.wire.data_track import with_handle

if TYPE_CHECKING:
    from actors.room import Member, RoomActor

Action = rtc.LeaveRequest.Action
ACTIVE = models.ParticipantInfo.State.ACTIVE


class Switchboard:
    """The part of a room actor that carries data."""

    def __init__(self, room: RoomActor) -> None:
        self._room: RoomActor = proxy(room)
        self._congested: set[str] = set()
        self._handles: dict[str, dict[str, int]] = {}
        """Data track sid -> subscriber sid -> handle."""
        self._blobs: dict[str, dict[bytes, models.DataBlob]] = {}

    def forget(self, sid: str) -> None:
        """A member is gone."""
        self._congested.discard(sid)
        self._blobs.pop(sid, None)
        self.route(sid, {})

    # -- data packets -----------------------------------------------------------------------------------------------

    def publish(self, data: PublishData) -> None:
        for member in list(self._room.members.values()):
            if member.sid == data.sender_sid or member.data_port is None:
                continue
            active = member.info.state == ACTIVE
            messages = tuple(
                (message.reliable, message.payload)
                for message in data.messages
                if (message.reliable or active)
                and (
                    not (message.destinations or message.destination_sids)
                    or member.identity in message.destinations
                    or member.sid in message.destination_sids
                )
            )
            if messages:
                self._deliver(member, messages)

    def _deliver(self, member: Member, messages: tuple[tuple[bool, bytes], ...]) -> None:
        assert member.data_port is not None
        try:
            member.data_port.tell(SendData(messages))
        except MailboxFull:
            # Its transport does not keep up at all. Dropping a reliable message in silence is no way out.
            self._room.log("data.mailbox_full", member.sid, member.identity)
            if any(reliable for reliable, _ in messages):
                self._room.tell(member.sid, Disconnect(models.DisconnectReason.STATE_MISMATCH, Action.RECONNECT))
        except ActorDead:
            pass  # Its participant is on the way out and will say so.

    def congestion(self, sid: str, congested: bool) -> None:
        """Back-pressure: while somebody is behind, nobody's reliable data is read (reference-server, slow readers)."""
        before = bool(self._congested)
        (self._congested.add if congested else self._congested.discard)(sid)
        if bool(self._congested) != before:
            self._room.log("data.congested" if congested else "data.flowing", sid)
            for member in self._room.members.values():
                if member.data_port is not None:
                    self._room.tell(member.sid, PauseData(bool(self._congested)))

    # -- data tracks ------------------------------------------------------------------------------------------------

    def route(self, subscriber_sid: str, handles: Mapping[str, int]) -> None:
        """All data tracks that this member receives from now on."""
        for track_sid in list(self._handles):
            if track_sid not in handles:
                self._handles[track_sid].pop(subscriber_sid, None)
                if not self._handles[track_sid]:
                    del self._handles[track_sid]
        for track_sid, handle in handles.items():
            self._handles.setdefault(track_sid, {})[subscriber_sid] = handle

    def publish_frames(self, sender: Member, frames: tuple[DataTrackFrame, ...]) -> None:
        per_member: dict[str, list[bytes]] = {}
        for frame in frames:
            for sid, handle in self._handles.get(frame.track_sid, {}).items():
                member = self._room.members.get(sid)
                if member is not None and sender.admits(member.identity, frame.track_sid):
                    per_member.setdefault(sid, []).append(with_handle(frame.packet, handle))
        for sid, packets in per_member.items():
            port = self._room.members[sid].data_port
            if port is not None:
                try:
                    port.tell(SendDataTrack(tuple(packets)))
                except (MailboxFull, ActorDead):
                    self._room.log("data_track.dropped", sid)

    # -- blobs ------------------------------------------------------------------------------------------------------

    def store_blob(self, sid: str, blob: models.DataBlob) -> None:
        self._blobs.setdefault(sid, {})[key_of(blob.key)] = blob

    def find_blob(self, wanted: WantDataBlob) -> None:
        request = wanted.request
        owner = self._room.by_identity(request.participant_identity)
        blob = self._blobs.get(owner.sid, {}).get(key_of(request.key)) if owner is not None else None
        why_not = "participant not found" if owner is None else "data blob not found"
        self._room.tell(wanted.sid, DataBlobFound(request.request_id, blob, why_not))
