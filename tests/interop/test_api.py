"""RoomService as livekit-api (protobuf) and as any HTTP client (JSON) uses it, with real participants to act upon."""

import asyncio
import base64
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from livekit import api, rtc
from support.interop import LIMIT, MARKS, RED, Server, eventually, hears_tone, party, raw_token, run, sees_colours

pytestmark = MARKS


@asynccontextmanager
async def service(server: Server) -> AsyncIterator[Any]:
    """livekit-api's RoomService client."""
    async with api.LiveKitAPI(server.http_url, server.api_key, server.api_secret) as client:
        yield client.room


def post(server: Server, method: str, body: Any, grants: dict[str, Any] | None, **claims: Any) -> httpx.Response:
    """One Twirp call in JSON; grants None sends no token."""
    headers = {} if grants is None else {"Authorization": f"Bearer {raw_token(server, video=grants, **claims)}"}
    content = {"content": body, "headers": {**headers, "Content-Type": "application/json"}}
    if not isinstance(body, str):
        content = {"json": body, "headers": headers}
    return httpx.post(f"{server.http_url}/twirp/livekit.RoomService/{method}", timeout=LIMIT, **content)


def admin(room: str) -> dict[str, Any]:
    return {"roomAdmin": True, "room": room}


def assert_error(answer: httpx.Response, status: int, code: str, text: str) -> None:
    """`text` must be in the message: the Go server wraps some ("twirp error unknown: ...")."""
    assert answer.headers["content-type"] == "application/json"  # livekit-server-sdk wants exactly this
    body = answer.json()
    assert (answer.status_code, body["code"]) == (status, code)
    assert text in body["msg"]


# rooms


def test_room_life_over_protobuf(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with service(lk_server) as rooms:
            made = await rooms.create_room(
                api.CreateRoomRequest(name=lk_room, metadata="first", empty_timeout=77, max_participants=3)
            )
            assert (made.name, made.metadata, made.empty_timeout, made.max_participants) == (lk_room, "first", 77, 3)
            assert made.sid.startswith("RM_")
            assert abs(made.creation_time - time.time()) < 60
            again = await rooms.create_room(api.CreateRoomRequest(name=lk_room, empty_timeout=99))
            assert (again.sid, again.empty_timeout) == (made.sid, 77)
            listed = await rooms.list_rooms(api.ListRoomsRequest(names=[lk_room]))
            assert [room.sid for room in listed.rooms] == [made.sid]
            assert made.sid in {room.sid for room in (await rooms.list_rooms(api.ListRoomsRequest())).rooms}
            changed = await rooms.update_room_metadata(api.UpdateRoomMetadataRequest(room=lk_room, metadata="second"))
            assert (changed.sid, changed.metadata) == (made.sid, "second")
            await rooms.delete_room(api.DeleteRoomRequest(room=lk_room))
            assert not (await rooms.list_rooms(api.ListRoomsRequest(names=[lk_room]))).rooms
            with pytest.raises(api.TwirpError) as gone:
                await rooms.delete_room(api.DeleteRoomRequest(room=lk_room))
            assert (gone.value.code, gone.value.status) == ("not_found", 404)
            assert "requested room does not exist" in gone.value.message

    run(test)


def test_room_in_json_is_snake_case_and_complete(lk_server: Server, lk_room: str) -> None:
    answer = post(lk_server, "CreateRoom", {"name": lk_room, "empty_timeout": 7, "metadata": "m"}, {"roomCreate": True})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    room = answer.json()
    wanted = {
        "name": lk_room,
        "empty_timeout": 7,
        "departure_timeout": 20,
        "max_participants": 0,
        "metadata": "m",
        "num_participants": 0,
        "num_publishers": 0,
        "active_recording": False,
    }
    assert {key: room[key] for key in wanted} == wanted  # fields at their default are there too
    assert isinstance(room["creation_time"], str)  # 64-bit numbers are strings
    assert room["creation_time_ms"].startswith(room["creation_time"])
    assert {codec["mime"] for codec in room["enabled_codecs"]} >= {"audio/opus", "video/VP8", "video/H264"}
    assert all(codec["fmtp_line"] == "" for codec in room["enabled_codecs"])
    listed = post(lk_server, "ListRooms", {"names": [lk_room]}, {"roomList": True}).json()
    assert [entry["sid"] for entry in listed["rooms"]] == [room["sid"]]
    changed = post(lk_server, "UpdateRoomMetadata", {"room": lk_room, "metadata": "n"}, admin(lk_room))
    assert changed.json()["metadata"] == "n"
    assert post(lk_server, "DeleteRoom", {"room": lk_room}, {"roomCreate": True}).json() == {}


def test_json_takes_camel_case_and_unknown_fields(lk_server: Server, lk_room: str) -> None:
    body = {"name": lk_room, "emptyTimeout": 9, "fieldOfTheFuture": 1}
    answer = post(lk_server, "CreateRoom", body, {"roomCreate": True})
    assert (answer.status_code, answer.json()["empty_timeout"]) == (200, 9)


# errors


@pytest.mark.parametrize(
    ("method", "grants"),
    [
        ("CreateRoom", {"roomList": True}),
        ("CreateRoom", None),
        ("ListRooms", {"roomCreate": True}),
        ("ListRooms", None),
        ("DeleteRoom", {"roomList": True}),
        ("ListParticipants", {"roomList": True}),
        ("ListParticipants", {"roomAdmin": True, "room": "another"}),
        ("RemoveParticipant", {"room": "somewhere", "roomJoin": True}),
        ("SendData", {"roomCreate": True}),
        ("UpdateRoomMetadata", {"roomAdmin": True, "room": "another"}),
    ],
)
def test_missing_grant(lk_server: Server, method: str, grants: dict[str, Any] | None) -> None:
    body = {"name": "somewhere"} if method == "CreateRoom" else {"room": "somewhere", "identity": "x", "data": ""}
    assert_error(post(lk_server, method, body, grants), 401, "unauthenticated", "permissions denied")


def test_wrong_secret_is_plain_401(lk_server: Server) -> None:
    answer = post(lk_server, "ListRooms", {}, {"roomList": True}, secret="wrong")
    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("text/plain")
    assert answer.text.startswith("invalid token: ")
    assert answer.text.strip().endswith("token signature is invalid: signature is invalid")


def test_malformed_json(lk_server: Server) -> None:
    answer = post(lk_server, "CreateRoom", "{bad", {"roomCreate": True})
    assert_error(answer, 400, "malformed", "the json request could not be decoded")


def test_bad_routes(lk_server: Server) -> None:
    path = "/twirp/livekit.RoomService/"
    answer = post(lk_server, "NoSuchMethod", {}, {"roomCreate": True})
    assert_error(answer, 404, "bad_route", f'no handler for path "{path}NoSuchMethod"')
    assert answer.json()["meta"] == {"twirp_invalid_route": f"POST {path}NoSuchMethod"}
    headers = {"Authorization": f"Bearer {raw_token(lk_server, video={'roomList': True})}"}
    get = httpx.get(lk_server.http_url + path + "ListRooms", headers=headers, timeout=LIMIT)
    assert_error(get, 404, "bad_route", 'unsupported method "GET" (only POST is allowed)')
    assert get.json()["meta"] == {"twirp_invalid_route": f"GET {path}ListRooms"}
    headers["Content-Type"] = "text/plain"
    text = httpx.post(lk_server.http_url + path + "ListRooms", headers=headers, content=b"{}", timeout=LIMIT)
    assert_error(text, 404, "bad_route", 'unexpected Content-Type: "text/plain"')


@pytest.mark.parametrize("method", ["GetParticipant", "RemoveParticipant", "UpdateParticipant"])
def test_unknown_participant(lk_server: Server, lk_room: str, method: str) -> None:
    post(lk_server, "CreateRoom", {"name": lk_room}, {"roomCreate": True})
    answer = post(lk_server, method, {"room": lk_room, "identity": "nobody", "metadata": "m"}, admin(lk_room))
    assert_error(answer, 404, "not_found", "participant does not exist")


def test_unknown_room(lk_server: Server, lk_room: str) -> None:
    answer = post(lk_server, "UpdateRoomMetadata", {"room": lk_room, "metadata": "m"}, admin(lk_room))
    assert_error(answer, 404, "not_found", "requested room does not exist")
    assert post(lk_server, "ListParticipants", {"room": lk_room}, admin(lk_room)).json() == {"participants": []}


# participants


def test_participants_are_listed_and_read(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, service(lk_server) as rooms:
            alice, _ = await guests.pair()
            tone = await alice.publish_tone(440)
            picture = await alice.publish_picture(RED)

            async def listed() -> bool:
                answer = await rooms.list_participants(api.ListParticipantsRequest(room=lk_room))
                return {(p.identity, len(p.tracks)) for p in answer.participants} == {("alice", 2), ("bob", 0)}

            await eventually(listed, "both are listed")
            seen = await rooms.get_participant(api.RoomParticipantIdentity(room=lk_room, identity="alice"))
            assert (seen.sid, seen.state) == (alice.local.sid, api.ParticipantInfo.State.ACTIVE)
            assert {track.sid for track in seen.tracks} == {tone.publication.sid, picture.publication.sid}
            assert {track.name: (track.width, track.height) for track in seen.tracks}["picture"] == (320, 180)
            assert seen.permission.can_publish and seen.permission.can_subscribe and seen.is_publisher
            body = post(lk_server, "GetParticipant", {"room": lk_room, "identity": "alice"}, admin(lk_room)).json()
            assert (body["sid"], body["state"], body["kind"]) == (alice.local.sid, "ACTIVE", "STANDARD")
            assert body["permission"]["can_publish"] is True
            assert {track["type"] for track in body["tracks"]} == {"AUDIO", "VIDEO"}

            async def counted() -> bool:
                answer = await rooms.list_rooms(api.ListRoomsRequest(names=[lk_room]))
                return (answer.rooms[0].num_participants, answer.rooms[0].num_publishers) == (2, 1)

            await eventually(counted, "the room counts two participants, one publisher")

    run(test)


def test_remove_participant(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests, service(lk_server) as rooms:
            alice, bob = await guests.meeting("alice", "bob")
            await rooms.remove_participant(api.RoomParticipantIdentity(room=lk_room, identity="alice"))
            assert (await alice.event("disconnected")).args[0] == rtc.DisconnectReason.PARTICIPANT_REMOVED
            await bob.event("participant_disconnected", lambda who: who.identity == "alice")

    run(test)


def test_delete_room_ends_everybody(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests, service(lk_server) as rooms:
            people = await guests.pair()
            await rooms.delete_room(api.DeleteRoomRequest(room=lk_room))
            for person in people:
                assert (await person.event("disconnected")).args[0] == rtc.DisconnectReason.ROOM_DELETED

    run(test)


def test_mute_published_track(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, service(lk_server) as rooms:
            alice, bob = await guests.pair()
            tone = await alice.publish_tone(440)
            await hears_tone(await bob.track("alice", "tone"))
            request = api.MuteRoomTrackRequest(
                room=lk_room, identity="alice", track_sid=tone.publication.sid, muted=True
            )
            muted = await rooms.mute_published_track(request)
            assert (muted.track.sid, muted.track.muted) == (tone.publication.sid, True)
            for client in (alice, bob):
                await client.event("track_muted", lambda who, pub: who.identity == "alice" and pub.name == "tone")
            request.muted = False
            with pytest.raises(api.TwirpError) as refused:
                await rooms.mute_published_track(request)
            assert (refused.value.code, refused.value.status) == ("failed_precondition", 412)
            assert "remote unmute not enabled" in refused.value.message

    run(test)


def test_update_participant(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, service(lk_server) as rooms:
            alice, bob = await guests.meeting("alice", "bob")
            updated = await rooms.update_participant(
                api.UpdateParticipantRequest(
                    room=lk_room, identity="alice", metadata="new", name="Alice", attributes={"k": "v"}
                )
            )
            assert (updated.metadata, updated.name, dict(updated.attributes)) == ("new", "Alice", {"k": "v"})
            for client in (alice, bob):
                await client.event(
                    "participant_metadata_changed", lambda who, _, new: (who.identity, new) == ("alice", "new")
                )
                await client.event("participant_name_changed", lambda who, _, new: new == "Alice")
                await client.event("participant_attributes_changed", lambda changed, _: changed == {"k": "v"})

    run(test)


def test_revoked_permission_takes_the_track_away(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, service(lk_server) as rooms:
            alice, bob = await guests.pair()
            await alice.publish_picture(RED)
            await sees_colours(await bob.track("alice", "picture"), RED)
            permission = api.ParticipantPermission(can_publish=False, can_subscribe=True, can_publish_data=True)
            await rooms.update_participant(
                api.UpdateParticipantRequest(room=lk_room, identity="alice", permission=permission)
            )
            await alice.event("participant_permissions_changed")
            await bob.event("track_unpublished", lambda pub, who: who.identity == "alice")
            # two clients hear of it in no order: bob may be told before alice
            await alice.until_polled(lambda: not alice.local.permissions.can_publish, "the permission gone")

    run(test)


def test_update_subscriptions(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, service(lk_server) as rooms:
            alice = await guests.join("alice")
            picture = await alice.publish_picture(RED)
            bob = await guests.join("bob", auto_subscribe=False)
            await bob.published("alice", "picture")
            await rooms.update_subscriptions(
                api.UpdateSubscriptionsRequest(
                    room=lk_room, identity="bob", track_sids=[picture.publication.sid], subscribe=True
                )
            )
            await sees_colours(await bob.track("alice", "picture"), RED)

    run(test)


def test_send_data(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests, service(lk_server) as rooms:
            alice, bob = await guests.meeting("alice", "bob")
            await rooms.send_data(api.SendDataRequest(room=lk_room, data=b"to all", topic="api"))
            for client in (alice, bob):
                packet = (await client.event("data_received", lambda p: p.data == b"to all")).args[0]
                assert (packet.topic, packet.participant) == ("api", None)
            await rooms.send_data(
                api.SendDataRequest(room=lk_room, data=b"to bob", topic="api", destination_identities=["bob"])
            )
            body = {"room": lk_room, "data": base64.b64encode(b"last").decode(), "kind": "RELIABLE"}
            answer = await asyncio.to_thread(post, lk_server, "SendData", body, admin(lk_room))
            assert (answer.status_code, answer.json()) == (200, {})
            for client in (alice, bob):
                await client.event("data_received", lambda p: p.data == b"last")
            assert bob.seen("data_received", lambda p: p.data == b"to bob")
            assert not alice.seen("data_received", lambda p: p.data == b"to bob")

    run(test)


def test_room_metadata_reaches_participants(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests, service(lk_server) as rooms:
            await rooms.create_room(api.CreateRoomRequest(name=lk_room, metadata="before"))
            alice = await guests.join("alice")
            assert alice.room.metadata == "before"
            await rooms.update_room_metadata(api.UpdateRoomMetadataRequest(room=lk_room, metadata="after"))
            assert (await alice.event("room_metadata_changed")).args == ("before", "after")

    run(test)


def test_a_full_room_refuses(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, service(lk_server) as rooms:
            await rooms.create_room(api.CreateRoomRequest(name=lk_room, max_participants=1))
            await guests.join("alice")
            with pytest.raises(rtc.ConnectError):
                await guests.join("bob")

    run(test, limit=60)
