"""Rooms and participants in virtual time: who hears what in which order, what time does, what a crash costs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import pytest
import trio
from livekit.protocol import models, rtc
from support.actor_leaks import run_actors
from support.domain_world import Guest, World, settle, world

from actors.kernel import FailNext
from actors.messages.participant import Disconnect, UpdateParticipant
from actors.messages.room import CloseRoom, GetRoom, ListParticipants, OutboundData, PublishData, UpdateRoomMetadata
from actors.messages.rooms import Drain
from actors.participant import JOIN_TIMEOUT, JOINED_NOTICE
from actors.room import QUALITY_FIRST, ROOM_UPDATE_INTERVAL
from actors.subscribing import NOT_FOUND_AFTER
from actors.tokens import AHEAD, INTERVAL, PACE

State = models.ParticipantInfo.State
Reason = models.DisconnectReason
Action = rtc.LeaveRequest.Action


def virtual(test: Callable[[World], Awaitable[None]], config: str = "") -> None:
    async def main() -> None:
        async with world(config) as hall:
            await test(hall)

    run_actors(main)


def leave_of(guest: Guest) -> tuple[int, int]:
    (leave,) = guest.heard("leave")
    return leave.reason, leave.action


# -- joining


def test_join_is_first_then_the_token_and_the_others_hear_in_order() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        assert ann.kinds()[0] == "join"
        assert "refresh_token" in ann.kinds()
        ben = await hall.join("ben")
        assert [p.identity for p in ben.heard("join")[0].other_participants] == ["ann"]
        assert ben.heard("join")[0].participant.state == State.JOINING
        states = ann.states_of("ben")
        assert states == sorted(states) and states[-1] == State.ACTIVE

    virtual(test)


def test_who_is_slow_to_connect_is_seen_as_joined() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await hall.join("ben", media=False, attributes={"seat": "3"})
        assert ann.states_of("ben") == []  # most are ACTIVE in a moment: one update, not two
        eve = await hall.join("eve")
        (ben,) = [p for p in eve.heard("join")[0].other_participants if p.identity == "ben"]
        assert (ben.state, dict(ben.attributes)) == (State.JOINED, {"seat": "3"})
        await trio.sleep(JOINED_NOTICE + 0.1)
        await settle()
        assert ann.states_of("ben") == [State.JOINED]

    virtual(test)


def test_who_never_connected_goes_with_its_signal_connection() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        ben = await hall.join("ben", media=False)
        await trio.sleep(JOINED_NOTICE + 0.1)
        await ben.lose_signal()
        assert ann.states_of("ben") == [State.JOINED, State.DISCONNECTED]

    virtual(test)


def test_versions_of_an_info_rise() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        for number in range(5):
            await ben.ref.ask(UpdateParticipant("", f"m{number}", {}, None), timeout=5.0)
        await settle()
        infos = [info for update in ann.heard("update") for info in update.participants if info.identity == "ben"]
        assert [info.metadata for info in infos][-5:] == [f"m{number}" for number in range(5)]
        versions = [info.version for info in infos]
        assert versions == sorted(versions) and len(set(versions[-5:])) == 5

    virtual(test)


def test_hidden_is_seen_by_nobody_and_sees_all() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        ghost = await hall.join("ghost", hidden=True)
        ben = await hall.join("ben")
        assert not ann.states_of("ghost") and not ben.states_of("ghost")
        assert [p.identity for p in ben.heard("join")[0].other_participants] == ["ann"]
        assert ghost.states_of("ben")[-1] == State.ACTIVE

    virtual(test)


def test_a_full_room_takes_only_those_who_do_not_count() -> None:
    async def test(hall: World) -> None:
        await hall.open(max_participants=1)
        await hall.join("ann")
        with pytest.raises(AssertionError, match="connection closed by media"):
            await hall.join("ben")
        await hall.join("helper", agent=True)
        again = await hall.join("ann")
        assert again.heard("join")

    virtual(test)


def test_the_newcomer_of_an_identity_wins() -> None:
    async def test(hall: World) -> None:
        watcher, older = await hall.join("ann"), await hall.join("eve", protocol=11)
        first = await hall.join("ben")
        second = await hall.join("ben")
        assert leave_of(first) == (Reason.DUPLICATE_IDENTITY, Action.DISCONNECT)
        assert first.sink.closed and not second.heard("leave")
        assert State.DISCONNECTED not in watcher.states_of("ben"), "from protocol 12 on the new sid says it all"
        assert State.DISCONNECTED in older.states_of("ben")
        room: models.Room = await (await hall.open()).ask(GetRoom(), timeout=5.0)
        assert room.num_participants == 3

    virtual(test)


# -- time


def test_an_empty_room_ends_after_its_timeout() -> None:
    async def test(hall: World) -> None:
        await hall.open(empty_timeout=30)
        await trio.sleep(29)
        assert await hall.find() is not None
        await trio.sleep(2)
        assert await hall.find() is None

    virtual(test)


def test_a_deserted_room_ends_after_the_departure_timeout_unless_somebody_comes() -> None:
    async def test(hall: World) -> None:
        await hall.open(departure_timeout=10)
        ann = await hall.join("ann")
        helper = await hall.join("helper", agent=True)
        await ann.ask(leave=rtc.LeaveRequest())
        await trio.sleep(9)
        await hall.join("ben")
        await trio.sleep(60)
        assert await hall.find() is not None
        room = await hall.open()
        infos = await room.ask(ListParticipants(), timeout=5.0)
        assert {info.identity for info in infos} == {"helper", "ben"}
        del infos
        for info in await room.ask(ListParticipants(), timeout=5.0):
            assert info.state == State.ACTIVE
        await (await hall.join("ben")).ask(leave=rtc.LeaveRequest())
        await trio.sleep(11)
        assert await hall.find() is None
        assert leave_of(helper) == (Reason.ROOM_CLOSED, Action.DISCONNECT)

    virtual(test)


def test_who_never_gets_active_is_sent_away() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann", media=False)
        await trio.sleep(JOIN_TIMEOUT - 1)
        assert not ann.heard("leave")
        await trio.sleep(2)
        assert leave_of(ann) == (Reason.JOIN_FAILURE, Action.DISCONNECT)

    virtual(test)


def test_tokens_are_fresh_every_five_minutes() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        assert len(ann.heard("refresh_token")) == 1
        await trio.sleep(INTERVAL * 3 + 1)
        assert len(ann.heard("refresh_token")) == 4

    virtual(test)


def test_who_is_changed_all_the_time_hears_of_its_token_now_and_then_and_the_last_one_has_it_all() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await trio.sleep(1)
        before, began = len(ann.heard("refresh_token")), trio.current_time()
        for number in range(100):
            await ann.ref.ask(UpdateParticipant("", f"m{number}", {}, None), timeout=5.0)
            await settle()
            if number < AHEAD / PACE:
                assert len(ann.heard("refresh_token")) == before + 1 + number, "a few changes are told at once"
            await trio.sleep(PACE / 5)
        took = trio.current_time() - began
        await trio.sleep(2 * PACE)
        told = ann.heard("refresh_token")[before:]
        assert took / PACE <= len(told) <= (took + AHEAD) / PACE + 3
        said = jwt.decode(told[-1], options={"verify_signature": False})
        assert said["metadata"] == "m99"
        await trio.sleep(INTERVAL - 1)
        assert len(ann.heard("refresh_token")) == before + len(told)
        await trio.sleep(2)
        assert len(ann.heard("refresh_token")) == before + len(told) + 1

    virtual(test)


def test_numbers_of_a_room_are_told_in_batches_and_metadata_at_once() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await trio.sleep(ROOM_UPDATE_INTERVAL + 1)
        before = len(ann.heard("room_update"))
        for number in range(5):
            await hall.join(f"guest{number}")
        assert len(ann.heard("room_update")) == before
        await (await hall.open()).ask(UpdateRoomMetadata("news"), timeout=5.0)
        await settle()
        assert [update.room.metadata for update in ann.heard("room_update")[before:]] == ["news"]
        assert ann.heard("room_update")[-1].room.num_participants == 6
        await hall.join("late")
        await trio.sleep(ROOM_UPDATE_INTERVAL + 1)
        assert ann.heard("room_update")[-1].room.num_participants == 7

    virtual(test)


def test_a_recorder_is_told_at_once() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await hall.join("camera", recorder=True)
        assert ann.heard("room_update")[-1].room.active_recording

    virtual(test)


def test_connection_quality_is_told_once_it_is_known_and_when_it_changes() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await trio.sleep(QUALITY_FIRST + 0.1)
        (update,) = ann.heard("connection_quality")
        assert [(q.participant_sid, q.quality) for q in update.updates] == [
            (ann.sid, models.ConnectionQuality.EXCELLENT)
        ]
        await trio.sleep(60)
        assert len(ann.heard("connection_quality")) == 1

    virtual(test)


def test_a_track_that_never_shows_up_is_said_so() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        await ann.ask(subscription=rtc.UpdateSubscription(track_sids=["TR_nowhere"], subscribe=True))
        await trio.sleep(NOT_FOUND_AFTER - 1)
        assert not ann.heard("subscription_response")
        await trio.sleep(2)
        (answer,) = ann.heard("subscription_response")
        assert (answer.track_sid, answer.err) == ("TR_nowhere", models.SubscriptionError.SE_TRACK_NOTFOUND)
        await ann.ask(subscription=rtc.UpdateSubscription(track_sids=["TR_else"], subscribe=True))
        await ann.ask(subscription=rtc.UpdateSubscription(track_sids=["TR_else"], subscribe=False))
        await trio.sleep(NOT_FOUND_AFTER + 1)
        assert len(ann.heard("subscription_response")) == 1

    virtual(test)


# -- the signal connection


def test_without_media_a_lost_signal_connection_is_the_end() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben", media=False)
        await ben.lose_signal()
        assert ann.states_of("ben")[-1] == State.DISCONNECTED

    virtual(test)


def test_a_resume_tells_what_was_missed() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        cid = await hall.join("cid")
        await ann.lose_signal()
        await ben.ask(leave=rtc.LeaveRequest())
        await hall.join("dan")
        await cid.ref.ask(UpdateParticipant("", "changed", {}, None), timeout=5.0)
        assert await ann.resume()
        assert ann.kinds()[0] == "reconnect"
        assert ann.states_of("ben") == [State.DISCONNECTED]
        assert ann.states_of("dan")[-1] == State.ACTIVE
        last = [info for update in ann.heard("update") for info in update.participants if info.identity == "cid"][-1]
        assert last.metadata == "changed"
        assert ann.kinds().index("update") < ann.kinds().index("room_update")
        assert await ann.resume()
        assert ann.states_of("ben") == [], "told once"

    virtual(test)


def test_the_resume_of_a_replaced_session_is_refused() -> None:
    async def test(hall: World) -> None:
        first = await hall.join("ann")
        second = await hall.join("ann")
        assert not await second.resume(sid=first.sid)
        assert not second.heard("leave"), "the session in place is not disturbed"
        assert await second.resume()

    virtual(test)


def test_sync_state_with_unknown_tracks_starts_over() -> None:
    async def test(hall: World) -> None:
        for state in (
            rtc.SyncState(publish_tracks=[rtc.TrackPublishedResponse(track=models.TrackInfo(sid="TR_unknown"))]),
            rtc.SyncState(publish_data_tracks=[rtc.PublishDataTrackResponse(info=models.DataTrackInfo(sid="DTR_x"))]),
        ):
            ann = await hall.join("ann")
            await ann.ask(sync_state=state)
            assert leave_of(ann) == (Reason.STATE_MISMATCH, Action.RECONNECT)

    virtual(test)


def test_requests_of_a_former_connection_count_no_more() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        old = ann.connection
        assert await ann.resume()
        new, ann.connection = ann.connection, old
        await ann.ask(leave=rtc.LeaveRequest())
        assert hall.events().count("participant.left") == 0
        ann.connection = new
        await ann.ask(leave=rtc.LeaveRequest())
        assert hall.events().count("participant.left") == 1

    virtual(test)


# -- requests and their answers


@pytest.mark.parametrize(
    ("grants", "update", "reason"),
    [
        ({}, {"name": "new"}, rtc.RequestResponse.Reason.NOT_ALLOWED),
        ({"can_update_own_metadata": True}, {"name": "new"}, rtc.RequestResponse.Reason.OK),
        ({"can_update_own_metadata": True}, {"name": "x" * 300}, rtc.RequestResponse.Reason.LIMIT_EXCEEDED),
        ({"can_update_own_metadata": True}, {"metadata": "x" * 600_000}, rtc.RequestResponse.Reason.LIMIT_EXCEEDED),
    ],
)
def test_update_metadata(grants: dict[str, Any], update: dict[str, str], reason: int) -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann", **grants)
        await ann.ask(update_metadata=rtc.UpdateParticipantMetadata(request_id=7, **update))
        await trio.sleep(1)
        (answer,) = ann.heard("request_response")
        assert (answer.request_id, answer.reason) == (7, reason)

    virtual(test)


def test_data_goes_to_whom_it_is_meant_for_and_never_back() -> None:
    """The room's own part: with no transport bound there is nothing to count but who is asked."""

    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        room = await hall.open()
        for destinations in (frozenset[str](), frozenset({"ben"}), frozenset({"nobody"})):
            data = OutboundData(True, b"x", destinations, frozenset())
            room.tell(PublishData(ann.sid, (data,)))
        await settle()
        assert not ann.heard("leave") and not ben.heard("leave")

    virtual(test)


def test_server_calls_to_a_client_that_does_not_answer_are_over_in_time() -> None:
    from actors.messages.participant import PerformRpc

    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        send, receive = trio.open_memory_channel[Any](1)
        await ann.ref.ask(PerformRpc("method", "", 0, send), timeout=5.0)
        begun = trio.current_time()
        failed = await receive.receive()
        assert (failed.code, trio.current_time() - begun) == (1501, pytest.approx(2.0))
        send, receive = trio.open_memory_channel[Any](1)
        await ann.ref.ask(PerformRpc("method", "", 0, send), timeout=5.0)
        await ann.ask(leave=rtc.LeaveRequest())
        assert (await receive.receive()).code == 1503

    virtual(test)


# -- crashes and endings


def test_a_crashed_participant_is_gone_and_the_room_goes_on() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        hall.system.inject(FailNext(ben.ref.path, RuntimeError("a bug")))
        await ben.ask(ping=1)
        assert ann.states_of("ben")[-1] == State.DISCONNECTED
        assert not ann.heard("leave")
        assert leave_of(ben)[1] == Action.RECONNECT
        back = await hall.join("ben")
        assert ann.states_of("ben")[-1] == State.ACTIVE and back.heard("join")

    virtual(test)


def test_a_crashed_transport_sends_its_client_into_a_reconnect() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        path = f"{ben.ref.path}/publisher"
        ref = hall.system.find(path)
        assert ref is not None
        ref.kill()
        await settle()
        assert leave_of(ben) == (Reason.STATE_MISMATCH, Action.RECONNECT)
        assert not ann.heard("leave")

    virtual(test)


def test_who_ends_in_whatever_way_leaves_no_route() -> None:
    async def test(hall: World) -> None:
        ports = hall.services.ports
        ann, ben = await hall.join("ann"), await hall.join("ben")
        assert ports.bound > 1
        ben.ref.kill()
        await settle()
        of_ann = ports.bound
        hall.system.inject(FailNext(ann.ref.path, RuntimeError("a bug")))
        await ann.ask(ping=1)
        await settle()
        assert of_ann > 0 and ports.bound == 0

    virtual(test)


def test_a_crashed_room_sends_everyone_away_and_comes_back_as_it_was() -> None:
    async def test(hall: World) -> None:
        room = await hall.open(metadata="kept", max_participants=7)
        ann, ben = await hall.join("ann"), await hall.join("ben")
        hall.system.inject(FailNext(room.path, RuntimeError("a bug")))
        room.tell(GetRoom())
        await settle()
        assert not ann.ref.alive and not ben.ref.alive, "the front tells their clients to reconnect"
        again: models.Room = await (await hall.open()).ask(GetRoom(), timeout=5.0)
        assert (again.metadata, again.max_participants) == ("kept", 7)

    virtual(test)


def test_a_deleted_room_says_why_and_drain_waits_for_all() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann", "one")
        ben = await hall.join("ben", "two")
        (await hall.open("one")).tell(CloseRoom(Reason.ROOM_DELETED))
        await settle()
        assert leave_of(ann) == (Reason.ROOM_DELETED, Action.DISCONNECT)
        for room in await hall.rooms.ask(Drain(), timeout=5.0):
            await room.wait_closed()
        assert leave_of(ben) == (Reason.SERVER_SHUTDOWN, Action.DISCONNECT)

    virtual(test)


def test_removed_by_the_api() -> None:
    async def test(hall: World) -> None:
        ann, ben = await hall.join("ann"), await hall.join("ben")
        ben.ref.tell(Disconnect(Reason.PARTICIPANT_REMOVED, Action.DISCONNECT))
        await settle()
        assert leave_of(ben) == (Reason.PARTICIPANT_REMOVED, Action.DISCONNECT)
        infos = [info for update in ann.heard("update") for info in update.participants if info.identity == "ben"]
        assert infos[-1].disconnect_reason == Reason.PARTICIPANT_REMOVED

    virtual(test)


def test_the_same_seed_tells_the_same_story() -> None:
    stories = []
    for _ in range(2):

        async def main() -> None:
            async with world(seed=7) as hall:
                ann = await hall.join("ann")
                await hall.join("ben")
                await ann.ask(leave=rtc.LeaveRequest())
                stories.append([str(entry) for entry in hall.services.events.entries()])

        run_actors(main)
    assert stories[0] == stories[1]


def test_a_token_that_says_too_much_does_not_get_in() -> None:
    async def test(hall: World) -> None:
        ann = await hall.join("ann")
        with pytest.raises(AssertionError, match="connection closed by media"):
            await hall.join("ben", attributes={"key": "x" * 200})
        assert not ann.states_of("ben")

    virtual(test, "limit: {max_attributes_size: 100}")
