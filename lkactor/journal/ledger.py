"""What is open: rooms that have started and not finished, with their participants and tracks, by the events alone.

A server that was killed could not say goodbye for its rooms. At its next start the ledger writes what it owes, so that
started and finished, joined and left, published and unpublished always pair up for whoever counts them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from lkactor.journal.news import room_finished, track_event, without_tracks
from lkactor.journal.records import Record

State = models.ParticipantInfo.State


@dataclass(slots=True)
class OpenRoom:
    room: models.Room
    started: Record | None = None
    joined: dict[str, Record] = field(default_factory=dict)
    """By participant sid."""
    published: dict[str, Record] = field(default_factory=dict)
    """By track sid."""


class Ledger:
    """Fold records in; ask what would close them."""

    def __init__(self) -> None:
        self.rooms: dict[str, OpenRoom] = {}
        """By room sid."""

    def fold(self, record: Record) -> None:
        event = record.event
        if event.event == "room_finished":
            self.rooms.pop(event.room.sid, None)
            return
        if not event.room.sid:
            return
        entry = self.rooms.get(event.room.sid)
        if entry is None:
            if event.event not in ("room_started", "participant_joined", "track_published"):
                return
            entry = self.rooms[event.room.sid] = OpenRoom(event.room)
        match event.event:
            case "room_started":
                entry.started = record
            case "participant_joined":
                entry.room = event.room
                entry.joined[event.participant.sid] = record
            case "participant_left" | "participant_connection_aborted":
                sid = event.participant.sid
                entry.joined.pop(sid, None)
                entry.published = {
                    track: opened for track, opened in entry.published.items() if opened.event.participant.sid != sid
                }
            case "track_published":
                entry.published[event.track.sid] = record
            case "track_unpublished":
                entry.published.pop(event.track.sid, None)
            case _:
                pass

    def records(self) -> Iterator[Record]:
        """What is open, as the records that opened it: folded into an empty ledger they give this one."""
        for entry in self.rooms.values():
            if entry.started is not None:
                yield entry.started
            yield from entry.joined.values()
            yield from entry.published.values()

    def closing(self, reason: int, rooms: Iterable[str] | None = None) -> list[WebhookEvent]:
        """The events that close these rooms (by sid; None: all): tracks, participants, then the room.

        `reason` is a models.DisconnectReason. Folds nothing: that is done when the events are written.
        """
        events: list[WebhookEvent] = []
        for sid in list(self.rooms) if rooms is None else rooms:
            entry = self.rooms.get(sid)
            if entry is None:
                continue
            for published in entry.published.values():
                event = published.event
                events.append(track_event("track_unpublished", event.room, event.participant, event.track))
            for joined in entry.joined.values():
                info = without_tracks(joined.event.participant)
                info.state = State.DISCONNECTED
                info.disconnect_reason = reason  # type: ignore[assignment]
                events.append(WebhookEvent(event="participant_left", room=entry.room, participant=info))
            events.append(room_finished(entry.room))
        return events
