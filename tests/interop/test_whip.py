"""WHIP and WHEP with aiortc as the client, an independent stack that has only HTTP to talk with."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from support.aiortc_client import Picture, Tone, hears, sees
from support.interop import BLUE, LIMIT, MARKS, RED, Server, hears_tone, party, run, sees_colours

pytestmark = [*MARKS, pytest.mark.usefixtures("loopback")]
SDP = {"Content-Type": "application/sdp"}
FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}


@pytest.fixture
def loopback(monkeypatch: pytest.MonkeyPatch) -> None:
    """aioice leaves loopback out of its candidates, and loopback is where the server is."""
    monkeypatch.setattr("aioice.ice.get_host_addresses", lambda use_ipv4, use_ipv6: ["127.0.0.1"])


@asynccontextmanager
async def http(server: Server, room: str, identity: str, **grants: Any) -> AsyncIterator[httpx.AsyncClient]:
    headers = {"Authorization": f"Bearer {server.token(identity=identity, room=room, **grants)}"}
    async with httpx.AsyncClient(base_url=server.http_url, headers=headers, timeout=LIMIT) as client:
        yield client


async def post(client: httpx.AsyncClient, path: str, peer: RTCPeerConnection) -> httpx.Response:
    """Offer what `peer` has; its answer is applied."""
    await peer.setLocalDescription(await peer.createOffer())
    answer = await client.post(path, content=peer.localDescription.sdp, headers=SDP)
    assert answer.status_code == 201, answer.text
    await peer.setRemoteDescription(RTCSessionDescription(answer.text, "answer"))
    return answer


def test_a_whip_publisher_is_heard_and_seen_and_leaves_by_delete(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, http(lk_server, lk_room, "encoder") as client:
            (bob,) = await guests.meeting("bob")
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            peer.addTransceiver(Tone(), "sendonly")
            peer.addTransceiver(Picture(RED), "sendonly")
            answer = await post(client, "/whip/v1", peer)
            assert answer.headers["content-type"] == "application/sdp"
            assert f"a=ice-ufrag:{answer.headers['etag']}" in answer.text and "a=candidate:" in answer.text
            await hears_tone(await bob.track("encoder", "synthesized-microphone"))
            await sees_colours(await bob.track("encoder", "synthesized-camera"), RED)
            resource = answer.headers["location"]
            assert resource == f"/whip/v1/{bob.remote('encoder').sid}"
            assert (await client.delete(resource)).status_code == 200
            await bob.event("participant_disconnected", lambda who: who.identity == "encoder")
            assert (await client.delete(resource)).status_code == 404
            await peer.close()

    run(test)


def test_a_whep_player_gets_what_is_there(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with party(lk_server, lk_room) as guests, http(lk_server, lk_room, "player") as client:
            alice, bob = await guests.meeting("alice", "bob")
            await alice.publish_tone(red=False)
            await alice.publish_picture(BLUE)
            await bob.track("alice", "tone")
            await bob.track("alice", "picture")
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            audio, video = (peer.addTransceiver(kind, "recvonly").receiver for kind in ("audio", "video"))
            answer = await post(client, "/whep/v1", peer)
            assert answer.headers["location"].startswith("/whep/v1/PA_")
            await asyncio.gather(hears(audio.track), sees(video.track, BLUE))
            assert (await client.delete(answer.headers["location"])).status_code == 200
            await peer.close()

    run(test)


def test_trickle_and_its_conditions(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with http(lk_server, lk_room, "encoder") as client, http(lk_server, lk_room, "thief") as thief:
            peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
            peer.addTransceiver(Tone(), "sendonly")
            answer = await post(client, "/whip/v1", peer)
            resource, etag = answer.headers["location"], answer.headers["etag"]
            candidate = "a=candidate:1 1 udp 2130706431 127.0.0.1 9 typ host\r\n"
            for headers, status in (
                ({}, 400),
                (FRAGMENT, 428),
                ({**FRAGMENT, "If-Match": '"other"'}, 412),
                ({**FRAGMENT, "If-Match": f'"{etag}"'}, 204),
                ({**FRAGMENT, "If-Match": "*"}, 400),
            ):
                said = await client.patch(resource, content=candidate, headers=headers)
                assert said.status_code == status, (headers, said.text)
            fragment = "a=ice-ufrag:newu\r\na=ice-pwd:newpasswordnewpasswordnew\r\n"
            said = await client.patch(resource, content=fragment, headers={**FRAGMENT, "If-Match": "*"})
            assert said.status_code == 200
            assert f"a=ice-ufrag:{said.headers['etag']}" in said.text and said.headers["etag"] != etag
            assert (await thief.delete(resource)).status_code == 404
            assert (await client.delete(resource)).status_code == 200
            await peer.close()

    run(test)


def test_offers_that_are_kept_are_bounded(lk_server: Server, lk_room: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.front.whip.MAX_KEPT", 100)

    async def test() -> None:
        async with http(lk_server, lk_room, "encoder") as client:
            refused = await client.post("/whip/v1", content="v=0\r\n" * 30, headers=SDP)
            assert (refused.status_code, refused.json()) == (503, {"error": "too many sessions"})

    run(test)


def test_refusals(lk_server: Server, lk_room: str) -> None:
    async def test() -> None:
        async with http(lk_server, lk_room, "encoder") as client:
            assert (await client.get("/whip/v1")).status_code == 204
            assert (
                await client.post("/whip/v1", content="v=0", headers={"Content-Type": "text/plain"})
            ).status_code == 400
            for offer in ("nonsense", "v=0\r\n"):
                bad = await client.post("/whip/v1", content=offer, headers=SDP)
                assert (bad.status_code, bad.json()["error"][:20]) == (400, "malformed SDP offer:")
            assert lk_server.events(lk_room) == [], "nobody came for that"
            assert (await client.post("/whip/v1", content="x" * 1_100_000, headers=SDP)).status_code == 413
            assert (await client.patch("/whip/v1/PA_nobody", content="", headers=FRAGMENT)).status_code == 428
            matched = FRAGMENT | {"If-Match": "x"}
            assert (await client.patch("/whip/v1/PA_nobody", content="", headers=matched)).status_code == 404
            client.headers.pop("Authorization")
            assert (await client.post("/whip/v1", content="v=0", headers=SDP)).status_code == 401
        async with httpx.AsyncClient(base_url=lk_server.http_url) as other:
            other.headers["Authorization"] = f"Bearer {lk_server.token(identity='x', room_list=True)}"
            assert (await other.post("/whip/v1", content="v=0", headers=SDP)).status_code == 401

    run(test)
