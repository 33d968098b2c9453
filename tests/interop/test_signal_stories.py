"""Signalling on the wire where it takes several connections: rooms, permissions, resumes, versions of the protocol.

Each story was proven against livekit-server 1.13.5 (see test_signal_protocol.py); those with `ours` differ on purpose.
"""

import asyncio
import base64
import itertools
import json
from collections.abc import Awaitable, Callable
from typing import Any

import jwt
import pytest
from livekit import api
from livekit.protocol import models, rtc
from support.interop import MARKS, run
from support.signal_client import SECRET, Refused, Scene, Server, SignalClient, query, scene
from support.signal_media import connect, publish

pytestmark = MARKS
ROOMS = itertools.count(1)
State = models.ParticipantInfo.State
Reason = models.DisconnectReason
Action = rtc.LeaveRequest.Action
OWN = {"canUpdateOwnMetadata": True}
LIMIT = 2 * 1024 * 1024
Story = Callable[..., Awaitable[None]]
STORIES: list[Any] = []


def story(*cases: tuple[Any, ...], ours: str = "") -> Callable[[Story], Story]:
    """Registers a story; it is told once per case, with these arguments. `ours`: why the reference is not asked."""

    def register(tell: Story) -> Story:
        for case in cases or ((),):
            name = "-".join([tell.__name__, *(str(value).lower() for value in case)])
            STORIES.append(pytest.param(tell, case, ours, id=name))
        return tell

    return register


@pytest.mark.parametrize(("tell", "case", "ours"), STORIES)
def test_story(signal_server: Server, tell: Story, case: tuple[Any, ...], ours: str) -> None:
    if ours and signal_server.reference:
        pytest.skip(ours)

    async def test() -> None:
        async with scene(signal_server, f"story-{next(ROOMS)}") as stage:
            await tell(stage, *case)

    run(test, 40.0)


# -- small things


def kinds(client: SignalClient, *of: str, since: int = 0) -> list[str]:
    """Only those named; the rest comes when it comes."""
    return [heard.kind for heard in client.heard[since:] if heard.kind in of]


async def update(stage: Scene, identity: str = "alice", **fields: Any) -> models.ParticipantInfo:
    """UpdateParticipant. `permission`: a dict."""
    if "permission" in fields:
        fields["permission"] = models.ParticipantPermission(**fields["permission"])
    async with stage.server.admin() as rooms:
        return await rooms.update_participant(
            api.UpdateParticipantRequest(room=stage.room, identity=identity, **fields)
        )


def claims(token: str) -> dict[str, Any]:
    decoded: dict[str, Any] = jwt.decode(token, SECRET, algorithms=["HS256"])
    return decoded


def leave_of(client: SignalClient) -> rtc.LeaveRequest:
    """The last thing it was told."""
    assert client.heard[-1].kind == "leave", client.story()
    leave: rtc.LeaveRequest = client.heard[-1].body
    return leave


def is_final(leave: rtc.LeaveRequest, reason: Any, protocol: int, action: Any = Action.DISCONNECT) -> None:
    """What a client of this protocol is told."""
    assert leave.reason == reason
    assert leave.action == (action if protocol >= 13 else Action.DISCONNECT)
    assert leave.can_reconnect == (protocol < 13 and action == Action.RECONNECT)


async def active(stage: Scene, identity: str = "alice", **fields: Any) -> SignalClient:
    """With one peer connection, for it is there sooner."""
    return await connect(await stage.join(identity, v1=True, **fields), single=True)


ALL = {"can_subscribe": True, "can_publish": True, "can_publish_data": True}


# -- frames


@story()
async def answers_follow_the_latest_frame(stage: Scene) -> None:
    alice = await stage.join()
    assert not alice.heard[0].text
    for text in (True, False, True):
        alice.json = text
        mark = await alice.ask(ping_req=rtc.Ping(timestamp=1))
        await alice.expect("pong_resp", since=mark)
        assert alice.said("pong_resp", since=mark)[0].text == text
        await alice.fence()
        assert alice.heard[-1].text == text


@story(("binary",), ("text",), ours="livekit-server 1.13.5 has no limit yet")
async def too_large_a_frame(stage: Scene, kind: str) -> None:
    alice = await stage.join()
    await alice.send_raw("x" * (LIMIT + 1) if kind == "text" else bytes(LIMIT + 1))
    assert await alice.ended() == 1009


@story(("binary",), ("text",))
async def the_largest_frame(stage: Scene, kind: str) -> None:
    """Unknown fields fill it up."""
    alice = await stage.join()
    if kind == "text":
        frame: str | bytes = '{"nonsense":"' + "x" * (LIMIT - 15) + '"}'
    else:
        frame = b"\xfa\x3f" + b"\xf9\xff\x7f" + b"x" * (LIMIT - 5)
        rtc.SignalRequest.FromString(frame)
    assert len(frame) == LIMIT
    await alice.send_raw(frame)
    await alice.fence()


@story((b"\xff\xff",), ("nonsense",), ("{",), ("[]",), ('{"ping": {}}',), ours="the reference ends the connection")
async def a_frame_that_is_no_request(stage: Scene, frame: str | bytes) -> None:
    alice = await stage.join()
    await alice.send_raw(frame)
    await alice.fence()


@story((b"\xff\xff",), ("nonsense",), ours="the reference ends the connection at the first")
async def too_many_frames_that_are_no_requests(stage: Scene, frame: str | bytes) -> None:
    alice = await stage.join()
    for _ in range(21):
        await alice.send_raw(frame)
    assert await alice.ended() == 1000


@story((False,), (True,), ours="a wish of ours: the first frame, too, in JSON")
async def the_first_frame_in_json(stage: Scene, wanted: bool) -> None:
    token = stage.server.token("alice", stage.room)
    client = SignalClient(stage.server, stage.room, "alice")
    stage.clients.append(client)
    alice = await client.open(f"{stage.server.url}/rtc?{query(token)}" + "&json=1" * wanted)
    await alice.expect("join")
    assert alice.heard[0].text == wanted


@story()
async def a_flood_of_requests_is_answered_in_order(stage: Scene) -> None:
    alice = await stage.join()
    mark = len(alice.heard)
    for number in range(1, 151):
        await alice.ask(ping_req=rtc.Ping(timestamp=number))
    await alice.until(lambda: len(alice.said("pong_resp", since=mark)) == 150, "all the answers")
    assert [heard.body.last_ping_timestamp for heard in alice.said("pong_resp")] == list(range(1, 151))


@story()
async def a_client_that_does_not_read_is_cut_off(stage: Scene) -> None:
    bob = await stage.join("bob", grants=OWN)
    alice = await stage.join("alice", read=False)
    for number in range(300):
        await bob.ask(update_metadata=rtc.UpdateParticipantMetadata(metadata=f"{number}" + "x" * 150_000))
        if number % 10 == 9:
            await bob.fence()
    alice.read()
    await alice.ended()
    assert len(alice.said("update")) < 300


# -- joining


@story(*itertools.product((0, 2, 3, 7, 8, 12, 13, 15, 16, 17)))
async def the_join_response(stage: Scene, protocol: int) -> None:
    alice = await stage.join(protocol=protocol)
    bob = await stage.join("bob", protocol=protocol)
    join, info = bob.join, bob.join.participant
    assert (join.ping_interval, join.ping_timeout) == (5, 15)
    assert join.server_info.protocol == 17 and join.server_version == join.server_info.version == "1.13.5"
    assert join.server_info.agent_protocol == 1 and join.server_info.node_id.startswith("ND_")
    assert join.subscriber_primary == (protocol >= 3)
    assert join.fast_publish
    assert join.sif_trailer and join.sif_trailer == alice.join.sif_trailer
    assert join.room.sid == alice.join.room.sid and join.room.name == stage.room and join.room.turn_password
    assert info.identity == "bob" and info.sid.startswith("PA_") and info.state == State.JOINING
    assert info.permission.can_publish and info.permission.can_subscribe and not info.permission.hidden
    assert [other.identity for other in join.other_participants] == ["alice"]
    assert join.other_participants[0].state == State.JOINED
    video = [codec.mime.lower() for codec in join.enabled_publish_codecs]
    assert video[:2] == ["video/vp8", "video/h264"] and not any(mime.endswith("rtx") for mime in video)
    await bob.expect("refresh_token")
    if protocol >= 3:
        offer = await bob.expect("offer")
        assert 2 <= offer.id <= 257  # One more than a number from 1 to 256.
        assert "webrtc-datachannel" in offer.sdp
    else:
        await bob.fence()
        assert not bob.said("offer")


@story()
async def who_may_not_subscribe_has_the_publisher_as_primary(stage: Scene) -> None:
    alice = await stage.join(grants={"canSubscribe": False, "canPublish": False})
    assert not alice.join.subscriber_primary and not alice.join.fast_publish


@story()
async def a_join_request_says_everything(stage: Scene) -> None:
    alice = await stage.join(
        v1=True,
        grants={**OWN, "metadata": "of the token", "attributes": {"a": "1", "b": "2"}},
        metadata="of the request",
        participant_attributes={"b": "3", "a": ""},
        add_track_requests=[
            rtc.AddTrackRequest(cid="c1", type=models.TrackType.AUDIO),
            rtc.AddTrackRequest(cid="c2", type=models.TrackType.VIDEO),
            rtc.AddTrackRequest(cid="c3", type=models.TrackType.DATA),
        ],
    )
    info = alice.join.participant
    assert info.metadata == "of the request"
    assert dict(info.attributes) == {"a": "1", "b": "3"}
    assert not alice.join.subscriber_primary
    await alice.expect("request_response", lambda answer: answer.add_track.cid == "c3")
    assert [heard.body.cid for heard in alice.said("track_published")] == ["c1", "c2"]
    await alice.fence()
    assert not alice.said("offer"), "with one peer connection it is the client that offers"


@story()
async def a_join_request_needs_the_right_to_its_metadata(stage: Scene) -> None:
    with pytest.raises(Refused) as refused:
        await stage.join(v1=True, metadata="of the request")
    assert refused.value.status == 401


@story()
async def attributes_of_the_query(stage: Scene) -> None:
    encoded = base64.urlsafe_b64encode(json.dumps({"a": "1", "b": ""}).encode()).decode()
    alice = await stage.join(grants=OWN, attributes=encoded)
    assert dict(alice.join.participant.attributes) == {"a": "1"}


@story((11,), (12,), (13,))
async def the_same_identity_joins_again(stage: Scene, protocol: int) -> None:
    bob = await stage.join("bob", protocol=protocol)
    first = await stage.join(protocol=protocol)
    await bob.info("alice")
    second = await stage.join()
    assert await first.ended() == 1000
    is_final(leave_of(first), Reason.DUPLICATE_IDENTITY, protocol)
    assert second.sid != first.sid
    assert [other.identity for other in second.join.other_participants] == ["bob"]
    await bob.info("alice", lambda info: info.sid == second.sid)
    gone = [info for info in bob.infos("alice") if info.sid == first.sid and info.state == State.DISCONNECTED]
    assert bool(gone) == (protocol < 12)


# -- who sees what


@story()
async def the_hidden_are_seen_by_themselves_only(stage: Scene) -> None:
    alice = await stage.join()
    ghost = await stage.join("ghost", grants={"hidden": True, **OWN})
    bob = await stage.join("bob", grants=OWN)
    assert [other.identity for other in bob.join.other_participants] == ["alice"]
    assert {other.identity for other in ghost.join.other_participants} == {"alice"}
    await ghost.ask(update_metadata=rtc.UpdateParticipantMetadata(name="Boo"))
    await ghost.info("ghost", lambda info: info.name == "Boo")
    await bob.ask(update_metadata=rtc.UpdateParticipantMetadata(name="Bob"))
    await alice.info("bob", lambda info: info.name == "Bob")
    await ghost.info("bob", lambda info: info.name == "Bob")
    assert not alice.infos("ghost") and not bob.infos("ghost")


@story((False,), (True,))
async def metadata_is_told_to_everybody(stage: Scene, v1: bool) -> None:
    alice = await stage.join(v1=v1, grants=OWN)
    bob = await stage.join("bob", v1=v1)
    await alice.ask(
        update_metadata=rtc.UpdateParticipantMetadata(name="Al", metadata="m", attributes={"a": "1"}, request_id=3)
    )
    await bob.info("alice", lambda info: (info.name, info.metadata, dict(info.attributes)) == ("Al", "m", {"a": "1"}))
    answer = await alice.expect("request_response")
    assert (answer.request_id, answer.reason) == (3, rtc.RequestResponse.Reason.OK)
    versions = [info.version for info in bob.infos("alice")]
    assert versions == sorted(versions) and versions[-1] > alice.join.participant.version
    token = claims(alice.said("refresh_token")[-1].body)
    assert (token["name"], token["metadata"], token["attributes"]) == ("Al", "m", {"a": "1"})
    assert (token["sub"], token["video"]["room"]) == ("alice", stage.room)
    assert token["exp"] - token["nbf"] >= 590


@story(("USER_REJECTED",), ("AGENT_ERROR",), ("ROOM_DELETED",))
async def others_hear_why_somebody_left(stage: Scene, reason: str) -> None:
    bob = await stage.join("bob")
    alice = await stage.join()
    await bob.info("alice")
    await alice.ask(leave=rtc.LeaveRequest(reason=reason))
    gone = await bob.info("alice", lambda info: info.state == State.DISCONNECTED)
    kept = reason if reason != "ROOM_DELETED" else "CLIENT_INITIATED"
    assert Reason.Name(gone.disconnect_reason) == kept


@story((False,), (True,))
async def a_signal_connection_lost_before_media_ends_the_session(stage: Scene, v1: bool) -> None:
    bob = await stage.join("bob")
    alice = await stage.join(v1=v1)
    await bob.info("alice")
    await alice.drop()
    gone = await bob.info("alice", lambda info: info.state == State.DISCONNECTED)
    assert gone.disconnect_reason == Reason.SIGNAL_CLOSE


@story((12,), (13,))
async def the_api_sends_somebody_away(stage: Scene, protocol: int) -> None:
    bob = await stage.join("bob")
    alice = await stage.join(protocol=protocol)
    async with stage.server.admin() as rooms:
        await rooms.remove_participant(api.RoomParticipantIdentity(room=stage.room, identity="alice"))
        assert await alice.ended() == 1000
        is_final(leave_of(alice), Reason.PARTICIPANT_REMOVED, protocol)
        gone = await bob.info("alice", lambda info: info.state == State.DISCONNECTED)
        assert gone.disconnect_reason == Reason.PARTICIPANT_REMOVED


@story((12,), (13,))
async def the_api_deletes_the_room(stage: Scene, protocol: int) -> None:
    alice = await stage.join(protocol=protocol)
    async with stage.server.admin() as rooms:
        await rooms.delete_room(api.DeleteRoomRequest(room=stage.room))
    assert await alice.ended() == 1000
    is_final(leave_of(alice), Reason.ROOM_DELETED, protocol)


@story()
async def the_metadata_of_the_room(stage: Scene) -> None:
    alice, bob = await stage.join(), await stage.join("bob", v1=True)
    async with stage.server.admin() as rooms:
        await rooms.update_room_metadata(api.UpdateRoomMetadataRequest(room=stage.room, metadata="new"))
    for client in (alice, bob):
        told = await client.expect("room_update", lambda update: update.room.metadata == "new")
        assert told.room.sid == alice.join.room.sid


@story()
async def a_recorder_is_told_of_at_once(stage: Scene) -> None:
    alice = await stage.join()
    await stage.join("tape", grants={"recorder": True, "hidden": True})
    await alice.expect("room_update", lambda update: update.room.active_recording)


# -- permissions that change in mid-call


@story((False,), (True,))
async def the_right_to_publish_is_withdrawn_and_given_back(stage: Scene, v1: bool) -> None:
    alice, bob = await stage.join(v1=v1), await stage.join("bob")
    await alice.fence()
    microphone = rtc.AddTrackRequest(cid="c", type=models.TrackType.AUDIO, source=models.TrackSource.MICROPHONE)
    mark = len(alice.heard)
    await update(stage, permission={"can_subscribe": True})
    info = await alice.info("alice", lambda info: not info.permission.can_publish, since=mark)
    assert info.permission.can_subscribe and not info.permission.can_publish_data
    token = await alice.expect("refresh_token", since=mark)
    video = claims(token)["video"]
    assert not video["canPublish"] and not video["canPublishData"] and video["canSubscribe"]
    await bob.info("alice", lambda info: not info.permission.can_publish)
    since = await alice.ask(add_track=microphone)
    answer = await alice.expect("request_response", since=since)
    assert (answer.reason, answer.add_track.cid) == (rtc.RequestResponse.Reason.NOT_ALLOWED, "c")
    await update(stage, permission={**ALL, "can_publish_sources": ["MICROPHONE"]})
    await alice.info("alice", lambda info: info.permission.can_publish_sources == [models.TrackSource.MICROPHONE])
    since = await alice.ask(add_track=rtc.AddTrackRequest(cid="v", source=models.TrackSource.CAMERA, type=1))
    assert (await alice.expect("request_response", since=since)).add_track.cid == "v"
    await alice.ask(add_track=microphone)
    await alice.expect("track_published")
    video = claims(alice.said("refresh_token")[-1].body)["video"]
    assert video["canPublishSources"] == ["microphone"]


@story()
async def the_right_to_ones_metadata_is_given(stage: Scene) -> None:
    alice = await stage.join()
    await update(stage, permission={**ALL, "can_update_metadata": True})
    await alice.info("alice", lambda info: info.permission.can_update_metadata)
    since = await alice.ask(update_metadata=rtc.UpdateParticipantMetadata(name="Al"))
    await alice.info("alice", lambda info: info.name == "Al", since=since)
    assert claims(alice.said("refresh_token")[-1].body)["video"]["canUpdateOwnMetadata"]


@story()
async def a_permission_that_is_the_same_is_no_news(stage: Scene) -> None:
    alice = await stage.join()
    end = await alice.fence()
    await update(stage, permission=ALL)
    after = await alice.fence()
    assert not kinds(alice, "update", "refresh_token", since=end)[: after - end]


@story()
async def the_api_changes_name_metadata_and_attributes(stage: Scene) -> None:
    alice, bob = await stage.join(grants={"attributes": {"a": "1", "b": "2"}}), await stage.join("bob")
    mark = len(alice.heard)
    info = await update(stage, name="Al", metadata="m", attributes={"a": "", "c": "3"})
    assert (info.name, info.metadata, dict(info.attributes)) == ("Al", "m", {"b": "2", "c": "3"})
    for client in (alice, bob):
        await client.info("alice", lambda info: (info.name, dict(info.attributes)) == ("Al", {"b": "2", "c": "3"}))
    await alice.until(lambda: alice.said("refresh_token", since=mark), "token")
    await alice.until(
        lambda: claims(alice.said("refresh_token")[-1].body).get("attributes") == {"b": "2", "c": "3"}, "new claims"
    )
    assert not alice.said("request_response"), "nobody asked"


@story()
async def somebody_becomes_hidden(stage: Scene) -> None:
    alice, bob = await stage.join(grants=OWN), await stage.join("bob")
    await bob.info("alice") if bob.infos("alice") else None
    await update(stage, permission={**ALL, "can_update_metadata": True, "hidden": True})
    await alice.info("alice", lambda info: info.permission.hidden)
    await alice.ask(update_metadata=rtc.UpdateParticipantMetadata(name="Boo"))
    await alice.info("alice", lambda info: info.name == "Boo")
    carol = await stage.join("carol")
    assert [other.identity for other in carol.join.other_participants] == ["bob"]
    await bob.fence()
    assert not [info for info in bob.infos("alice") if info.permission.hidden or info.name == "Boo"]


# -- resume


@story(*itertools.product((False, True), (8, 9, 12, 16)))
async def resume_while_the_old_connection_is_open(stage: Scene, v1: bool, protocol: int) -> None:
    bob = await stage.join("bob")
    old = await stage.join(v1=v1, protocol=protocol, grants=OWN)
    if not v1:
        await old.expect("offer")
    await old.fence()
    new = await stage.resume(old, v1=v1, protocol=protocol, grants=OWN)
    assert await old.ended() == 1000
    assert old.heard[-1].kind != "leave"
    await new.expect("room_update")
    assert kinds(new, "join", "reconnect", "update", "room_update")[:3] == ["reconnect", "update", "room_update"]
    assert new.heard[0].kind == "reconnect"
    reconnect = new.heard[0].body
    assert reconnect.server_info.protocol == 17
    everyone = {info.identity: info for info in new.said("update")[0].body.participants}
    assert everyone.keys() == {"alice", "bob"} and everyone["alice"].sid == old.sid
    if v1:
        await new.fence()
        assert not new.said("offer")
    else:
        await new.expect("offer")
        assert kinds(new, "room_update", "offer")[0] == "room_update"
    await new.ask(update_metadata=rtc.UpdateParticipantMetadata(name="Al"))
    await bob.info("alice", lambda info: info.name == "Al" and info.sid == old.sid)
    assert not [info for info in bob.infos("alice") if info.state == State.DISCONNECTED]


@story(*itertools.product((False, True), (12, 13)))
async def resume_of_nobody(stage: Scene, v1: bool, protocol: int) -> None:
    fields: dict[str, Any] = {"reconnect": True, "participant_sid": "PA_x"} if v1 else {"reconnect": 1, "sid": "PA_x"}
    bob = await stage.join("bob")
    alice = await stage.join(v1=v1, protocol=protocol, **fields)
    assert await alice.ended() == 1000
    assert len(alice.heard) == 1
    is_final(leave_of(alice), Reason.STATE_MISMATCH, protocol, Action.RECONNECT)
    await bob.fence()
    assert not bob.infos("alice")


@story((12,), (13,))
async def resume_in_a_room_that_is_not_there(stage: Scene, protocol: int) -> None:
    alice = await stage.join(protocol=protocol, reconnect=1, sid="PA_x")
    assert await alice.ended() == 1000
    is_final(leave_of(alice), Reason.STATE_MISMATCH, protocol, Action.RECONNECT)


@story((False,), (True,))
async def resume_after_leaving(stage: Scene, v1: bool) -> None:
    await stage.join("bob")
    alice = await stage.join(v1=v1)
    await alice.ask(leave=rtc.LeaveRequest())
    await alice.ended()
    again = await stage.resume(alice, v1=v1)
    assert await again.ended() == 1000
    is_final(leave_of(again), Reason.STATE_MISMATCH, 16, Action.RECONNECT)


@story(ours="the reference lets a client resume the session that replaced its own")
async def resume_of_a_replaced_session(stage: Scene) -> None:
    old, new = await stage.join(), await stage.join()
    again = await stage.resume(old)
    assert await again.ended() == 1000
    is_final(leave_of(again), Reason.STATE_MISMATCH, 16, Action.RECONNECT)
    await new.fence()


@story((False,), (True,))
async def a_duplicate_joins_after_a_resume(stage: Scene, v1: bool) -> None:
    bob = await stage.join("bob")
    old = await stage.join(v1=v1)
    resumed = await stage.resume(old, v1=v1)
    await resumed.fence()
    other = await stage.join(v1=v1)
    assert await resumed.ended() == 1000
    is_final(leave_of(resumed), Reason.DUPLICATE_IDENTITY, 16)
    await other.fence()
    await bob.info("alice", lambda info: info.sid == other.sid)


@story((False,), (True,), ours="in the reference both race, and at times nobody stays")
async def a_duplicate_joins_in_mid_resume(stage: Scene, v1: bool) -> None:
    """Whoever comes first: the newcomer has the identity, nobody else stays."""
    old = await stage.join(v1=v1)
    await old.fence()
    resumed, other = await asyncio.gather(stage.resume(old, v1=v1), stage.join(v1=v1))
    assert other.heard[0].kind == "join"
    await old.ended()
    assert await resumed.ended() == 1000
    await other.fence()
    async with stage.server.admin() as rooms:
        answer = await rooms.list_participants(api.ListParticipantsRequest(room=stage.room))
    assert [info.sid for info in answer.participants] == [other.sid]


@story((False,), (True,))
async def what_the_client_believes_after_a_resume(stage: Scene, v1: bool) -> None:
    """A track that both know is fine; one that only the client knows means to start over."""
    alice = await stage.join(v1=v1)
    await alice.ask(add_track=rtc.AddTrackRequest(cid="c", type=models.TrackType.AUDIO))
    published = await alice.expect("track_published")
    resumed = await stage.resume(alice, v1=v1)
    await resumed.ask(sync_state=rtc.SyncState(publish_tracks=[published]))
    await resumed.fence()
    assert not resumed.said("leave")
    unknown = rtc.TrackPublishedResponse(cid="d", track=models.TrackInfo(sid="TR_unknown"))
    await resumed.ask(sync_state=rtc.SyncState(publish_tracks=[published, unknown]))
    assert await resumed.ended() == 1000
    is_final(leave_of(resumed), Reason.STATE_MISMATCH, 16, Action.RECONNECT)


@story()
async def a_resume_that_is_cut_after_its_answers(stage: Scene) -> None:
    alice = await stage.join()
    await alice.ask(simulate=rtc.SimulateScenario(disconnect_signal_on_resume=True))
    await alice.fence()
    await connect(alice)
    cut = await stage.resume(alice)
    await cut.ended()
    assert kinds(cut, "reconnect", "update", "room_update", "leave")[:3] == ["reconnect", "update", "room_update"]
    assert not cut.said("leave")
    again = await stage.resume(cut, sid=alice.sid)
    await again.fence()


@story()
async def a_resume_that_is_cut_before_its_answers(stage: Scene) -> None:
    """The upgrade fails; the next resume goes through."""
    alice = await stage.join()
    await connect(alice)
    await alice.ask(simulate=rtc.SimulateScenario(disconnect_signal_on_resume_no_messages=True))
    await alice.fence()
    with pytest.raises(Refused) as refused:
        await stage.resume(alice)
    assert refused.value.status == 500
    again = await stage.resume(alice)
    assert again.heard[0].kind == "reconnect"
    await again.fence()


# -- data tracks and blobs


@story((False,), (True,))
async def data_tracks_have_handles(stage: Scene, automatic: bool) -> None:
    settings = rtc.ConnectionSettings(auto_subscribe=True, auto_subscribe_data_track=automatic)
    bob = await active(stage, "bob")
    alice = await connect(await stage.join(v1=True, connection_settings=settings), single=True)
    await bob.ask(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=7, name="t"))
    sid = (await bob.expect("publish_data_track_response")).info.sid
    info = await alice.info("bob", lambda info: len(info.data_tracks) == 1)
    assert (info.data_tracks[0].sid, info.data_tracks[0].name, info.is_publisher) == (sid, "t", True)
    if not automatic:
        await alice.fence()
        assert not alice.said("data_track_subscriber_handles")
        wish = rtc.UpdateDataSubscription.Update(track_sid=sid, subscribe=True)
        await alice.ask(update_data_subscription=rtc.UpdateDataSubscription(updates=[wish]))
    told = await alice.expect("data_track_subscriber_handles")
    ((handle, track),) = told.sub_handles.items()
    assert 1 <= handle <= 256
    assert (track.publisher_identity, track.publisher_sid, track.track_sid) == ("bob", bob.sid, sid)
    since = len(alice.heard)
    await bob.ask(unpublish_data_track_request=rtc.UnpublishDataTrackRequest(pub_handle=7))
    gone = await alice.expect("data_track_subscriber_handles", since=since)
    assert not gone.sub_handles
    await alice.info("bob", lambda info: not info.data_tracks, since=since)


@story()
async def data_blobs_are_there_for_everybody(stage: Scene) -> None:
    alice, bob = await stage.join(), await stage.join("bob", json=True)
    key = models.DataBlobKey(generic="k")
    blob = models.DataBlob(key=key, contents=b"\x00\xff")
    await bob.ask(store_data_blob_request=rtc.StoreDataBlobRequest(request_id=1, blob=blob))
    await bob.expect("store_data_blob_response")
    await alice.ask(get_data_blob_request=rtc.GetDataBlobRequest(request_id=2, participant_identity="bob", key=key))
    found = await alice.expect("get_data_blob_response")
    assert (found.request_id, found.blob) == (2, blob)
    await bob.ask(leave=rtc.LeaveRequest())
    await bob.ended()
    await alice.ask(get_data_blob_request=rtc.GetDataBlobRequest(request_id=3, participant_identity="bob", key=key))
    lost = await alice.expect("request_response")
    assert (lost.request_id, lost.message) == (3, "participant not found")


# -- moving


@story((15,), (16,), ours="the reference cannot move participants")
async def a_participant_is_moved(stage: Scene, protocol: int) -> None:
    async with scene(stage.server, f"{stage.room}-other") as other:
        bob = await other.join("bob")
        alice = await stage.join(protocol=protocol)
        await alice.fence()
        mark = len(alice.heard)
        async with stage.server.admin() as rooms:
            request = api.MoveParticipantRequest(room=stage.room, identity="alice", destination_room=other.room)
            await rooms.move_participant(request)
        assert await alice.ended() == 1000
        token = alice.said("refresh_token", since=mark)[0].body
        assert claims(token)["video"]["room"] == other.room
        assert bool(alice.said("room_moved")) == (protocol >= 16)
        if protocol >= 16:
            moved = alice.said("room_moved")[0].body
            assert (moved.room.name, moved.token, moved.participant.identity) == (other.room, token, "alice")
            assert [info.identity for info in moved.other_participants] == ["bob"]
        is_final(leave_of(alice), Reason.MIGRATION, protocol, Action.RECONNECT)
        await other.join("alice", token=token)
        await bob.info("alice")


# -- media


@story((6,), (7,))
async def a_published_track_is_forbidden(stage: Scene, protocol: int) -> None:
    """Newer clients are told that it is unpublished, older ones that it is muted."""
    bob = await stage.join("bob")
    alice = await connect(await stage.join(protocol=protocol))
    sid = await publish(alice)
    await bob.info("alice", lambda info: len(info.tracks) == 1)
    mark = len(alice.heard)
    await update(stage, permission={**ALL, "can_publish_sources": ["CAMERA"]})
    await alice.info("alice", lambda info: not info.tracks, since=mark)
    await bob.info("alice", lambda info: not info.tracks and info.permission.can_publish_sources)
    order = kinds(alice, "track_unpublished", "mute", "refresh_token", since=mark)
    if protocol >= 7:
        assert alice.said("track_unpublished", since=mark)[0].body.track_sid == sid
        assert not alice.said("mute")
    else:
        mute = alice.said("mute", since=mark)[0].body
        assert (mute.sid, mute.muted) == (sid, True)
        assert not alice.said("track_unpublished")
    await alice.expect("refresh_token", since=mark)
    assert order[0] != "refresh_token"


@story((False,), (True,))
async def tracks_that_change(stage: Scene, v1: bool) -> None:
    """Mute, audio features, mute by the API: the others are told, and the publisher."""
    bob = await stage.join("bob")
    alice = await connect(await stage.join(v1=v1), single=v1)
    sid = await publish(alice)

    def track(info: models.ParticipantInfo) -> models.TrackInfo:
        return next((track for track in info.tracks if track.sid == sid), models.TrackInfo())

    await bob.info("alice", lambda info: track(info).sid == sid and info.is_publisher)
    mark, own = len(bob.heard), len(alice.heard)
    await alice.ask(mute=rtc.MuteTrackRequest(sid=sid, muted=True))
    await bob.info("alice", lambda info: track(info).muted, since=mark)
    await alice.info("alice", lambda info: track(info).muted, since=own)
    features = [models.AudioTrackFeature.TF_STEREO]
    await alice.ask(update_audio_track=rtc.UpdateLocalAudioTrack(track_sid=sid, features=features))
    await bob.info("alice", lambda info: track(info).stereo and track(info).audio_features == features, since=mark)
    await alice.ask(mute=rtc.MuteTrackRequest(sid=sid, muted=False))
    mark = len(bob.heard)
    await bob.info("alice", lambda info: not track(info).muted, since=mark)
    assert not alice.said("mute")
    async with stage.server.admin() as rooms:
        request = api.MuteRoomTrackRequest(room=stage.room, identity="alice", track_sid=sid, muted=True)
        answer = await rooms.mute_published_track(request)
    assert answer.track.muted
    mute = await alice.expect("mute")
    assert (mute.sid, mute.muted) == (sid, True)
    await bob.info("alice", lambda info: track(info).muted, since=mark)


@story((False,), (True,))
async def subscription_permissions(stage: Scene, v1: bool) -> None:
    """What the publisher allows, bob hears about the tracks that he is subscribed to."""
    alice = await active(stage)
    sid = await publish(alice)
    bob = await connect(await stage.join("bob", v1=v1), single=v1)
    if v1:
        await bob.expect("media_sections_requirement", lambda needed: needed.num_audios == 1)
    else:
        await bob.expect("offer", lambda offer: "m=audio" in offer.sdp)
    mark = len(bob.heard)
    denied = rtc.SubscriptionPermission(all_participants=False)
    await alice.ask(subscription_permission=denied)
    told = await bob.expect("subscription_permission_update", lambda change: not change.allowed, since=mark)
    assert (told.participant_sid, told.track_sid) == (alice.sid, sid)
    mark = len(bob.heard)
    entry = rtc.TrackPermission(participant_identity="bob", track_sids=[sid])
    await alice.ask(subscription_permission=rtc.SubscriptionPermission(track_permissions=[entry]))
    told = await bob.expect("subscription_permission_update", lambda change: change.allowed, since=mark)
    assert (told.participant_sid, told.track_sid) == (alice.sid, sid)
    mark = len(bob.heard)
    entry = rtc.TrackPermission(participant_sid=bob.sid, all_tracks=True)
    await alice.ask(subscription_permission=rtc.SubscriptionPermission(track_permissions=[entry]))
    await alice.fence()
    await bob.fence()
    assert not bob.said("subscription_permission_update", since=mark), "nothing changed for him"


@story()
async def a_track_that_is_not_allowed_from_the_start(stage: Scene) -> None:
    alice = await active(stage)
    await alice.ask(subscription_permission=rtc.SubscriptionPermission())
    sid = await publish(alice)
    bob = await connect(await stage.join("bob"))
    told = await bob.expect("subscription_permission_update")
    assert (told.participant_sid, told.track_sid, told.allowed) == (alice.sid, sid, False)
    await alice.ask(subscription_permission=rtc.SubscriptionPermission(all_participants=True))
    await bob.expect("subscription_permission_update", lambda change: change.allowed)
    await bob.expect("offer", lambda offer: "m=audio" in offer.sdp)


@story()
async def the_right_to_subscribe_is_withdrawn_and_given_back(stage: Scene) -> None:
    alice = await active(stage)
    sid = await publish(alice)
    bob = await connect(await stage.join("bob"))

    def carries(offer: rtc.SessionDescription) -> bool:
        return f"{alice.sid}|{sid}" in offer.sdp

    first = await bob.expect("offer", carries)
    mark = len(bob.heard)
    await update(stage, "bob", permission={"can_publish": True, "can_publish_data": True})
    second = await bob.expect("offer", lambda offer: not carries(offer), since=mark)
    mark = len(bob.heard)
    await update(stage, "bob", permission=ALL)
    third = await bob.expect("offer", carries, since=mark)
    ids = [heard.body.id for heard in bob.said("offer")]
    assert ids == list(range(ids[0], ids[0] + len(ids))), "offers are numbered without a gap"
    assert first.id < second.id < third.id


@story()
async def the_first_subscription_is_told_to_the_publisher_once(stage: Scene) -> None:
    alice = await active(stage)
    sid = await publish(alice)
    assert not alice.said("track_subscribed")
    for identity in ("bob", "carol"):
        await connect(await stage.join(identity))
    told = await alice.expect("track_subscribed")
    assert told.track_sid == sid
    await alice.fence()
    assert len(alice.said("track_subscribed")) == 1


@story()
async def speakers_are_told_to_whom_they_concern(stage: Scene) -> None:
    alice = await active(stage)
    await publish(alice)
    bob = await connect(await stage.join("bob"))
    carol = await active(stage, "carol", connection_settings=rtc.ConnectionSettings())
    await bob.expect("offer", lambda offer: "m=audio" in offer.sdp)
    await alice.expect("track_subscribed")
    mark = len(bob.heard)
    await alice.ask(simulate=rtc.SimulateScenario(speaker_update=1))
    await bob.expect("speakers_changed", lambda told: told.speakers[0].sid == alice.sid, since=mark)
    await carol.fence()
    assert not carol.said("speakers_changed")


@story((7,), (8,))
async def the_first_offer_has_the_tracks_there_are(stage: Scene, protocol: int) -> None:
    alice = await active(stage)
    await publish(alice)
    bob = await stage.join("bob", protocol=protocol)
    offer = await bob.expect("offer")
    if protocol < 8:
        assert "m=audio" not in offer.sdp
    elif not stage.server.reference:  # There it is a race.
        assert "m=audio" in offer.sdp


@story()
async def the_quality_of_connections(stage: Scene) -> None:
    alice = await connect(await stage.join(protocol=5))
    bob = await connect(await stage.join("bob", protocol=4))
    told = await alice.expect("connection_quality")
    assert told.updates[0].participant_sid == alice.sid
    assert told.updates[0].quality == models.ConnectionQuality.EXCELLENT
    await bob.fence()
    assert not bob.said("connection_quality")


@story((8, "lost"), (9, "lost"), (9, "half-open"))
async def departures_that_were_missed(stage: Scene, protocol: int, connection: str) -> None:
    """Half open: the server still takes it for alive, and what it sends there is never read."""
    alice = await connect(await stage.join(protocol=protocol))
    bob, carol = await stage.join("bob"), await stage.join("carol")
    for identity in ("bob", "carol"):  # Those without media are told a while after they join; nothing may come later.
        await alice.info(identity)
    if connection == "lost":
        await alice.drop()
    await bob.ask(leave=rtc.LeaveRequest())
    await carol.info("bob", lambda info: info.state == State.DISCONNECTED)
    again = await stage.resume(alice, protocol=protocol)
    await again.expect("room_update")
    updates = [heard.body.participants for heard in again.said("update")]
    gone = [info for info in updates[0] if info.state == State.DISCONNECTED]
    assert [info.identity for info in gone] == (["bob"] if protocol >= 9 else [])
    everyone = updates[1 if protocol >= 9 else 0]
    assert {info.identity for info in everyone} == {"alice", "carol"}


@story()
async def tracks_are_asked_for_and_given_up(stage: Scene) -> None:
    """UpdateSubscription, by track and by participant, of a client that subscribes to nothing by itself."""
    alice = await active(stage)
    sid = await publish(alice)
    bob = await connect(await stage.join("bob", auto_subscribe=0))

    def carries(offer: rtc.SessionDescription) -> bool:
        return f"{alice.sid}|{sid}" in offer.sdp

    await bob.fence()
    assert not any(carries(heard.body) for heard in bob.said("offer"))
    assert not bob.said("subscription_permission_update")
    by_track = {"track_sids": [sid]}
    tracks = models.ParticipantTracks(participant_sid=alice.sid, track_sids=[sid])
    for wish in (by_track, {"participant_tracks": [tracks]}):
        mark = await bob.ask(subscription=rtc.UpdateSubscription(subscribe=True, **wish))
        await bob.expect("offer", carries, since=mark)
        mark = await bob.ask(subscription=rtc.UpdateSubscription(subscribe=False, **wish))
        await bob.expect("offer", lambda offer: not carries(offer), since=mark)
    told = bob.said("subscription_permission_update")[0].body
    assert (told.track_sid, told.allowed) == (sid, True)


@story((False,), (True,))
async def resume_with_media(stage: Scene, v1: bool) -> None:
    """The signal connection is lost, the participant stays; two connections: the server restarts ICE."""
    bob = await stage.join("bob")
    alice = await connect(await stage.join(v1=v1), single=v1)
    await bob.info("alice", lambda info: info.state == State.ACTIVE)
    offers = [heard.body for heard in alice.said("offer")]
    await alice.drop()
    media, alice.media = alice.media, None
    again = await stage.resume(alice, v1=v1)
    assert again.heard[0].kind == "reconnect"
    if v1:
        await again.expect("room_update")
    else:
        offer = await again.expect("offer")
        assert offer.id == offers[-1].id + 1
        assert ufrag(offer) != ufrag(offers[-1])
    await again.fence()
    assert not [info for info in bob.infos("alice") if info.state == State.DISCONNECTED]
    await media.close()


def ufrag(offer: rtc.SessionDescription) -> str:
    return next(line for line in offer.sdp.split("\r\n") if line.startswith("a=ice-ufrag"))


@story()
async def a_cid_that_waits_is_published_when_the_former_ends(stage: Scene) -> None:
    alice = await active(stage)
    first = await publish(alice, cid="c1")
    wanted = rtc.AddTrackRequest(cid="c1", type=models.TrackType.AUDIO, name="second")
    mark = await alice.ask(add_track=wanted)
    answer = await alice.expect("request_response", since=mark)
    assert answer.reason == rtc.RequestResponse.Reason.QUEUED
    for transceiver in alice.media.publisher.getTransceivers():
        transceiver.sender.replaceTrack(None)
        transceiver.direction = "inactive"
    await alice.media.negotiate()
    published = await alice.expect("track_published", since=mark)
    assert published.cid == "c1" and published.track.name == "second" and published.track.sid != first


@story((False,), (True,))
async def add_track_and_offer_back_to_back(stage: Scene, v1: bool) -> None:
    """track_published comes before the answer, and the answer names its offer."""
    from support.aiortc_client import Tone

    alice = await connect(await stage.join(v1=v1), single=v1)
    track = Tone()
    mark = await alice.ask(add_track=rtc.AddTrackRequest(cid=track.id, type=models.TrackType.AUDIO))
    alice.media.publisher.addTrack(track)
    answer = await alice.media.negotiate()
    order = kinds(alice, "track_published", "answer", since=mark)
    assert order == ["track_published", "answer"]
    assert answer.id == alice.media.offers
    assert not answer.mid_to_track_id, "that is for tracks which it is sent"


# -- old clients


@story((9,), (10,))
async def an_old_rust_client_hears_of_no_failure(stage: Scene, protocol: int) -> None:
    """It could not decode the message."""
    alice = await stage.join(sdk="rust", protocol=protocol)
    await alice.ask(mute=rtc.MuteTrackRequest(sid="TR_nobody"))
    await alice.ask(add_track=rtc.AddTrackRequest(cid="c", type=models.TrackType.AUDIO))
    await alice.expect("track_published")
    assert bool(alice.said("request_response")) == (protocol >= 10)


@story(("1.6.2",), ("1.6.3",), ("2.0",))
async def an_old_js_client_gets_no_reconnect_response(stage: Scene, version: str) -> None:
    old = await stage.join(sdk="js", version=version)
    await old.fence()
    new = await stage.resume(old, sdk="js", version=version)
    await new.expect("room_update")
    kind = "update" if version == "1.6.2" else "reconnect"
    assert new.heard[0].kind == kind


# -- more of permissions


@story()
async def the_right_to_publish_data_is_withdrawn(stage: Scene) -> None:
    bob = await stage.join("bob")
    alice = await stage.join()
    await alice.ask(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=1, name="t"))
    await alice.expect("publish_data_track_response")
    await bob.info("alice", lambda info: len(info.data_tracks) == 1)
    await update(stage, permission={"can_subscribe": True, "can_publish": True})
    await bob.info("alice", lambda info: not info.data_tracks and not info.permission.can_publish_data)
    since = await alice.ask(publish_data_track_request=rtc.PublishDataTrackRequest(pub_handle=1, name="t"))
    answer = await alice.expect("request_response", since=since)
    assert answer.reason == rtc.RequestResponse.Reason.NOT_ALLOWED


@story()
async def a_name_that_is_the_same_is_no_news(stage: Scene) -> None:
    alice = await stage.join(grants={**OWN, "name": "Al", "metadata": "m"})
    mark = await alice.fence()
    await alice.ask(update_metadata=rtc.UpdateParticipantMetadata(name="Al", metadata="m", request_id=5))
    answer = await alice.expect("request_response", lambda answer: answer.request_id == 5, since=mark)
    assert answer.reason == rtc.RequestResponse.Reason.OK
    await alice.fence()
    assert not kinds(alice, "refresh_token", since=mark)
    assert not alice.infos("alice", since=mark)


@story()
async def a_token_that_names_a_kind(stage: Scene) -> None:
    await stage.join("robot", grants={"kind": "agent", "name": "R2", "agent": True})
    bob = await stage.join("bob")
    (robot,) = bob.join.other_participants
    assert (robot.kind, robot.name) == (models.ParticipantInfo.Kind.AGENT, "R2")
    if not stage.server.reference:  # There the number is some time behind.
        assert bob.join.room.num_participants == 1, "agents are not counted"


@story((False,), (True,))
async def the_token_is_refreshed_after_a_join(stage: Scene, v1: bool) -> None:
    alice = await stage.join(v1=v1, grants={"name": "Al", "attributes": {"a": "1"}, "hidden": True, **OWN})
    token = claims(await alice.expect("refresh_token"))
    assert (token["sub"], token["name"], token["attributes"]) == ("alice", "Al", {"a": "1"})
    video = token["video"]
    assert video["roomJoin"] and video["hidden"] and video["canUpdateOwnMetadata"] and video["room"] == stage.room
    assert token["exp"] - token["nbf"] >= 590 and token["iss"] == "devkey"
    again = await stage.join(token=alice.said("refresh_token")[0].body, v1=v1)
    assert again.join.participant.name == "Al"


@story()
async def resume_with_new_claims(stage: Scene) -> None:
    """A resume goes on with what the participant is by now, not with what its first token said."""
    alice = await stage.join(grants=OWN)
    await alice.ask(update_metadata=rtc.UpdateParticipantMetadata(name="Al"))
    await alice.info("alice", lambda info: info.name == "Al")
    resumed = await stage.resume(alice, grants=OWN)
    me = await resumed.info("alice")
    assert (me.name, me.sid) == ("Al", alice.sid)
    await resumed.fence()
