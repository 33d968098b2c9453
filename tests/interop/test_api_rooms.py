"""The RoomService methods that the original lists and does not do, or does by itself: RPC, forward, move."""

import asyncio
from typing import Any

import httpx
import pytest
from livekit import rtc
from support.browser import Browser
from support.interop import LIMIT, MARKS, RED, Server, hears_tone, party, raw_token, run, sees_colours

pytestmark = MARKS


async def call(server: Server, method: str, body: dict[str, Any], **grants: Any) -> httpx.Response:
    """One RoomService call in JSON by an admin of `body["room"]`."""
    token = raw_token(server, video={"roomAdmin": True, "room": body["room"], **grants})
    async with httpx.AsyncClient(timeout=LIMIT) as client:
        url = f"{server.http_url}/twirp/livekit.RoomService/{method}"
        return await client.post(url, json=body, headers={"Authorization": f"Bearer {token}"})


def test_server_calls_a_participant(lk_server: Server, lk_room: str, single_pc: bool) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room, single_pc) as guests:
            _, bob = await guests.meeting("alice", "bob")
            seen: list[rtc.RpcInvocationData] = []

            async def shout(data: rtc.RpcInvocationData) -> str:
                seen.append(data)
                return data.payload.upper()

            async def refuse(_: rtc.RpcInvocationData) -> str:
                raise rtc.RpcError(1700, "not today", "ask tomorrow")

            async def sleep(_: rtc.RpcInvocationData) -> str:
                await asyncio.sleep(30)
                return "late"

            for method, handler in (("shout", shout), ("refuse", refuse), ("sleep", sleep)):
                bob.local.register_rpc_method(method, handler)
            body = {"room": lk_room, "destination_identity": "bob", "method": "shout", "payload": "hello"}
            answer = await call(lk_server, "PerformRpc", body)
            assert (answer.status_code, answer.json()) == (200, {"payload": "HELLO"})
            assert seen[0].payload == "hello"
            for changes, status, code, text in (
                ({"method": "refuse"}, 500, "unknown", "RpcError 1700: not today: ask tomorrow"),
                ({"method": "unheard of"}, 400, "invalid_argument", "RpcError 1400"),
                ({"destination_identity": "nobody"}, 404, "not_found", "RpcError 1401"),
                ({"payload": "x" * 15361}, 400, "malformed", "RpcError 1402"),
                ({"destination_identity": ""}, 400, "invalid_argument", "destination identity is required"),
                ({"method": "sleep", "response_timeout_ms": 300}, 408, "canceled", "RpcError 1502"),
            ):
                answer = await call(lk_server, "PerformRpc", {**body, **changes})
                assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text
                assert text in answer.json()["msg"]

    run(test)


def test_rpc_ends_with_its_recipient(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests:
            _, bob = await guests.meeting("alice", "bob")
            started = asyncio.Event()

            async def sleep(_: rtc.RpcInvocationData) -> str:
                started.set()
                await asyncio.sleep(30)
                return "late"

            bob.local.register_rpc_method("sleep", sleep)
            body = {"room": lk_room, "destination_identity": "bob", "method": "sleep", "payload": ""}
            pending = asyncio.create_task(call(lk_server, "PerformRpc", body))
            await asyncio.wait_for(started.wait(), LIMIT)
            removed = await call(lk_server, "RemoveParticipant", {"room": lk_room, "identity": "bob"})
            assert removed.status_code == 200
            answer = await pending
            assert (answer.status_code, answer.json()["code"]) == (503, "unavailable")
            assert "RpcError 1503" in answer.json()["msg"]

    run(test)


def test_forwarded_participant_is_heard_in_both_rooms(lk_server: Server, lk_room: str) -> None:
    """Alice stays where she is; the other room hears and sees her, and what she says, and when she goes."""

    async def test() -> None:
        other = f"{lk_room}-stage"
        async with party(lk_server, lk_room) as here, party(lk_server, other) as there:
            alice, bob = await here.meeting("alice", "bob")
            (carl,) = await there.meeting("carl")
            await alice.publish_tone()
            body = {"room": lk_room, "identity": "alice", "destination_room": other}
            assert (await call(lk_server, "ForwardParticipant", body)).status_code == 401
            answer = await call(lk_server, "ForwardParticipant", body, destinationRoom=other)
            assert answer.status_code == 200, answer.text
            await hears_tone(await carl.track("alice", "tone"))
            picture = await alice.publish_picture(RED)
            await sees_colours(await carl.track("alice", "picture"), RED)
            await hears_tone(await bob.track("alice", "tone"))
            await alice.local.publish_data(b"to both rooms", reliable=True)
            packet = (await carl.event("data_received")).args[0]
            assert (packet.data, packet.participant and packet.participant.identity) == (b"to both rooms", "alice")
            assert "carl" not in alice.room.remote_participants
            await alice.local.unpublish_track(picture.publication.sid)
            await carl.event("track_unpublished", lambda pub, _: pub.name == "picture")
            await alice.close()
            await carl.event("participant_disconnected", lambda who: who.identity == "alice")

    run(test)


def test_closing_the_other_room_leaves_a_forwarded_participant_alone(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        other = f"{lk_room}-stage"
        async with party(lk_server, lk_room) as here, party(lk_server, other) as there:
            alice, bob = await here.meeting("alice", "bob")
            (carl,) = await there.meeting("carl")
            await alice.publish_tone()
            body = {"room": lk_room, "identity": "alice", "destination_room": other}
            assert (await call(lk_server, "ForwardParticipant", body, destinationRoom=other)).status_code == 200
            await hears_tone(await carl.track("alice", "tone"))
            removed = await call(lk_server, "DeleteRoom", {"room": other}, roomCreate=True)
            assert removed.status_code == 200
            await carl.event("disconnected")
            await hears_tone(await bob.track("alice", "tone"))
            assert alice.room.isconnected()

    run(test)


@pytest.mark.parametrize("single", [True, False])
def test_moved_participant_goes_on_in_the_other_room(lk_server: Server, lk_room: str, single: bool) -> None:
    async def test() -> None:
        other = f"{lk_room}-stage"
        async with party(lk_server, lk_room, single) as here, party(lk_server, other, single) as there:
            alice, bob = await here.meeting("alice", "bob")
            (carl,) = await there.meeting("carl")
            await alice.publish_tone()
            await hears_tone(await bob.track("alice", "tone"))
            body = {"room": lk_room, "identity": "alice", "destination_room": other}
            assert (await call(lk_server, "MoveParticipant", body)).status_code == 401
            same = {**body, "destination_room": lk_room}
            assert (await call(lk_server, "MoveParticipant", same, destinationRoom=lk_room)).status_code == 400
            answer = await call(lk_server, "MoveParticipant", body, destinationRoom=other)
            assert answer.status_code == 200, answer.text
            await bob.event("participant_disconnected", lambda who: who.identity == "alice")
            await hears_tone(await carl.track("alice", "tone"))
            await alice.until_polled(lambda: "carl" in alice.room.remote_participants, "sight of carl")
            assert "bob" not in alice.room.remote_participants
            await alice.until_polled(lambda: alice.room.name == other, "the name of the new room")

    run(test)


@pytest.mark.browser
@pytest.mark.parametrize("single", [True, False])
def test_moved_page_goes_on_in_the_other_room(lk_server: Server, lk_room: str, browser: Browser, single: bool) -> None:
    async def test() -> None:
        other = f"{lk_room}-stage"
        async with browser.pages(1) as (web,), party(lk_server, other) as there:
            (carl,) = await there.meeting("carl")
            token = lk_server.token(identity="ann", room=lk_room)
            await web.call("connect", lk_server.url, token, {"singlePeerConnection": single})
            await web.call("publishTone")
            body = {"room": lk_room, "identity": "ann", "destination_room": other}
            answer = await call(lk_server, "MoveParticipant", body, destinationRoom=other)
            assert answer.status_code == 200, answer.text
            await hears_tone(await carl.track("ann", "tone"))

    run(test)


@pytest.mark.parametrize(
    ("service", "method", "grants", "status", "code", "text"),
    [
        ("AgentDispatchService", "Nonsense", {}, 404, "bad_route", "no handler"),
        ("Egress", "ListEgress", {}, 401, "unauthenticated", "permissions denied"),
        ("Egress", "ListEgress", {"roomRecord": True}, 500, "internal", "egress not connected (redis required)"),
        ("Ingress", "ListIngress", {"ingressAdmin": True}, 500, "internal", "ingress not connected (redis required)"),
        ("SIP", "ListSIPTrunk", {"roomAdmin": True}, 401, "unauthenticated", "permissions denied"),
        ("SIP", "ListSIPTrunk", {"sip": {"call": True}}, 401, "unauthenticated", "permissions denied"),
        ("SIP", "ListSIPTrunk", {"sip": {"admin": True}}, 500, "internal", "sip not connected (redis required)"),
        ("SIP", "CreateSIPParticipant", {"sip": {"admin": True}}, 401, "unauthenticated", "permissions denied"),
        ("SIP", "CreateSIPParticipant", {"sip": {"call": True}}, 500, "internal", "sip not connected (redis required)"),
        ("SIP", "TransferSIPParticipant", {}, 400, "invalid_argument", "twirp error unknown: Missing room name"),
    ],
)
def test_services_without_workers(
    lk_server: Server, service: str, method: str, grants: dict[str, Any], status: int, code: str, text: str
) -> None:
    claims = {"sip": grants["sip"]} if "sip" in grants else {"video": grants}
    headers = {"Authorization": f"Bearer {raw_token(lk_server, **claims)}"}
    url = f"{lk_server.http_url}/twirp/livekit.{service}/{method}"
    answer = httpx.post(url, json={}, headers=headers, timeout=LIMIT)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert text in answer.json()["msg"]
