"""Cases of our own for what LiveKit's Go integration tests pin, by each of the three ways in (`support.guest`).

docs/livekit-test-cases.md says which test of theirs each one stands beside; cases that other modules have already
(permissions, refusals, agents, webhooks, TURN) are named there and not here again.
"""

from __future__ import annotations

import asyncio
import itertools
import struct
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import jwt
import pytest
from livekit import api
from livekit.protocol import models, rtc
from support.aiortc_client import Picture, Tone
from support.guest import WAYS, Call, arrive, eventually, gets, show, sign_in
from support.interop import GREEN, MARKS, RED, run
from support.served import free_port
from support.signal_client import KEY, SECRET, Refused, Scene, Server, SignalClient, scene

from lkactor.testing import LkServer

pytestmark = MARKS
ROOMS = itertools.count(1)
SMALL = (160, 90)
EVERYTHING = rtc.ConnectionSettings(auto_subscribe=True, auto_subscribe_data_track=True)
Case = Callable[..., Awaitable[None]]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def told(server: Server, case: Case, *args: Any) -> None:
    """Runs a case in a room of its own."""

    async def test() -> None:
        async with scene(server, f"case-{next(ROOMS)}") as stage:
            await case(stage, *args)

    run(test)


async def both(client: SignalClient) -> tuple[str, str]:
    """A microphone and a camera."""
    return await show(client, Tone()), await show(client, Picture(RED, SMALL))


async def plays(client: SignalClient, *kinds: str) -> None:
    async def all_kinds() -> bool:
        counts = await client.media.received()
        return all(counts[kind] > 0 for kind in kinds)

    await eventually(all_kinds, f"{client.identity} receives {kinds}")


def knows(client: SignalClient) -> dict[str, models.ParticipantInfo]:
    """The others, as the client was told last."""
    people = {info.identity: info for info in client.join.other_participants}
    for heard in client.said("update"):
        people |= {info.identity: info for info in heard.body.participants}
    people.pop(client.identity, None)
    gone = models.ParticipantInfo.State.DISCONNECTED
    return {identity: info for identity, info in people.items() if info.state != gone}


async def leave(client: SignalClient) -> None:
    await client.ask(leave=rtc.LeaveRequest())
    await client.close()


# -- coming and going -------------------------------------------------------------------------------------------------


def test_two_connect_without_a_room_and_see_each_other(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way, name="Ann", metadata="first")
        ben = await arrive(stage, "ben", way)
        await ann.until(lambda: "ben" in knows(ann), "ben")
        seen = knows(ben)["ann"]
        assert (seen.name, seen.metadata, seen.sid) == ("Ann", "first", ann.sid)

    told(signal_server, case)


def test_the_second_of_an_identity_replaces_the_first_and_its_tracks(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann, ben = await arrive(stage, "ann", way), await arrive(stage, "ben", way)
        await gets(ben, ann, *await both(ann))
        again = await arrive(stage, "ann", way)
        assert again.sid != ann.sid
        await gets(ben, again, await show(again, Picture(GREEN, SMALL)))
        await gets(ben, ann)
        assert await ann.ended() == 1000

    told(signal_server, case)


def test_who_leaves_while_it_sends_is_gone_and_comes_back_with_its_tracks(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann, ben, cat = [await arrive(stage, name, way) for name in ("ann", "ben", "cat")]
        of_ann, of_ben = await both(ann), await both(ben)
        await gets(cat, ann, *of_ann)
        await gets(cat, ben, *of_ben)
        await leave(ben)
        await gets(cat, ben)
        await gets(ann, ben)
        await gets(cat, ann, *of_ann)
        await cat.until(lambda: "ben" not in knows(cat), "departure of ben")
        ben = await arrive(stage, "ben", way)
        of_ben = await both(ben)
        await gets(cat, ben, *of_ben)
        await gets(ann, ben, *of_ben)

    told(signal_server, case)


def test_who_has_received_before_may_publish_afterwards(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann, ben = await arrive(stage, "ann", way), await arrive(stage, "ben", way)
        await gets(ben, ann, *await both(ann))
        await plays(ben, "audio", "video")
        await gets(ann, ben, *await both(ben))
        await plays(ann, "audio", "video")
        await leave(ben)
        await ann.until(lambda: not knows(ann), "departure of ben")

    told(signal_server, case)


def test_who_never_answers_goes_with_its_signal_connection(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way)
        mute = await sign_in(stage, "mute", way)
        await ann.until(lambda: "mute" in knows(ann), "newcomer")
        await mute.close()
        await ann.until(lambda: not knows(ann), "end of the newcomer")

    told(signal_server, case)


def test_a_room_that_was_deleted_can_be_joined_again(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way)
        async with stage.server.admin() as rooms:
            await rooms.delete_room(api.DeleteRoomRequest(room=stage.room))
        assert await ann.ended() == 1000
        again = await arrive(stage, "ben", way)
        assert again.join.room.sid != ann.join.room.sid and not knows(again)

    told(signal_server, case)


def test_pings_are_answered_with_their_time(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way)
        await ann.ask(ping_req=rtc.Ping(timestamp=1234, rtt=5))
        assert (await ann.expect("pong_resp")).last_ping_timestamp == 1234
        await ann.ask(ping=99)
        assert await ann.expect("pong") > 0

    told(signal_server, case)


# -- media ------------------------------------------------------------------------------------------------------------


def test_tracks_of_one_publisher_reach_who_is_there_and_who_comes_later(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann, ben = await arrive(stage, "ann", way), await arrive(stage, "ben", way)
        sids = await both(ann)
        assert all(sid.startswith("TR_") for sid in sids)
        await gets(ben, ann, *sids)
        mimes = {track.sid: track.mime_type for track in knows(ben)["ann"].tracks}
        assert [mimes[sid].lower() for sid in sids] == ["audio/opus", "video/vp8"]
        cat = await arrive(stage, "cat", way)
        await gets(cat, ann, *sids)
        await plays(cat, "audio", "video")
        await leave(cat)
        await ann.until(lambda: set(knows(ann)) == {"ben"}, "departure of cat")

    told(signal_server, case)


def test_packets_are_counted_both_ways() -> None:
    port = free_port()

    def numbers() -> list[float]:
        lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
        series = itertools.product(("livekit_packet_total", "livekit_packet_bytes"), ("incoming", "outgoing"))
        return [
            sum(float(line.split()[-1]) for line in lines if line.startswith(name) and f'"{direction}"' in line)
            for name, direction in series
        ]

    async def case(stage: Scene) -> None:
        for way in WAYS:
            before = await asyncio.to_thread(numbers)
            ann, ben = await arrive(stage, "ann", way), await arrive(stage, "ben", way)
            await gets(ben, ann, *await both(ann))
            await gets(ann, ben, *await both(ben))

            async def more(before: list[float] = before) -> bool:
                return all(a > b for a, b in zip(await asyncio.to_thread(numbers), before, strict=True))

            await eventually(more, "every count goes up")

    with LkServer(f"{{prometheus: {{port: {port}}}}}") as server:
        told(Server(server.url, reference=False), case)


def test_without_auto_subscribe_nothing_is_sent(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way)
        ben = await arrive(stage, "ben", way, settings=rtc.ConnectionSettings(auto_subscribe=False))
        sids = await both(ann)
        await ben.info("ann", lambda info: len(info.tracks) == 2)
        await ben.fence()
        await gets(ben, ann)
        await ben.ask(subscription=rtc.UpdateSubscription(track_sids=[sids[1]], subscribe=True))
        await gets(ben, ann, sids[1])

    told(signal_server, case)


def test_a_second_camera_in_another_codec_joins_the_first(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann, ben = await arrive(stage, "ann", way), await arrive(stage, "ben", way)
        first = await show(ann, Picture(RED, SMALL), codec="VP8")
        await gets(ben, ann, first)
        second = await show(ann, Picture(GREEN, SMALL), codec="H264")
        await gets(ben, ann, first, second)
        mimes = {track.sid: track.mime_type.lower() for track in knows(ben)["ann"].tracks}
        assert mimes == {first: "video/vp8", second: "video/h264"}

    told(signal_server, case)


@pytest.mark.parametrize("late", [False, True])
def test_a_track_is_there_before_its_first_packet(signal_server: Server, way: str, late: bool) -> None:
    class Silent(Tone):
        """Never comes to a frame."""

        async def recv(self) -> Any:
            await asyncio.Event().wait()

    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way)
        ben = None if late else await arrive(stage, "ben", way)
        sid = await show(ann, Silent())
        ben = ben or await arrive(stage, "ben", way)
        await gets(ben, ann, sid)

    told(signal_server, case)


def test_a_device_is_not_asked_for_the_codec_it_gets_wrong(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        phone = models.ClientInfo(os="android", device_model="Xiaomi 2201117TI")
        ann = await arrive(stage, "ann", way, info=phone)
        await show(ann, Picture(RED, SMALL))
        call: Call = ann.media
        (video,) = [part for part in call.answers[-1].split("m=")[1:] if part.startswith("video")]
        assert "VP8/90000" in video and "H264" not in video
        ben = await arrive(stage, "ben", way)
        await show(ben, Picture(RED, SMALL))
        assert "H264" in ben.media.answers[-1]

    told(signal_server, case)


# -- data -------------------------------------------------------------------------------------------------------------


def test_data_packets_and_bare_bytes_reach_the_others(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann, ben = await arrive(stage, "ann", way), await arrive(stage, "ben", way)
        packet = models.DataPacket(kind=models.DataPacket.Kind.RELIABLE, user=models.UserPacket(payload=b"labelled"))
        bare = ann.media.publisher.createDataChannel("of my own")
        await ann.media.negotiate()
        await eventually(lambda: bare.readyState == "open" == ann.media.reliable.readyState, "open channels")
        ann.media.reliable.send(packet.SerializeToString())
        bare.send(b"unlabelled")
        await eventually(lambda: len(ben.media.packets) == 2, "two packets")
        assert {packet.user.payload for packet in ben.media.packets} == {b"labelled", b"unlabelled"}
        assert {packet.participant_identity for packet in ben.media.packets} == {"ann"}
        assert not ann.media.packets

    told(signal_server, case)


def test_data_tracks_reach_who_is_there_who_comes_later_and_go_with_their_publisher(
    signal_server: Server, way: str
) -> None:
    def frame(handle: int, number: int) -> bytes:
        return struct.pack(">BBHHHI", 0b11 << 3, 0, handle, number, number, number) + b"sample"

    async def publish(client: SignalClient) -> list[str]:
        sids = []
        for handle in (1, 2):
            wanted = rtc.PublishDataTrackRequest(pub_handle=handle, name=f"track-{handle}")
            since = await client.ask(publish_data_track_request=wanted)
            sids.append((await client.expect("publish_data_track_response", since=since)).info.sid)
        if client.media.data_track.readyState != "open":
            await client.media.negotiate()
        await eventually(lambda: client.media.data_track.readyState == "open", "open channel")
        return sids

    def handles(client: SignalClient, publisher: SignalClient) -> dict[str, int]:
        """Track sid -> handle, as told last."""
        heard = client.said("data_track_subscriber_handles")
        now = heard[-1].body.sub_handles if heard else {}
        return {track.track_sid: handle for handle, track in now.items() if track.publisher_sid == publisher.sid}

    async def flows(client: SignalClient, publisher: SignalClient, sids: list[str]) -> None:
        await client.until(lambda: set(handles(client, publisher)) == set(sids), "handles")
        wanted = set(handles(client, publisher).values())
        client.media.frames.clear()
        for number in itertools.count():
            if {int.from_bytes(packet[2:4], "big") for packet in client.media.frames} >= wanted:
                break
            for handle in (1, 2):
                publisher.media.data_track.send(frame(handle, number))
            await asyncio.sleep(0.02)
            assert number < 500, "no frames"

    async def case(stage: Scene) -> None:
        ann, ben = [await arrive(stage, name, way, settings=EVERYTHING) for name in ("ann", "ben")]
        sids = await publish(ann)
        assert all(sid.startswith("DTR_") for sid in sids)
        await flows(ben, ann, sids)
        cat = await arrive(stage, "cat", way, settings=EVERYTHING)
        await flows(cat, ann, sids)
        await leave(ann)
        await cat.until(lambda: not handles(cat, ann), "end of the tracks")
        again = await arrive(stage, "ann", way, settings=EVERYTHING)
        await flows(cat, again, await publish(again))

    told(signal_server, case)


def test_data_blobs_need_the_configuration() -> None:
    async def case(stage: Scene) -> None:
        for way in WAYS:
            ann = await arrive(stage, "ann", way)
            blob = models.DataBlob(key=models.DataBlobKey(generic="k"), contents=b"x")
            await ann.ask(store_data_blob_request=rtc.StoreDataBlobRequest(request_id=1, blob=blob))
            refused = await ann.expect("request_response")
            assert refused.reason == rtc.RequestResponse.Reason.NOT_ALLOWED

    with LkServer("{}") as server:
        told(Server(server.url, reference=False), case)


# -- rooms and the API ------------------------------------------------------------------------------------------------


def bearer(**video: Any) -> dict[str, str]:
    token = jwt.encode({"iss": KEY, "exp": 4_000_000_000, "video": video or {"roomList": True}}, SECRET, "HS256")
    return {"Authorization": f"Bearer {token}"}


def test_rooms_are_listed_all_or_by_name(signal_server: Server) -> None:
    async def case(stage: Scene) -> None:
        names = [stage.room, f"{stage.room}-other"]
        async with stage.server.admin() as rooms:
            for name in names:
                await rooms.create_room(api.CreateRoomRequest(name=name))
            listed = {room.name for room in (await rooms.list_rooms(api.ListRoomsRequest())).rooms}
            assert listed >= set(names)
            only = await rooms.list_rooms(api.ListRoomsRequest(names=[names[1], "nowhere"]))
            assert [room.name for room in only.rooms] == [names[1]]
            # Nobody has been there: they close all the same.
            for name in names:
                await rooms.delete_room(api.DeleteRoomRequest(room=name))
            assert not (await rooms.list_rooms(api.ListRoomsRequest(names=names))).rooms

    told(signal_server, case)


def test_metadata_of_a_room_with_and_without_people(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        async with stage.server.admin() as rooms:
            await rooms.create_room(api.CreateRoomRequest(name=stage.room, metadata="at first"))
            change = api.UpdateRoomMetadataRequest(room=stage.room, metadata="while empty")
            assert (await rooms.update_room_metadata(change)).metadata == "while empty"
            ann = await arrive(stage, "ann", way)
            assert ann.join.room.metadata == "while empty"
            change = api.UpdateRoomMetadataRequest(room=stage.room, metadata="with somebody")
            assert (await rooms.update_room_metadata(change)).metadata == "with somebody"
            await ann.expect("room_update", lambda body: body.room.metadata == "with somebody")

    told(signal_server, case)


def test_a_token_that_is_refreshed_says_what_the_api_changed(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way)
        permission = models.ParticipantPermission(can_subscribe=True)
        change = api.UpdateParticipantRequest(
            room=stage.room, identity="ann", metadata="metadata", permission=permission
        )
        async with stage.server.admin() as rooms:
            await rooms.update_participant(change)

        def fresh() -> list[dict[str, Any]]:
            tokens = [heard.body for heard in ann.said("refresh_token")]
            claims = [jwt.decode(token, SECRET, ["HS256"]) for token in tokens]
            return [body for body in claims if body.get("metadata") == "metadata"]

        await ann.until(fresh, "a token with the new metadata")
        video = fresh()[0]["video"]
        assert [video[name] for name in ("canPublish", "canPublishData", "canSubscribe")] == [False, False, True]

    told(signal_server, case)


def test_attributes_come_from_the_token_the_client_and_the_api(signal_server: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        ann = await arrive(stage, "ann", way, attributes={"mine": "a"})
        ben = await arrive(stage, "ben", way, attributes={"mine": "b"}, canUpdateOwnMetadata=True)
        await ann.until(lambda: "ben" in knows(ann), "ben")
        assert dict(knows(ben)["ann"].attributes) == {"mine": "a"}
        assert dict(knows(ann)["ben"].attributes) == {"mine": "b"}
        await ann.ask(update_metadata=rtc.UpdateParticipantMetadata(attributes={"mine": "not mine to change"}))
        await ben.ask(update_metadata=rtc.UpdateParticipantMetadata(attributes={"second": "b"}))
        change = api.UpdateParticipantRequest(room=stage.room, identity="ann", attributes={"second": "a"})
        async with stage.server.admin() as rooms:
            await rooms.update_participant(change)
        for who, of in ((ben, "ann"), (ann, "ben")):
            await who.info(of, lambda info: "second" in info.attributes)
            assert dict(knows(who)[of].attributes) == {"mine": of[0], "second": of[0]}

    told(signal_server, case)


@pytest.fixture(scope="module")
def made_rooms_only() -> Iterator[Server]:
    """Rooms must have been made by the API."""
    with LkServer("{room: {auto_create: false}}") as server:
        yield Server(server.url, reference=False)


def test_without_auto_create_a_room_must_be_made_first(made_rooms_only: Server, way: str) -> None:
    async def case(stage: Scene) -> None:
        with pytest.raises(Refused) as refused:
            await sign_in(stage, "ann", way)
        assert refused.value.status == 404
        async with stage.server.admin() as rooms:
            made = await rooms.create_room(api.CreateRoomRequest(name=stage.room))
        ann = await arrive(stage, "ann", way)
        assert ann.join.room.sid == made.sid

    told(made_rooms_only, case)


def test_paths_with_two_slashes_and_other_origins(signal_server: Server) -> None:
    url = signal_server.http_url
    room = {"name": f"slashes-{next(ROOMS)}"}
    for path in ("/twirp/livekit.RoomService/CreateRoom", "//twirp/livekit.RoomService/CreateRoom"):
        answer = httpx.post(url + path, json=room, headers=bearer(roomCreate=True))
        assert (answer.status_code, answer.json()["name"]) == (200, room["name"])
    asked = {"Origin": "https://else.where", "Access-Control-Request-Method": "POST"}
    asked["Access-Control-Request-Headers"] = "authorization"
    answer = httpx.options(url + "/twirp/livekit.RoomService/CreateRoom", headers=asked)
    assert answer.status_code < 300
    assert answer.headers["access-control-allow-origin"] in ("*", "https://else.where")
    httpx.post(
        url + "/twirp/livekit.RoomService/DeleteRoom", json={"room": room["name"]}, headers=bearer(roomCreate=True)
    )
