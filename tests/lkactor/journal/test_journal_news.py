"""From changes to events, the ledger of what is open, and a webhook's body and signature."""

from __future__ import annotations

import base64
import hashlib
import json
import time

import jwt
from livekit.api import TokenVerifier, WebhookReceiver
from livekit.protocol import models
from livekit.protocol.webhook import WebhookEvent

from lkactor.journal import Journal, Ledger, Limits, MemoryStore, Record, RoomNews, execute
from lkactor.journal.log import HEADER
from lkactor.journal.records import scan
from lkactor.journal.store import Operation, Replace
from lkactor.journal.webhook import authorization, event_filter, event_json

State = models.ParticipantInfo.State
ROOM = models.Room(sid="RM_1", name="demo", num_participants=2)
SECRET = "a-secret-for-tests-of-32-bytes-or-more"


def person(sid: str, state: int, *tracks: str, reason: int = 0) -> models.ParticipantInfo:
    infos = [models.TrackInfo(sid=track, name=track.lower()) for track in tracks]
    return models.ParticipantInfo(
        sid=sid,
        identity=sid.lower(),
        state=state,
        tracks=infos,
        disconnect_reason=reason,  # type: ignore[arg-type]
    )


def short(events: list[WebhookEvent]) -> list[tuple[str, str, str]]:
    return [(event.event, event.participant.sid, event.track.sid) for event in events]


def test_joined_means_active_and_tracks_never_come_before_it() -> None:
    news = RoomNews()
    assert news.changed(person("PA_1", State.JOINED, "TR_1"), ROOM) == []
    events = news.changed(person("PA_1", State.ACTIVE, "TR_1"), ROOM)
    assert short(events) == [("participant_joined", "PA_1", ""), ("track_published", "PA_1", "TR_1")]
    assert news.changed(person("PA_1", State.ACTIVE, "TR_1"), ROOM) == []
    events = news.changed(person("PA_1", State.ACTIVE, "TR_2"), ROOM)
    assert short(events) == [("track_unpublished", "PA_1", "TR_1"), ("track_published", "PA_1", "TR_2")]
    events = news.left(person("PA_1", State.DISCONNECTED, "TR_2", reason=1), ROOM)
    assert short(events) == [("track_unpublished", "PA_1", "TR_2"), ("participant_left", "PA_1", "")]
    assert events[1].participant.disconnect_reason == models.DisconnectReason.CLIENT_INITIATED
    assert not events[1].participant.tracks


def test_who_never_was_active_has_aborted() -> None:
    news = RoomNews()
    news.changed(person("PA_1", State.JOINED), ROOM)
    assert short(news.left(person("PA_1", State.DISCONNECTED), ROOM)) == [
        ("participant_connection_aborted", "PA_1", "")
    ]


def test_a_track_event_names_the_room_and_who_only() -> None:
    news = RoomNews()
    track = news.changed(person("PA_1", State.ACTIVE, "TR_1"), ROOM)[1]
    assert track.room == models.Room(sid="RM_1", name="demo")
    assert track.participant == models.ParticipantInfo(sid="PA_1", identity="pa_1")
    assert track.track.name == "tr_1"
    full = RoomNews(full_room=True).changed(person("PA_1", State.ACTIVE, "TR_1"), ROOM)[1]
    assert full.room == ROOM


def test_the_end_of_a_room_ends_what_is_in_it() -> None:
    news = RoomNews()
    news.changed(person("PA_1", State.ACTIVE, "TR_1"), ROOM)
    news.changed(person("PA_2", State.ACTIVE), ROOM)
    events = news.finished(ROOM, models.DisconnectReason.ROOM_DELETED)
    assert short(events) == [
        ("track_unpublished", "PA_1", "TR_1"),
        ("participant_left", "PA_1", ""),
        ("participant_left", "PA_2", ""),
        ("room_finished", "", ""),
    ]
    left = events[1].participant
    assert (left.state, left.disconnect_reason) == (State.DISCONNECTED, models.DisconnectReason.ROOM_DELETED)
    assert short(news.finished(ROOM, 0)) == [("room_finished", "", "")]
    waiting = person("PA_3", State.JOINED)
    assert short(news.finished(ROOM, 0, [waiting]))[0] == ("participant_connection_aborted", "PA_3", "")
    assert waiting.state == State.JOINED


def history() -> list[WebhookEvent]:
    """One room that is over, and one in which a person with a track is left."""
    news, other = RoomNews(), RoomNews()
    second = models.Room(sid="RM_2", name="other")
    return [
        *news.started(ROOM),
        *other.started(second),
        *news.changed(person("PA_1", State.ACTIVE, "TR_1"), ROOM),
        *other.changed(person("PA_2", State.ACTIVE, "TR_2", "TR_3"), second),
        *other.changed(person("PA_3", State.ACTIVE, "TR_4"), second),
        *news.finished(ROOM, 0),
        *other.changed(person("PA_2", State.ACTIVE, "TR_3"), second),
        *other.left(person("PA_3", State.DISCONNECTED), second),
    ]


CLOSING = [("track_unpublished", "PA_2", "TR_3"), ("participant_left", "PA_2", ""), ("room_finished", "", "")]


def test_the_ledger_closes_what_is_open() -> None:
    ledger = Ledger()
    for cursor, event in enumerate(history(), 1):
        ledger.fold(Record(cursor, event))
    events = ledger.closing(models.DisconnectReason.SERVER_SHUTDOWN)
    assert short(events) == CLOSING
    assert events[2].room.name == "other"
    assert events[1].participant.disconnect_reason == models.DisconnectReason.SERVER_SHUTDOWN
    assert ledger.closing(0, ["RM_1"]) == []
    for cursor, event in enumerate(events, 100):
        ledger.fold(Record(cursor, event))
    assert ledger.rooms == {}
    assert ledger.closing(0) == []


def test_a_log_remembers_what_is_open_whatever_segments_are_left() -> None:
    for segment_bytes, total in ((1 << 20, 1 << 20), (300, 1 << 20), (300, 600)):
        store = MemoryStore()
        limits = Limits(segment_bytes=segment_bytes, total_bytes=total)
        journal = Journal.open(store, 1.0, limits)
        for event in history():
            batch = journal.append([event], 1.0)
            execute(store, batch.operations)
            journal.commit(batch)
            again = Journal.open(store, 1.0, limits)
            assert short(again.ledger.closing(0)) == short(journal.ledger.closing(0))
        assert short(Journal.open(store, 1.0, limits).ledger.closing(0)) == CLOSING
        store.replace("open", b"damaged")
        if total > 600:
            assert short(Journal.open(store, 1.0, limits).ledger.closing(0)) == CLOSING


def test_body_and_signature_are_what_the_official_receiver_takes() -> None:
    event = WebhookEvent(
        event="participant_joined",
        id="EV_1",
        created_at=1_700_000_000,
        room=models.Room(sid="RM_1", name='Zoë "quoted"', empty_timeout=300, creation_time_ms=2**53 + 1),
        participant=models.ParticipantInfo(sid="PA_1", state=State.ACTIVE, metadata="ü\n"),
    )
    text = event_json(event)
    tree = json.loads(text)
    assert "\n" not in text
    assert tree["createdAt"] == "1700000000"
    assert tree["room"]["emptyTimeout"] == 300
    assert tree["room"]["creationTimeMs"] == str(2**53 + 1)
    assert tree["participant"]["state"] == "ACTIVE"
    assert "numDropped" not in tree
    token = authorization(text.encode(), "devkey", SECRET, 1_700_000_000.9)
    claims = jwt.decode(token, SECRET, algorithms=["HS256"], options={"verify_exp": False})
    assert claims == {
        "iss": "devkey",
        "iat": 1_700_000_000,
        "nbf": 1_700_000_000,
        "exp": 1_700_000_300,
        "sha256": base64.b64encode(hashlib.sha256(text.encode()).digest()).decode(),
    }


def test_the_official_receiver_takes_it() -> None:
    text = event_json(WebhookEvent(event="room_started", id="EV_1", room=ROOM))
    token = authorization(text.encode(), "devkey", SECRET, time.time())
    receiver = WebhookReceiver(TokenVerifier("devkey", SECRET))
    assert receiver.receive(text, token).room == ROOM


def test_filters() -> None:
    assert event_filter((), ())("room_started")
    assert not event_filter((), ("room_started",))("room_started")
    assert event_filter((), ("room_started",))("room_finished")
    only = event_filter(("room_started",), ("room_started",))
    assert only("room_started")
    assert not only("room_finished")


def test_killed_between_any_two_writes_the_ledger_agrees_with_the_log() -> None:
    """Also in the middle of a rotation: snapshot written, segment not yet."""
    limits = Limits(segment_bytes=400)
    journal = Journal.open(MemoryStore(), 1.0, limits)
    operations: list[Operation] = []
    for number in range(3):
        for events in (history()[:5], history()[5:]):
            for event in events:
                event.room.sid += str(number)
            operations += journal.append(events, 1.0).operations
    assert sum(isinstance(operation, Replace) for operation in operations) > 5
    for count in range(len(operations) + 1):
        store = MemoryStore()
        execute(store, operations[:count])
        reopened = Journal.open(store, 1.0, limits)
        expected = Ledger()
        for name in sorted(store.names()):
            if name != "open":
                for record in scan(store.read(name, HEADER)).records:
                    expected.fold(record)
        assert sorted(short(reopened.ledger.closing(0))) == sorted(short(expected.closing(0))), count
