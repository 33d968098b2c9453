"""`limit.num_tracks` and `limit.bytes_per_sec`: a node that carries enough takes nobody in, and lets nobody fall."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import httpx
import pytest
from livekit import rtc
from support.interop import LIMIT, MARKS, Client, party, raw_token, run

from lkactor.testing import LkServer

pytestmark = MARKS

FULL = "node has exceeded its configured limit"


def validate(server: LkServer, identity: str) -> tuple[int, str]:
    token = server.token(identity, "hall")
    answer = httpx.get(f"{server.http_url}/rtc/validate?access_token={token}", timeout=LIMIT)
    return answer.status_code, answer.text.strip()


def create_room(server: LkServer) -> httpx.Response:
    headers = {"Authorization": f"Bearer {raw_token(server, video={'roomCreate': True})}"}
    url = f"{server.http_url}/twirp/livekit.RoomService/CreateRoom"
    return httpx.post(url, json={"name": "other"}, headers=headers, timeout=LIMIT)


async def refused(server: LkServer) -> None:
    assert await asyncio.to_thread(validate, server, "carl") == (503, FULL)
    with pytest.raises(rtc.ConnectError):
        await Client(server, "carl").connect("hall")
    last = server.node.services.joins.of(identity="carl")[-1]
    assert last.cause.startswith(f"signal: 503 {FULL}")
    answer = await asyncio.to_thread(create_room, server)
    assert (answer.status_code, answer.json()["code"]) == (500, "unknown")
    assert answer.json()["msg"] == "reached configured limit for node"


def test_tracks() -> None:
    async def test(server: LkServer) -> None:
        async with party(server, "hall") as guests:
            alice = await guests.join("alice")
            tone = await alice.publish_tone()
            bob = await guests.join("bob")
            await bob.track("alice", "tone")
            await refused(server)
            await tone.unpublish(alice)
            await bob.until(lambda: bob.publication("alice", "tone") is None, "end of the tone")
            await asyncio.to_thread(server.wait_for, lambda _: validate(server, "carl")[0] == 200)
            await guests.join("carl")

    with LkServer("limit: {num_tracks: 2}") as server:
        run(lambda: test(server))


def test_who_is_there_may_resume() -> None:
    async def test(server: LkServer) -> None:
        alice = await Client(server, "alice").connect("hall")
        await alice.publish_tone()
        assert await asyncio.to_thread(validate, server, "carl") == (503, FULL)
        sid: Any = alice.local.sid
        query = f"access_token={server.token('alice', 'hall')}&protocol=16&reconnect=1&sid={sid}"
        async with aiohttp.ClientSession() as session, session.ws_connect(f"{server.url}/rtc?{query}") as socket:
            message = await asyncio.wait_for(socket.receive(), LIMIT)
            assert message.type == aiohttp.WSMsgType.BINARY
        await alice.close()

    with LkServer("limit: {num_tracks: 1}") as server:
        run(lambda: test(server))


def test_bytes_per_second() -> None:
    async def test(server: LkServer) -> None:
        async with party(server, "hall") as guests:
            alice = await guests.join("alice")
            await alice.publish_tone()
            await asyncio.to_thread(server.wait_for, lambda _: validate(server, "carl") == (503, FULL))
            await refused(server)

    with LkServer("limit: {bytes_per_sec: 1000}") as server:
        run(lambda: test(server))
