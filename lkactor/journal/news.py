"""From the changes of one room to its events, in LiveKit's words and order (livekit-surface 6).

| event | when |
|---|---|
| room_started, room_finished | the room is there; it is closed |
| participant_joined | it is ACTIVE for the first time: its media connection stands |
| participant_left | after it was ACTIVE; its tracks are unpublished first |
| participant_connection_aborted | it ends without ever having been ACTIVE |
| track_published, track_unpublished | of participants that have joined, never before the join |

A track's event names room and participant by sid and name only, unless `full_room`.
"""

from __future__ import annotations

from collections.abc import Iterable

from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

State = models.ParticipantInfo.State
ACTIVE = State.ACTIVE


class RoomNews:
    """The memory of one room: who has joined, with which tracks. Arguments are not kept and not changed."""

    def __init__(self, *, full_room: bool = False) -> None:
        self._full_room = full_room
        self._joined: dict[str, models.ParticipantInfo] = {}
        """As last seen, by sid."""

    def started(self, room: models.Room) -> list[WebhookEvent]:
        return [WebhookEvent(event="room_started", room=room)]

    def changed(self, info: models.ParticipantInfo, room: models.Room) -> list[WebhookEvent]:
        """A participant's new public info, state DISCONNECTED excepted."""
        before = self._joined.get(info.sid)
        if before is None:
            if info.state != ACTIVE:
                return []
            events = [WebhookEvent(event="participant_joined", room=room, participant=info)]
            before = without_tracks(info)
        else:
            events = []
        now = _copy(info)
        self._joined[info.sid] = now
        return events + self._track_changes(before, now, room)

    def left(self, info: models.ParticipantInfo, room: models.Room) -> list[WebhookEvent]:
        """A participant's last info: state DISCONNECTED, with the reason."""
        before = self._joined.pop(info.sid, None)
        last = without_tracks(info)
        if before is None:
            return [WebhookEvent(event="participant_connection_aborted", room=room, participant=last)]
        events = self._track_changes(before, last, room)
        events.append(WebhookEvent(event="participant_left", room=room, participant=last))
        return events

    def finished(
        self, room: models.Room, reason: int, present: Iterable[models.ParticipantInfo] = ()
    ) -> list[WebhookEvent]:
        """The room is over; who is still `present`, or has joined and not left, goes first.

        `reason` is a models.DisconnectReason.
        """
        events = []
        for info in {**self._joined, **{info.sid: info for info in present}}.values():
            last = _copy(info)
            last.state = State.DISCONNECTED
            last.disconnect_reason = reason  # type: ignore[assignment]
            events += self.left(last, room)
        return [*events, room_finished(room)]

    def _track_changes(
        self, before: models.ParticipantInfo, now: models.ParticipantInfo, room: models.Room
    ) -> list[WebhookEvent]:
        old = {track.sid: track for track in before.tracks}
        new = {track.sid: track for track in now.tracks}
        changes = [("track_unpublished", track) for sid, track in old.items() if sid not in new]
        changes += [("track_published", track) for sid, track in new.items() if sid not in old]
        shown = room if self._full_room else models.Room(sid=room.sid, name=room.name)
        return [track_event(name, shown, now, track) for name, track in changes]


def track_event(
    name: str, room: models.Room, participant: models.ParticipantInfo, track: models.TrackInfo
) -> WebhookEvent:
    who = models.ParticipantInfo(sid=participant.sid, identity=participant.identity)
    return WebhookEvent(event=name, room=room, participant=who, track=track)


def room_finished(room: models.Room) -> WebhookEvent:
    return WebhookEvent(event="room_finished", room=room)


def without_tracks(info: models.ParticipantInfo) -> models.ParticipantInfo:
    """A copy."""
    copy = _copy(info)
    del copy.tracks[:]
    return copy


def _copy(info: models.ParticipantInfo) -> models.ParticipantInfo:
    copy = models.ParticipantInfo()
    copy.CopyFrom(info)
    return copy
