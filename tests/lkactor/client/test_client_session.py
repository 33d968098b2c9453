"""When a session comes back, and when it does not, without a server."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from livekit.protocol import models, rtc

from lkactor.client import session as module
from lkactor.client.events import Left, ParticipantLeft, SessionEvent, TrackPublished, TrackUnpublished
from lkactor.client.publication import Publisher, add_track
from lkactor.client.session import Session
from lkactor.client.signal import SignalError
from lkactor.client.tracks import LocalTrack, TrackSpec
from lkactor.dtls import Certificate

VP8 = TrackSpec("video/vp8", "v", models.TrackSource.CAMERA, 320, 180)


def with_session(test: Callable[[Session, list[SessionEvent]], None]) -> None:
    """A session that has joined nobody's room."""

    async def main() -> None:
        events: list[SessionEvent] = []
        session = Session(
            "ws://127.0.0.1:9",
            "token",
            on_event=events.append,
            auto_subscribe=True,
            certificate=Certificate.generate(),
            way="udp",
            reconnect=True,
        )
        session.join.participant.sid = "PA_me"
        session._make_connections()
        try:
            test(session, events)
        finally:
            session.close()

    trio.run(main)


def test_both_connections_may_fail_in_one_outage() -> None:
    def test(session: Session, events: list[SessionEvent]) -> None:
        for half in (session.publisher, session.subscriber):
            session._on_media_failed(half.transport, "ice: nothing answered")
        assert not session.left.is_set()
        session._on_media_failed(session.publisher.transport, "dtls: no handshake")
        assert session.left.is_set()
        assert "dtls: no handshake" in session.reason
        assert [type(event) for event in events] == [Left]

    with_session(test)


def test_leave_says_what_is_next() -> None:
    action = rtc.LeaveRequest.Action

    def test(session: Session, _: list[SessionEvent]) -> None:
        session._on_response(rtc.SignalResponse(leave=rtc.LeaveRequest(action=action.RESUME)))
        assert (session._broken, session._must_rejoin, session.left.is_set()) == (True, False, False)
        session._on_response(rtc.SignalResponse(leave=rtc.LeaveRequest(action=action.RECONNECT)))
        assert (session._broken, session._must_rejoin, session.left.is_set()) == (True, True, False)
        reason = models.DisconnectReason.ROOM_DELETED
        session._on_response(rtc.SignalResponse(leave=rtc.LeaveRequest(action=action.DISCONNECT, reason=reason)))
        assert session.reason == "ROOM_DELETED"

    with_session(test)


def test_a_moved_session_knows_its_new_room_and_token() -> None:
    def test(session: Session, events: list[SessionEvent]) -> None:
        old = models.ParticipantInfo(sid="PA_old", identity="old", tracks=[models.TrackInfo(sid="TR_1")])
        session._on_participant(old)
        moved = rtc.RoomMovedResponse(token="new", room=models.Room(name="there"))
        moved.participant.sid = "PA_me2"
        moved.other_participants.add(sid="PA_new", identity="new", tracks=[models.TrackInfo(sid="TR_2")])
        events.clear()
        session._on_response(rtc.SignalResponse(room_moved=moved))
        assert (session._token, session.join.room.name, session.join.participant.sid) == ("new", "there", "PA_me2")
        assert list(session.participants) == ["PA_new"]
        kinds = [type(event) for event in events]
        assert kinds.index(TrackUnpublished) < kinds.index(ParticipantLeft) < kinds.index(TrackPublished)

    with_session(test)


def test_left_is_the_last_event_whatever_was_on_its_way() -> None:
    def test(session: Session, events: list[SessionEvent]) -> None:
        session._on_participant(models.ParticipantInfo(sid="PA_x", identity="x"))
        session._finish("CLIENT_INITIATED")
        gone = models.ParticipantInfo(sid="PA_x", identity="x", state=models.ParticipantInfo.State.DISCONNECTED)
        session._on_response(rtc.SignalResponse(update=rtc.ParticipantUpdate(participants=[gone])))
        assert isinstance(events[-1], Left)

    with_session(test)


def test_a_refreshed_token_is_the_one_to_come_back_with() -> None:
    def test(session: Session, _: list[SessionEvent]) -> None:
        session._on_response(rtc.SignalResponse(refresh_token="fresh"))
        assert session._token == "fresh"

    with_session(test)


def test_what_a_server_may_say_raises_nothing() -> None:
    def test(session: Session, _: list[SessionEvent]) -> None:
        for text in ("", "{", "[]", '{"candidate": 3}', '{"candidate": "candidate:x"}'):
            session._on_response(rtc.SignalResponse(trickle=rtc.TrickleRequest(candidateInit=text)))
        session._on_response(rtc.SignalResponse())
        session._on_response(rtc.SignalResponse(offer=rtc.SessionDescription(type="offer", sdp="nonsense")))
        assert "cannot be answered" in session.reason

    with_session(test)


def test_all_tracks_are_published_again_though_the_first_request_is_lost() -> None:
    async def lost(_: rtc.AddTrackRequest) -> None:
        raise SignalError("the connection is closed")

    async def main(session: Session) -> None:
        publisher = Publisher(session.publisher.transport, session._rng, lambda _: None, lost)
        tracks = [LocalTrack(VP8, cid, session._rng) for cid in ("TR_a", "TR_b")]
        with pytest.raises(SignalError):
            await publisher.publish(tracks)
        assert list(publisher.tracks) == ["TR_a", "TR_b"]

    def test(session: Session, _: list[SessionEvent]) -> None:
        coroutine = main(session)
        with pytest.raises(StopIteration):
            coroutine.send(None)

    with_session(test)


def test_a_track_forgets_what_was_agreed_on_an_old_connection() -> None:
    def test(session: Session, _: list[SessionEvent]) -> None:
        track = LocalTrack(VP8, "TR_a", session._rng)
        track.attach(session.publisher.transport)
        track.info = models.TrackInfo(sid="TR_x")
        track.agreed(96)
        assert (track.sid, track.has_codec) == ("TR_x", True)
        track.attach(session.publisher.transport)
        assert (track.sid, track.has_codec, track.ready) == ("", False, False)
        track.send_payloads([b"x"], 0.0)  # dropped, as nobody agreed to it
        assert track.packets == 0

    with_session(test)


def test_an_add_track_request_names_codec_and_layer() -> None:
    request = add_track(VP8, "TR_a")
    assert (request.type, request.simulcast_codecs[0].codec) == (models.TrackType.VIDEO, "vp8")
    assert request.layers[0].quality == models.VideoQuality.HIGH


def test_there_are_as_many_attempts_as_the_docs_say() -> None:
    assert (len(module.RESUMES), len(module.REJOINS), round(sum(module.REJOINS))) == (3, 7, 23)
